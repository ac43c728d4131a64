"""The data sets that have a name, and folders with own data.

Names are looked up below detectron2's data-set root, the environment variable DETECTRON2_DATASETS
(default "datasets"). docs/ava.md and docs/own_data.md show the folders.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from ...config import TEXT, Groups, check_keys, files_of, says_classes, set_classes, several
from ...formats.ava import lists_keyframes
from ...formats.ucf101_24 import SPLITS
from ..class_groups import class_groups
from .ava import AVAFiles, read_annotations, register_ava, registered_files
from .catalog import check_registered, files_of_kind, read_metadata
from .epic55 import LABELS, epic_splits, register_epic
from .persons import register_persons
from .ucf101_24 import UCFFiles, register_ucf101_24

logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """The folder of all data sets."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


# What people have of detected boxes, by the name that its makers gave it; the first that is there
# counts. Our own names come first.
_PERSON_FILES = (
    "boxes/ava_{split}_persons.csv",
    "boxes/ava_{split}_det_person_bbox.json",  # AlphAction
    "boxes/ava_detection_{split}_boxes_and_labels.csv",  # PySlowFast
    "boxes/ava_{split}_predicted_boxes.csv",  # long-term feature banks, PySlowFast
    "boxes/ava_dense_proposals_{split}.FAIR.recall_93.9.pkl",  # mmaction2
    "annotations/ava_dense_proposals_{split}.FAIR.recall_93.9.pkl",
)
_OBJECT_FILES = (
    "boxes/ava_{split}_objects.csv",
    "boxes/ava_{split}_det_object_bbox.json",  # AlphAction
)
_FOLDER_BOXES = re.compile(r"(.+)_(persons|objects)\.(csv|tsv|json|pkl)(\.gz)?", re.IGNORECASE)
# Where the videos lie: whole films, or what others cut them into. The first with something in it
# counts: a folder that was made and left empty does not hide the one that is full.
_VIDEO_FOLDERS = (
    "videos",
    "frames",  # PySlowFast
    "rawframes",  # mmaction2
    "clips/trainval",  # AlphAction
    "clips",
    "movies/trainval",
)
_AVA_SPLITS = {"2.1": ("train", "val"), "2.2": ("train", "val", "trainval", "test")}
# UCF101-24 as its users have it: our names, then those of realtime-action-detection, ACT and MOC.
_UCF_FOLDERS = (".", "annotations", "splitfiles")
_UCF_ANNOTATIONS = ("pyannot.pkl", "UCF101v2-GT.pkl")
_UCF_LISTS = ("testlist01.txt", "testlist.txt")
_UCF_VIDEOS = ("videos", "rgb-images")
# the year of the challenge whose 60 classes count
_CHALLENGE = {"2.1": "2018", "2.2": "2019"}


def register_all_ava(root: Path) -> None:
    """AVA as `ava_v2.1_train`, `ava_v2.2_val` and so on, with the files' official names.

    v2.1 has train and val; v2.2 also trainval (both annotation files as one set, to train for the
    test server) and test (no ground truth: listed videos, included seconds, detected boxes).
    """
    for version, splits in _AVA_SPLITS.items():
        for split in splits:
            name = f"ava_v{version}_{split}"
            register_ava(name, ava_files(root, version, split), official=True)
            if split != "test":
                register_persons(name)


def ava_files(root: Path, version: str, split: str) -> AVAFiles:
    """Where the files of a split of AVA lie below the data-set root."""
    ava = root / "ava"
    annotations, end = ava / "annotations", f"_v{version}"
    parts = ("train", "val") if split == "trainval" else (split,)
    list_name = f"ava_action_list{end}_for_activitynet_{_CHALLENGE[version]}.pbtxt"
    is_test = split == "test"
    tables = _one_or_all([annotations / f"ava_{part}{end}.csv" for part in parts])
    excluded = [annotations / f"ava_{part}_excluded_timestamps{end}.csv" for part in parts]
    return AVAFiles(
        annotations=None if is_test else tables,
        label_map=annotations / list_name,
        videos=_full_folder(ava, _VIDEO_FOLDERS),
        excluded=_one_or_all([*excluded]),
        persons=_one_or_all([_first(ava, _PERSON_FILES, split=part) for part in parts]),
        objects=_one_or_all([_first(ava, _OBJECT_FILES, split=part) for part in parts]),
        video_list=annotations / f"ava_test{end}.txt" if is_test else None,
        seconds=annotations / f"ava_included_timestamps{end}.txt" if is_test else None,
    )


