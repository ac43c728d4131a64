"""Writes folders in the format of the reference numbers, with other sizes and values.

A second implementation of the released model, from the formulas of the reference's README alone: it
imports nothing of the project, computes one person after the other where that is simpler, and takes
gradients by autograd. What passes `tools/check_golden.py` with these numbers does not owe it to the
sizes of the one folder that was there.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

Arrays = dict[str, Tensor | np.ndarray]
TINY = 1.1754944e-38


class Writer:
    """Draws random numbers, and writes cases."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=self.random)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.random)

    def boxes(self, count: int, width: int, height: int) -> Tensor:
        """Inclusive, inside of the picture, a few pixels wide at least."""
        low = self.uniform(count, 2) * 0.5
        high = low + 0.15 + self.uniform(count, 2) * 0.35
        size = torch.tensor([width - 1.0, height - 1.0])
        return torch.cat([low * size, high.clamp(max=1) * size], dim=1)

    def layer(self, params: Arrays, name: str, out: int, inner: int, *ones: int) -> None:
        params[f"{name}.weight"] = self.normal(out, inner, *ones, scale=inner**-0.5)
        params[f"{name}.bias"] = self.normal(out, scale=0.3)

    def save(self, name: str, config: dict, arrays: Arrays, params: Arrays | None = None) -> None:
        arrays = {**arrays, **{f"param/{key}": x for key, x in (params or {}).items()}}
        plain = {
            key: x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)
            for key, x in arrays.items()
        }
        np.savez(self.folder / f"{name}.npz", **plain)
        (self.folder / f"{name}.json").write_text(json.dumps({"case": name, "config": config}))


def linear(params: Arrays, name: str, x: Tensor) -> Tensor:
    """A 1x1x1 convolution on the last axis."""
    return x @ params[f"{name}.weight"].flatten(1).T + params[f"{name}.bias"]


def pooled(x: Tensor) -> Tensor:
    """With the three places of length 1 that pooled features have."""
    return x[..., None, None, None]


def with_grad(arrays: Arrays) -> None:
    for value in arrays.values():
        value.requires_grad_()


def gradients(loss: Tensor, inputs: Arrays, params: Arrays) -> Arrays:
    """Of inputs and parameters; absent for what has no effect."""
    loss.backward()
    named = {**inputs, **{f"param/{name}": x for name, x in params.items()}}
    return {f"grad/{name}": x.grad.clone() for name, x in named.items() if x.grad is not None}


# ------------------------------------------------------------------------------------------ blocks


def new_block(
    w: Writer, params: Arrays, name: str, dims: tuple[int, int, int, int], slots: int
) -> None:
    """Parameters of a block of widths (person, other, inner, out)."""
    person, other, inner, out = dims
    dot = f"{name}." if name else ""
    w.layer(params, f"{dot}query", inner, person, 1, 1, 1)
    w.layer(params, f"{dot}key", inner, other, 1, 1, 1)
    w.layer(params, f"{dot}value", inner, other, 1, 1, 1)
    w.layer(params, f"{dot}out", out, inner, 1, 1, 1)
    if person != out:
        w.layer(params, f"{dot}shortcut", out, person, 1, 1, 1)
    if slots:
        for kind in "kv":
            params[f"{dot}temporal_position_{kind}"] = w.normal(slots, 1, inner, 1, 1, 1, scale=0.7)


def run_block(
    params: Arrays, name: str, x: Tensor, y: Tensor, layer_norm: bool
) -> tuple[Tensor, Tensor]:
    """x (n, places, C), y (n, J, places, C) -> (n, places, C'), attention."""
    dot = f"{name}." if name else ""
    q, k, v = (
        linear(params, f"{dot}{layer}", rows)
        for layer, rows in (("query", x), ("key", y), ("value", y))
    )
    if f"{dot}temporal_position_k" in params:
        position_k, position_v = (params[f"{dot}temporal_position_{kind}"] for kind in "kv")
        slots = len(position_k)
        second = torch.arange(y.shape[1]) // (y.shape[1] // slots)
        k = k + position_k.reshape(slots, 1, -1)[second]
        v = v + position_v.reshape(slots, 1, -1)[second]
    k, v = k.flatten(1, 2), v.flatten(1, 2)
    attention = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1)
    z = attention @ v
    if layer_norm:
        mean = z.mean(dim=(1, 2), keepdim=True)
        variance = ((z - mean) ** 2).mean(dim=(1, 2), keepdim=True)
        z = (z - mean) / (variance + 1e-5).sqrt()
    shortcut = linear(params, f"{dot}shortcut", x) if f"{dot}shortcut.weight" in params else x
    return linear(params, f"{dot}out", z.relu()) + shortcut, attention


def block(
    w: Writer,
    name: str,
    dims: tuple[int, int, int, int],
    persons: int = 4,
    others: int = 6,
    slots: int = 0,
    layer_norm: bool = True,
    places: tuple[int, int] = (1, 1),
) -> None:
    params: Arrays = {}
    new_block(w, params, "", dims, slots)
    person, other, inner, out = dims
    inputs: Arrays = {
        "person": w.normal(persons, person, 1, *places),
        "others": w.normal(persons, others, other, 1, *places),
    }
    with_grad(inputs)
    with_grad(params)
    x = inputs["person"].flatten(2).transpose(1, 2)
    y = inputs["others"].flatten(3).transpose(2, 3)
    result, attention = run_block(params, "", x, y, layer_norm)
    result = result.transpose(1, 2).unflatten(2, (1, *places))
    projection = w.normal(*result.shape)
    arrays = {f"in/{key}": x for key, x in inputs.items()} | {"in/grad_projection": projection}
    arrays |= {"out/out": result, "mid/attention": attention}
    arrays |= gradients((result * projection).sum(), inputs, params)
    config = {"dim_person": person, "dim_other": other, "dim_inner": inner, "dim_out": out}
    config |= {"max_others": others, "layer_norm": layer_norm, "dropout": 0.2, "mode": "eval"}
    config |= {"temporal_position_length": slots or -1}
    w.save(name, config, arrays, params)


