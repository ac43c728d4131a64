"""Boxes of persons and objects for any videos, found by any detector.

    alphaaction boxes --input film.mp4 folder_of_videos --output boxes.csv
    alphaaction boxes --detector torchvision:fasterrcnn_resnet50_fpn_v2 --dataset my_data
    alphaaction boxes --detector config.yaml model.pth --dataset my_data

Without --detector RF-DETR finds them where transformers is installed, else torchvision. The rows
written are video_id,timestamp,x1,y1,x2,y2,class,score with an empty class for persons. A data set
is looked at where it is annotated, and for a folder with own data the files go where it expects
them (boxes/<split>_persons.csv and boxes/<split>_objects.csv).

With --features FILE.pkl it also writes what the detector's box head says of the best objects, once
a second: the memory of EPIC-Kitchens' noun models (docs/epic_kitchens.md).

A run that was killed goes on with the videos that are missing when it is started again. A video
that cannot be used is listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import logging
import pickle
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from detectron2.data import MetadataCatalog

from ..config import LOOKS_PER_SECOND
from ..data.clip_sampling import iterate_clips
from ..data.datasets import AVAFiles, keyframes_of, register_folder, registered_files
from ..data.datasets.builtin import folder_splits, ucf101_24_splits
from ..data.datasets.catalog import check_registered
from ..data.datasets.ucf101_24 import UCFFiles
from ..data.video import (
    VideoError,
    VideoReader,
    find_videos,
    first_that_opens,
    iterate_frames,
    one_line,
    video_name,
)
from ..formats.epic55 import FEATURE_FPS
from ..formats.names import file_name
from ..formats.results import format_timestamp
from ..formats.ucf101_24 import FRAME_RATE, TRAIN_FRAME_STRIDE
from ..formats.writing import csv_text, only_writer, write_atomically, write_csv
from ..modeling.coco_detectors import AUTO
from ..modeling.detector import load_detector, resolve_detector
from ..modeling.picture_boxes import PictureBoxes, PictureDetector
from .command_line import describe_error, tell_failed, tool_parser
from .console import setup_console
from .video_arguments import DETECTOR_HELP, find_inputs
from .video_folders import claim_folder

logger = logging.getLogger(__name__)

# What the boxes depend on besides the videos.
_SETTINGS = (
    *("detector", "min-score", "short-side", "class-names", "opts", "every-second"),
    *("looks-per-second", "features"),
)
FEATURES_PER_PICTURE = 10


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--detector", nargs="+", default=[AUTO], metavar=("NAME", "WEIGHTS"), help=DETECTOR_HELP
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--input",
        nargs="+",
        metavar="VIDEO",
        help="videos (files, or folders of numbered pictures or one-second clips), folders of them",
    )
    what.add_argument("--dataset", metavar="DATA", help="folder with own data, or registered name")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="CSV to write; with a registered data set the beginning of two names: "
        "FILE_persons.csv, FILE_objects.csv",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--every-second", action="store_true", help="with --dataset: not only where it is annotated"
    )
    parser.add_argument(
        "--looks-per-second",
        type=int,
        default=None,
        metavar="N",
        help="more than 1: persons between keyframes, too, who are linked, not classified; default "
        f"{LOOKS_PER_SECOND} with --input, 1 with --dataset",
    )
    parser.add_argument(
        "--features",
        metavar="PKL",
        help="with --input: also write the features of the best objects, by video and frame (30 a "
        "second)",
    )
    parser.add_argument("--min-score", type=float, default=0.3, help="lowest score that is written")
    parser.add_argument(
        "--short-side", type=int, default=0, help="pixels; default: what the configuration says"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="pictures at a time")
    parser.add_argument("--device", default="", help="cuda or cpu; default: a GPU if there is one")
    parser.add_argument(
        "--class-names", nargs="+", default=[], metavar="NAME", help="default: the configuration's"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE pairs for the detector"
    )
    return parser.parse_args(argv)


# ------------------------------------------------------------------------- what is to be looked at


@dataclass(frozen=True)
class VideoJob:
    """One video to look at."""

    video_id: str
    path: Path | None  # None for one that was not found
    timestamps: tuple[float, ...] | None = None  # increasing seconds; None: every second
    frame_rate: float | None = None  # of a data set that counts frames, see `VideoReader`

    def is_keyframe(self, timestamp: float) -> bool:
        """Tell whether a moment is a keyframe; others, in between, are looked at for persons."""
        return self.frame_rate is not None or timestamp == round(timestamp)


def video_jobs(inputs: Sequence[str | Path]) -> list[VideoJob]:
    """Jobs for videos and folders of videos, see :func:`find_inputs`."""
    return [VideoJob(video_name(path), Path(path)) for path in find_inputs(inputs)]


def dataset_jobs(files: AVAFiles | UCFFiles, every_second: bool = False) -> list[VideoJob]:
    """Jobs for the keyframes of a split: those annotated or listed that are not excluded.

    Of UCF101-24 these are all frames for testing, and every fifth annotated one for training.
    """
    if isinstance(files, UCFFiles):
        return _ucf_jobs(files)
    found = find_videos(files.videos)
    keyframes: dict[str, list[int]] = defaultdict(list)
    for video, second in keyframes_of(str(files.videos), files):
        keyframes[video].append(second)
    return [
        VideoJob(name, _video_of(found.get(name, [])), None if every_second else tuple(seconds))
        for name, seconds in keyframes.items()
    ]


def _ucf_jobs(files: UCFFiles) -> list[VideoJob]:
    annotations = files.read()
    found = files.find_videos(annotations)
    jobs = []
    for code, frames in files.keyframes(annotations).items():
        video = annotations.videos[code]
        if files.split == "train":
            frames = [k for k in frames if k % TRAIN_FRAME_STRIDE == 0]
        moments = tuple(k / FRAME_RATE for k in frames)
        jobs.append(VideoJob(video, _video_of(found.get(video, [])), moments, FRAME_RATE))
    return jobs


def _video_of(paths: Sequence[Path]) -> Path | None:
    """Which of some files of one name to take; the last one is not opened for that."""
    info, _ = first_that_opens(paths[:-1])
    if info is not None:
        return info.path
    return paths[-1] if paths else None


@dataclass(frozen=True)
class Task:
    """One set of videos, the folder of their parts, and files for kinds of boxes."""

    jobs: list[VideoJob]
    parts: Path
    outputs: Mapping[Path, Sequence[str]]  # see `merge_parts`


def split_task(files: AVAFiles | UCFFiles, prefix: Path, every_second: bool) -> Task:
    """The task of one split of a data set."""
    outputs = {
        prefix.with_name(f"{prefix.name}_{kind}s.csv"): (kind,) for kind in ("person", "object")
    }
    jobs = dataset_jobs(files, every_second)
    return Task(jobs, prefix.with_name(f"{prefix.name}.parts"), outputs)


def make_tasks(args: argparse.Namespace) -> list[Task]:
    """What the command line asks for."""
    if args.input:
        if not args.output:
            raise ValueError("--input needs --output FILE, the CSV to write")
        output = Path(args.output)
        parts = output.with_name(f"{output.name}.parts")
        return [Task(video_jobs(args.input), parts, {output: ("person", "object")})]
    folder = Path(args.dataset).expanduser()
    if folder.is_dir():
        if args.output:
            raise ValueError("--output is not for a folder with own data: see boxes/ in it")
        register_folder(folder)  # says what is missing
        splits = (ucf101_24_splits(folder) or folder_splits(folder)).items()
        return [split_task(x, folder / "boxes" / split, args.every_second) for split, x in splits]
    check_registered(args.dataset)
    files = MetadataCatalog.get(args.dataset).get("files")
    if not isinstance(files, UCFFiles):
        files = registered_files(args.dataset)
    if not args.output:
        raise ValueError(f"{args.dataset} needs --output FILE: FILE_persons.csv is written, ...")
    return [split_task(files, Path(args.output), args.every_second)]


# ------------------------------------------------------------------------------- looking at a video


def keyframe_pictures(
    path: str | Path,
    timestamps: Sequence[float] | None = None,
    looks_per_second: int = 1,
    frame_rate: float | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (timestamp, (H, W, 3) uint8 RGB picture) of a video's keyframes, decoding each frame at
    most once; VideoError for one that cannot be opened.

    Args:
        timestamps: increasing whole seconds; those outside the video are left out. Default: every
            second.
        looks_per_second: more than 1 also gives moments between keyframes that are one second
            apart.
        frame_rate: of a data set that counts frames, see `VideoReader`; any seconds will do then.
    """
    if timestamps is None:
        clips = iterate_clips(
            iterate_frames(path), num_frames=1, sampling_rate=1, fps=1, period=1 / looks_per_second
        )
        for timestamp, _, picture in clips:
            yield round(timestamp * looks_per_second) / looks_per_second, picture
        return
    moments, known = [], set(timestamps)
    for timestamp in timestamps:
        if timestamp - 1 in known and frame_rate is None:
            moments += [timestamp - 1 + n / looks_per_second for n in range(1, looks_per_second)]
        moments.append(timestamp)
    with VideoReader(path, frame_rate=frame_rate) as reader:
        for moment in moments:
            if reader.info.spans(moment) or frame_rate is not None:
                yield moment, reader.pictures([moment])[0]


