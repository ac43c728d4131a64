"""An exported model's expensive half in 8 bits: onnxruntime's static quantisation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..deploy import Runner
from ..deploy.description import FEATURES, INT8


def quantise(folder: str | Path, videos: Sequence[str | Path], max_clips: int = 8) -> Path:
    """Write the graph of features with convolutions and products in 8 bits, next to it.

    Weights get a range each channel, activations the range that they have in clips of some videos
    (at most `max_clips` of each). Everything else, RoIAlign before all, stays as it is.

    Raises:
        ValueError: the videos have no clips.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    inputs = _inputs(Runner(folder), videos, max_clips)
    first = next(inputs, None)
    if first is None:
        raise ValueError(f"{', '.join(map(str, videos))}: no clips to calibrate with")

    class Reader(CalibrationDataReader):
        clips = itertools.chain([first], inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.clips, None)

    target = Path(folder) / INT8
    with TemporaryDirectory() as scratch:
        prepared = str(Path(scratch) / FEATURES)
        quant_pre_process(str(Path(folder) / FEATURES), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(target),
            Reader(),
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return target


def _inputs(
    runner: Runner, videos: Sequence[str | Path], max_clips: int
) -> Iterator[dict[str, np.ndarray]]:
    for video in videos:
        for _, clip, _ in itertools.islice(runner.clips(video), max_clips):
            height, width = clip.shape[1:3]
            yield {
                "clip": runner.normalised(clip),
                "person_boxes": np.array([[0, 0, width, height]], np.float32),
                "object_boxes": np.zeros((0, 4), np.float32),
            }
