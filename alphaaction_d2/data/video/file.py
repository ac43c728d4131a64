"""Video files; the one module that knows the decoder and the encoder (PyAV, which is FFmpeg).

Files in the wild break most promises of their headers. Frame counts are never used, times are made
strictly increasing, a damaged file gives what decodes and one warning, and a file that cannot be
opened gives a `VideoError` of one line. A file is sought in only where its container stores the
time of each picture, and decoded from the start anywhere else.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, dropwhile, islice
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..clip_sampling import StillLimit, is_shown_by
from .sound import Sound
from .source import MAX_PIXELS, FrameSource, VideoError, VideoInfo, one_line, warn, warn_of_hole
from .timing import NOT_SAID, TIMING_FILE, Timing

logger = logging.getLogger(__name__)

# Containers that store a presentation time for every picture and an index of key frames.
_SEEKABLE_FORMATS = ("mov", "matroska")
# Containers without any time per picture: FFmpeg counts in decoding order, so that with B-frames
# the presentation times come out permuted. Decoding times count the pictures correctly.
_COUNTING_FORMATS = ("avi",)
# FFmpeg also opens texts: terminal art, playlists that name other files. None of them is a video.
_TEXT_FORMATS = ("tty", "hls", "concat", "dash", "webvtt", "srt", "ass", "lrc", "svg")
# B-frame pyramids reach this far at most: enough pictures to see whether times are permuted.
_REORDER_WINDOW = 32
# A step back in time up to this long is a misplaced picture (skipped), a longer one a new start of
# the clock (the times continue from there).
_CLOCK_RESTART_SECONDS = 1.0
# In these the clock ends after 26.5 hours and begins anew. FFmpeg takes every step back for that
# and adds those hours, also where it is another recording: a step as long as this was one back.
_SHORT_CLOCKS = ("mpegts", "mpeg")
_SHORT_CLOCK_SECONDS = (1 << 33) / 90_000
# Headers round durations, and some count from the container's zero, not from the first frame.
_DURATION_TOLERANCE = 0.25
# FFmpeg reads bare compressed streams with this time base, which no container has, and counts 25
# frames a second unless told otherwise; one of parts (of cameras) has the same without the base.
_RAW_TIME_BASE = Fraction(1, 1_200_000)
_RAW_FORMATS = ("mpjpeg",)
_DEFAULT_FPS = 25.0
_LIMITS = {"max_pixels": str(MAX_PIXELS)}
_MAX_FPS = 1000
# Matroska tells its key frames only after a seek: a gap longer than this is worth trying one.
_BLIND_SEEK_SECONDS = 4.0

_LFS_MARK = b"version https://git-lfs"
_COPY_AGAIN = "copy or download it again"
_CUT_OFF = "Input/output error"  # what Matroska's reader says of a header that ends too early


@dataclass
class _FrameClock:
    """Gives each decoded frame its seconds, strictly increasing."""

    # "pts" trusts the presentation times, "dts" the decoding times (where presentation times are
    # permuted), "count" neither.
    kind: str
    time_base: float  # seconds per tick of a frame's times
    period: float  # seconds between frames, for frames without a time
    begin: float = 0.0  # seconds of the first frame
    longest_step: float = math.inf  # seconds; a longer one is one back to a new start of the clock
    # How long a frame is shown by the stream's own account, if it has one; when counting, one of
    # another length (film shown as television repeats fields) counts as what it is.
    usual_ticks: float | None = None
    _origin: int | None = None  # ticks at which the first frame is
    _last: float | None = None  # seconds of the previous frame
    _shift = 0.0
    _fields = 0  # half frames that have been counted

    @property
    def has_restarted(self) -> bool:
        """Whether the file's own times have gone back to a new start, and these went on."""
        return self._shift != 0

    def after_seek(self) -> None:
        """Forget the previous frame: the next one may have any time."""
        self._last, self._shift = None, 0.0

    def ticks_at(self, seconds: float) -> int:
        # Capped far behind any video, so that the ticks fit into the decoder's 64 bits.
        since = min(seconds - self.begin, 1e8)
        return (self._origin or 0) + math.floor(since / self.time_base)

    def seconds_of(self, ticks: int) -> float:
        return self.begin + (ticks - (self._origin or 0)) * self.time_base

    def tick(self, frame: av.VideoFrame) -> float:
        """Give the next frame's seconds; not after the last ones for a misplaced frame."""
        if self.kind == "count":
            return self._count(frame)
        ticks = frame.pts if self.kind == "pts" else frame.dts
        following = self.begin if self._last is None else self._last + self.period
        if ticks is None:
            self._last = following
            return following
        if self._origin is None:
            self._origin = ticks - round((following - self.begin) / self.time_base)
        seconds = self.seconds_of(ticks) + self._shift
        if self._last is not None and seconds > self._last + self.longest_step:
            self._shift += following - seconds
            seconds = following
        if self._last is not None and seconds <= self._last:
            restart = max(_CLOCK_RESTART_SECONDS, _REORDER_WINDOW * self.period)
            if self.kind == "pts" and self._last - seconds < restart:
                return seconds
            if self.kind == "pts":
                self._shift += following - seconds
            seconds = following
        self._last = seconds
        return seconds

    def _count(self, frame: av.VideoFrame) -> float:
        """Give the time by the frames before, as FFmpeg's own programs do."""
        seconds = self.begin + self._fields * self.period / 2
        fields = 2
        if self.usual_ticks and frame.duration:
            fields = min(max(round(2 * frame.duration / self.usual_ticks), 1), 6)
        self._fields += fields
        return seconds