def detect_keyframes(
    pictures: Iterable[tuple[float, np.ndarray]], detect: PictureDetector, batch_size: int = 1
) -> Iterator[tuple[float, PictureBoxes]]:
    """Yield (timestamp, boxes) for the pictures of one video, in order."""
    pictures = iter(pictures)
    while batch := list(itertools.islice(pictures, batch_size)):
        found = detect([picture for _, picture in batch])
        yield from zip((timestamp for timestamp, _ in batch), found, strict=True)


def box_rows(
    video_id: str, timestamp: float, detected: PictureBoxes, is_keyframe: bool = True
) -> list[list[str]]:
    """Make rows video_id,timestamp,x1,y1,x2,y2,class,score of one keyframe, persons first.

    Coordinates are fractions with five decimals; a box that is nothing at that precision is left
    out. Between keyframes only persons matter.
    """
    found, names = detected.found, detected.names
    boxes = np.round(np.clip(found.boxes, 0, 1), 5)
    rows = []
    for index in sorted(range(len(boxes)), key=lambda i: (names[i] != "", -found.scores[i])):
        x1, y1, x2, y2 = boxes[index].tolist()
        matters = names[index] == "" or is_keyframe
        if matters and x1 < x2 and y1 < y2:
            corners = [f"{value:.5f}" for value in (x1, y1, x2, y2)]
            score = f"{found.scores[index]:.6f}"
            rows.append([video_id, format_timestamp(timestamp), *corners, names[index], score])
    return rows