def register_all_ucf101_24(root: Path) -> None:
    """UCF101-24, split 1, as `ucf101_24_train` and `ucf101_24_test`."""
    for split in SPLITS:
        register_ucf101_24(f"ucf101_24_{split}", ucf101_24_files(root / "ucf24", split))
        register_persons(f"ucf101_24_{split}")


def ucf101_24_splits(folder: Path) -> dict[str, UCFFiles]:
    """The splits of a folder with annotations of UCF101-24; of any other there are none."""
    splits = {split: ucf101_24_files(folder, split) for split in SPLITS}
    return splits if all(files.annotations.is_file() for files in splits.values()) else {}


def ucf101_24_named(data: Sequence[str]) -> dict[str, UCFFiles]:
    """The splits in the form of UCF101-24 that a folder has or that registered names are."""
    folder = Path(data[0]).expanduser()
    if len(data) == 1 and folder.is_dir():
        name = folder.resolve().name
        return {f"{name}_{split}": x for split, x in ucf101_24_splits(folder).items()}
    return files_of_kind(data, UCFFiles)


def ucf101_24_files(folder: Path, split: str) -> UCFFiles:
    """Where the files of a split of UCF101-24, or of a data set in its form, lie in a folder."""

    def find(names: tuple[str, ...]) -> Path | None:
        return _first(folder, tuple(f"{place}/{x}" for x in names for place in _UCF_FOLDERS))

    boxes = _folder_boxes(folder)
    return UCFFiles(
        annotations=find(_UCF_ANNOTATIONS) or folder / _UCF_ANNOTATIONS[0],
        split=split,
        videos=_full_folder(folder, _UCF_VIDEOS),
        video_list=find(_UCF_LISTS),
        persons=boxes.get((split, "persons")),
        objects=boxes.get((split, "objects")),
    )


def _first(folder: Path, names: tuple[str, ...], **parts: str) -> Path | None:
    """The first of these files that is there."""
    paths = [folder / name.format(**parts) for name in names]
    return next((path for path in paths if path.is_file()), None)


def _full_folder(folder: Path, names: Sequence[str]) -> Path:
    """The first of these folders in a folder with something in it, else the first one."""
    paths = [folder / name for name in names]
    return next(filter(_holds_something, paths), paths[0])


def _holds_something(folder: Path) -> bool:
    """Whether anything that is not hidden lies in a folder."""
    try:
        return any(not name.startswith(".") for name in os.listdir(folder))
    except OSError:
        # one that may not be read is there: who looks for videos in it will say so
        return folder.is_dir()


def _one_or_all(paths: list[Path | None]) -> Path | tuple[Path, ...] | None:
    """A single path as it is, several as a tuple; None unless all are there."""
    known = tuple(path for path in paths if path is not None)
    if len(known) < len(paths):
        return None
    return known[0] if len(known) == 1 else known


