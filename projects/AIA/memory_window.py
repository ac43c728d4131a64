"""What a training step costs as the memory window grows (AIA, Fig. 5).

    projects/AIA/memory_window.py --output output/memory_window
    projects/AIA/memory_window.py --lengths 0 60 --short-side 128 --repeats 3

Measures whole training steps (memory read, forward, backward, optimiser) of one clip with a full
memory around it, draws memory_window.png (time and peak memory relative to the smallest window) and
writes the numbers to memory_window.json. For comparison, --joint draws what the paper calls joint
training: without a memory, the clips of the window are part of the step themselves.

Time is the median over --repeats rounds in which the windows of the memory take turns, so that
whatever else the machine does meets all of them; joint training is measured one window after the
other, as its clips would not fit into memory together. On the CPU it is the processor time of all
threads, which other programs hardly change. Peak memory is that of a process of its own for every
window: on a GPU what torch has allocated at most, on the CPU how much the process has grown since
before the model was built.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from alphaaction_d2 import setup_cfg
from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.config import class_groups
from alphaaction_d2.engine.inference import build_memory_pool
from alphaaction_d2.engine.solver import build_optimizer
from alphaaction_d2.memory.pool import MemoryWrite

ROOT = Path(__file__).resolve().parents[2]
PERSONS = 3  # in the clip; the slots of the memory are full
SECOND = 1000  # of the clip in its video
VIDEO = "video"
METHODS = ("memory", "joint")
LABELS = {"memory": "memory pool", "joint": "joint training"}

# With glibc, freed tensors then go back to the system at once, and what a process holds is what it
# uses; otherwise the peak varies by 5 % from run to run.
RETURN_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_MMAP_MAX_": str(2**20)}

Step = Callable[[], None]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.only_memory_of is not None:
        method, length = args.only_memory_of
        print(peak_memory(load_config(args), method, int(length)))
        return
    args.output.mkdir(parents=True, exist_ok=True)
    result = measure(args)
    for method, rows in result["methods"].items():
        for row in rows:
            print(
                f"{LABELS[method]:>14}, {row['length']:3d} s: {row['seconds']:8.3f} s a step, "
                f"{row['bytes'] / 2**20:8.0f} MiB; {row['relative_time']:.3f} and "
                f"{row['relative_memory']:.3f} of a window of {rows[0]['length']} s"
            )
    (args.output / "memory_window.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(result, args.output / "memory_window.png")
    print(f"Drawn: {args.output / 'memory_window.png'}")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw what a training step costs as the memory window grows."
    )
    parser.add_argument(
        "--config-file",
        default=str(ROOT / "configs" / "AVA" / "aia_dense_R50_4x16.yaml"),
        help="a model with memory blocks; default: %(default)s",
    )
    parser.add_argument(
        "--lengths",
        type=seconds,
        nargs="+",
        default=[0, 10, 20, 30, 40, 50, 60],
        help="whole windows in seconds, half before and half after the clip; default: %(default)s",
    )
    parser.add_argument(
        "--joint",
        type=seconds,
        nargs="*",
        default=[],
        help="windows for which joint training is measured as well (and 0), such as 2 4",
    )
    parser.add_argument("--repeats", type=int, default=7, help="default: %(default)s")
    parser.add_argument(
        "--short-side", type=int, default=256, help="of the picture, 3:4; default: %(default)s"
    )
    parser.add_argument("--output", type=Path, default=Path("output/memory_window"))
    parser.add_argument("--only-memory-of", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="configuration overrides KEY VALUE ..."
    )
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.short_side < 32:
        parser.error("--repeats must be 1 or more and --short-side 32 or more")
    args.lengths = sorted(set(args.lengths))
    args.joint = sorted({0, *args.joint}) if args.joint else []
    return args


def seconds(text: str) -> int:
    """The length of a window; argparse turns the ValueError into a message."""
    length = int(text)
    if length < 0:
        raise ValueError(text)
    return length


def load_config(args: argparse.Namespace) -> CfgNode:
    """The configuration; raises ValueError for a model that does not look at the memory."""
    cfg = setup_cfg(args.config_file, args.opts)
    cfg.INPUT.MIN_SIZE_TRAIN = (args.short_side,)
    cfg.SOLVER.BASE_LR = 0.0  # all the work of a step, and the next one finds the same weights
    if not cfg.MODEL.INTERACTION.NAME or "M" not in cfg.MODEL.INTERACTION.BLOCKS:
        raise ValueError(f"{args.config_file}: the model has no memory blocks (M)")
    return cfg


def measure(args: argparse.Namespace) -> dict:
    """Everything that is drawn, see the module's docstring."""
    cfg = load_config(args)
    lengths = {"memory": args.lengths, "joint": args.joint}
    runs = [(method, length) for method in METHODS for length in lengths[method]]
    peaks = []
    for method, length in runs:
        # A process that has held more before would hide the peak; each starts afresh.
        command = [sys.executable, __file__, "--only-memory-of", method, str(length)]
        options = ["--config-file", args.config_file, "--short-side", str(args.short_side)]
        done = subprocess.run(
            [*command, *options, "--opts", *args.opts],
            env={**os.environ, **RETURN_FREED_MEMORY},
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{LABELS[method]}, {length} s: the process failed, see above")
        peaks.append(int(done.stdout.split()[-1]))
        print(f"{LABELS[method]:>14}, {length:3d} s: {peaks[-1] / 2**20:8.0f} MiB", flush=True)
    steps = [build_step(cfg, "memory", length) for length in args.lengths]
    medians = interleaved_medians(steps, args.repeats, cfg)
    del steps
    for length in args.joint:  # one after the other: together they would not fit into memory
        medians += interleaved_medians([build_step(cfg, "joint", length)], args.repeats, cfg)
    methods: dict[str, list[dict]] = {}
    for (method, length), median, peak in zip(runs, medians, peaks):
        rows = methods.setdefault(method, [])
        rows.append({"length": length, "seconds": median, "bytes": peak})
        rows[-1]["relative_time"] = median / rows[0]["seconds"]
        rows[-1]["relative_memory"] = peak / rows[0]["bytes"]
    height, width = picture_size(cfg)
    return {
        "config": Path(args.config_file).name,
        "device": cfg.MODEL.DEVICE,
        "threads": torch.get_num_threads(),
        "picture": f"{width}x{height}",
        "repeats": args.repeats,
        "methods": methods,
    }


def build_step(cfg: CfgNode, method: str, length: int) -> Step:
    """A function that does one training step.

    Args:
        method: "memory": one clip whose window of `length` seconds comes from a full pool; "joint":
            the clips of all seconds of the window go through the network, without a pool.
    """
    cfg = cfg.clone()
    in_memory = length if method == "memory" else 0
    cfg.MODEL.MEMORY.WINDOW = (in_memory // 2, in_memory - in_memory // 2)
    torch.manual_seed(0)
    model = build_model(cfg)
    model.train()
    optimizer = build_optimizer(cfg, model)
    pool = build_memory_pool(cfg, model)
    before, after = cfg.MODEL.MEMORY.WINDOW
    for slot in range(SECOND - before, SECOND + after + 1):
        pool.update([full_slot(cfg, slot, model.roi_heads.num_channels)], loss=1.0)
    pool.err = 1.0  # tags and error agree: everything is trusted
    clips = [build_clip(cfg)] * (1 if method == "memory" else length + 1)

    def step() -> None:
        batch = pool.attach([dict(clip) for clip in clips], training=True)
        sum(model(batch).values()).backward()
        optimizer.step()
        optimizer.zero_grad()  # at the end: the models of all windows are in memory together

    return step


def full_slot(cfg: CfgNode, slot: int, num_channels: int) -> MemoryWrite:
    """One second of memory with as many persons as are read."""
    count = cfg.MODEL.MEMORY.MAX_PERSONS
    corners = torch.rand(count, 2, 2).sort(dim=1).values
    return MemoryWrite(
        video_id=VIDEO,
        slot=slot,
        features=torch.rand(count, num_channels),
        boxes=corners.flatten(1),
        person_ids=torch.arange(count),
        scores=torch.ones(count),
    )


def build_clip(cfg: CfgNode) -> dict:
    """One random clip with persons, objects and labels, as the data-set mapper would give it."""
    size = height, width = picture_size(cfg)
    count = PERSONS + cfg.INPUT.MAX_OBJECTS
    corners = torch.rand(count, 2, 2).sort(dim=1).values * torch.tensor([width, height])
    boxes = corners.flatten(1)
    proposals = Instances(size, proposal_boxes=Boxes(boxes[:PERSONS]))
    proposals.objectness_logits = torch.ones(PERSONS)
    proposals.person_ids = torch.arange(PERSONS)
    objects = Instances(size, boxes=Boxes(boxes[PERSONS:]))
    objects.scores = torch.ones(cfg.INPUT.MAX_OBJECTS)
    targets = Instances(size)
    classes = class_groups(cfg).num_classes
    targets.gt_classes = (torch.rand(PERSONS, classes) < 0.1).float()
    shape = (3, cfg.INPUT.NUM_FRAMES, height, width)
    return {
        "video": torch.randint(0, 256, shape, dtype=torch.uint8),
        "video_id": VIDEO,
        "timestamp": SECOND,
        "proposals": proposals,
        "objects": objects,
        "instances": targets,
    }


def picture_size(cfg: CfgNode) -> tuple[int, int]:
    """Height and width; 256 x 340 as in the paper's figure, or in proportion."""
    height = cfg.INPUT.MIN_SIZE_TRAIN[0]
    return height, height * 340 // 256


def interleaved_medians(steps: list[Step], repeats: int, cfg: CfgNode) -> list[float]:
    """Median seconds of every step after one warm-up of each; the steps take turns, in an order
    that changes every round, as what came before leaves traces in caches."""
    times: list[list[float]] = [[] for _ in steps]
    order = list(range(len(steps)))
    for repeat in range(repeats + 1):
        random.Random(repeat).shuffle(order)
        for i in order:
            start = read_clock(cfg)
            steps[i]()
            if repeat:
                times[i].append(read_clock(cfg) - start)
    return [statistics.median(own) for own in times]


def read_clock(cfg: CfgNode) -> float:
    """Seconds, once all work so far is done: of the wall clock for a GPU, else of the processor."""
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        return time.process_time()
    torch.cuda.synchronize(cfg.MODEL.DEVICE)
    return time.perf_counter()


def peak_memory(cfg: CfgNode, method: str, length: int) -> int:
    """Bytes that two training steps need at most; for a process that does nothing else.

    Two, because the optimiser makes its buffers in the first.
    """
    before = peak_resident()
    step = build_step(cfg, method, length)
    step()
    step()
    if cfg.MODEL.DEVICE.startswith("cuda"):
        return torch.cuda.max_memory_allocated(cfg.MODEL.DEVICE)
    return peak_resident() - before


def peak_resident() -> int:
    """Most bytes of RAM that this process has had so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count what the parent had when it started this process
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource  # not on every system

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def draw(result: dict, path: Path) -> None:
    """Two panels, time and memory, relative to the smallest window."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (("relative_time", "time of a training step"), ("relative_memory", "peak memory"))
    colors = {"memory": "#0f8b8d", "joint": "#d99a00"}
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, (key, title) in zip(axes, panels):
        axis.axhspan(0.9, 1.1, color="#0f8b8d", alpha=0.12, linewidth=0, label="within 10 %")
        for method, rows in result["methods"].items():
            axis.plot(
                [row["length"] for row in rows],
                [row[key] for row in rows],
                marker="o",
                color=colors[method],
                label=LABELS[method],
            )
        axis.set(title=title, xlabel="memory window (s)", ylim=(0, None))
        axis.set_ylabel("relative to the smallest window")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(frameon=False, loc="upper right")
    figure.suptitle(
        f"{result['config']}, {result['picture']}, {result['device']}, medians of "
        f"{result['repeats']}",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(run_tool(main))
