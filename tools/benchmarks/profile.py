"""Where the time of a training step goes: `python tools/benchmark.py profile`.

Each configuration trains as `train` does it, on a generated film (Puppets on a few of its videos)
with a full memory, beginning at random. The parts of a step are wrapped from outside, and the way
back is cut where a part's result has got its gradient; each moment counts for one part. On the CPU
that is the processor time of all threads, loading included, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.structures import BoxMode
from tabulate import tabulate
from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook

from alphaaction_d2 import register_datasets, setup_cfg
from alphaaction_d2.apps.command_line import tool_parser
from alphaaction_d2.config import class_groups
from alphaaction_d2.data.datasets.puppets.generate import generate_puppets
from alphaaction_d2.engine import Trainer, train_loop
from alphaaction_d2.engine.hooks import MemoryHook
from alphaaction_d2.memory.pool import MemoryWrite
from alphaaction_d2.model_zoo import get_config_file
from alphaaction_d2.modeling import roi_heads
from alphaaction_d2.structures import FoundBoxes
from benchmarks.data import Video, write_moving_video
from benchmarks.measure import machine_facts

PARTS = ("backbone", "RoI", "interaction", "memory", "data", "optimiser", "hooks", "heads", "rest")
# The last one trains its backbone along; the one before has stored features and so none to run.
CONFIGS = (
    *("AVA/igmn_R50_4x16", "AVA/aia_dense_R50_4x16"),
    *("Puppets/igmn", "Puppets/update/reweighted"),
)
DATA = "benchmark"  # what the generated data is called
PERSONS, OBJECTS = 3, 5  # of every keyframe of the film


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.prog += " profile"
    parser.add_argument("--configs", nargs="+", default=CONFIGS, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=3, help="after two that warm up")
    parser.add_argument("--size", type=int, nargs=2, default=(340, 256), help="of the film")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs of the configurations, after --")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    facts = machine_facts()
    print(f"{facts['processor']}, {facts['threads']} threads, torch {facts['torch']}")
    columns = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.configs:
            cfg = training_cfg(name, Path(folder), tuple(args.size), args.opts)
            seconds = profile(cfg, args.steps)
            total = sum(seconds.values())
            shares = [f"{100 * seconds[part] / total:.1f} %" for part in PARTS]
            columns[name] = [f"{total:.3f} s", *shares]
    rows = zip(("a step", *PARTS), *columns.values())
    print(tabulate(list(rows), ["", *columns], tablefmt="github", disable_numparse=True))
    return 0


class Clock:
    """Adds up the time of parts; of parts inside each other, the innermost counts."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device, self._running = device, ["rest"]
        self._since = self._now

    def wrap(self, owner: Any, name: str, part: str, then: Callable | None = None) -> None:
        """Count a method, or a function of a module, and show what it returns to `then`."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def counted(*args, **kwargs):
            with self._stage(part):
                result = function(*args, **kwargs)
                if then is not None:
                    then(result)
                return result

        vars(owner)[name] = counted  # as an attribute, a network would refuse it

    def each(self, part: str, items: Iterable) -> Iterator:
        """Pass on items; count how long each takes to come."""
        iterator = iter(items)
        while True:
            with self._stage(part):
                item = next(iterator)
            yield item

    def turn_to(self, part: str) -> None:
        """From here on, count for another part."""
        now = self._now
        self.seconds[self._running[-1]] += now - self._since
        self._since, self._running[-1] = now, part

    @contextlib.contextmanager
    def _stage(self, part: str) -> Iterator[None]:
        self.turn_to(self._running[-1])
        self._running.append(part)
        try:
            yield
        finally:
            self.turn_to(part)
            self._running.pop()

    @property
    def _now(self) -> float:
        if not self._device.startswith("cuda"):
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()


def watch(trainer: Trainer, clock: Clock) -> None:
    """Count the parts of a trainer's steps."""
    loop = trainer._trainer
    model, heads = loop.model, loop.model.roi_heads

    def way_back(part: str) -> Callable[[Any], None]:
        """What follows, once the gradients of a result are there, is of this part."""

        def register(result: Any) -> None:
            tensors = result.values() if isinstance(result, dict) else result
            wanted = [x for x in tensors if isinstance(x, Tensor) and x.requires_grad]
            if wanted:
                register_multi_grad_hook(wanted, lambda _: clock.turn_to(part))

        return register

    clock.wrap(loop, "_forward_backward", "heads")  # with their losses the way back begins
    clock.wrap(model, "preprocess", "data")
    clock.wrap(model, "_maps", "backbone", way_back("backbone"))
    clock.wrap(heads, "pool", "RoI")
    clock.wrap(heads.pooler, "forward", "RoI", lambda rois: way_back("RoI")([rois]))
    if heads.interaction is not None:
        clock.wrap(heads.interaction, "forward", "interaction", way_back("interaction"))
    clock.wrap(model, "_memory", "memory")
    clock.wrap(roi_heads, "weighted", "memory")
    clock.wrap(roi_heads, "insert_clips", "memory")
    if loop.pool is not None:
        clock.wrap(loop.pool, "attach", "memory")
    loop._data_loader_iter_obj = clock.each("data", loop.data_loader)
    clock.wrap(train_loop, "gradient_norm", "optimiser")
    clock.wrap(loop.optimizer, "step", "optimiser")
    clock.wrap(loop.optimizer, "zero_grad", "optimiser")
    clock.wrap(trainer, "before_step", "hooks")
    clock.wrap(trainer, "after_step", "hooks")
    for hook in trainer._hooks:
        if isinstance(hook, MemoryHook):
            clock.wrap(hook, "after_step", "memory")
            clock.wrap(hook, "_keep_persons", "memory")