# -------------------------------------------------------------------------------------- structures


def ia_config(structure: str, blocks: list, channels: int, inner: int, **changes: object) -> dict:
    return {
        **{"ACTIVE": True, "STRUCTURE": structure, "I_BLOCK_LIST": blocks},
        **{"DIM_IN": channels, "DIM_INNER": inner, "DIM_OUT": channels},
        **{"MAX_PERSON": 5, "MAX_OBJECT": 4, "MAX_PER_SEC": 3, "LENGTH": [2, 1], "MEMORY_RATE": 1},
        **{"LAYER_NORM": True, "TEMPORAL_POSITION": True, "FUSION": "add", "PENALTY": True},
        **{"DROPOUT": 0.0, **changes},
    }


def flat_blocks(ia: dict) -> list[tuple[str, str, int]]:
    """(name, type, output width) of every block, in the order of execution."""
    layers = ia["I_BLOCK_LIST"]
    if ia["STRUCTURE"] == "parallel":
        flat = [(kind, i == len(layers) - 1) for i, layer in enumerate(layers) for kind in layer]
    else:
        flat = [(kind, i == len(layers) - 1) for i, kind in enumerate(layers)]
    numbers: dict[str, int] = {}
    found = []
    for kind, is_last in flat:
        numbers[kind] = numbers.get(kind, 0) + 1
        width = ia["DIM_OUT"] if is_last else ia["DIM_INNER"]
        found.append((f"{kind}_block_{numbers[kind]}", kind, width))
    return found


REDUCTIONS = {"P": "person_key_dim_reduce", "O": "object_dim_reduce", "M": "mem_dim_reduce"}


def new_structure(w: Writer, ia: dict, prefix: str = "") -> Arrays:
    params: Arrays = {}
    inner = ia["DIM_INNER"]
    blocks = flat_blocks(ia)
    kinds = {kind for _, kind, _ in blocks}
    names = ["person_dim_reduce", *(REDUCTIONS[kind] for kind in sorted(kinds))]
    for name in names:
        w.layer(params, prefix + name, inner, ia["DIM_IN"], 1, 1, 1)
    slots = sum(ia["LENGTH"]) + 1
    for name, kind, width in blocks:
        positions = slots if kind == "M" and ia["TEMPORAL_POSITION"] else 0
        new_block(w, params, prefix + name, (inner, inner, inner, width), positions)
    if ia["STRUCTURE"] == "dense":
        for i in range(2, len(blocks)):
            params[f"{prefix}dense_params.{i}"] = w.normal(i, inner, 1, 1, 1)
    return params


def run_structure(
    params: Arrays,
    ia: dict,
    persons: list[Tensor],
    objects: list[Tensor],
    memory: Tensor,
    mid: Arrays | None = None,
    prefix: str = "",
) -> Tensor:
    """Features per clip (n, C), memory (clips, slots, C) -> (N, DIM_OUT)."""
    mid = {} if mid is None else mid
    counts = [len(rows) for rows in persons]
    features = torch.cat(persons)
    query = linear(params, f"{prefix}person_dim_reduce", features)
    mid["mid/person_dim_reduce"] = pooled(query)
    blocks = flat_blocks(ia)
    kinds = {kind for _, kind, _ in blocks}

    def padded(rows: Tensor, size: int) -> Tensor:
        return torch.cat([rows, rows.new_zeros(size - len(rows), rows.shape[1])])

    def person_set(rows: Tensor) -> Tensor:
        clips = [padded(clip, ia["MAX_PERSON"]) for clip in rows.split(counts)]
        return torch.cat([clip.expand(n, *clip.shape) for n, clip in zip(counts, clips)])

    def reduced(name: str, clips: list[Tensor]) -> Tensor:
        rows = torch.cat([clip.expand(n, *clip.shape) for n, clip in zip(counts, clips)])
        found = linear(params, prefix + name, rows)
        mid[f"mid/{name}"] = pooled(found.flatten(0, 1))
        return found

    sets: dict[str, Tensor] = {}
    if "P" in kinds:
        keys = linear(params, f"{prefix}person_key_dim_reduce", features)
        mid["mid/person_key_dim_reduce"] = pooled(keys)
        sets["P"] = person_set(keys)
    if "O" in kinds:
        sets["O"] = reduced("object_dim_reduce", [padded(x, ia["MAX_OBJECT"]) for x in objects])
    if "M" in kinds:
        sets["M"] = reduced("mem_dim_reduce", list(memory))

    def run(name: str, kind: str, x: Tensor) -> Tensor:
        mid[f"mid/{name}.query"], mid[f"mid/{name}.others"] = pooled(x), pooled(sets[kind])
        y = sets[kind][:, :, None]
        out = run_block(params, prefix + name, x[:, None], y, ia["LAYER_NORM"])[0][:, 0]
        mid[f"mid/{name}"] = pooled(out)
        return out

    if ia["STRUCTURE"] == "parallel":
        width = len(ia["I_BLOCK_LIST"][0])
        branches = [query] * width
        for i, (name, kind, _) in enumerate(blocks):
            branches[i % width] = run(name, kind, branches[i % width])
            if kind == "P" and i < len(blocks) - width:
                sets["P"] = person_set(branches[i % width])
        return sum(branches)
    outputs: list[Tensor] = []
    for i, (name, kind, _) in enumerate(blocks):
        if ia["STRUCTURE"] == "dense" and i >= 2:
            weights = params[f"{prefix}dense_params.{i}"].flatten(1).softmax(dim=0)
            query = sum(weight * out for weight, out in zip(weights, outputs))
        elif outputs:
            query = outputs[-1]
        if outputs and kind == "P":
            sets["P"] = person_set(query)
        outputs.append(run(name, kind, query))
    return outputs[-1]