def register_folder(folder: str | Path) -> list[str]:
    """Register every split of a folder data set as <name of the folder>_<split>; give the names.

    A folder in the form of EPIC-Kitchens-55 (see `EPICFiles`) is <name>_{verbs,nouns}_{train,val}.
    A folder with the annotations of UCF101-24 (`pyannot.pkl`) is <name>_{train,test}.
    Of any other a split is a file annotations/<split>.csv. Exclusions and boxes belong to it when
    they exist.

    Args:
        folder: with videos/, annotations/, label_map.pbtxt (or a plain list of names and groups,
            labels.txt) and optionally boxes/, in any form that :func:`read_boxes` knows.

    Raises:
        FileNotFoundError: what is missing.
        ValueError: the name belongs to another folder.
    """
    folder = Path(folder).expanduser()
    name = folder.resolve().name
    if not folder.is_dir():
        raise FileNotFoundError(f"data set folder {folder}: there is no such folder")
    if (folder / "annotations" / LABELS).is_file():
        for part, files in epic_splits(name, folder).items():
            _make_room(part, files.label_map)
        return register_epic(name, folder)
    if ucf := ucf101_24_splits(folder):
        return [_register_again(f"{name}_{split}", files) for split, files in ucf.items()]
    label_map, splits = folder_label_map(folder), folder_splits(folder)
    tables, hint = folder / "annotations" / "<split>.csv", ""
    if not label_map.is_file():
        there = ", ".join(sorted(x.name for x in folder.iterdir()))[:200]
        hint = f" (or {folder / 'labels.txt'}; there: {there})"
    for path in (label_map, folder / "videos", tables):
        if not (path.exists() or (path == tables and splits)):
            raise FileNotFoundError(f"data set folder {folder}: {path} is missing{hint}")
    for path, what in unread_files(folder).items():
        logger.warning("%s: %s", path, what)
    return [_register_again(f"{name}_{split}", files) for split, files in splits.items()]


# Names of label maps; the first that is there counts.
_LABEL_MAPS = (
    *("label_map.pbtxt", "labels.txt", "label_map.txt", "classes.txt", "labels.csv"),
    *("classes.csv", "label_map.csv", "labels.json", "classes.json", "label_map.json"),
)
_TABLE = re.compile(r"(?![.~])(.+?)\.(csv|tsv)(\.gz)?", re.IGNORECASE)
_EXCLUDED = re.compile(r"_excluded(_timestamps)?(?=_v[\d.]+$|$)")  # ours and AVA's


def folder_label_map(folder: Path) -> Path:
    """Give the label map of a folder data set; where there is none, its name."""
    known = [folder / name for name in _LABEL_MAPS]
    known += sorted(folder.glob("ava_action_list*.pbtxt"))
    known += sorted(folder.glob("annotations/ava_action_list*.pbtxt"))
    return next((path for path in known if path.is_file()), known[0])


def _same_split(name: str) -> str:
    """The split that a name means, without what AVA puts around it."""
    return re.sub(r"^ava_|_v[\d.]+$", "", name)


def _exclusions_of(folder: Path) -> dict[Path, str]:
    """The lists of excluded keyframes in annotations/, and the split that each is named after.

    "" for those that show by their columns what they are: video and second, and nothing else.
    """
    lists = {}
    for name, path in _tables(folder):
        if _EXCLUDED.search(name):
            lists[path] = _same_split(_EXCLUDED.sub("", name))
        elif "includ" not in path.name.lower() and lists_keyframes(path):
            lists[path] = ""
    return lists


def _tables(folder: Path) -> list[tuple[str, Path]]:
    """The tables in annotations/, with their names without endings."""
    found = [(_TABLE.fullmatch(x.name), x) for x in sorted(folder.glob("annotations/*"))]
    found = [(x, path) for x, path in found if path.name not in _LABEL_MAPS and path.is_file()]
    return [(x[1], path) for x, path in found if x]


def _folder_boxes(folder: Path) -> dict[tuple[str, str], Path]:
    """Find the files of boxes in boxes/, by split and role."""
    boxes: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("boxes/*")):
        if (found := _FOLDER_BOXES.fullmatch(path.name)) and path.is_file():
            boxes.setdefault((found[1], found[2].lower()), path)
    return boxes


def folder_splits(folder: Path) -> dict[str, AVAFiles]:
    """Give the files of every split of a folder data set, by its name."""
    lists = _exclusions_of(folder)
    tables = {
        split: path
        for split, path in _tables(folder)
        if path not in lists and not path.name.startswith("frame_lists")
    }
    boxes = _folder_boxes(folder)
    return {
        split: AVAFiles(
            annotations=path,
            label_map=folder_label_map(folder),
            videos=folder / "videos",
            excluded=_one_or_all([x for x in lists if _excludes(x, lists[x], split, tables)]),
            persons=boxes.get((split, "persons")),
            objects=boxes.get((split, "objects")),
        )
        for split, path in tables.items()
    }