class VideoFile(FrameSource):
    """An open file and a decoder's position in it; knows what in the file can be trusted."""

    _packets_looked_at = _REORDER_WINDOW  # before the first frame is decoded

    def __init__(
        self,
        path: Path | str,
        threads: int,
        timing: Timing = NOT_SAID,
        frame_rate: float | None = None,
    ) -> None:
        """
        Args:
            path: of the file; anything for whoever overrides `_open`.
            timing: the second of the first frame, and the rate of a file without times.
            frame_rate: see `VideoReader`.
        """
        self.path = path
        self.frames_decoded = 0
        self._timing = timing
        self._frame_rate = frame_rate
        self._threads = threads
        self._warned = self._warned_of_hole = False
        self._reformatter = VideoReformatter()
        self._frames: Iterator[tuple[float, av.VideoFrame]]
        self._container, self._stream = self._open(threads)
        try:
            packets = self._container.demux(self._stream)
            start = list(islice(packets, self._packets_looked_at))
            kind = self._find_clock(start)
            self._fps = self._find_rate(kind)
            formats = self._container.format.name.split(",")
            self._can_seek = kind == "pts" and any(name in _SEEKABLE_FORMATS for name in formats)
            self._knows_key_frames = "mov" in formats
            self._begin(kind, chain(start, packets))
            first = self.next_frame()
            if first is None:
                large = f", or all have more than {MAX_PIXELS:,} pixels"
                what = f"no frame can be decoded{'' if self._stream.width else large}"
                raise VideoError(f"{self.path}: {what}: {_COPY_AGAIN}")
            self._frames = chain([first], self._frames)
            # Without its time the first frame does not say where second 0 is.
            self._can_seek &= first[1].pts is not None
            self.info, self._is_mirrored = self._describe(first[1])
        except BaseException:
            self.close()
            raise

    def _open(self, threads: int) -> tuple[av.container.InputContainer, av.VideoStream]:
        return _open_stream(Path(self.path), threads)

    def _find_clock(self, packets: Sequence[av.Packet]) -> str:
        """Decide which times of the stream that starts with `packets` to believe."""
        if self._frame_rate is not None:
            return "count"
        packets = [packet for packet in packets if packet.size]
        if any(name in _COUNTING_FORMATS for name in self._container.format.name.split(",")):
            return "dts"
        if self._is_raw or all(packet.pts is None for packet in packets):
            return "count"
        times = [packet.pts for packet in packets if packet.pts is not None]
        if len(times) > 2 and len(set(times)) == 1:  # a raw stream, packed without giving it times
            return "count"
        # Where pictures are stored out of order their times should be, too. If they are not, either
        # no picture of the start is, or the times were written by something that cannot count.
        if self._stream.codec_context.has_b_frames and times == sorted(times):
            return "dts" if self._starts_permuted() else "pts"
        return "pts"

    @property
    def _is_raw(self) -> bool:
        """Whether this is the bare output of an encoder: what times it has FFmpeg made up."""
        is_raw = self._stream.time_base == _RAW_TIME_BASE
        return is_raw or self._container.format.name in _RAW_FORMATS

    @property
    def _has_short_clock(self) -> bool:
        return self._container.format.name in _SHORT_CLOCKS

    def _find_rate(self, kind: str) -> float:
        """Give the frames per second: what is said of a file without times, else what it says."""
        if self._frame_rate is not None:
            return self._frame_rate
        own = _own_rate(self._stream) if self._is_raw else _average_fps(self._stream)
        if kind != "count":
            return own or _DEFAULT_FPS
        if self._timing.fps is not None:
            return float(self._timing.fps)
        if own is None:
            what = f"no times in the file, {_DEFAULT_FPS:g} frames a second assumed; 'fps: NUMBER' "
            what += f"in a file {TIMING_FILE} beside it says what is right"
            warn(self.path, what, once=True)
        return own or _DEFAULT_FPS

    def _starts_permuted(self) -> bool:
        """Decode the start with another decoder, to see whether times step back."""
        container, stream = self._open(threads=1)
        with container:
            try:
                frames = islice(container.decode(stream), _REORDER_WINDOW)
                times = [frame.pts for frame in frames if frame.pts is not None]
            except av.FFmpegError:
                return False
        return times != sorted(times)

    def _describe(self, frame: av.VideoFrame) -> tuple[VideoInfo, bool]:
        """Give the info, and whether left and right are to be exchanged before turning."""
        stream = self._stream
        rotation, is_mirrored = _orientation(frame)
        start_time = float((frame.pts or 0) * _time_base(stream))
        duration = None if self._is_raw else _promised_duration(self._container, stream)
        if self._has_short_clock and (duration or 0) > _SHORT_CLOCK_SECONDS / 2:
            duration = None  # of a clock that has begun anew
        if duration is not None and "matroska" in self._container.format.name:
            duration = max(duration - start_time, 0.0)  # it is the time of the end
        if duration is not None and self._frame_rate is not None:  # of as many frames
            duration *= (_average_fps(stream) or _DEFAULT_FPS) / self._frame_rate
        width, height = frame.width, frame.height
        if rotation % 180:
            width, height = height, width
        info = VideoInfo(
            path=Path(self.path),
            width=width,
            height=height,
            average_fps=self._fps,
            duration=duration,
            rotation=rotation,
            start_time=start_time,
            begin=self._timing.start,
        )
        return info, is_mirrored

    def _begin(self, kind: str, packets: Iterator[av.Packet]) -> None:
        """Stand before the first frame."""
        own = _own_rate(self._stream)
        time_base = float(_time_base(self._stream))
        self._clock = _FrameClock(
            kind,
            time_base,
            1 / self._fps,
            begin=self._timing.start,
            longest_step=_SHORT_CLOCK_SECONDS / 2 if self._has_short_clock else math.inf,
            usual_ticks=1 / (own * time_base) if own and not self._frame_rate else None,
        )
        self._stills = StillLimit()
        self._frames = self._timed(self._decode(packets))
        self._end = self._timing.start  # at which the last frame that came out ends
        self._damaged_packets = 0

    # ---- going forward ----

    def next_frame(self) -> tuple[float, av.VideoFrame] | None:
        return next(self._frames, None)

    def _timed(self, frames: Iterable[av.VideoFrame]) -> Iterator[tuple[float, av.VideoFrame]]:
        waiting: tuple[float, av.VideoFrame] | None = None
        for frame in frames:
            seconds = self._clock.tick(frame)
            if waiting is not None:
                if seconds < waiting[0]:  # misplaced: its time is over
                    continue
                if seconds > waiting[0]:  # of frames of one time the last is seen
                    yield self._shown(*waiting)
            waiting = seconds, frame
        if waiting is not None:
            yield self._shown(*waiting)

    def _shown(self, seconds: float, frame: av.VideoFrame) -> tuple[float, av.VideoFrame]:
        until = self._stills.shown_until(seconds)
        if until < seconds and not self._warned_of_hole:
            self._warned_of_hole = True
            warn_of_hole(self.path, until, seconds)
        shown_for = (frame.duration or 0) * self._clock.time_base
        self._end = seconds + (shown_for or self._clock.period)
        return seconds, frame

    def _decode(self, packets: Iterator[av.Packet]) -> Iterator[av.VideoFrame]:
        """Decode what can be decoded, and count the packets that cannot."""
        at_end = False
        while not at_end:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self._damaged_packets += 1
                packet = None
            at_end = packet is None
            try:
                # None takes out the pictures that the decoder still holds back for reordering.
                # After a regular end it is already empty and says so by EOFError.
                frames = self._stream.codec_context.decode(packet)
            except av.EOFError:
                continue
            except av.FFmpegError:
                self._damaged_packets += 1
                continue
            self.frames_decoded += len(frames)
            yield from frames

    def warn_if_incomplete(self) -> None:
        """Log, once, that the file ended before its header says, or has holes."""
        if self._warned:
            return
        promised = self.info.duration
        tolerance = _DURATION_TOLERANCE + 2 * self._clock.period
        end = self._end - self._timing.start
        is_one_clock = not self._clock.has_restarted  # of several the header promises anything
        what = f"{self._damaged_packets} damaged packets were skipped"
        if promised is not None and is_one_clock and end + tolerance < promised:
            what = f"stopped at {end:.2f} of {promised:.2f} s, the rest is missing or damaged"
        elif not self._damaged_packets:
            return
        self._warned = True
        warn(self.path, what)

    # ---- going elsewhere ----

    def can_skip_ahead(self, position: float, target: float) -> bool:
        if not self._can_seek:
            return False
        entries = self._stream.index_entries
        index = entries.search_timestamp(self._clock.ticks_at(target), backward=True)
        # The index holds decoding times, which are never later than the presentation times.
        if index >= 0 and self._clock.seconds_of(entries[index].timestamp) > position:
            return True
        return not self._knows_key_frames and target - position > _BLIND_SEEK_SECONDS

    def seek(self, seconds: float) -> tuple[float, av.VideoFrame]:
        # To the key frame before the moment, as near as the file allows.
        target, step = seconds, 1.0
        while self._can_seek and target > self._timing.start:
            key_frame = self._seek_key_frame(target)
            if key_frame is not None and is_shown_by(key_frame[0], seconds):
                return key_frame
            # The index points into a hole, or at pictures shown before their key frame.
            target -= step
            step *= 2
        self._restart()
        first = self.next_frame()
        if first is None:
            raise VideoError(f"{self.path}: the file has changed while it was read: start again")
        return first

    def _seek_key_frame(self, seconds: float) -> tuple[float, av.VideoFrame] | None:
        """Seek, and give the first key frame that comes out with its seconds."""
        ticks = self._clock.ticks_at(seconds)
        try:
            self._container.seek(ticks, stream=self._stream, backward=True)
        except av.FFmpegError:
            return None
        self._clock.after_seek()
        self._stills = StillLimit()
        frames = self._decode(self._container.demux(self._stream))
        self._frames = self._timed(
            # Pictures before the first key frame may lack what they were predicted from.
            dropwhile(lambda frame: not frame.key_frame or frame.pts is None, frames)
        )
        return self.next_frame()

    def _restart(self) -> None:
        """Stand before the first frame. Opens anew: not every format can be rewound."""
        self._container.close()
        self._container, self._stream = self._open(self._threads)
        self._begin(self._clock.kind, self._container.demux(self._stream))

    def to_rgb(self, frame: av.VideoFrame) -> np.ndarray:
        width, height = self.info.width, self.info.height
        if self.info.rotation % 180:
            width, height = height, width
        # The frame's own colour matrix and range are used where it names them. One thread: several
        # cost small pictures more than they bring, and the loader's workers need the cores.
        rgb = self._reformatter.reformat(
            frame, width=width, height=height, format="rgb24", threads=1
        ).to_ndarray()
        if self._is_mirrored:
            rgb = rgb[:, ::-1]
        return np.ascontiguousarray(np.rot90(rgb, k=self.info.rotation // 90))

    def close(self) -> None:
        self._frames = iter(())
        self._container.close()


class VideoWriter:
    """Writes RGB frames to a video file that most players show; a context manager.

    H.264, or MPEG-4 where the FFmpeg at hand cannot write H.264. The file appears under its name
    only when all is written; after an exception inside the ``with`` block there is none.

    Args:
        path: the file to write or replace; its ending names the container (.mp4, .mkv, .mov, .avi).
        width, height: pixels of the frames. The file's picture has the next even size: the last
            column or row is repeated, nothing is scaled.
        crf: H.264's constant quality, 0 (lossless) to 51.
        preset: H.264's effort, such as "veryfast": less than half the work and memory of "fast" for
            a quality slightly lower at the same `crf`.
        gop: frames between key frames. A small number makes seeking cheap; None leaves it to the
            encoder (250 or so).
        repeatable: the same frames give the same file, to the byte.
        sound: from which every frame takes its sound, AAC in the file.

    Raises:
        VideoError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        fps: float,
        width: int,
        height: int,
        *,
        crf: int = 20,
        preset: str = "fast",
        gop: int | None = None,
        repeatable: bool = False,
        sound: Sound | None = None,
    ) -> None:
        if width < 1 or height < 1:
            raise ValueError(f"{width}x{height} is no picture size: give numbers above 0")
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps is {fps}: give a number above 0")
        self.path = Path(path)
        self.frames_written = 0
        self._size = (height, width)
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._partial = self.path.with_name(
            # Not longer than the name itself may be.
            f".{self.path.stem[:20]}.{os.getpid()}.partial{self.path.suffix}"
        )
        self._reformatter = VideoReformatter()
        self._container: av.container.OutputContainer | None = None
        with self._discarding("cannot be written"):
            is_mp4 = self.path.suffix.lower() in (".mp4", ".mov", ".m4v")
            self._container = av.open(
                f"file:{self._partial}", "w", options={"movflags": "+faststart"} if is_mp4 else {}
            )
            codec, options = _encoder(crf, preset, repeatable)
            # 1001 keeps the television rates (30000/1001) exact.
            rate = Fraction(fps).limit_denominator(1001)
            stream = self._container.add_stream(codec, rate=rate, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width = height + height % 2, width + width % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            # The file depends on the number of threads, and 0 takes as many as there are cores.
            context.thread_count = 1 if repeatable else 0
            context.sample_aspect_ratio = Fraction(1)
            # Written into the file, so that players do not have to guess the colours by the size.
            context.color_range = ColorRange.MPEG
            context.colorspace = Colorspace.ITU601
            if gop is not None:
                context.gop_size = gop
            self._stream = stream
            self._sound, self._rate = sound, rate
            if sound is not None:
                audio = self._container.add_stream("aac", rate=sound.rate, layout=sound.layout)
                assert isinstance(audio, av.AudioStream)
                self._audio = audio
            self._container.start_encoding()

    @contextlib.contextmanager
    def _discarding(self, what: str) -> Iterator[None]:
        """Throw the file away if FFmpeg or the disk fails, and say so."""
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            self._discard()
            raise VideoError(f"{self.path}: {what} ({_say(error)})") from error

    def write(self, rgb_frame: np.ndarray, seconds: float | None = None) -> None:
        """Append a frame, (height, width, 3) uint8 RGB.

        Args:
            seconds: moment of `sound` that is heard with it; default: its place in this file.
        """
        if self._container is None:
            raise ValueError(f"{self.path}: the file is finished, open a new writer")
        rgb_frame = np.asarray(rgb_frame)
        if rgb_frame.dtype != np.uint8 or rgb_frame.shape != (*self._size, 3):
            what = f"the frame to write is {rgb_frame.dtype} {rgb_frame.shape}"
            raise ValueError(f"{self.path}: {what}, expected uint8 {(*self._size, 3)}")
        if any(size % 2 for size in self._size):
            rgb_frame = np.pad(rgb_frame, self._padding, mode="edge")
        frame = self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(rgb_frame), format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts = self.frames_written
        frame.time_base = 1 / self._stream.codec_context.rate
        with self._discarding("cannot be written on"):
            self._container.mux(self._stream.encode(frame))
            if self._sound is not None:
                here = self.frames_written / float(self._rate)
                self._write_sound(self._sound, here if seconds is None else seconds)
        self.frames_written += 1

    def _write_sound(self, sound: Sound, seconds: float) -> None:
        assert self._container is not None
        begin, end = (
            round((self.frames_written + n) * sound.rate / float(self._rate)) for n in (0, 1)
        )
        samples = sound.take(seconds, end - begin)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=sound.layout)
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, begin, Fraction(1, sound.rate)
        self._container.mux(self._audio.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._container is None:
            return
        if not self.frames_written:
            self._discard()
            raise VideoError(f"{self.path}: not written, no frame was given for it")
        with self._discarding("could not be finished"):
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._container.mux(self._audio.encode(None))
            container, self._container = self._container, None
            container.close()
            os.replace(self._partial, self.path)

    def _discard(self) -> None:
        container, self._container = self._container, None
        with contextlib.suppress(av.FFmpegError, OSError):  # it need not be finished any more
            if container is not None:
                container.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        if exc_type is None:
            self.close()
        else:
            self._discard()


def _encoder(crf: int, preset: str, repeatable: bool) -> tuple[str, dict[str, str]]:
    """Name and options of the encoder."""
    if "libx264" not in av.codecs_available:
        return "mpeg4", {"qscale": "3"}
    options = {"crf": str(crf), "preset": preset}
    if repeatable:
        # Its look-ahead by macroblock trees, as written for AVX-512, gives now this, now that for
        # small pictures (x264 core 165; 96 x 64: one video in ten).
        options["x264-params"] = "mbtree=0"
    return "libx264", options


def _say(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _open_stream(path: Path, threads: int) -> tuple[av.container.InputContainer, av.VideoStream]:
    """Open a file and choose its video stream, or say in one line why that is not possible."""
    reason = _why_not_a_video(path)
    if reason is not None:
        raise VideoError(f"{path}: {reason}")
    try:
        # "file:" keeps FFmpeg from reading "-x", "a:b" or "http://" in a name as something else.
        container = av.open(f"file:{path}", metadata_errors="ignore", options=_LIMITS)
    except (av.FFmpegError, OSError) as error:
        if _is_mp4_without_index(path):
            reason = "truncated or incomplete file (no index): copy it again or let it be finished"
        elif isinstance(error, (av.InvalidDataError, av.EOFError)) or _say(error) == _CUT_OFF:
            reason = f"not a readable video (damaged, or no video at all): {_COPY_AGAIN}"
        else:
            reason = f"cannot be opened ({_say(error)}): check the file"
        raise VideoError(f"{path}: {reason}") from error
    try:
        if container.format.name in _TEXT_FORMATS:
            raise VideoError(f"{path}: a text file ({container.format.name}): give a video file")
        if container.format.name == "image2" or container.format.name.endswith("_pipe"):
            raise VideoError(f"{path}: a picture, not a video: give a video file")
        return container, _ready_stream(path, container, threads)
    except BaseException:
        container.close()
        raise


def _ready_stream(
    path: Path | str, container: av.container.InputContainer, threads: int
) -> av.VideoStream:
    """Choose the video stream of an open container, and prepare its decoder."""
    # A cover picture attached to a sound file is listed as a video stream of one frame.
    videos = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic
    ]
    if not videos:
        raise VideoError(f"{path}: no video stream: give a file that contains a video")
    best = container.streams.best("video")
    stream = best if isinstance(best, av.VideoStream) and best in videos else videos[0]
    if len(videos) > 1:
        streams = ", ".join(f"{x.index} ({x.width}x{x.height})" for x in videos)
        logger.info("%s: has video streams %s, takes %d", one_line(path), streams, stream.index)
    if stream.codec_context is None:
        raise VideoError(f"{path}: no decoder for its compression: convert it to H.264")
    if stream.width * stream.height > MAX_PIXELS:
        what = f"its pictures are {stream.width}x{stream.height}, more than {MAX_PIXELS:,} pixels"
        raise VideoError(f"{path}: {what} are not read: scale it down")
    stream.codec_context.options = _LIMITS
    stream.codec_context.thread_count = threads
    if threads != 1:
        stream.thread_type = "AUTO"
    return stream


def _why_not_a_video(path: Path) -> str | None:
    """Give the reason why a path cannot be a video, as far as FFmpeg would not say it clearly."""
    try:
        if not path.exists():
            return "no such file: check the path"
        if not path.is_file():  # a pipe would be waited for
            return "a device or a pipe, not a file: save the video into a file"
        with path.open("rb") as file:
            start = file.read(1024)
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        return f"cannot be read ({_say(error)}): check the path and its permissions"
    if not start:
        return f"empty file: {_COPY_AGAIN}"
    if start.startswith(_LFS_MARK):
        return "a Git LFS pointer, not the video itself: run `git lfs pull` where it came from"
    if _is_text(start):
        return "a text file: give a video file"
    return None


def _is_text(start: bytes) -> bool:
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # more than a character cut at the end of `start`
            return False
        text = start[: error.start].decode("utf-8")
    return all(character.isprintable() or character.isspace() for character in text)


def _is_mp4_without_index(path: Path) -> bool:
    """Whether an MP4 or MOV has its pictures ("mdat") but not the index ("moov") to find them."""
    kinds: set[bytes] = set()
    position = 0
    with path.open("rb") as file:
        while len(header := file.read(16)) >= 8 and len(kinds) < 64:
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if not position and kind not in (b"ftyp", b"mdat", b"wide", b"free", b"skip"):
                return False
            kinds.add(kind)
            if size == 1:  # the real size follows
                size = int.from_bytes(header[8:16], "big")
            if size < 8:  # 0: up to the end of the file
                break
            position += size
            file.seek(position)
    return b"mdat" in kinds and b"moov" not in kinds


# How many quarter turns counter-clockwise the signs of a display matrix (a, b, c, d) mean.
_QUARTER_TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Give the degrees that turn a stored picture upright, and whether it is mirrored before.

    Only whole quarter turns count. PyAV's `frame.rotation` takes a mirrored picture (some front
    cameras store them) for one that is upside down.
    """
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return 0, False
    matrix = np.frombuffer(bytes(stored), "<i4")  # type: ignore[call-overload]  # a buffer
    a, b, _, c, d = (int(sign) for sign in np.sign(matrix[:5]))
    is_mirrored = a * d - b * c < 0
    if is_mirrored:
        a, b = -a, -b
    turns = _QUARTER_TURNS.get((a, b, c, d))
    return (0, False) if turns is None else (90 * turns, is_mirrored)


def _time_base(stream: av.VideoStream) -> Fraction:
    assert stream.time_base is not None  # FFmpeg gives one to every stream that it opens
    return stream.time_base


def _average_fps(stream: av.VideoStream) -> float | None:
    # A header without a rate leads FFmpeg to give its tick, 90000 and the like.
    return _first_rate(stream.average_rate, stream.guessed_rate)


def _own_rate(stream: av.VideoStream) -> float | None:
    """Give the rate that the compressed stream itself tells (H.264 in its VUI), if it does."""
    told = stream.codec_context.framerate
    # MPEG-4 tells its ticks a second and the times of pictures in them: FFmpeg sees the rate there.
    return _first_rate(told, stream.guessed_rate) if told else None


def _first_rate(*rates: Fraction | None) -> float | None:
    return next((float(rate) for rate in rates if rate and 0 < rate <= _MAX_FPS), None)


def _promised_duration(
    container: av.container.InputContainer, stream: av.VideoStream
) -> float | None:
    """Give the seconds of the video, not of its sound, if the header knows them."""
    if stream.duration:
        duration = float(stream.duration * _time_base(stream))
        if "avi" in container.format.name and stream.frames:
            # FFmpeg shortens it to what a truncated AVI's size allows.
            duration = max(duration, stream.frames / (_average_fps(stream) or _DEFAULT_FPS))
        return duration
    tag = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:00:02.966000000
    try:
        hours, minutes, seconds = map(float, tag)
        return hours * 3600 + minutes * 60 + seconds
    except ValueError:
        return container.duration / av.time_base if container.duration else None