def structure(w: Writer, name: str, ia: dict, counts: list[int], objects: list[int]) -> None:
    params = new_structure(w, ia)
    channels, size = ia["DIM_IN"], (150, 110)
    slots = (sum(ia["LENGTH"]) + 1) * ia["MAX_PER_SEC"]
    inputs: Arrays = {
        "person": pooled(w.normal(sum(counts), channels)),
        "object": pooled(w.normal(sum(objects), channels)),
        "memory": pooled(w.normal(len(counts), slots, channels)),
    }
    inputs["memory"][:, -1] = 0  # an empty place
    with_grad(inputs)
    with_grad(params)
    mid: Arrays = {}
    flat = {key: x[..., 0, 0, 0] for key, x in inputs.items()}
    result = run_structure(
        params,
        ia,
        list(flat["person"].split(counts)),
        list(flat["object"].split(objects)),
        flat["memory"],
        mid,
    )
    projection = w.normal(*result.shape)
    arrays = {f"in/{key}": x for key, x in inputs.items()}
    arrays |= {"in/person_boxes": w.boxes(sum(counts), *size), "in/persons_per_clip": counts}
    arrays |= {"in/object_boxes": w.boxes(sum(objects), *size), "in/objects_per_clip": objects}
    arrays |= {"in/grad_projection": pooled(projection), "out/out": pooled(result), **mid}
    arrays |= gradients((result * projection).sum(), inputs, params)
    config = {"ia_structure": ia, "mode": "eval", "image_size_wh": list(size)}
    w.save(name, config, arrays, params)


# ------------------------------------------------------------------------------------------ memory


def new_pool(w: Writer, channels: int, size: tuple[int, int], most: int) -> Arrays:
    """Entries of two films with gaps, in no order."""
    places = [("one", t) for t in (4, 6, 7, 8, 9, 12, 13)] + [("two", t) for t in (30, 31, 33, 35)]
    places = [places[i] for i in torch.randperm(len(places), generator=w.random)]
    counts = [1 + i % most for i in range(len(places))]
    return {
        "in/pool_movie_ids": np.array([movie for movie, _ in places]),
        "in/pool_timestamps": np.array([second for _, second in places]),
        "in/pool_counts": np.array(counts),
        "in/pool_features": pooled(w.normal(sum(counts), channels))[..., 0, 0, 0],
        "in/pool_boxes": w.boxes(sum(counts), *size),
        "in/pool_loss_tags": 0.5 + 3 * w.uniform(len(places)),
    }


def read_memory(
    pool: Arrays,
    queries: list[tuple[str, int]],
    current: list[tuple[Tensor, Tensor]],
    length: list[int],
    rate: int,
    most: int,
    loss: float | None,
) -> tuple[Tensor, Tensor]:
    """Windows (clips, slots * most, C) and their boxes; `loss`: None for no weighting."""
    counts = pool["in/pool_counts"].tolist()
    starts = np.cumsum([0, *counts])
    places = zip(pool["in/pool_movie_ids"].tolist(), pool["in/pool_timestamps"].tolist())
    entry = {place: i for i, place in enumerate(places)}
    channels = current[0][0].shape[1]
    windows, boxes = [], []
    for (movie, second), (features, where) in zip(queries, current):
        for offset in range(-length[0], length[1] + 1):
            rows = torch.zeros(most, channels)
            at = torch.zeros(most, 4)
            number = entry.get((movie, second + offset * rate))
            if offset == 0:
                rows[: len(features)], at[: len(where)] = features.detach(), where
            elif number is not None:
                part = slice(starts[number], starts[number + 1])
                rows[: counts[number]] = pool["in/pool_features"][part]
                at[: counts[number]] = pool["in/pool_boxes"][part]
                if loss is not None:
                    tag = float(pool["in/pool_loss_tags"][number])
                    rows *= min(tag / loss, loss / tag) if loss else 0.0
            windows.append(rows)
            boxes.append(at)
    shape = (len(queries), -1)
    return torch.stack(windows).view(*shape, channels), torch.stack(boxes).view(*shape, 4)


def memory_read(
    w: Writer, name: str, length: list[int], rate: int, most: int, training: bool, penalty: bool
) -> None:
    channels, size, loss = 10, (200, 140), 1.3
    pool = new_pool(w, channels, size, most)
    queries, counts = [("one", 8), ("two", 32), ("new", 3)], [2, 0, 1]
    features, boxes = w.normal(sum(counts), channels), w.boxes(sum(counts), *size)
    current = list(zip(features.split(counts), boxes.split(counts)))
    weighting = loss if training and penalty else None
    memory, at = read_memory(pool, queries, current, length, rate, most, weighting)
    arrays = {**pool, "out/memory": pooled(memory), "out/memory_boxes": at}
    arrays["in/pool_features"] = pooled(pool["in/pool_features"])
    arrays |= {"in/cur_features": pooled(features), "in/cur_boxes": boxes, "in/cur_counts": counts}
    arrays |= {"in/query_movie_ids": [movie for movie, _ in queries]}
    arrays |= {"in/query_timestamps": [second for _, second in queries]}
    config = {"length_before_after": length, "memory_rate": rate, "max_per_sec": most}
    config |= {"feature_dim": channels, "training": training, "use_penalty": penalty}
    config |= {"cur_loss": loss if training else None, "image_size_wh": list(size)}
    w.save(name, config, arrays)