# ---------------------------------------------------------------------------- files, video by video


def write_boxes(
    jobs: Sequence[VideoJob],
    detect: PictureDetector,
    parts: Path,
    *,
    settings: Mapping[str, object],
    batch_size: int = 1,
    looks_per_second: int = 1,
    with_features: bool = False,
) -> list[str]:
    """Look at videos and write each one's boxes into a file of its own in `parts`.

    Videos whose file is there are passed over, so the same call goes on after being killed; with
    other `settings`, which are what the boxes depend on besides the videos, it is a ValueError.

    Args:
        batch_size: pictures that go through the detector together.
        looks_per_second: see :func:`keyframe_pictures`.
        with_features: also write those of the best objects at whole seconds.

    Returns:
        One line for each video that could not be used.
    """
    claim_folder(parts, settings)
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
            features: dict[str, np.ndarray] = {}
            pictures = keyframe_pictures(job.path, job.timestamps, looks_per_second, job.frame_rate)
            for timestamp, found in detect_keyframes(pictures, detect, batch_size):
                is_keyframe = job.is_keyframe(timestamp)
                rows += box_rows(job.video_id, timestamp, found, is_keyframe)
                looks += 1
                if is_keyframe:
                    complete = len(rows)
                    if with_features:
                        best = found.best_features(FEATURES_PER_PICTURE)
                        features[str(round(timestamp * FEATURE_FPS))] = best.astype(np.float16)
            # After the last keyframe nobody is linked any more, and the next second is none.
            del rows[complete:]
        except VideoError as error:
            failed.append(describe_error(error))
            logger.error("%s", failed[-1])
            continue
        if with_features:  # before the rows, which tell that all is there
            save = functools.partial(_save_arrays, arrays=features)
            write_atomically(_part(parts, job).with_suffix(".npz"), save)
        write_csv(_part(parts, job), rows)
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
    """Join what `write_boxes` left, in the order of `jobs`, into files of "person" and "object"
    rows."""

    def write(file: BinaryIO, kinds: Sequence[str]) -> None:
        for path in (_part(parts, job) for job in jobs):
            if path.is_file():
                with path.open(newline="", encoding="utf-8") as part:
                    rows = csv.reader(part)
                    kept = [row for row in rows if ("object" if row[6] else "person") in kinds]
                file.write(csv_text(kept).encode())

    for path, kinds in outputs.items():
        write_atomically(path, functools.partial(write, kinds=kinds))


