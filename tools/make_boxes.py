#!/usr/bin/env python3
"""Boxes of persons and objects for any videos, found by any detector of detectron2.

    tools/make_boxes.py --detector COCO-Detection/faster_rcnn_X_101_32x8d_FPN_3x.yaml \\
        --input film.mp4 folder_of_videos --output boxes.csv
    tools/make_boxes.py --detector config.yaml model.pth --dataset my_data

The detector is a configuration and its weights (a file or an address; a name in detectron2's model
zoo needs no weights). Videos are looked at once a second; the rows written are
video_id,timestamp,x1,y1,x2,y2,class,score with an empty class for persons. A data set is looked at
where it is annotated, and for a folder with own data the files go where it expects them
(boxes/<split>_persons.csv and boxes/<split>_objects.csv).

A run that was killed goes on with the videos that are missing when it is started again. A video
that cannot be used is listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from detectron2.utils.logger import setup_logger

from alphaaction_d2.apps.command_line import run_tool
from alphaaction_d2.data.datasets.ava import AVAFiles
from alphaaction_d2.data.datasets.builtin import register_folder
from alphaaction_d2.engine.box_detection import (
    VideoJob,
    dataset_jobs,
    merge_parts,
    registered_files,
    remove_parts,
    video_jobs,
    write_boxes,
)
from alphaaction_d2.modeling.detector import load_detector

logger = logging.getLogger("alphaaction_d2.make_boxes")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--detector",
        required=True,
        nargs="+",
        metavar=("CONFIG", "WEIGHTS"),
        help="configuration of a detectron2 detector (file or name in its model zoo), and weights "
        "(file or address; not needed for the zoo)",
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
        default=1,
        metavar="N",
        help="more than 1: persons between keyframes, too; they are linked, not classified",
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


@dataclass(frozen=True)
class Task:
    """One set of videos and the files that their boxes go into."""

    jobs: list[VideoJob]
    parts: Path
    outputs: dict[Path, tuple[str, ...]]


def split_task(files: AVAFiles, prefix: Path, every_second: bool) -> Task:
    """The task of one split of a data set."""
    outputs = {
        prefix.with_name(f"{prefix.name}_persons.csv"): ("person",),
        prefix.with_name(f"{prefix.name}_objects.csv"): ("object",),
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
        names = register_folder(folder)
        found = [registered_files(name) for name in names]
        prefixes = [folder / "boxes" / files.annotations.stem for files in found]
        return [split_task(f, p, args.every_second) for f, p in zip(found, prefixes)]
    files = registered_files(args.dataset)
    if not args.output:
        raise ValueError(f"{args.dataset} needs --output FILE: FILE_persons.csv is written, ...")
    return [split_task(files, Path(args.output), args.every_second)]


def check_outputs(tasks: list[Task], overwrite: bool) -> None:
    """Refuse to replace files unless that is wanted, or an unfinished run goes on."""
    for task in tasks:
        for path in task.outputs:
            if path.exists() and not overwrite and not task.parts.is_dir():
                raise ValueError(f"{path} exists: give --overwrite to replace it")


def main(args: argparse.Namespace) -> int:
    setup_logger(name="alphaaction_d2")
    if len(args.detector) > 2:
        raise ValueError(f"--detector takes CONFIG and WEIGHTS, got {len(args.detector)} words")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size {args.batch_size}: give a number from 1 on")
    if args.looks_per_second < 1:
        raise ValueError(f"--looks-per-second {args.looks_per_second}: give a number from 1 on")
    tasks = make_tasks(args)
    check_outputs(tasks, args.overwrite)
    detector = load_detector(
        *args.detector,
        device=args.device,
        score_threshold=args.min_score,
        short_side=args.short_side,
        class_names=args.class_names,
        opts=args.opts,
    )
    settings = {
        "detector": args.detector,
        "min-score": args.min_score,
        "short-side": args.short_side,
        "class-names": args.class_names,
        "opts": args.opts,
        "every-second": args.every_second,
        "looks-per-second": args.looks_per_second,
    }
    failed, total = [], sum(len(task.jobs) for task in tasks)
    for task in tasks:
        lost = write_boxes(
            task.jobs,
            detector,
            task.parts,
            settings=settings,
            batch_size=args.batch_size,
            looks_per_second=args.looks_per_second,
        )
        merge_parts(task.jobs, task.parts, task.outputs)
        logger.info("Wrote %s", ", ".join(map(str, task.outputs)))
        if not lost:
            remove_parts(task.parts)
        failed += lost
    if failed:
        print(f"{len(failed)} of {total} videos failed:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    arguments = parse_args()
    sys.exit(run_tool(lambda: main(arguments)))