# ------------------------------------------------------------------------------------------ losses


def new_labels(w: Writer, persons: int, sizes: tuple[int, int, int]) -> Tensor:
    """A pose for everybody, any of the others."""
    labels = (w.uniform(persons, sum(sizes)) < 0.3).to(torch.uint8)
    labels[:, : sizes[0]] = 0
    pose = (w.uniform(persons) * sizes[0]).long()
    labels[torch.arange(persons), pose] = 1
    return labels


def group_losses(
    logits: Tensor, labels: Tensor, sizes: tuple[int, int, int], gamma: float, alpha: float,
    persons: float, mid: Arrays,
) -> list[Tensor]:  # fmt: skip
    """Unweighted losses of pose, objects and persons."""
    pose = logits[:, : sizes[0]].softmax(dim=1)
    label = labels[:, : sizes[0]].long().argmax(dim=1)
    p = pose.gather(1, label[:, None])[:, 0]
    z = torch.ones_like(p) if alpha < 0 else torch.where(label == 0, 1 - alpha, alpha)
    per_box = -((1 - p) ** gamma) * p.clamp(min=TINY).log() * z
    mid["mid/pose_loss_per_box"] = per_box
    rest, y = logits[:, sizes[0] :], labels[:, sizes[0] :].float()
    p = rest.sigmoid()
    zp, zn = (1.0, 1.0) if alpha < 0 else (alpha, 1 - alpha)
    positive = -((1 - p) ** gamma) * p.clamp(min=TINY).log() * zp
    negative = -(p**gamma) * (-F.softplus(rest)) * zn
    terms = torch.where(y > 0, positive, negative)
    mid["mid/interaction_loss_elementwise"] = terms
    things, people = terms.split(list(sizes[1:]), dim=1)
    return [per_box.sum() / persons, *(x.mean(dim=1).sum() / persons for x in (things, people))]


def accuracies(
    logits: Tensor, labels: Tensor, sizes: tuple[int, int, int], persons: float
) -> list[Tensor]:
    pose = logits[:, : sizes[0]].argmax(dim=1) == labels[:, : sizes[0]].long().argmax(dim=1)
    found = [pose.sum() / persons]
    start = sizes[0]
    for size in sizes[1:]:
        guess = logits[:, start : start + size].sigmoid() > 0.5
        truth = labels[:, start : start + size] > 0
        total = 0.0
        for a, b in zip(guess, truth):
            either = int((a | b).sum())
            total += int((a & b).sum()) / either if either else 1.0
        found.append(torch.tensor(total / persons))
        start += size
    return found


LOSSES = ("pose_action", "object_interaction", "person_interaction")
WEIGHTS = dict(zip((f"loss_{name}" for name in LOSSES), (1.2, 49.0, 17.0)))


def loss_arrays(
    logits: Tensor, labels: Tensor, sizes: tuple[int, int, int], gamma: float, alpha: float,
    persons: float, weights: dict[str, float],
) -> tuple[Tensor, Arrays, Arrays]:  # fmt: skip
    """The total loss, results and values on the way."""
    mid: Arrays = {}
    losses = group_losses(logits, labels, sizes, gamma, alpha, persons, mid)
    total = sum(weight * loss for weight, loss in zip(weights.values(), losses))
    found = dict(zip((f"out/loss_{name}" for name in LOSSES), losses))
    counts = accuracies(logits, labels, sizes, persons)
    found |= dict(zip((f"out/accuracy_{name}" for name in LOSSES), counts))
    return total, {**found, "out/total_loss": total}, mid


def losses(
    w: Writer, name: str, sizes: tuple[int, int, int], gamma: float, alpha: float, average: float
) -> None:
    labels = new_labels(w, 6, sizes)
    logits = w.normal(6, sum(sizes), scale=2.0).requires_grad_()
    weights = dict(zip(WEIGHTS, (1.5, 20.0, 3.0)))
    total, found, mid = loss_arrays(logits, labels, sizes, gamma, alpha, average, weights)
    arrays = {"in/logits": logits, "in/labels": labels, **found, **mid}
    arrays |= gradients(total, {"logits": logits}, {})
    config = dict(zip(("num_pose", "num_object", "num_person"), sizes))
    config |= {"gamma": gamma, "alpha": alpha, "avg_box_num": average, "loss_weights": weights}
    w.save(name, config, arrays)


def scores_of(logits: Tensor, num_pose: int) -> Tensor:
    return torch.cat([logits[:, :num_pose].softmax(dim=1), logits[:, num_pose:].sigmoid()], dim=1)


def scores(w: Writer, name: str) -> None:
    logits, boxes = w.normal(7, 5 + 11, scale=3.0), w.boxes(7, 90, 70)
    arrays = {"in/logits": logits, "in/boxes": boxes, "in/counts": [0, 4, 1, 2]}
    arrays |= {"out/scores": scores_of(logits, 5), "out/boxes": boxes}
    w.save(name, {"num_pose": 5, "num_other": 11, "image_size_wh": [90, 70]}, arrays)


# ------------------------------------------------------------------------------------------- heads

SIZE = (140, 100)
STRIDE = 16
HEAD_SIZES = (6, 9, 4)