def merge_features(jobs: Sequence[VideoJob], parts: Path, path: Path) -> None:
    """Join the features that `write_boxes` left into a file that `read_detected_features` reads."""
    found = {}
    for job in jobs:
        part = _part(parts, job).with_suffix(".npz")
        if part.is_file():
            with np.load(part) as arrays:
                found[job.video_id] = {int(frame): arrays[frame] for frame in arrays}
    size = sum(x.nbytes for frames in found.values() for x in frames.values())
    write_atomically(path, lambda file: pickle.dump(found, file, protocol=4))
    logger.info("Wrote %s: features of %d videos, %.2f GB", path, len(found), size / 1e9)


def _part(parts: Path, job: VideoJob) -> Path:
    return parts / f"{file_name(job.video_id)}.csv"


def _save_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(file, **arrays)  # type: ignore[arg-type]  # names are no options


def _value(args: argparse.Namespace, option: str) -> Any:
    return getattr(args, option.replace("-", "_"))


def main(args: argparse.Namespace) -> int:
    setup_console()
    if len(args.detector) > 2:
        raise ValueError(f"--detector takes CONFIG and WEIGHTS, got {len(args.detector)} words")
    if args.looks_per_second is None:
        args.looks_per_second = LOOKS_PER_SECOND if args.input else 1
    for option in ("batch-size", "looks-per-second"):
        if (number := _value(args, option)) < 1:
            raise ValueError(f"--{option} {number}: give a number from 1 on")
    tasks = make_tasks(args)
    if args.features and not args.input:
        raise ValueError("--features goes with --input")
    if args.every_second and args.input:
        raise ValueError("--every-second goes with --dataset: of other videos every second is seen")
    wanted = [path for task in tasks if not task.parts.is_dir() for path in task.outputs]
    for path in [*wanted, *([Path(args.features)] if args.features and wanted else [])]:
        if path.exists() and not args.overwrite:  # and no unfinished run goes on
            raise ValueError(f"{path} exists: give --overwrite to replace it")
    # By its own name: a run that goes on must not mix what two detectors find.
    args.detector[0] = resolve_detector(args.detector[0], args.device)
    detector = load_detector(
        *args.detector,
        device=args.device,
        score_threshold=args.min_score,
        short_side=args.short_side,
        class_names=args.class_names,
        opts=args.opts,
        with_features=bool(args.features),
    )
    settings = {option: _value(args, option) for option in _SETTINGS}
    failed = []
    for task in tasks:
        with only_writer(task.parts):  # a second run would join what the first one has left
            lost = write_boxes(
                task.jobs,
                detector,
                task.parts,
                settings=settings,
                batch_size=args.batch_size,
                looks_per_second=args.looks_per_second,
                with_features=bool(args.features),
            )
            if args.features:
                merge_features(task.jobs, task.parts, Path(args.features))
            merge_parts(task.jobs, task.parts, task.outputs)
            logger.info("Wrote %s", ", ".join(map(str, task.outputs)))
            if not lost:
                shutil.rmtree(task.parts)
        failed += lost
    return tell_failed(failed, sum(len(task.jobs) for task in tasks))
