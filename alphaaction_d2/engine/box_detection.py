"""Boxes of persons and objects for any video, found by a detector.

For a prediction that runs, `DetectedBoxes` looks at the frames on their way to the network. For
files, `write_boxes` goes through videos one after the other; what is done is kept video by video,
so that a run that was killed goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..apps.command_line import describe_error
from ..data.clip_sampling import first_keyframe, is_shown_by, iterate_clips, last_keyframe
from ..data.datasets.ava import AVAFiles, keyframes_of, read_metadata
from ..data.dense_boxes import dense_persons
from ..data.video.clip_folder import VIDEO_SUFFIXES
from ..data.video.reader import (
    VideoError,
    VideoReader,
    find_videos,
    first_that_opens,
    is_video_folder,
    iterate_frames,
    one_line,
    video_name,
)
from ..formats.writing import write_atomically
from ..modeling.detector import PictureBoxes, PictureDetector
from ..visualization.results_io import format_timestamp

logger = logging.getLogger(__name__)

_SETTINGS = "settings.json"
_LONG_NAME = 200  # bytes: with the endings of its files a longer one is too much for file systems


class DetectedBoxes:
    """A box source (see `VideoPredictor`) that looks at the keyframes itself, at full size.

    The predictor passes a video's frames through `watch`. A keyframe's boxes are found as soon as
    it is known which frame it shows; only boxes are kept, and only until they are asked for.

    With more looks than keyframes, the persons in between come as `persons_between` with the next
    keyframe (see `DensePersons`): they are linked, but not classified.
    """

    def __init__(self, detect: PictureDetector, looks_per_second: int = 1) -> None:
        """
        Args:
            detect: finds boxes in pictures.
            looks_per_second: how often; once, at the keyframes, or a multiple of that.
        """
        if looks_per_second < 1:
            raise ValueError(
                f"MODEL.PERSON_DETECTOR.LOOKS_PER_SECOND {looks_per_second}: use at least 1"
            )
        self._detect = detect
        self._looks = looks_per_second
        self._found: dict[int, PictureBoxes] = {}  # by number of the look

    def watch(
        self, frames: Iterable[tuple[float, np.ndarray]]
    ) -> Iterator[tuple[float, np.ndarray]]:
        """Pass on (seconds, RGB frame), looking at the keyframes that go by."""
        self._found.clear()
        number, shown, shown_time = None, None, 0.0
        for seconds, frame in frames:
            if number is None:
                number = first_keyframe(seconds, 1 / self._looks)
            while shown is not None and not is_shown_by(seconds, number / self._looks):
                self._look(number, shown)
                number += 1
            shown, shown_time = frame, seconds
            yield seconds, frame
        while shown is not None and number <= last_keyframe(shown_time, 1 / self._looks):
            self._look(number, shown)
            number += 1

    def _look(self, number: int, picture: np.ndarray) -> None:
        self._found[number] = self._detect([picture])[0]

    def __call__(self, timestamp: float, height: int, width: int) -> dict[str, dict]:
        """The boxes of a keyframe that has gone by; each is given once."""
        number = round(timestamp * self._looks)
        found = self._found.pop(number).by_kind()
        if self._looks > 1:
            before = [n for n in range(number - self._looks + 1, number) if n in self._found]
            found["persons_between"] = _joined(
                {n / self._looks: self._found.pop(n) for n in before}
            )
        return found


def _joined(moments: Mapping[float, PictureBoxes]) -> dict[str, np.ndarray]:
    """The persons of several moments, in order of time, as `persons_between`."""
    persons = [found.by_kind()["persons"] for found in moments.values()]
    columns = {
        name: [row for found in persons for row in found[name]]
        for name in ("boxes", "scores", "person_ids")
    }
    times = [time for time, found in zip(moments, persons) for _ in found["boxes"]]
    return dense_persons(times, **columns)


@dataclass(frozen=True)
class VideoJob:
    """One video to look at.

    Attributes:
        video_id: its name in the rows.
        path: the file or folder; None for one that was not found.
        timestamps: increasing seconds of the keyframes; None: every second.
    """

    video_id: str
    path: Path | None
    timestamps: tuple[int, ...] | None = None


def video_jobs(inputs: Sequence[str | Path]) -> list[VideoJob]:
    """Jobs for videos and folders of videos (their own, not those of folders below).

    Raises:
        ValueError: a folder has no videos, or two videos have one name.
    """
    paths: list[Path] = []
    for given in map(Path, inputs):
        if _is_one_video(given) or not given.is_dir():
            paths.append(given)
            continue
        found = sorted(path for paths in find_videos(given).values() for path in paths)
        videos = [path for path in found if _is_one_video(path)]
        if not videos:
            raise ValueError(f"{given}: no videos in this folder")
        if len(videos) < len(found):
            others = sorted({path.suffix or path.name for path in set(found) - set(videos)})
            logger.info("%s: left out what is no video: %s", given, ", ".join(others[:5]))
        paths += videos
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(name := video_name(path), path)
        if other != path:
            raise ValueError(f"two videos are called {name}: {other} and {path}")
    return [VideoJob(name, path) for name, path in by_name.items()]


def _is_one_video(path: Path) -> bool:
    """Whether to take a path for a video; reading it says so if it is none."""
    try:
        return path.suffix.lower() in VIDEO_SUFFIXES or (path.is_dir() and is_video_folder(path))
    except (VideoError, OSError, ValueError):
        return True


def registered_files(name: str) -> AVAFiles:
    """The files of a registered split.

    Raises:
        KeyError: the name is not registered.
        ValueError: it has no videos.
    """
    if name not in DatasetCatalog.list():
        read_metadata(name)  # says which there are
    files = MetadataCatalog.get(name).get("files")
    if files is None:
        raise ValueError(f"{name}: not a data set of videos")
    return files


def dataset_jobs(files: AVAFiles, every_second: bool = False) -> list[VideoJob]:
    """Jobs for the keyframes of a split: those annotated or listed that are not excluded.

    Args:
        files: of the split.
        every_second: look at every second of the split's videos.
    """
    found = find_videos(files.videos)
    keyframes: dict[str, list[int]] = {}
    for video, second in keyframes_of(str(files.videos), files):
        keyframes.setdefault(video, []).append(second)
    return [
        VideoJob(name, _video_of(found.get(name, [])), times)
        for name, seconds in keyframes.items()
        for times in [None if every_second else tuple(seconds)]
    ]


def _video_of(paths: Sequence[Path]) -> Path | None:
    """Which of some files of one name to take; the last one is not opened for that."""
    info, _ = first_that_opens(paths[:-1])
    if info is not None:
        return info.path
    return paths[-1] if paths else None


def keyframe_pictures(
    path: str | Path, timestamps: Sequence[float] | None = None, looks_per_second: int = 1
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (timestamp, (H, W, 3) uint8 RGB picture) of a video's keyframes.

    Each frame is decoded at most once.

    Args:
        path: the video.
        timestamps: increasing whole seconds; those outside the video are left out. Default: every
            second.
        looks_per_second: more than 1 also gives moments between keyframes that are one second
            apart.

    Raises:
        VideoError: the video cannot be opened.
    """
    if timestamps is None:
        clips = iterate_clips(
            iterate_frames(path), num_frames=1, sampling_rate=1, fps=1, period=1 / looks_per_second
        )
        for timestamp, _, picture in clips:
            yield round(timestamp * looks_per_second) / looks_per_second, picture
        return
    timestamps = _with_looks_between(timestamps, looks_per_second)
    with VideoReader(path) as reader:
        for timestamp in timestamps:
            if reader.info.spans(timestamp):
                yield timestamp, reader.pictures([timestamp])[0]