def head_config(ia: dict, grid: int, dim: int, mode: str) -> dict:
    head = {"POOLER_RESOLUTION": grid, "POOLER_SCALE": 1 / STRIDE, "POOLER_SAMPLING_RATIO": 0}
    head |= {"MEAN_BEFORE_POOLER": True, "MLP_HEAD_DIM": dim, "DROPOUT_RATE": 0.0}
    head |= {"NUM_CLASSES": sum(HEAD_SIZES), "PROPOSAL_PER_CLIP": 10}
    kinds = ("PERSON_MOVEMENT", "OBJECT_MANIPULATION", "PERSON_INTERACTION")
    head |= {f"NUM_{kind}_CLASSES": size for kind, size in zip(kinds, HEAD_SIZES)}
    names = ("POSE", "OBJECT", "PERSON")
    head |= {f"{name}_LOSS_WEIGHT": x for name, x in zip(names, WEIGHTS.values())}
    head["FOCAL_LOSS"] = {"GAMMA": 2.0, "ALPHA": -1.0}
    return {
        **{"ia_structure": ia, "roi_action_head": head, "slow_channels": 10, "fast_channels": 6},
        **{"image_size_wh": list(SIZE), "test_extend_scale": [0.2, 0.1], "mode": mode},
        **{"loss_weights": WEIGHTS},
    }


IA = "feature_extractor.ia_structure."


def new_head(w: Writer, config: dict) -> Arrays:
    ia, dim = config["ia_structure"], config["roi_action_head"]["MLP_HEAD_DIM"]
    params = new_structure(w, ia, IA) if ia["ACTIVE"] else {}
    channels = config["slow_channels"] + config["fast_channels"]
    fused = channels + (ia["DIM_OUT"] if ia["ACTIVE"] and ia["FUSION"] == "concat" else 0)
    w.layer(params, "feature_extractor.fc1", dim, fused)
    w.layer(params, "feature_extractor.fc2", dim, dim)
    w.layer(params, "predictor.cls_score", sum(HEAD_SIZES), dim)
    return params


def pool_boxes(maps: list[Tensor], boxes: Tensor, counts: list[int], grid: int) -> Tensor:
    """(R, C, grid, grid) of the time averages of both pathways."""
    rows = list(boxes.split(counts))
    return torch.cat(
        [roi_align(x.mean(dim=2), rows, grid, 1 / STRIDE, 0, aligned=False) for x in maps], dim=1
    )


def classify(
    params: Arrays, ia: dict, persons: list[Tensor], objects: list[Tensor], memory: Tensor
) -> tuple[Tensor, Arrays]:
    x, mid = torch.cat(persons), {}
    if ia["ACTIVE"]:
        features = run_structure(params, ia, persons, objects, memory, prefix=IA)
        mid = {"mid/memory": pooled(memory), "mid/ia_feature": pooled(features)}
        x = torch.cat([x, features], dim=1) if ia["FUSION"] == "concat" else x + features
    x = linear(params, "feature_extractor.fc1", x).relu()
    x = linear(params, "feature_extractor.fc2", x)
    mid["mid/fc2_before_relu"] = x
    return linear(params, "predictor.cls_score", x.relu()), mid


def head_training(w: Writer, name: str, ia: dict, grid: int) -> None:
    config = head_config(ia, grid, 12, "train") | {"cur_loss": 2.2}
    params = new_head(w, config)
    inputs: Arrays = {"slow": w.normal(3, 10, 2, 7, 9), "fast": w.normal(3, 6, 4, 7, 9)}
    with_grad(inputs)
    with_grad(params)
    counts, object_counts = [2, 1, 3], [0, 3, 1]
    proposals, things = w.boxes(6, *SIZE), w.boxes(4, *SIZE)
    maps = list(inputs.values())
    persons = pool_boxes(maps, proposals, counts, grid).amax(dim=(2, 3))
    objects = pool_boxes(maps, things, object_counts, grid).amax(dim=(2, 3))
    pool = new_pool(w, 16, SIZE, ia["MAX_PER_SEC"])
    queries = [("two", 32), ("one", 8), ("one", 30)]
    loss = config["cur_loss"] if ia["PENALTY"] else None
    current = list(zip(persons.split(counts), proposals.split(counts)))
    window = (ia["LENGTH"], ia["MEMORY_RATE"], ia["MAX_PER_SEC"])
    memory, _ = read_memory(pool, queries, current, *window, loss)
    clips = [list(x.split(n)) for x, n in ((persons, counts), (objects, object_counts))]
    logits, mid = classify(params, ia, *clips, memory)
    labels = new_labels(w, 6, HEAD_SIZES)
    total, found, _ = loss_arrays(logits, labels, HEAD_SIZES, 2.0, -1.0, 6.0, WEIGHTS)
    arrays = {**{f"in/{key}": x for key, x in inputs.items()}, **pool, **found, **mid}
    arrays["in/pool_features"] = pooled(pool["in/pool_features"])
    arrays |= {"in/gt_boxes": w.boxes(6, *SIZE), "in/proposals": proposals, "in/labels": labels}
    arrays |= {"in/persons_per_clip": counts, "in/object_boxes": things}
    arrays |= {"in/objects_per_clip": object_counts, "out/logits": logits}
    arrays |= {"in/query_movie_ids": [movie for movie, _ in queries]}
    arrays |= {"in/query_timestamps": [second for _, second in queries]}
    arrays |= {"out/person_pooled": pooled(persons), "out/object_pooled": pooled(objects)}
    arrays |= {"out/person_pooled_boxes": proposals, **gradients(total, inputs, params)}
    if not ia["ACTIVE"]:  # objects are not pooled, and nothing is read
        arrays = {key: x for key, x in arrays.items() if "pool_" not in key and "query_" not in key}
        del arrays["out/object_pooled"]
    w.save(name, config, arrays, params)


def extended(boxes: Tensor, scale: list[float], width: int, height: int) -> Tensor:
    sx, sy = scale * 2 if len(scale) == 1 else scale
    size = boxes[:, 2:] - boxes[:, :2] + 1
    half = size * torch.tensor([sx, sy]) / 2
    grown = torch.cat([boxes[:, :2] - half, boxes[:, 2:] + half], dim=1)
    limit = torch.tensor([width - 1.0, height - 1.0] * 2)
    return torch.minimum(grown.clamp(min=0), limit)