class _Measured(HookBase):
    """The first of the hooks: lets the clock run for `steps` steps, after `begin` others."""

    def __init__(self, clock: Clock, begin: int, steps: int) -> None:
        self._clock, self._begin, self._end = clock, begin, begin + steps
        self.seconds: dict[str, float] = {}

    def before_step(self) -> None:
        self._clock.turn_to("hooks")
        if self.trainer.iter == self._begin:
            self._clock.seconds.clear()
        if self.trainer.iter == self._end:
            self.seconds = dict(self._clock.seconds)


def profile(cfg: CfgNode, steps: int) -> dict[str, float]:
    """Give the seconds of every part of a step, the mean of `steps` after two that warm up."""
    cfg.SOLVER.MAX_ITER = steps + 3  # in the last one everything is saved
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    fill(trainer)
    clock = Clock(cfg.MODEL.DEVICE)
    measured = _Measured(clock, 2, steps)
    trainer.register_hooks([measured])
    trainer._hooks.insert(0, trainer._hooks.pop())
    with mock.patch.dict(vars(roi_heads)), mock.patch.dict(vars(train_loop)):
        watch(trainer, clock)
        trainer.train()
    return {part: measured.seconds.get(part, 0.0) / steps for part in PARTS}


def training_cfg(
    name: str, folder: Path, size: tuple[int, int], opts: Sequence[str] = ()
) -> CfgNode:
    """A configuration on a film, one clip a step, or on a few Puppets; without weights.

    Args:
        size: width and height of the film.
    """
    cfg = setup_cfg(get_config_file(name), ["DATALOADER.NUM_WORKERS", "0", "MODEL.WEIGHTS", ""])
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(folder / "output"), ()
    cfg.SOLVER.REFERENCE_IMS_PER_BATCH, cfg.SOLVER.STEPS = 0, ()
    for known in [x for x in DatasetCatalog.list() if x.startswith(DATA)]:  # in another folder
        DatasetCatalog.remove(known)
        MetadataCatalog.remove(known)
    cfg.DATASETS.TRAIN = (f"{DATA}_train",)
    if name.startswith("Puppets"):
        puppets = generate_puppets(folder / DATA, num_train=12, num_val=1, num_workers=1)
        cfg.DATASETS.FOLDERS = (str(puppets),)
        register_datasets(cfg)
    else:
        cfg.SOLVER.IMS_PER_BATCH = 1
        cfg.SOLVER.BASE_LR = 0.0  # random weights stay finite, and all the work is done
        # A film as long as the memory window, a keyframe with several persons a second.
        film = write_moving_video(folder / "film.mp4", *size, sum(cfg.MODEL.MEMORY.WINDOW) + 2)
        classes = [f"class {i}" for i in range(class_groups(cfg).num_classes)]
        DatasetCatalog.register(
            cfg.DATASETS.TRAIN[0], lambda: [keyframe(film, t) for t in range(film.seconds)]
        )
        MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes = classes
    cfg.merge_from_list(list(opts))
    return cfg


def keyframe(film: Video, timestamp: int) -> dict:
    """A dataset dict with persons beside each other, who all do something else, and objects."""
    width, height = film.width, film.height
    boxes = [
        [i * width / PERSONS, 0.1 * height, (i + 0.9) * width / PERSONS, 0.9 * height]
        for i in range(PERSONS)
    ]
    annotations = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": i, "person_id": i}
        for i, box in enumerate(boxes)
    ]
    things = [[x + 10, 20, x + 60, 70] for x in range(OBJECTS)]
    objects = FoundBoxes.of(things, 0.9, size=(width, height))
    persons = FoundBoxes.of(boxes, 0.9, range(PERSONS), (width, height))
    found = {"annotations": annotations, "persons": persons, "objects": objects}
    return {**film.keyframe(timestamp), **found}


def fill(trainer: Trainer) -> None:
    """Store something for all persons of all keyframes; tags and error agree."""
    if trainer.pool is None:
        return
    pool, keyframes = trainer.pool, trainer._trainer.data_loader.keyframes
    for x in (keyframes[i] for i in range(len(keyframes))):
        ids = torch.tensor([annotation["person_id"] for annotation in x["annotations"]]).unique()
        features, boxes = torch.rand(len(ids), pool.num_channels), torch.rand(len(ids), 4)
        place = str(x["video_id"]), pool.clock.slot_of(x["timestamp"])
        pool.update([MemoryWrite(*place, features, boxes, ids, torch.ones(len(ids)))], 1.0)
    pool.err = 1.0
