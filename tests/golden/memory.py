"""Cases of reading the memory."""

from __future__ import annotations

import torch
from detectron2.structures import Boxes, Instances

from alphaaction_d2.memory.pool import MemoryPool
from alphaaction_d2.memory.window import insert_clips, weighted
from alphaaction_d2.structures import MemoryWindow

from .case import GoldenCase


def persons_of_clips(
    image_size: tuple[int, int],
    boxes: torch.Tensor,
    counts: list[int],
    features: torch.Tensor | None = None,
) -> list[Instances]:
    """Persons per clip, all of the same score and of unknown identity."""
    clips = []
    for i, rows in enumerate(boxes.split(counts)):
        clip = Instances(image_size, proposal_boxes=Boxes(rows))
        clip.person_ids = torch.full((len(rows),), -1)
        clip.objectness_logits = torch.ones(len(rows))
        if features is not None:
            clip.roi_features = features.split(counts)[i]
        clips.append(clip)
    return clips


def filled_pool(
    case: GoldenCase, *, channels: int, window: list[int], stride: int, persons: int, reweight: bool
) -> MemoryPool:
    """A pool with what the case has stored."""
    counts = case.counts("in/pool_counts")
    movies, seconds = case.names("in/pool_movie_ids"), case.counts("in/pool_timestamps")
    pool = MemoryPool(
        num_channels=channels,
        window=tuple(window),
        stride=stride,
        max_persons=persons,
        reweight=reweight,
        dtype=torch.float32,
        keyframes=zip(movies, seconds, counts),
    )
    tags = [1.0] * len(counts)
    if "in/pool_loss_tags" in case:
        tags = case.counts("in/pool_loss_tags")
    clips = persons_of_clips(
        case.image_size, case["in/pool_boxes"], counts, case["in/pool_features"]
    )
    for movie, second, clip, tag in zip(movies, seconds, clips, tags):
        place = {"video_id": movie, "timestamp": second}
        pool.update([pool.prepare(place, clip)], tag)
    return pool


def check_read(case: GoldenCase) -> None:
    """The windows of a batch, with the batch's own persons in their centres."""
    config = case.config
    pool = filled_pool(
        case,
        channels=config["feature_dim"],
        window=config["length_before_after"],
        stride=config["memory_rate"],
        persons=config["max_per_sec"],
        reweight=config["use_penalty"],
    )
    pool.err = config["cur_loss"] or 0.0
    places = list(zip(case.names("in/query_movie_ids"), case.counts("in/query_timestamps")))
    inputs = [{"video_id": movie, "timestamp": second} for movie, second in places]
    pool.attach(inputs, training=config["training"])
    window = MemoryWindow.stack([x["memory"] for x in inputs])
    clips = persons_of_clips(
        case.image_size, case["in/cur_boxes"], case.counts("in/cur_counts"), case["in/cur_features"]
    )
    window = insert_clips(weighted(window, torch.float32), clips, random_subset=config["training"])
    memory = window.features.flatten(1, 2)
    if config["training"] and config["use_penalty"] and config["cur_loss"]:
        case.compare("out/memory", memory)
    else:
        case.compare_exact("out/memory", memory)
    height, width = case.image_size
    boxes = window.boxes.flatten(1, 2) * torch.tensor([width, height, width, height])
    case.compare("out/memory_boxes", boxes)
