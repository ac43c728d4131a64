"""Who does what, while it happens: the predictor of films, with a queue of one clip in it.

Frames are decoded and cut into clips in a thread. The networks take the newest clip whenever they
are free; clips that are older by then are dropped, each as a whole, so that a slow network tells of
fewer seconds but never of the past, and never sees a clip with holes. Nothing of the future is
waited for (`MODEL.MEMORY.DELAY` 0); all else is as in testing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from detectron2.config import CfgNode

from ..data.clip_sampling import TIME_TOLERANCE
from ..structures import TimedBoxes
from .box_sources import BoxesAt, BoxSource, DetectedBoxes, WholeFrame
from .predictor import CutClip, VideoPredictor

T = TypeVar("T")
_REMEMBERED = 3600  # latencies, of which the percentiles are told
_PATIENCE = 2.0  # seconds in which a thread that is told to end should


class Newest(Generic[T]):
    """What comes out of an iterator, as far as somebody has time for it.

    The iterator runs in a thread of its own and is never kept waiting: a thing that nobody has
    taken when the next one comes is dropped.

    Attributes:
        dropped: how many were.
    """

    def __init__(self, items: Iterator[T]) -> None:
        self.dropped = 0
        self._items = items
        self._changed = threading.Condition()
        self._waiting: list[T] = []  # one at most
        self._error: BaseException | None = None
        self._is_over = self._is_left = False

    def __iter__(self) -> Iterator[T]:
        """Yield until the iterator ends; its errors are raised here."""
        thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        thread.start()
        try:
            while True:
                with self._changed:
                    # With a timeout, so that Ctrl-C is taken on all systems.
                    while not (self._waiting or self._is_over):
                        self._changed.wait(1.0)
                    if not self._waiting:
                        break
                    item = self._waiting.pop()
                yield item
            if self._error is not None:
                raise self._error
        finally:
            self._is_left = True
            thread.join(_PATIENCE)

    def _run(self) -> None:
        try:
            for item in self._items:
                with self._changed:
                    self.dropped += len(self._waiting)
                    self._waiting = [item]
                    self._changed.notify()
                if self._is_left:
                    break
        except BaseException as error:  # for the other thread to raise
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify()


class _LaterDetectedBoxes(DetectedBoxes):
    """The same boxes, found when a clip is asked for them: nobody looks for those of dropped ones.

    The pictures of a keyframe and of the looks before it are kept with its clip.
    """

    def watch(self, frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[Any]:
        self._pictures: dict[int, np.ndarray] = {}
        return super().watch(frames)

    def _look(self, number: int, picture: np.ndarray) -> None:
        self._pictures[number] = picture

    def later(self, seconds: float) -> Callable[[], BoxesAt]:
        number = round(seconds * self._looks)
        mine = {n: self._pictures.pop(n) for n in sorted(self._pictures) if n <= number}

        def find() -> BoxesAt:
            found = {n: self._detect([picture])[0] for n, picture in mine.items()}
            at = found.pop(number)
            between = {n / self._looks: x.persons for n, x in found.items()}
            return BoxesAt(at.persons, at.objects, TimedBoxes.join(between))

        return find

    def at(self, seconds: float) -> BoxesAt:
        return self.later(seconds)()


class LivePredictor(VideoPredictor):
    """A :class:`VideoPredictor` for frames that come in their own time.

    Attributes:
        keyframes: how many results there were.
        latencies: seconds of the last hour's, from the moment that the picture of a keyframe was
            there to its result; so with the second half of the clip, which must be seen first.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """See :class:`VideoPredictor`; nothing of the future is waited for."""
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.MEMORY.DELAY = 0
        super().__init__(cfg)
        self.keyframes = 0
        self.latencies: deque[float] = deque(maxlen=_REMEMBERED)
        self._newest: Newest[CutClip] | None = None

    @property
    def dropped(self) -> int:
        """How many keyframes were dropped, since the networks were busy."""
        return 0 if self._newest is None else self._newest.dropped

    def __call__(
        self,
        video: Iterable[tuple[float, np.ndarray]],  # type: ignore[override]
        boxes: BoxSource | None = None,
        *,
        fps: float = 25.0,
        video_id: str | None = None,
    ) -> Iterator[dict]:
        """Yield results as :class:`VideoPredictor` does, as far as there is time for them, with
        their `latency` in seconds besides. The (seconds, frame) are read in a thread."""
        # Whole second -> when its first frame was there.
        arrivals: dict[int, float] = {}

        def noting(frames: Iterable[tuple[float, np.ndarray]]) -> Iterator[Any]:
            for seconds, frame in frames:
                arrivals.setdefault(int(seconds + TIME_TOLERANCE), time.monotonic())
                yield seconds, frame

        for result in super().__call__(noting(video), boxes, fps=fps, video_id=video_id):
            second = round(result["timestamp"])
            for earlier in [x for x in list(arrivals) if x < second]:
                del arrivals[earlier]
            # A slow stream may have had no frame within that very second.
            seen = arrivals[min(x for x in list(arrivals) if x >= second)]
            result["latency"] = time.monotonic() - seen
            self.keyframes += 1
            self.latencies.append(result["latency"])
            yield result

    def _cut(
        self, frames: Iterator[tuple[float, np.ndarray]], boxes: BoxSource, video_id: str
    ) -> Iterator[CutClip]:
        self._newest = Newest(super()._cut(frames, boxes, video_id))
        yield from self._newest

    def default_boxes(self) -> BoxSource:
        if not self.detector:
            return WholeFrame()
        return _LaterDetectedBoxes(self.detector, self.looks_per_second)
