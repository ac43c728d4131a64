"""Training, testing, decoding in clips a second, and peak memory: `tools/benchmark.py gpu`.

One script that keeps to its time, for a GPU that one has for minutes. Training is whole steps of
DistributedDataParallel in one process (memory read and written, both ways, optimiser), in float32
and in bfloat16; testing is extraction to results. Both begin with clips that are decoded; beside
them stands what the backbone alone does with as many. Weights are random.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from alphaaction_d2.apps.command_line import tool_parser
from alphaaction_d2.data import ActionDatasetMapper
from alphaaction_d2.engine.inference import DelayedInference, Member, build_memory_pool
from alphaaction_d2.engine.memory_fill import attach_memory
from alphaaction_d2.engine.solver import build_optimizer
from alphaaction_d2.modeling.meta_arch import ActionRCNN
from benchmarks.measure import machine_facts
from benchmarks.profile import training_cfg

GIB = 2**30


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.prog += " gpu"
    parser.add_argument("--config", default="AVA/igmn_R50_4x16", help="default: %(default)s")
    parser.add_argument("--device", default="cuda", help="default: %(default)s")
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 4, 16), help="clips at once")
    parser.add_argument("--size", type=int, nargs=2, default=(340, 256), help="of the film")
    parser.add_argument("--minutes", type=float, default=7.0, help="for all; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the rows, with machine facts")
    parser.add_argument("opts", nargs="*", help="KEY VALUE pairs of the configuration, after --")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    args = parse_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no GPU; --device cpu shows that the script runs")
    deadline = time.monotonic() + 60 * args.minutes
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        opts = ["MODEL.DEVICE", args.device, *args.opts]
        cfg = training_cfg(args.config, Path(folder), tuple(args.size), opts)
        measures = list(all_measures(cfg, args.batches))
        for number, (name, batch, prepare) in enumerate(measures):
            share = (deadline - time.monotonic()) / (len(measures) - number)
            row = {"what": name, "batch": batch, **measured(prepare, batch, share, args.device)}
            rows.append(row)
            print(row, flush=True)  # what is known, should the machine be taken away
    columns = {key: "" for row in rows for key in row}
    lines = [[row.get(key, "") for key in columns] for row in rows]
    print(tabulate(lines, [*columns], tablefmt="github", floatfmt=".2f"))
    facts = machine_facts()
    print(f"{facts['gpu']}, {facts['processor']}, torch {facts['torch']}, {args.config}")
    if args.json:
        Path(args.json).write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    return 0


# Makes what is measured; it is let go before the next one is made.
Prepare = Callable[[], Callable[[], object]]


def all_measures(cfg: CfgNode, batches: Sequence[int]) -> Iterator[tuple[str, int, Prepare]]:
    """Names, clips at once, and what is to be measured; the backbone alone after each."""
    keyframes = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    yield "decoding, one core", 1, lambda: decoding(cfg, keyframes)
    for batch in batches:
        yield "testing", batch, lambda n=batch: testing(cfg, keyframes[:n])
        yield "testing, backbone", batch, lambda n=batch: testing(cfg, keyframes[:n], alone=True)
    for dtype in (torch.float32, torch.bfloat16):
        kind = f"training, {str(dtype).removeprefix('torch.')}"
        for n in batches:
            clips = keyframes[:n]
            yield kind, n, lambda x=clips, t=dtype: training(cfg, x, keyframes, t)
            yield f"{kind}, backbone", n, lambda x=clips, t=dtype: training(cfg, x, None, t)


def measured(prepare: Prepare, clips: int, seconds: float, device: str) -> dict:
    """Clips a second and peak memory; the runs take about `seconds`, two at least."""
    on_gpu, start = device.startswith("cuda"), time.monotonic()
    if seconds <= 0:
        return {"note": "no time left"}
    try:
        run = prepare()
        run()  # warms up
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        runs, begin = 0, time.perf_counter()
        while runs == 0 or time.monotonic() - start < 0.9 * seconds:
            run()
            runs += 1
            if on_gpu:
                torch.cuda.synchronize()
        row = {"clips/s": clips * runs / (time.perf_counter() - begin), "runs": runs}
        return row | ({"peak GiB": torch.cuda.max_memory_allocated() / GIB} if on_gpu else {})
    except torch.OutOfMemoryError:
        return {"note": "out of memory"}
    finally:
        run = None
        if distributed.is_initialized():
            distributed.destroy_process_group()
        if on_gpu:
            torch.cuda.empty_cache()


def decoding(cfg: CfgNode, keyframes: list[dict]) -> Callable[[], object]:
    """A clip of training from the file, at random."""
    mapper = ActionDatasetMapper(cfg, is_train=True)
    order = iter(torch.randint(len(keyframes), (100_000,)).tolist())
    torch.set_num_threads(1)
    return lambda: mapper(keyframes[next(order)])


def network(cfg: CfgNode) -> ActionRCNN:
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    return build_model(cfg)


def inputs_of(cfg: CfgNode, keyframes: list[dict], is_train: bool) -> list[dict]:
    mapper = ActionDatasetMapper(cfg, is_train=is_train)
    return [mapper(x) for x in keyframes]


def testing(cfg: CfgNode, keyframes: list[dict], alone: bool = False) -> Callable[[], object]:
    """Clips through all of testing, a batch at once; or through the backbone."""
    model, clips = network(cfg).eval(), inputs_of(cfg, keyframes, is_train=False)

    @torch.no_grad()
    def run() -> None:
        if alone:
            model._maps(model.preprocess(clips))
            return
        members = [Member(model, build_memory_pool(cfg, model))]
        delayed = DelayedInference(members, together=True)
        delayed(copy.copy(clips))
        delayed([])

    return run


def training(
    cfg: CfgNode, chosen: list[dict], keyframes: list[dict] | None, dtype: torch.dtype
) -> Callable[[], object]:
    """Steps on these clips, with a memory for `keyframes`; None: the backbone both ways."""
    model, clips = network(cfg).train(), inputs_of(cfg, chosen, is_train=True)
    device = model.device
    options = {"enabled": dtype != torch.float32}

    def backbone() -> None:
        with torch.autocast(device.type, dtype, **options):
            maps = model._maps(model.preprocess(clips))
        sum(x.mean() for x in maps.values()).backward()
        model.zero_grad()

    if keyframes is None:
        return backbone
    attach_memory(cfg, model, keyframes)  # before there is a group: it would ask for local ones
    with tempfile.NamedTemporaryFile() as file:
        store = distributed.FileStore(file.name, 1)
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    ids = [device.index or 0] if device.type == "cuda" else None
    wrapped = DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)
    optimizer = build_optimizer(cfg, model)

    def step() -> None:
        with torch.autocast(device.type, dtype, **options):
            losses = wrapped([dict(x) for x in clips])
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
