"""The sound of a video file, for copies of it with other pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from .source import VideoInfo, warn

MAX_RATE = 48_000  # what encoders and browsers take
_SAME_PLACE = 0.02  # seconds: nearer samples follow each other, whatever rounding says


class Sound:
    """Gives the samples of any moment, in order of time, `rate` a second, "mono" or "stereo"."""

    def __init__(self, info: VideoInfo, container: av.container.InputContainer) -> None:
        """See :func:`open_sound`."""
        self._path, self._container = info.path, container
        self._stream = container.streams.audio[0]
        best = container.streams.best("audio")
        if isinstance(best, av.AudioStream):
            self._stream = best
        self.rate = min(self._stream.rate or MAX_RATE, MAX_RATE)
        self.layout = "mono" if self._stream.channels == 1 else "stereo"
        self._zero = info.start_time - info.begin  # on the container's clock
        self._chunks = self._decode()
        self._held = np.zeros((1 if self.layout == "mono" else 2, 0), np.float32)
        self._first = 0  # index of the first held sample; 0 is at second 0
        self._next = 0  # index after the last one that was taken

    def take(self, seconds: float, count: int) -> np.ndarray:
        """Give (channels, count) float32 samples from a moment on, silence where there are none.

        These are seconds as `iterate_frames` counts them, not before the last moment.
        """
        begin = round(seconds * self.rate)
        if abs(begin - self._next) < _SAME_PLACE * self.rate:
            begin = self._next
        self._next = end = begin + count
        while self._first + self._held.shape[1] < end:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._append(*chunk)
        taken = np.zeros((len(self._held), count), np.float32)
        low, high = max(begin, self._first), min(end, self._first + self._held.shape[1])
        if low < high:
            part = self._held[:, low - self._first : high - self._first]
            taken[:, low - begin : high - begin] = part
        gone = min(max(end - self._first, 0), self._held.shape[1])
        self._held, self._first = self._held[:, gone:], self._first + gone
        return taken

    def _append(self, seconds: float | None, samples: np.ndarray) -> None:
        end = self._first + self._held.shape[1]
        begin = end if seconds is None else round(seconds * self.rate)
        if not self._held.shape[1]:
            self._first = end = begin if seconds is not None else end
        hole = begin - end
        if hole > _SAME_PLACE * self.rate:
            silence = np.zeros((len(self._held), min(hole, 60 * self.rate)), np.float32)
            self._held = np.concatenate([self._held, silence], axis=1)
        elif hole < -_SAME_PLACE * self.rate:
            samples = samples[:, -hole:]
        self._held = np.concatenate([self._held, samples], axis=1)

    def _decode(self) -> Iterator[tuple[float | None, np.ndarray]]:
        """Give chunks of samples with their seconds."""
        resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
        try:
            for frame in self._container.decode(self._stream):
                for part in resampler.resample(frame):
                    base = part.time_base
                    at = None if part.pts is None or base is None else float(part.pts * base)
                    yield None if at is None else at - self._zero, part.to_ndarray()
        except (av.FFmpegError, ValueError) as error:
            warn(self._path, f"its sound is damaged, the rest is silent ({error})")

    def close(self) -> None:
        """Close the file."""
        self._chunks.close()  # type: ignore[attr-defined]  # a generator
        self._container.close()


def open_sound(info: VideoInfo) -> Sound | None:
    """Open the sound of a video; None where it has none that can be read."""
    if not Path(info.path).is_file():
        return None
    try:
        container = av.open(f"file:{info.path}", metadata_errors="ignore")
    except (av.FFmpegError, OSError):
        return None
    if not container.streams.audio or container.streams.audio[0].codec_context is None:
        container.close()
        return None
    return Sound(info, container)
