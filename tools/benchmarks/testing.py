"""Testing with TEST.IMS_PER_BATCH 1, 4 and 8, in clips a second.

Batches are for a GPU. Without one the network is given them all the same, to show what they are
worth on the CPU, where testing goes clip by clip.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine.inference import DelayedInference, Member, build_memory_pool
from benchmarks.measure import Row, interleaved_medians, num_threads

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "Puppets" / "aia.yaml"
BATCHES = (1, 4, 8)


def rows(quick: bool) -> Iterator[Row]:
    """One video of 16 clips through the whole of testing, extraction to results."""
    cfg = setup_cfg(str(CONFIG), ["MODEL.WEIGHTS", ""])
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    size = (48, 64) if quick else (96, 128)
    clips = [random_clip(cfg.INPUT.NUM_FRAMES, size, second) for second in range(16)]

    def run(batch: int) -> None:
        delayed = DelayedInference([Member(model, build_memory_pool(cfg, model))], together=True)
        with torch.no_grad():
            for i in range(0, len(clips), batch):
                delayed(copy.copy(clips[i : i + batch]))
            delayed([])
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    with num_threads(1):
        times = interleaved_medians(
            [lambda batch=batch: run(batch) for batch in BATCHES], 1 if quick else 7
        )
    where = torch.cuda.get_device_name() if model.device.type == "cuda" else "one thread"
    for batch, seconds in zip(BATCHES, times):
        yield Row(
            name=f"testing, {batch} clips at once" if batch > 1 else "testing, clip by clip",
            value=len(clips) / seconds,
            unit="clips/s",
            yardstick=None if batch == 1 else len(clips) / times[0],
            yardstick_name="" if batch == 1 else "clip by clip",
            note=f"Puppets' AIA, {cfg.INPUT.NUM_FRAMES} frames of {size[0]}x{size[1]}, {where}",
        )


def random_clip(num_frames: int, size: tuple[int, int], second: int) -> dict:
    """Noise with three persons."""
    height, width = size
    places = torch.tensor([[0.0, 0.1, 0.3, 0.9], [0.3, 0.2, 0.6, 0.9], [0.6, 0.1, 0.9, 1.0]])
    persons = Instances(
        size, proposal_boxes=Boxes(places * torch.tensor([width, height, width, height]))
    )
    video = torch.randint(0, 256, (3, num_frames, height, width), dtype=torch.uint8)
    return {"video": video, "proposals": persons, "video_id": "v", "timestamp": second}