def head_testing(w: Writer, name: str, ia: dict, grid: int) -> None:
    config = head_config(ia, grid, 8, "eval")
    params = new_head(w, config)
    maps = [w.normal(3, 10, 2, 7, 9), w.normal(3, 6, 4, 7, 9)]
    counts, object_counts = [1, 3, 2], [2, 0, 2]
    boxes, things = w.boxes(6, *SIZE), w.boxes(4, *SIZE)
    grown = extended(boxes, config["test_extend_scale"], *SIZE)
    rois = pool_boxes(maps, grown, counts, grid)
    persons = rois.amax(dim=(2, 3))
    objects = pool_boxes(maps, things, object_counts, grid).amax(dim=(2, 3))
    places = [("a", 10), ("a", 11), ("b", 11)]
    pool = {
        "in/pool_movie_ids": np.array([movie for movie, _ in places]),
        "in/pool_timestamps": np.array([second for _, second in places]),
        "in/pool_counts": np.array(counts),
        "in/pool_features": persons,
        "in/pool_boxes": boxes,
    }
    current = list(zip(persons.split(counts), boxes.split(counts)))
    window = (ia["LENGTH"], ia["MEMORY_RATE"], ia["MAX_PER_SEC"])
    memory, _ = read_memory(pool, places, current, *window, None)
    clips = [list(x.split(n)) for x, n in ((persons, counts), (objects, object_counts))]
    logits, mid = classify(params, ia, *clips, memory)
    arrays = {"in/slow": maps[0], "in/fast": maps[1], "in/boxes": boxes, "in/object_boxes": things}
    arrays |= {"in/persons_per_clip": counts, "in/objects_per_clip": object_counts}
    arrays |= {"in/movie_ids": [movie for movie, _ in places]}
    arrays |= {"in/timestamps": [second for _, second in places], **mid}
    arrays |= {"out/logits": logits, "out/scores": scores_of(logits, HEAD_SIZES[0])}
    arrays |= {"out/boxes": boxes, "mid/extended_boxes": grown}
    arrays |= {"mid/person_roi_before_max": rois[:, :, None], "out/stage1_person_boxes": boxes}
    arrays |= {"out/stage1_person_pooled": pooled(persons)}
    arrays |= {"out/stage1_object_pooled": pooled(objects)}
    w.save(name, config, arrays, params)


def pooling(w: Writer, name: str, grid: int, ratio: int, stride: int) -> None:
    features = w.normal(2, 3, 4, 6, 8).requires_grad_()
    boxes = w.boxes(5, 8 * stride, 6 * stride)
    rows = list(boxes.split([2, 3]))
    frames = [
        roi_align(features[:, :, t], rows, grid, 1 / stride, ratio, aligned=False)
        for t in range(features.shape[2])
    ]
    result = torch.stack(frames, dim=2)
    projection = w.normal(*result.shape)
    arrays = {"in/features": features, "in/boxes": boxes, "in/counts": [2, 3]}
    arrays |= {"in/grad_projection": projection, "out/pooled": result}
    arrays |= gradients((result * projection).sum(), {"features": features}, {})
    config = {"resolution": grid, "spatial_scale": 1 / stride, "sampling_ratio": ratio}
    w.save(name, config | {"image_size_wh": [8 * stride, 6 * stride]}, arrays)


# ------------------------------------------------------------------------------------------- boxes


def box_extension(w: Writer, name: str) -> None:
    size, boxes = (97, 61), w.boxes(4, 97, 61)
    scales = {"wide": [0.6, 0.05], "both": [0.3], "none": [0, 0]}
    arrays = {"in/boxes": boxes}
    arrays |= {f"out/{key}": extended(boxes, scale, *size) for key, scale in scales.items()}
    w.save(name, {"image_size_wh": list(size), "scales": scales}, arrays)


def box_jitter(w: Writer, name: str) -> None:
    (width, height), boxes, draws = (97, 61), w.boxes(4, 97, 61), w.uniform(3, 4, 4)
    out_x, in_x, out_y, in_y = 0.3, 0.05, 0.25, 0.15
    size = boxes[:, 2:] - boxes[:, :2] + 1
    cases = []
    for u in draws:
        w_, h = size.T
        xmin = boxes[:, 0] + w_ * (u[0] * (in_x + out_x) - out_x)
        ymin = boxes[:, 1] + h * (u[1] * (in_y + out_y) - out_y)
        xmax = boxes[:, 2] + w_ * (u[2] * (out_x + in_x) - in_x)
        ymax = boxes[:, 3] + h * (u[3] * (out_y + in_y) - in_y)
        xmin, ymin = xmin.clamp(0, width - 2), ymin.clamp(0, height - 2)
        xmax = torch.maximum(xmax.clamp(max=width - 1), xmin + 1)
        ymax = torch.maximum(ymax.clamp(max=height - 1), ymin + 1)
        cases.append(torch.stack([xmin, ymin, xmax, ymax], dim=1))
    config = {"image_size_wh": [width, height], "outward_x": out_x, "inward_x": in_x}
    config |= {"outward_y": out_y, "inward_y": in_y}
    arrays = {"in/boxes": boxes, "in/uniform_draws": draws, "out/boxes": torch.stack(cases)}
    w.save(name, config, arrays)


