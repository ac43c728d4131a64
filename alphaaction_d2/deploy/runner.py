"""Who does what in videos, by an exported model.

Shape letters: R persons of a keyframe, O objects, K action classes, T frames of a clip, H W its
pictures.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.clip_sampling import iterate_clips
from ..data.scaling import resized_size
from ..data.video import iterate_frames
from ..found_boxes import BoxesAt, FoundBoxes
from ..tracking.tracks import Tracks
from .description import FEATURES, INT8, SCORES, Description
from .memory import Memory, Persons

Graph = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
Frames = Iterable[tuple[float, np.ndarray]]  # (seconds, (H, W, 3) uint8 RGB), in order of time

# What computes the graph of features, which is nearly all of the work.
RUNTIMES = ("onnxruntime", "onnxruntime-int8", "openvino", "openvino-bfloat16", "openvino-int8")


@dataclass(frozen=True, eq=False)
class KeyframeScores:
    """Who does what at a keyframe.

    Attributes:
        timestamp: seconds from the video's first frame.
        size: height and width of the video.
        boxes: (R, 4) float32 XYXY in pixels of the video, the persons that counted.
        person_scores: (R,) float32, how sure it was that they are persons.
        person_ids: (R,) int64; -1 for who has none.
        scores: (R, K) float32, of `Runner.class_names`.
    """

    timestamp: float
    size: tuple[int, int]
    boxes: np.ndarray
    person_scores: np.ndarray
    person_ids: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False)
class _Clip:
    """What waits for the end of its memory window."""

    timestamp: float
    slot: int
    found: FoundBoxes  # the persons, with their ids
    boxes: np.ndarray  # (R, 4), in the network's picture
    features: dict[str, np.ndarray]

    @property
    def persons(self) -> Persons:
        return Persons(self.features["person_features"], self.found.ids, self.found.scores)


class Runner:
    """An exported model, with memory, delay and identities of its own.

    Example::

        runner = Runner("model/")
        for result in runner("film.mp4", {1.0: BoxesAt.of([0.1, 0.1, 0.4, 0.9])}):
            print(result.timestamp, result.person_ids, result.scores)

    Attributes:
        description: what the model is fed with.
        class_names: of the K columns of scores.
    """

    def __init__(
        self, folder: str | Path, runtime: str = "onnxruntime", threads: int | None = None
    ) -> None:
        """Load the folder of `alphaaction export`.

        Args:
            runtime: of RUNTIMES.
            threads: of the processor; None: as many as the runtime takes.

        Raises:
            ValueError: the folder is none, has files missing or is of another version; the runtime
                is unknown or not installed.
        """
        self.description = Description.read(folder)
        self.class_names = list(self.description.class_names)
        self._extract = _load(Path(folder), runtime, threads)
        self._score = _onnx_graph(Path(folder) / SCORES, threads)

    def __call__(
        self,
        video: str | Path | Frames,
        boxes: Mapping[float, BoxesAt] | Callable[[float], BoxesAt],
        *,
        first_id: int = 1,
    ) -> Iterator[KeyframeScores]:
        """Yield one result a second, in order, as soon as its memory window is complete.

        Args:
            video: a file, a folder that holds a video, or its frames.
            boxes: who is there at each second, by second or as a function of it; a second that is
                not in a mapping has nobody.
            first_id: the lowest id for persons who come without; larger than any that is given.
        """
        if isinstance(boxes, Mapping):
            given = boxes
            ids = [x.persons.ids.max(initial=0) for x in given.values()]
            ids += [x.between.found.ids.max(initial=0) for x in given.values()]
            first_id = max([first_id, *(int(i) + 1 for i in ids)])
            boxes = lambda seconds: given.get(seconds, BoxesAt.of())  # noqa: E731
        return self._results(self.clips(video), boxes, first_id)

    def clips(
        self, video: str | Path | Frames
    ) -> Iterator[tuple[float, np.ndarray, tuple[int, int]]]:
        """Cut the clips out of a video: seconds, pictures (T, H, W, 3) in the network's size, and
        height and width of the video."""
        given = iterate_frames(video) if isinstance(video, str | Path) else video
        frames = iter(given)
        first = next(frames, None)
        if first is None:
            return
        known, size = self.description, first[1].shape[:2]
        height, width = self.scaled_size(size)

        def scale(picture: np.ndarray) -> np.ndarray:
            if picture.shape[:2] == (height, width):
                return picture
            return cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)

        scaled = ((time, scale(picture)) for time, picture in itertools.chain([first], frames))
        for timestamp, clip, _ in iterate_clips(
            scaled, known.num_frames, known.sampling_rate, known.clip_fps
        ):
            yield timestamp, clip, size

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Give the network's height and width of a video of this height and width."""
        known = self.description
        return (
            resized_size(*size, known.short_side, known.max_long_side) if known.short_side else size
        )

    def _results(
        self,
        clips: Iterator[tuple[float, np.ndarray, tuple[int, int]]],
        boxes: Callable[[float], BoxesAt],
        first_id: int,
    ) -> Iterator[KeyframeScores]:
        stream = None
        for timestamp, clip, size in clips:
            stream = stream or _Stream(self, size, first_id)
            yield from stream.push(timestamp, clip, boxes(timestamp))
        if stream is not None:
            yield from stream.flush()

    def normalised(self, clip: np.ndarray) -> np.ndarray:
        """Make the graph's input (1, 3, T, H', W') of pictures (T, H, W, 3) uint8."""
        known = self.description
        num_frames, height, width = clip.shape[:3]
        padded = (-(-n // known.multiple) * known.multiple for n in (height, width))
        result = np.zeros((1, 3, num_frames, *padded), np.float32)
        for channel, (mean, std) in enumerate(zip(known.mean, known.std)):
            plane = result[0, channel, :, :height, :width]
            np.subtract(clip[..., channel], np.float32(mean), out=plane, dtype=np.float32)
            plane /= np.float32(std)
        return result

    def extract(
        self, clip: np.ndarray, persons: np.ndarray, objects: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Do the expensive half: features of persons (R, 4), R > 0, and objects (O, 4), boxes in
        pixels of the clip (T, H, W, 3)."""
        pooled = enlarged(persons, self.description.extend, clip.shape[1:3])
        features = self._extract(
            {"clip": self.normalised(clip), "person_boxes": pooled, "object_boxes": objects}
        )
        return {**features, "person_boxes": persons, "pooled_boxes": pooled}

    def score(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Do the cheap half: scores (R, K) of features, ids and a memory window."""
        return self._score(inputs)["scores"]


class _Stream:
    """One video on its way through a model."""

    def __init__(self, runner: Runner, size: tuple[int, int], first_id: int) -> None:
        """Begin a video of this height and width."""
        self.runner, self.known = runner, runner.description
        self.size, self.scaled_size = size, runner.scaled_size(size)
        options = self.known.memory
        self.memory = None if options is None else Memory(options)
        self.after = 0
        if self.memory is not None and options is not None:
            last = int(self.memory.offsets[-1])
            self.after = last if options.delay < 0 else min(options.delay, last)
        tracking: dict[str, Any] | None = self.known.tracking
        self.tracks = None if tracking is None else Tracks(**tracking, first_id=first_id)
        self.waiting: deque[_Clip] = deque()

    def push(self, timestamp: float, clip: np.ndarray, at: BoxesAt) -> Iterator[KeyframeScores]:
        """Take the next clip; give the results of those that are ready."""
        persons = at.persons.above(self.known.min_person_score)
        objects = at.objects.above(self.known.min_object_score).best(self.known.max_objects)
        boxes = self._place(persons)
        features: dict[str, np.ndarray] = {}
        if len(persons):
            features = self.runner.extract(clip, boxes, self._place(objects))
        for seconds, seen in at.between.moments():
            self._identify(seconds, seen.above(self.known.min_person_score), {})
        persons = self._identify(timestamp, persons, features)
        slot = 0 if self.memory is None else self.memory.slot_of(timestamp)
        waiting = _Clip(timestamp, slot, persons, boxes, features)
        # Before the new slot takes the place of one that they still need.
        yield from self._up_to(slot - self.after - 1)
        if self.memory is not None:
            remembered = features.get("memory_features", features.get("person_features"))
            if remembered is None:
                remembered = np.zeros((0, self.memory.options.channels), np.float32)
            self.memory.write(slot, Persons(remembered, persons.ids, persons.scores))
        self.waiting.append(waiting)
        yield from self._up_to(slot - self.after)

    def flush(self) -> Iterator[KeyframeScores]:
        """Give the results that still wait: the video has ended."""
        while self.waiting:
            yield self._result(self.waiting.popleft())

    def _up_to(self, slot: int) -> Iterator[KeyframeScores]:
        while self.waiting and self.waiting[0].slot <= slot:
            yield self._result(self.waiting.popleft())

    def _place(self, found: FoundBoxes) -> np.ndarray:
        """Put boxes into the network's picture: (n, 4) float32."""
        height, width = self.scaled_size
        scale = np.array([width / self.size[1], height / self.size[0]] * 2)
        boxes = found.in_pixels(self.size[1], self.size[0]).astype(np.float64) * scale
        return np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)

    def _identify(
        self, seconds: float, found: FoundBoxes, features: dict[str, np.ndarray]
    ) -> FoundBoxes:
        if self.tracks is None:
            return found
        given = found.ids.tolist() if self.known.keep_given_ids else [-1] * len(found)
        seen = features.get("person_features")
        ids = self.tracks.identify(
            seconds,
            self._place(found).astype(np.float64),
            given,
            found.scores.tolist(),
            None if seen is None else seen.astype(np.float64),
        )
        return FoundBoxes(found.boxes, found.scores, np.array(ids, np.int64))

    def _result(self, clip: _Clip) -> KeyframeScores:
        scores = np.zeros((0, len(self.known.class_names)), np.float32)
        if len(clip.found):
            inputs = {**clip.features, "person_ids": clip.found.ids}
            if self.memory is not None:
                inputs |= self.memory.window(clip.slot, clip.persons)
            scores = self.runner.score(inputs)
        if self.known.multiply_person_score:
            scores = scores * clip.found.scores[:, None]
        height, width = self.size
        scale = (width / self.scaled_size[1], height / self.scaled_size[0])
        boxes = clip.boxes * np.array([*scale, *scale], np.float32)
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
        real = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        found = clip.found.at(real)
        return KeyframeScores(
            clip.timestamp, self.size, boxes[real], found.scores, found.ids, scores[real]
        )


def fastest_runtime() -> str:
    """Name the fastest runtime that is installed here and keeps the scores (docs/deploy.md)."""
    return "openvino-bfloat16" if find_spec("openvino") else "onnxruntime"


def enlarged(boxes: np.ndarray, extend: Iterable[float], image_size: tuple[int, ...]) -> np.ndarray:
    """Enlarge boxes about their centre, width and height by the given shares, and clip them."""
    half = (boxes[:, 2:] - boxes[:, :2]) * np.array(list(extend), np.float32) / 2
    height, width = image_size
    grown = boxes + np.concatenate([-half, half], axis=1)
    return np.clip(grown, 0, np.array([width, height] * 2, np.float32))


def _load(folder: Path, runtime: str, threads: int | None) -> Graph:
    """Load the graph of features."""
    if runtime not in RUNTIMES:
        raise ValueError(f"runtime {runtime!r} is not one of {', '.join(RUNTIMES)}")
    library, _, precision = runtime.partition("-")
    path = folder / (INT8 if precision == "int8" else FEATURES)
    if not path.is_file():
        raise ValueError(f"{path} is missing: export the model with --calibrate VIDEO")
    if library == "onnxruntime":
        return _onnx_graph(path, threads)
    return _openvino_graph(path, threads, precision)


def _onnx_graph(path: Path, threads: int | None) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # of kinds that are its own
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None
    wanted = [x.name for x in session.get_inputs()]
    names = [x.name for x in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {x: inputs[x] for x in wanted})))

    return run


def _openvino_graph(path: Path, threads: int | None, precision: str) -> Graph:
    try:
        import openvino
    except ImportError:
        raise ValueError(
            "runtime 'openvino': OpenVINO is missing here: pip install openvino"
        ) from None
    computes = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32"}
    if threads:
        computes["INFERENCE_NUM_THREADS"] = str(threads)
    core = openvino.Core()
    try:
        model = core.read_model(str(path))
    except RuntimeError as error:  # several lines, of which the last says most
        raise ValueError(f"{path}: {str(error).splitlines()[-1].strip()}") from None
    # Compiled, some outputs have other names.
    names, wanted = ([x.get_any_name() for x in y] for y in (model.outputs, model.inputs))
    compiled = core.compile_model(model, "CPU", computes)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = compiled([inputs[name] for name in wanted])
        return {name: found[i].copy() for i, name in enumerate(names)}

    return run
