"""Frames of a video with everything drawn on them, one at a time, so that memory stays bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .drawing import DrawStyle, PersonDrawer, format_time
from .results import KeyframeResult, VideoResult
from .tracks import IdentityBook, shown_persons

_MAX_KNOWN_KEYFRAMES = 8


@dataclass(frozen=True, eq=False)
class _Known:
    """What is worked out once per keyframe: `links` are those from `previous` to `keyframe`."""

    keyframe: KeyframeResult
    keys: list[int]
    colours: list[int]
    previous: KeyframeResult | None
    links: list[tuple[int, int]]


class FrameAnnotator:
    """Draws the frames of one video in order of time.

    Keyframes may come in while the video runs: a frame needs the one before and the one after it,
    or only the one before (live, without delay).

    Args:
        width, height: size of the frames in pixels.
        period: usual time between keyframes in seconds.
        style: how to draw.
        show_time: whether to write the time into the top left corner.

    Attributes:
        output_size: width and height of the drawn frames (small videos are enlarged).
    """

    def __init__(
        self,
        width: int,
        height: int,
        *,
        period: float = 1.0,
        style: DrawStyle | None = None,
        show_time: bool = True,
    ) -> None:
        self._drawer = PersonDrawer(width, height, style)
        self._period = period
        self._show_time = show_time
        self._book = IdentityBook(period)
        # By object identity; holding the keyframe keeps the identity unique.
        self._known: OrderedDict[int, _Known] = OrderedDict()

    @property
    def output_size(self) -> tuple[int, int]:
        return self._drawer.output_size

    def annotate(
        self,
        frame: np.ndarray,
        seconds: float,
        before: KeyframeResult | None,
        after: KeyframeResult | None = None,
    ) -> np.ndarray:
        """Draw one frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            seconds: its time from the video's first frame.
            before: last keyframe at or before it, None if there is none.
            after: next keyframe, None if there is none or it is not known yet.

        Returns:
            (H, W, 3) uint8 RGB of `output_size`.
        """
        sides = [self._look_up(keyframe) if keyframe else None for keyframe in (before, after)]
        links = sides[1].links if sides[1] and sides[1].previous is before else None
        shown = shown_persons(seconds, before, after, period=self._period, links=links)
        return self._drawer.draw(
            frame,
            [replace(sides[s.side].keyframe.persons[s.index], box=s.box) for s in shown],
            keys=[sides[s.side].keys[s.index] for s in shown],
            colours=[sides[s.side].colours[s.index] for s in shown],
            caption=format_time(seconds) if self._show_time else "",
        )

    def _look_up(self, keyframe: KeyframeResult) -> _Known:
        if id(keyframe) not in self._known:
            previous = next(reversed(self._known.values())).keyframe if self._known else None
            keys, colours = self._book.add(keyframe)
            self._known[id(keyframe)] = _Known(
                keyframe, keys, colours, previous, self._book.last_links
            )
            if len(self._known) > _MAX_KNOWN_KEYFRAMES:
                self._known.popitem(last=False)
        return self._known[id(keyframe)]


def annotate_frame(
    frame: np.ndarray,
    seconds: float,
    before: KeyframeResult | None,
    after: KeyframeResult | None = None,
    *,
    period: float = 1.0,
    style: DrawStyle | None = None,
) -> np.ndarray:
    """Draw a single frame; for more than one, `FrameAnnotator` is faster and steadier."""
    annotator = FrameAnnotator(frame.shape[1], frame.shape[0], period=period, style=style)
    return annotator.annotate(frame, seconds, before, after)


def annotate_frames(
    frames: Iterable[tuple[float, np.ndarray]],
    result: VideoResult,
    *,
    style: DrawStyle | None = None,
    show_time: bool = True,
) -> Iterator[np.ndarray]:
    """Draw all frames of a video.

    Args:
        frames: (seconds from the first frame, (H, W, 3) uint8 RGB), in order of time.
        result: what was found in the video; `width` and `height` must be those of the frames.
        style: how to draw.
        show_time: whether to write the time into the top left corner.

    Yields:
        (H * s, W * s, 3) uint8 RGB, one per frame, s = `enlargement(W, H, style)`.
    """
    annotator = FrameAnnotator(
        result.width, result.height, period=result.period, style=style, show_time=show_time
    )
    keyframes = result.keyframes
    upcoming = 0  # index of the first keyframe after the frame
    for seconds, frame in frames:
        # A tolerance below any frame's duration: 2.9999999 s is the frame of keyframe 3.
        while upcoming < len(keyframes) and keyframes[upcoming].timestamp <= seconds + 1e-4:
            upcoming += 1
        before = keyframes[upcoming - 1] if upcoming else None
        after = keyframes[upcoming] if upcoming < len(keyframes) else None
        yield annotator.annotate(frame, seconds, before, after)