def _with_looks_between(timestamps: Sequence[float], looks_per_second: int) -> list[float]:
    """Keyframes, and before each that follows another after a second the moments in between."""
    moments, known = [], set(timestamps)
    for timestamp in timestamps:
        if timestamp - 1 in known:
            moments += [timestamp - 1 + n / looks_per_second for n in range(1, looks_per_second)]
        moments.append(timestamp)
    return moments


def detect_keyframes(
    pictures: Iterable[tuple[float, np.ndarray]], detect: PictureDetector, batch_size: int = 1
) -> Iterator[tuple[float, tuple[int, int], PictureBoxes]]:
    """Yield (timestamp, (height, width), boxes) for the pictures of one video, in order."""
    waiting: list[tuple[float, np.ndarray]] = []

    def results() -> Iterator[tuple[float, tuple[int, int], PictureBoxes]]:
        found = detect([picture for _, picture in waiting])
        for (timestamp, picture), boxes in zip(waiting, found, strict=True):
            yield timestamp, picture.shape[:2], boxes
        waiting.clear()

    for item in pictures:
        waiting.append(item)
        if len(waiting) >= batch_size:
            yield from results()
    if waiting:
        yield from results()


def box_rows(
    video_id: str, timestamp: float, size: tuple[int, int], found: PictureBoxes
) -> list[list[str]]:
    """Rows video_id,timestamp,x1,y1,x2,y2,class,score of one keyframe, persons first.

    Coordinates are fractions with five decimals; a box that is nothing at that precision is left
    out. Between keyframes, at broken seconds, only persons matter.

    Args:
        size: height and width of the picture in which the boxes are.
    """
    height, width = size
    boxes = np.round(np.clip(found.boxes / [width, height, width, height], 0, 1), 5)
    rows = []
    for index in sorted(range(len(boxes)), key=lambda i: (found.names[i] != "", -found.scores[i])):
        x1, y1, x2, y2 = boxes[index].tolist()
        matters = found.names[index] == "" or timestamp == round(timestamp)
        if matters and x1 < x2 and y1 < y2:
            corners = [f"{value:.5f}" for value in (x1, y1, x2, y2)]
            score = f"{found.scores[index]:.6f}"
            time = format_timestamp(timestamp)
            rows.append([video_id, time, *corners, found.names[index], score])
    return rows


