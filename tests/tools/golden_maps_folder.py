"""The other half of :mod:`golden_folder`: backbones, frames and tables, again from the formulas."""

from __future__ import annotations

import hashlib
import json
import zlib

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from golden_folder import Arrays, Writer
from torch import Tensor

MEAN, STD = np.array([122.7717, 115.9465, 102.9801]), np.array([57.375] * 3)

# ---------------------------------------------------------------------------------------- backbone


def parameter_shapes(stem: int, beta: int, depth: tuple[int, ...]) -> dict[str, list[int]]:
    """Names and shapes of a SlowFast as released; `depth`: blocks of each stage."""
    shapes: dict[str, list[int]] = {}

    def norm(name: str, channels: int) -> None:
        for entry in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{entry}"] = [channels]

    for path, width in (("slow", stem), ("fast", stem // beta)):
        shapes[f"{path}.conv1.weight"] = [width, 3, 5 if path == "fast" else 1, 7, 7]
        norm(f"{path}.bn1", width)
        before = width
        for stage, blocks in enumerate(depth):
            inner, out = width * 2**stage, 4 * width * 2**stage
            if path == "slow":  # what comes from the fast pathway
                before += 2 * (stem // beta) * (1 if stage == 0 else 4 * 2 ** (stage - 1))
            time = 3 if path == "fast" or stage > 1 else 1
            for j in range(blocks):
                name = f"{path}.res_nl{stage + 1}.res_{j}"
                kernels = ((inner, before, time, 1, 1), (inner, inner, 1, 3, 3))
                for i, kernel in enumerate((*kernels, (out, inner, 1, 1, 1)), 1):
                    shapes[f"{name}.btnk.conv{i}.conv.weight"] = list(kernel)
                    norm(f"{name}.btnk.conv{i}.bn", kernel[0])
                if j == 0:
                    shapes[f"{name}.shortcut.conv.weight"] = [out, before, 1, 1, 1]
                    norm(f"{name}.shortcut.bn", out)
                before = out
        if path == "fast":
            for k in range(4):
                channels = width if k == 0 else 4 * width * 2 ** (k - 1)
                shapes[f"fast.Tconv{k + 1}.conv.weight"] = [2 * channels, channels, 5, 1, 1]
                shapes[f"fast.Tconv{k + 1}.conv.bias"] = [2 * channels]
    return shapes


def parameters_by_name(shapes: dict[str, list[int]]) -> dict[str, np.ndarray]:
    values = {}
    for name, shape in shapes.items():
        random = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
        if name.endswith("weight") and len(shape) >= 2:
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("weight"):
            value = random.uniform(*((0.3, 0.7) if ".conv3." in name else (0.7, 1.3)), shape)
        elif name.endswith("running_var"):
            value = random.uniform(0.7, 1.3, shape)
        else:
            value = 0.1 * random.standard_normal(shape)
        values[name] = value.astype(np.float32)
    return values


class Network:
    """The released network, function by function."""

    def __init__(self, values: dict[str, np.ndarray], depth: tuple[int, ...], alpha: int) -> None:
        self.p = {name: torch.from_numpy(x) for name, x in values.items()}
        self.depth, self.alpha = depth, alpha

    def norm(self, name: str, x: Tensor) -> Tensor:
        w, b, m, v = (
            self.p[f"{name}.{entry}"].view(-1, 1, 1, 1)
            for entry in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - m) / (v + 1e-5).sqrt() * w + b

    def conv_norm(self, name: str, x: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.p[f"{name}.conv.weight"]
        time, side = weight.shape[2] // 2, weight.shape[3] // 2 * dilation
        steps = {"stride": (1, stride, stride), "dilation": (1, dilation, dilation)}
        return self.norm(f"{name}.bn", F.conv3d(x, weight, padding=(time, side, side), **steps))

    def stem(self, path: str, x: Tensor) -> Tensor:
        weight = self.p[f"{path}.conv1.weight"]
        padding = (weight.shape[2] // 2, 3, 3)
        x = F.conv3d(x, weight, stride=(1, 2, 2), padding=padding)
        return F.max_pool3d(self.norm(f"{path}.bn1", x).relu(), (1, 3, 3), (1, 2, 2))

    def stage(self, path: str, stage: int, x: Tensor) -> Tensor:
        for j in range(self.depth[stage]):
            name = f"{path}.res_nl{stage + 1}.res_{j}"
            stride = 2 if j == 0 and stage in (1, 2) else 1
            y = self.conv_norm(f"{name}.btnk.conv1", x).relu()
            y = self.conv_norm(f"{name}.btnk.conv2", y, stride, 2 if stage == 3 else 1).relu()
            y = self.conv_norm(f"{name}.btnk.conv3", y)
            x = (self.conv_norm(f"{name}.shortcut", x, stride) if j == 0 else x) + y
            x = x.relu()
        return x

    def __call__(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor, Arrays]:
        mid: Arrays = {}
        slow, fast = self.stem("slow", slow), self.stem("fast", fast)
        mid["mid/slow.stem"], mid["mid/fast.stem"] = slow, fast
        for stage in range(4):
            lateral = F.conv3d(
                fast,
                self.p[f"fast.Tconv{stage + 1}.conv.weight"],
                self.p[f"fast.Tconv{stage + 1}.conv.bias"],
                stride=(self.alpha, 1, 1),
                padding=(2, 0, 0),
            )
            mid[f"mid/lateral{stage + 1}"] = lateral
            slow = self.stage("slow", stage, torch.cat([slow, lateral], dim=1))
            fast = self.stage("fast", stage, fast)
            if stage < 3:
                mid[f"mid/slow.res{stage + 2}"] = slow
                mid[f"mid/fast.res{stage + 2}"] = fast
        return slow, fast, mid


def backbone(
    w: Writer, name: str, stem: int, beta: int, depth: tuple[int, ...], tau: int, alpha: int,
    frames: int, size: tuple[int, int],
) -> None:  # fmt: skip
    shapes = parameter_shapes(stem, beta, depth)
    values = parameters_by_name(shapes)
    slow, fast = w.normal(1, 3, frames, *size), w.normal(1, 3, frames * alpha, *size)
    with torch.no_grad():
        out_slow, out_fast, mid = Network(values, depth, alpha)(slow, fast)
    sha = hashlib.sha256()
    for key in sorted(values):
        sha.update(key.encode("utf-8") + values[key].tobytes())
    config = {"tau": tau, "alpha": alpha, "beta": 1 / beta, "bn_eps": 1e-5}
    config |= {"parameter_names": shapes, "parameter_sha256_over_sorted_names": sha.hexdigest()}
    arrays = {"in/slow": slow, "in/fast": fast, "out/slow": out_slow, "out/fast": out_fast}
    w.save(name, config, arrays | {key: x[:, ::8] for key, x in mid.items()})


# ------------------------------------------------------------------------------------------ frames


def new_size(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    short, long = sorted((height, width))
    if long / short * least > most:
        least = round(most * short / long)
    if width < height:
        return int(least * height / width), least
    return least, int(least * width / height)


def resized(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([cv2.resize(x, (width, height)) for x in frames])


def coloured(frames: np.ndarray, hue: int, saturation: int, value: int) -> np.ndarray:
    found = []
    for frame in frames:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV).astype(int)
        hsv[..., 0] = (hsv[..., 0] + hue + 180) % 180
        hsv[..., 1:] = (hsv[..., 1:] + [saturation, value]).clip(0, 255)
        found.append(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))
    return np.stack(found)


def normalised(frames: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return ((frames.astype(np.float32) - mean) / std).transpose(3, 0, 1, 2).astype(np.float32)


def new_frames(w: Writer, count: int, height: int, width: int) -> np.ndarray:
    """Coarse noise in all colours."""
    noise = w.uniform(count, 3, 6, 7)
    noise = F.interpolate(noise, (height, width), mode="bilinear", align_corners=False)
    return (noise * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def pixels(w: Writer, name: str) -> None:
    frames, wide = new_frames(w, 3, 31, 52), new_frames(w, 1, 20, 81)
    shifts = np.array([[7, -20, 13], [-10, 26, -26], [0, 0, 0]])
    mean, std = np.array([100.5, 90.25, 80.0]), np.array([50.0, 60.0, 70.0])
    arrays: Arrays = {"in/frames": frames, "in/wide_frame": wide, "in/jitter_shifts": shifts}
    for least, most in ((24, 300), (40, 50)):
        size = new_size(31, 52, least, most)
        arrays[f"out/resized_short{least}_max{most}"] = resized(frames, *size)
    arrays["out/wide_resized_short16_max44"] = resized(wide, *new_size(20, 81, 16, 44))
    arrays["out/jittered"] = np.stack([coloured(frames, *row) for row in shifts])
    arrays["out/normalised"] = normalised(frames, mean, std)
    w.save(name, {"mean": mean.tolist(), "std": std.tolist()}, arrays)


def indices(frames: int, tau: int, alpha: int, start: int | None) -> tuple[list[int], list[int]]:
    step = tau // alpha
    slow = list(range((tau - 1) // 2 if start is None else start, frames, tau))
    return slow, list(range((step - 1) // 2, frames, step))


def pipeline(w: Writer, name: str) -> None:
    height, width, tau, alpha, least, most = 33, 47, 8, 4, 24, 90
    frames = new_frames(w, 16, height, width)
    boxes, objects = w.boxes(3, width, height).numpy(), w.boxes(5, width, height).numpy()
    object_scores = w.uniform(5).numpy()
    new_height, new_width = new_size(height, width, least, most)
    config: dict = {"frame_num": 16, "sample_rate": 1, "tau": tau, "alpha": alpha}
    config |= {"min_size": least, "max_size": most, "max_object": 2}
    flip = {"flip_draw": 0.1, "flip_probability": 0.5, "hue": -4, "sat": 9, "val": -12}
    config["train_flip"] = flip | {"slow_start": 6}
    config["train_noflip"] = {**flip, "flip_draw": 0.9, "hue": 8, "slow_start": 1}
    arrays: Arrays = {"in/frames": frames, "in/boxes": boxes, "in/objects": objects}
    arrays["in/object_scores"] = object_scores
    scale = np.array([new_width / width, new_height / height] * 2, np.float32)
    best = np.argsort(object_scores)[-2:]
    for case in ("eval", "train_flip", "train_noflip"):
        draws = config.get(case)
        clip, where = resized(frames, new_height, new_width), boxes * scale
        if draws is not None:
            clip = coloured(clip, draws["hue"], draws["sat"], draws["val"])
            if draws["flip_draw"] < flip["flip_probability"]:
                clip = clip[:, :, ::-1]
                where = where[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32)
                where[:, [0, 2]] += new_width - 1
        slow, fast = indices(16, tau, alpha, draws and draws["slow_start"])
        found = normalised(clip, MEAN, STD)
        arrays |= {f"out/{case}_slow": found[:, slow], f"out/{case}_fast": found[:, fast][:, ::2]}
        arrays |= {f"out/{case}_boxes": where, f"out/{case}_objects": objects[best] * scale}
        if draws is None:
            arrays[f"out/{case}_object_scores"] = object_scores[best]
    w.save(name, config, arrays)


def tables(w: Writer, name: str) -> None:
    crops = []
    for raw, count, rate in ((50, 32, 1), (20, 32, 1), (96, 32, 2), (33, 8, 4), (7, 9, 1)):
        start = (raw - count * rate) // 2 + (rate - 1) // 2
        found = [min(max(start + k * rate, 0), raw - 1) for k in range(count)]
        row = {"raw_frames": raw, "frame_num": count, "sample_rate": rate, "indices": found}
        crops.append(row)
    pathways = []
    for frames, tau, alpha in ((48, 8, 2), (32, 4, 4), (40, 10, 5)):
        slow, fast = indices(frames, tau, alpha, None)
        starts = range(tau) if tau <= 8 else (0, 1, tau - 1)
        jittered = [indices(frames, tau, alpha, start)[0] for start in starts]
        row = {"frames": frames, "tau": tau, "alpha": alpha, "slow_indices": slow}
        pathways.append(
            row | {"fast_indices": fast, "slow_indices_for_each_jitter_start": jittered}
        )
    sizes = []
    for height, width, least, most in ((97, 131, 64, 300), (400, 100, 64, 200), (64, 90, 64, 99)):
        found = new_size(height, width, least, most)
        if min(height, width) == least:  # the defect: height and width are exchanged
            found = found[::-1]
        row = {"input_height": height, "input_width": width, "min_size": least, "max_size": most}
        sizes.append(row | {"output_height": found[0], "output_width": found[1]})
    batches = [
        {"clip_shapes": [[3, 2, 30, 50], [3, 2, 41, 20]], "multiple": 8},
        {"clip_shapes": [[3, 5, 33, 64]], "multiple": 32},
    ]
    for row in batches:
        largest = np.array(row["clip_shapes"]).max(axis=0)
        largest[2:] = -(-largest[2:] // row["multiple"]) * row["multiple"]
        row["batch_shape"] = [len(row["clip_shapes"]), *largest.tolist()]
    content = {"temporal_crop": crops, "slow_fast": pathways, "resize": sizes, "collate": batches}
    (w.folder / f"{name}.json").write_text(json.dumps(content))


def write_maps(w: Writer) -> None:
    backbone(w, "backbone_small", 8, 4, (1, 1, 1, 1), 4, 2, 2, (32, 48))
    backbone(w, "backbone_50", 16, 8, (3, 4, 6, 3), 8, 4, 2, (32, 32))
    pixels(w, "pixels")
    pipeline(w, "pipeline")
    tables(w, "tables")
