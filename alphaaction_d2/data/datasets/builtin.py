"""The data sets that have a name, and folders with own data.

Names are looked up below detectron2's data-set root, the environment variable DETECTRON2_DATASETS
(default "datasets"). README.md, "Training on AVA" and "Own data", shows the folders.
"""

from __future__ import annotations

import os
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .ava import AVAFiles, read_metadata, register_ava


def datasets_root() -> Path:
    """The folder of all data sets."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_all_ava(root: Path) -> None:
    """AVA v2.2 as `ava_v2.2_train` and `ava_v2.2_val`, with the files' official names."""
    ava = root / "ava"
    boxes = ava / "boxes"
    for split in ("train", "val"):
        register_ava(
            f"ava_v2.2_{split}",
            AVAFiles(
                annotations=ava / "annotations" / f"ava_{split}_v2.2.csv",
                label_map=ava / "annotations" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
                videos=ava / "videos",
                excluded=ava / "annotations" / f"ava_{split}_excluded_timestamps_v2.2.csv",
                persons=_if_there(boxes / f"ava_{split}_persons.csv"),
                objects=_if_there(boxes / f"ava_{split}_objects.csv"),
            ),
        )


def register_folder(folder: str | Path, name: str | None = None) -> list[str]:
    """Register every split of a folder data set as <name>_<split>.

    A split is a file annotations/<split>.csv. Exclusions and boxes belong to it when they exist.

    Args:
        folder: with videos/, annotations/, label_map.pbtxt and optionally boxes/.
        name: of the data set; default: the folder's name. Names that are registered already are
            kept when they mean the same folder.

    Returns:
        The registered names.

    Raises:
        FileNotFoundError: what is missing.
        ValueError: the name belongs to another folder.
    """
    folder = Path(folder).expanduser()
    name = name or folder.resolve().name
    label_map = folder / "label_map.pbtxt"
    splits = sorted(
        path.stem
        for path in folder.glob("annotations/*.csv")
        if not path.stem.endswith("_excluded")
    )
    for path, ok in (
        (label_map, label_map.is_file()),
        (folder / "videos", (folder / "videos").is_dir()),
        (folder / "annotations" / "<split>.csv", bool(splits)),
    ):
        if not ok:
            raise FileNotFoundError(f"data set folder {folder}: {path} is missing")
    return [_register_split(folder, f"{name}_{split}", split) for split in splits]


def _register_split(folder: Path, name: str, split: str) -> str:
    files = AVAFiles(
        annotations=folder / "annotations" / f"{split}.csv",
        label_map=folder / "label_map.pbtxt",
        videos=folder / "videos",
        excluded=_if_there(folder / "annotations" / f"{split}_excluded.csv"),
        persons=_if_there(folder / "boxes" / f"{split}_persons.csv"),
        objects=_if_there(folder / "boxes" / f"{split}_objects.csv"),
    )
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).get("files")
        if known is None or known.label_map.resolve() != files.label_map.resolve():
            raise ValueError(f"data set {name} is registered already, from another place: {known}")
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    register_ava(name, files)
    read_metadata(name)
    return name


def _if_there(path: Path) -> Path | None:
    return path if path.is_file() else None


def register_datasets(cfg: CfgNode) -> None:
    """Register the folders that `cfg.DATASETS.FOLDERS` names; relative ones are looked up here
    and, if they are not here, below the data-set root."""
    for folder in cfg.DATASETS.FOLDERS:
        path = Path(folder).expanduser()
        below_root = datasets_root() / Path(
            *path.parts[1:] if path.parts[:1] == ("datasets",) else path.parts
        )
        if not path.is_absolute() and not path.is_dir() and below_root.is_dir():
            path = below_root
        register_folder(path)


register_all_ava(datasets_root())