def _excludes(path: Path, named: str, split: str, splits: Collection[str]) -> bool:
    """Whether a list of excluded keyframes counts for a split: its name says so, or of none."""
    if named:
        return named == _same_split(split)
    words = re.split(r"[\W_]+", path.name)
    return split in words or not any(x in words for x in splits)


def unread_files(folder: Path) -> dict[Path, str]:
    """Say of the files in annotations/ and boxes/ that no split takes what was expected, and of
    lists of keyframes that nothing names so that they are excluded."""
    splits = folder_splits(folder)
    parts = ("annotations", "excluded", "persons", "objects")
    known = {x for files in splits.values() for part in parts for x in files.paths(part)}
    lists = _exclusions_of(folder)
    boxes = ", ".join(f"{split}_{role}.csv" for split in splits for role in ("persons", "objects"))
    expected = {
        "annotations": "<split>.csv and <split>_excluded.csv",
        "boxes": boxes or "<split>_persons.csv",
    }
    said = {}
    for part, names in expected.items():
        for path in sorted(folder.glob(f"{part}/*")):
            if not path.is_file() or path.name.startswith((".", "~$", "ava_action_list")):
                continue
            if path in known and lists.get(path, path.name) == "":
                said[path] = "is taken for a list of excluded keyframes: it has no boxes"
            elif path in lists and path not in known:
                said[path] = f"belongs to no split: there is no {lists[path]}.csv"
            elif path not in known:
                said[path] = f"is not read; expected {names}"
    return said


def _register_again(name: str, files: AVAFiles | UCFFiles) -> str:
    """Register a split, also if it is registered already and means the same."""
    _make_room(name, files.label_map)
    if isinstance(files, UCFFiles):
        register_ucf101_24(name, files)
    else:
        register_ava(name, files)
    read_metadata(name)
    return name


def _make_room(name: str, label_map: Path) -> None:
    """Unregister a name that stands for data with these classes; ValueError for any other."""
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name).get("files")
        if known is None or known.label_map.resolve() != label_map.resolve():
            raise ValueError(f"data set {name} is registered already, from another place: {known}")
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def register_datasets(cfg: CfgNode) -> None:
    """Register the folders that `cfg.DATASETS.FOLDERS` names; relative ones are looked up here
    and, if they are not here, below the data-set root.

    Where `cfg` does not say which classes there are, it says so afterwards: those of its data.
    """
    check_keys(cfg, "DATASETS", {"FOLDERS": several(TEXT, range(1001))})
    for folder in cfg.DATASETS.FOLDERS:
        path = Path(folder).expanduser()
        parts = path.parts[1:] if path.parts[:1] == ("datasets",) else path.parts
        below_root = datasets_root().joinpath(*parts)
        if not path.is_absolute() and not path.is_dir() and below_root.is_dir():
            path = below_root
        with files_of("DATASETS.FOLDERS"):
            register_folder(path)
    if not says_classes(cfg):
        groups = groups_of_data((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
        if groups is not None:
            set_classes(cfg, groups)


def groups_of_data(names: Sequence[str]) -> Groups | None:
    """The groups of classes of the first of some data sets whose files are there, if any are.

    Classes whose groups are not in the order of their ids are one group.
    """
    for name in names:
        metadata = MetadataCatalog.get(name) if name in DatasetCatalog.list() else Metadata()
        classes, label_map = metadata.get("thing_classes"), metadata.get("label_map")
        if not classes:
            continue
        if label_map is None:
            return Groups(("all",), (len(classes),), ())
        rows = None
        if label_map.exclusive is None:
            rows = read_annotations(name, registered_files(name), label_map)
        groups = class_groups(label_map, [] if rows is None else [rows])
        return groups or Groups(("all",), (label_map.num_classes,), ())
    return None


def check_data_sets(cfg: CfgNode) -> None:
    """Raise KeyError for a data set of a run that is not registered."""
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            check_registered(name, f"DATASETS.{key}: data set")


register_all_ava(datasets_root())
register_epic("epic55", datasets_root() / "epic")
register_all_ucf101_24(datasets_root())