def box_operations(w: Writer, name: str) -> None:
    width, height = 97, 61
    boxes, scores_ = w.boxes(6, width, height), w.uniform(6)
    sized = torch.tensor(
        [[3.0, 4, 20, 30], [80, 50, 30, 30], [-9, 5, 8, 9], [10, 10, 1, 7], [0, 0, 97, 61]]
    )
    corners = torch.cat([sized[:, :2], sized[:, :2] + (sized[:, 2:] - 1).clamp(min=0)], dim=1)
    limit = torch.tensor([width - 1.0, height - 1.0] * 2)
    inside = torch.minimum(corners.clamp(min=0), limit)
    kept = inside[(inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])]
    flipped = boxes[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    flipped = flipped + torch.tensor([width - 1.0, 0, width - 1.0, 0])
    arrays = {"in/xywh": sized, "in/boxes": boxes, "in/scores": scores_}
    arrays |= {"out/xywh_to_xyxy": corners, "out/clipped_and_emptied": kept}
    arrays["out/flipped_horizontally"] = flipped
    for new_width, new_height in ((150, 90), (60, 40)):
        factor = torch.tensor([new_width / width, new_height / height] * 2)
        arrays[f"out/resized_{new_width}x{new_height}"] = boxes * factor
    for number in (2, 5, 8):
        best = scores_.argsort()[-number:]
        arrays |= {f"out/top{number}_boxes": boxes[best], f"out/top{number}_scores": scores_[best]}
    w.save(name, {"image_size_wh": [width, height]}, arrays)


# ---------------------------------------------------------------------------------- training trace


def training_trace(w: Writer, name: str, ia: dict, grid: int) -> None:
    """Steps of the head with its memory, the optimiser by hand."""
    solver = {"MAX_ITER": 5, "BASE_LR": 0.003, "BIAS_LR_FACTOR": 1.5, "IA_LR_FACTOR": 3.0}
    solver |= {"MOMENTUM": 0.8, "WEIGHT_DECAY": 0.02, "WEIGHT_DECAY_BIAS": 0.0, "GAMMA": 0.2}
    solver |= {"STEPS": [3], "WARMUP_ON": True, "WARMUP_FACTOR": 0.5, "WARMUP_ITERS": 2}
    solver |= {"WARMUP_METHOD": "linear", "SCHEDULER": "warmup_multi_step"}
    config = head_config(ia, grid, 9, "train") | {"solver": solver, "iterations": 5}
    params = new_head(w, config)
    start = {key: x.clone() for key, x in params.items()}
    with_grad(params)
    places = [("x", 1), ("x", 2), ("x", 3), ("y", 2)]
    clips, arrays = {}, {}
    for i, (movie, second) in enumerate(places):
        persons, things = 1 + i % 3, i % 2
        clip = {"slow": w.normal(10, 2, 7, 9), "fast": w.normal(6, 4, 7, 9)}
        clip |= {"boxes": w.boxes(persons, *SIZE), "objects": w.boxes(things, *SIZE)}
        clip["labels"] = new_labels(w, persons, HEAD_SIZES)
        clips[movie, second] = clip
        arrays |= {f"in/clip/{movie}/{second}/{key}": x for key, x in clip.items()}
    order = [[places[i], places[j]] for i, j in ((0, 1), (2, 3), (1, 2), (0, 3), (2, 1))]
    arrays["in/order_movie_ids"] = [[movie for movie, _ in row] for row in order]
    arrays["in/order_timestamps"] = [[second for _, second in row] for row in order]
    stored: dict[tuple[str, int], tuple[Tensor, Tensor, float]] = {}
    momentum = {key: torch.zeros_like(x) for key, x in params.items()}
    log: dict[str, list] = {key: [] for key in ("cur_loss", "total", "pose", "object", "person")}
    rates: dict[str, list] = {"head_weight": [], "head_bias": [], "ia_weight": [], "ia_bias": []}
    loss = 0.0
    for step, row in enumerate(order):
        batch = [clips[place] for place in row]
        counts = [len(clip["boxes"]) for clip in batch]
        object_counts = [len(clip["objects"]) for clip in batch]
        maps = [torch.stack([clip[key] for clip in batch]) for key in ("slow", "fast")]
        boxes = torch.cat([clip["boxes"] for clip in batch])
        things = torch.cat([clip["objects"] for clip in batch])
        persons = pool_boxes(maps, boxes, counts, grid).amax(dim=(2, 3))
        objects = pool_boxes(maps, things, object_counts, grid).amax(dim=(2, 3))
        pool = {
            "in/pool_movie_ids": np.array([movie for movie, _ in stored], dtype=str),
            "in/pool_timestamps": np.array([second for _, second in stored], dtype=np.int64),
            "in/pool_counts": np.array([len(x) for x, _, _ in stored.values()], dtype=np.int64),
            "in/pool_features": torch.cat([x for x, _, _ in stored.values()] or [persons[:0]]),
            "in/pool_boxes": torch.cat([x for _, x, _ in stored.values()] or [boxes[:0]]),
            "in/pool_loss_tags": torch.tensor([x for _, _, x in stored.values()]),
        }
        current = list(zip(persons.split(counts), boxes.split(counts)))
        window = (ia["LENGTH"], ia["MEMORY_RATE"], ia["MAX_PER_SEC"])
        memory, _ = read_memory(pool, row, current, *window, loss)
        sets = [list(x.split(n)) for x, n in ((persons, counts), (objects, object_counts))]
        logits, _ = classify(params, ia, *sets, memory)
        labels = torch.cat([clip["labels"] for clip in batch])
        average = float(sum(counts))
        total, found, _ = loss_arrays(logits, labels, HEAD_SIZES, 2.0, -1.0, average, WEIGHTS)
        arrays[f"out/memory_iter{step}"] = pooled(memory)
        log["cur_loss"].append(loss)
        log["total"].append(total.item())
        for key, value in zip(("pose", "object", "person"), LOSSES):
            log[key].append(found[f"out/loss_{value}"].item())
        factor = solver["GAMMA"] ** sum(step >= x for x in solver["STEPS"])
        if step < solver["WARMUP_ITERS"]:
            share = step / solver["WARMUP_ITERS"]
            factor *= solver["WARMUP_FACTOR"] * (1 - share) + share
        for value in params.values():
            value.grad = None
        total.backward()
        for kind, values in rates.items():
            part, _, entry = kind.rpartition("_")
            rate = solver["BASE_LR"] * factor * (solver["IA_LR_FACTOR"] if part == "ia" else 1)
            values.append(rate * (solver["BIAS_LR_FACTOR"] if entry == "bias" else 1))
        with torch.no_grad():
            for key, value in params.items():
                if value.grad is None:  # no effect: an optimiser passes it over
                    continue
                is_bias = "bias" in key
                rate = rates[f"{'ia' if IA in key else 'head'}_{'bias' if is_bias else 'weight'}"][
                    -1
                ]
                momentum[key] = solver["MOMENTUM"] * momentum[key] + value.grad
                momentum[key] += 0 if is_bias else solver["WEIGHT_DECAY"] * value
                value -= rate * momentum[key]
        loss = total.item()
        for place, (features, where) in zip(row, current):
            stored[place] = (features.detach().clone(), where, loss)
    arrays |= {f"out/{key}": np.array(values, np.float32) for key, values in log.items()}
    arrays |= {f"out/lr_{key}": np.array(values, np.float32) for key, values in rates.items()}
    finals = sorted(stored.items())
    arrays["out/final_pool_movie_ids"] = [movie for (movie, _), _ in finals]
    arrays["out/final_pool_timestamps"] = [second for (_, second), _ in finals]
    arrays["out/final_pool_counts"] = [len(x) for _, (x, _, _) in finals]
    arrays["out/final_pool_features"] = torch.cat([x for _, (x, _, _) in finals])
    arrays["out/final_pool_boxes"] = torch.cat([x for _, (_, x, _) in finals])
    tags = np.array([x for _, (_, _, x) in finals], np.float32)
    arrays["out/final_pool_loss_tags"] = tags
    arrays |= {f"out/final_param/{key}": x for key, x in params.items()}
    w.save(name, config, arrays, start)


# ------------------------------------------------------------------------------------ everything


def write_folder(folder: Path, seed: int = 0) -> list[str]:
    """Cases of every kind that can be computed here; returns their names."""
    w = Writer(folder, seed)
    block(w, "block_equal_widths", (12, 12, 12, 12), persons=3, others=5)
    block(w, "block_widths_differ", (10, 7, 9, 11), layer_norm=False)
    block(w, "block_positions", (8, 8, 8, 20), others=12, slots=4)
    block(w, "block_places", (6, 9, 5, 6), persons=2, others=3, places=(3, 2))
    pom = ["P", "O", "M"]
    serial = ia_config("serial", [*pom, "M", "P"], 14, 10)
    structure(w, "serial", serial, [2, 1, 3], [0, 3, 1])
    no_norm = {"LAYER_NORM": False, "TEMPORAL_POSITION": False, "DIM_OUT": 7}
    structure(w, "serial_plain", ia_config("serial", ["O", "M"], 9, 6, **no_norm), [1, 2], [2, 4])
    dense = ia_config("dense", ["P", "M", "O", "P", "O"], 11, 8, LENGTH=[1, 3], MAX_PER_SEC=2)
    structure(w, "dense", dense, [4, 0, 1], [1, 2, 0])
    parallel = ia_config("parallel", [["M", "P", "O"], ["M", "P", "O"], ["M", "P", "O"]], 13, 6)
    structure(w, "parallel", parallel, [1, 2], [1, 1])
    structure(w, "parallel_one", ia_config("parallel", [["O", "P"]], 9, 5), [3, 1], [0, 2])
    memory_read(w, "memory_training", [2, 3], 1, 3, training=True, penalty=True)
    memory_read(w, "memory_rate", [1, 2], 2, 2, training=True, penalty=True)
    memory_read(w, "memory_testing", [4, 0], 1, 4, training=False, penalty=True)
    memory_read(w, "memory_unweighted", [2, 2], 1, 2, training=True, penalty=False)
    losses(w, "losses", (5, 8, 3), 2.0, -1.0, 6.0)
    losses(w, "losses_balanced", (3, 4, 2), 1.5, 0.3, 4.5)
    losses(w, "losses_plain", (14, 49, 17), 0.0, -1.0, 9.0)
    scores(w, "scores")
    head = {"channels": 16, "inner": 7}
    head_training(w, "head_training", ia_config("serial", pom, **head), 5)
    head_training(
        w, "head_training_dense", ia_config("dense", [*pom, "O"], **head, PENALTY=False), 3
    )
    parallel = ia_config("parallel", [pom, pom], **head, FUSION="concat", DIM_OUT=6)
    head_training(w, "head_training_concat", parallel, 4)
    head_training(w, "head_memory_first", ia_config("serial", ["M", "O", "P"], **head), 2)
    head_training(w, "head_alone", ia_config("serial", pom, **head, ACTIVE=False), 3)
    head_testing(w, "head_testing", ia_config("dense", [*pom, "M"], **head), 5)
    head_testing(w, "head_testing_concat", parallel, 2)
    pooling(w, "pooling", 5, 0, 16)
    pooling(w, "pooling_sampled", 4, 3, 8)
    box_extension(w, "box_extension")
    box_jitter(w, "box_jitter")
    box_operations(w, "box_operations")
    training_trace(w, "trace", ia_config("serial", pom, **head, LENGTH=[1, 1]), 3)
    dense = ia_config("dense", ["M", "O", "P"], **head, LENGTH=[2, 1], MEMORY_RATE=1)
    training_trace(w, "trace_dense", dense, 4)
    return sorted(path.stem for path in folder.glob("*.json"))