def write_boxes(
    jobs: Sequence[VideoJob],
    detect: PictureDetector,
    parts: Path,
    *,
    settings: Mapping[str, object],
    batch_size: int = 1,
    looks_per_second: int = 1,
) -> list[str]:
    """Look at videos and write each one's boxes into a file of its own in `parts`.

    Videos whose file is there are passed over, so the same call goes on after being killed.

    Args:
        parts: the folder; made if needed.
        settings: what the boxes depend on besides the videos. Parts with other settings are not
            mixed with new ones.
        batch_size: pictures that go through the detector together.
        looks_per_second: see :func:`keyframe_pictures`.

    Returns:
        One line for each video that could not be used.

    Raises:
        ValueError: `parts` was begun with other settings.
    """
    _claim(parts, settings)
    missing = [job for job in jobs if not _part(parts, job).is_file()]
    if len(missing) < len(jobs):
        logger.info("%s: goes on with %d of %d videos", parts, len(missing), len(jobs))
    failed = []
    for number, job in enumerate(missing, 1):
        start = time.monotonic()
        try:
            if job.path is None:
                raise VideoError(f"{job.video_id}: video not found")
            rows, looks, complete = [], 0, 0
            pictures = keyframe_pictures(job.path, job.timestamps, looks_per_second)
            for timestamp, size, found in detect_keyframes(pictures, detect, batch_size):
                rows += box_rows(job.video_id, timestamp, size, found)
                looks += 1
                if timestamp == round(timestamp):
                    complete = len(rows)
            # After the last keyframe nobody is linked any more, and the next second is none.
            del rows[complete:]
        except VideoError as error:
            failed.append(describe_error(error))
            logger.error("%s", failed[-1])
            continue
        write_atomically(_part(parts, job), _csv_text(rows))
        persons = sum(row[6] == "" for row in rows)
        logger.info(
            "%d of %d: %s: %d pictures, %d persons, %d objects, %.1f s",
            *(number, len(missing), one_line(job.video_id), looks, persons, len(rows) - persons),
            time.monotonic() - start,
        )
    return failed


def merge_parts(
    jobs: Sequence[VideoJob], parts: Path, outputs: Mapping[Path, Sequence[str]]
) -> None:
    """Join what `write_boxes` left into whole files, in the order of `jobs`.

    Args:
        outputs: file -> kinds of boxes it holds, "person" and "object".
    """
    for path, kinds in outputs.items():

        def write(file: BinaryIO, kinds: Sequence[str] = kinds) -> None:
            for job in jobs:
                if not _part(parts, job).is_file():
                    continue
                with _part(parts, job).open(newline="", encoding="utf-8") as part:
                    rows = [
                        row
                        for row in csv.reader(part)
                        if ("object" if row[6] else "person") in kinds
                    ]
                file.write(_csv_text(rows).encode())

        write_atomically(path, write)


def remove_parts(parts: Path) -> None:
    """Remove the folder of a finished run."""
    shutil.rmtree(parts)


def _part(parts: Path, job: VideoJob) -> Path:
    name = job.video_id
    if len(os.fsencode(name)) > _LONG_NAME:
        name = f"{name[:50]}.{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}"
    return parts / f"{name}.csv"


def _claim(parts: Path, settings: Mapping[str, object]) -> None:
    """Make the folder of parts, or see that it was begun with the same settings."""
    path, wanted = parts / _SETTINGS, dict(settings)
    if not path.is_file():
        write_atomically(path, json.dumps(wanted, indent=1))
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    differing = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
    if differing:
        key = differing[0]
        raise ValueError(
            f"{parts}: begun with {key} {known.get(key)!r}, not {wanted.get(key)!r}: go on with "
            "that, or remove this folder"
        )


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
