"""Small data for tests of whole models: a generated data-set folder, a configuration, inputs."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.env import seed_all_rng

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.apps.command_line import run_module
from alphaaction_d2.config import class_groups
from alphaaction_d2.data.video import VideoReader, VideoWriter
from alphaaction_d2.engine import Trainer
from alphaaction_d2.engine.box_sources import BoxSource

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

LABEL_MAP = """\
item { name: "left" id: 1 label_type: POSE }
item { name: "right" id: 2 label_type: POSE }
item { name: "bright" id: 3 label_type: OBJECT }
"""


def read(reader: VideoReader, times) -> np.ndarray:
    """The pictures shown at some moments, as one array of the caller's own."""
    return np.stack(reader.pictures(times))


def write_dataset(root: Path, seconds: int = 5, videos: int = 2) -> Path:
    """Videos of a square on the left or right, bright or dark: a person, annotated each second."""
    for name in ("videos", "annotations", "boxes"):
        (root / name).mkdir(parents=True)
    (root / "label_map.pbtxt").write_text(LABEL_MAP)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        rows, persons, objects = [], [], []
        for v in range(videos):
            video = f"{split}_{v}"
            with VideoWriter(root / "videos" / f"{video}.mp4", 8, 64, 48, gop=8) as writer:
                sides = rng.integers(0, 2, seconds)
                bright = rng.integers(0, 2, seconds)
                for i in range(seconds * 8):
                    frame = np.full((48, 64, 3), 90, np.uint8)
                    second = min((i + 4) // 8, seconds - 1)
                    x = 8 + 32 * sides[second]
                    frame[10:40, x : x + 20] = 250 if bright[second] else 10
                    writer.write(frame)
            for t in range(1, seconds):
                x = 8 + 32 * sides[t]
                box = f"{x / 64:.3f},{10 / 48:.3f},{(x + 20) / 64:.3f},{40 / 48:.3f}"
                rows.append(f"{video},{t:04d},{box},{1 + sides[t]},1")
                if bright[t]:
                    rows.append(f"{video},{t:04d},{box},3,1")
                persons.append(f"{video},{t:04d},{box},,0.95,1")
                objects.append(f"{video},{t:04d},0.1,0.1,0.3,0.3,ball,0.9")
        (root / "annotations" / f"{split}.csv").write_text("\n".join(rows) + "\n")
        (root / "boxes" / f"{split}_persons.csv").write_text("\n".join(persons) + "\n")
        (root / "boxes" / f"{split}_objects.csv").write_text("\n".join(objects) + "\n")
    (root / "annotations" / "val_excluded.csv").write_text("val_0,0001\n")
    return root


def small_cfg(folder: Path | None = None, *opts: object) -> CfgNode:
    """The Puppets model with AIA, made smaller still, on the data set of :func:`write_dataset`."""
    cfg = setup_cfg(
        str(CONFIGS / "Puppets" / "aia.yaml"),
        [
            *("MODEL.DEVICE", "cpu", "MODEL.SLOWFAST.STEM_CHANNELS", 4),
            *("MODEL.WEIGHTS", "", "MODEL.SLOWFAST.FROZEN", False, "DATALOADER.STORED_VARIANTS", 0),
            *("MODEL.INTERACTION.DIM", 16, "MODEL.ROI_ACTION_HEAD.FC_DIM", 16),
            *("MODEL.ROI_ACTION_HEAD.GROUP_NAMES", "('pose','object')"),
            *("MODEL.ROI_ACTION_HEAD.GROUP_SIZES", "(2,1)"),
            *("MODEL.ROI_ACTION_HEAD.GROUP_LOSS_WEIGHTS", "(1.0,1.0)"),
            *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", 48),
            *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2),
            *("MODEL.MEMORY.WINDOW", "(2,2)", "DATASETS.FOLDERS", "()"),
        ],
    )
    if folder is not None:
        cfg.DATASETS.FOLDERS = (str(folder),)
        cfg.DATASETS.TRAIN = (f"{folder.name}_train",)
        cfg.DATASETS.TEST = (f"{folder.name}_val",)
    cfg.merge_from_list(list(opts))
    return cfg


def build_trainer(cfg: CfgNode, output: Path, seed: int = 1) -> Trainer:
    """A trainer whose initial weights depend on `seed` alone."""
    cfg.OUTPUT_DIR = str(output)
    register_datasets(cfg)
    seed_all_rng(seed)
    return Trainer(cfg)


@contextmanager
def loaded_tool(path: Path) -> Iterator[Callable[..., int]]:
    """A script of tools/ as a function of its command line that returns the exit code."""
    name = re.search(r'run_app\("(\w+)"\)', path.read_text())[1]
    module = importlib.import_module(f"alphaaction_d2.apps.{name}")

    def run(*arguments: object) -> int:
        return run_module(name, list(map(str, arguments)))

    # Its handler would outlive the test that captures what it writes.
    with mock.patch.object(module, "setup_console", create=True):
        yield run


def watched(source: BoxSource, width: int, height: int) -> BoxSource:
    """The source, after a video of this size has gone through it."""
    list(source.watch([(0.0, np.zeros((height, width, 3), np.uint8))]))
    return source


def model_input(
    cfg: CfgNode,
    persons: int,
    objects: int,
    *,
    size: tuple[int, int] = (48, 64),
    video_id: str = "v",
    timestamp: float = 3,
) -> dict:
    """One random input of the model, with targets."""
    height, width = size
    boxes = torch.rand(persons + objects, 2, 2).sort(dim=1).values
    boxes = (boxes * torch.tensor([width, height])).flatten(1)
    proposals = Instances(size, proposal_boxes=Boxes(boxes[:persons]))
    proposals.objectness_logits = torch.rand(persons)
    proposals.person_ids = torch.arange(persons)
    things = Instances(size, boxes=Boxes(boxes[persons:]), scores=torch.rand(objects))
    targets = Instances(size)
    classes = class_groups(cfg).num_classes
    targets.gt_classes = torch.randint(0, 2, (persons, classes)).float()
    frames = (3, cfg.INPUT.NUM_FRAMES, height, width)
    return {
        "video": torch.randint(0, 256, frames, dtype=torch.uint8),
        "proposals": proposals,
        "objects": things,
        "instances": targets,
        "video_id": video_id,
        "timestamp": timestamp,
        "height": 2 * height,
        "width": 2 * width,
    }
