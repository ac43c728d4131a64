"""Read a data set and say what is wrong, what is unusual, and what training will see.

    alphaaction check my_data
    alphaaction check my_data --sheet my_data.png
    alphaaction check ava_v2.2_train ava_v2.2_val --no-decode

A folder with own data (see docs/own_data.md) or registered names. Everything is read, and every
video is decoded as far as its annotations go; all problems are reported at once. The contact sheet
shows annotated keyframes, spread over classes and videos. The exit code is 1 if something is wrong,
and 0 if there is nothing worse than unusual.

Of data in EPIC-Kitchens' form (docs/epic_kitchens.md) it counts segments, hands, objects, features.
"""

from __future__ import annotations

import argparse
import logging
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode, get_cfg
from tabulate import tabulate

from ..config import add_alphaaction_config
from ..data.class_groups import class_groups
from ..data.dataset_report import (
    DatasetReport,
    check,
    class_counts,
    folder_files,
    look_at_videos,
    read_splits,
)
from ..data.dataset_summary import (
    AnnotatedKeyframe,
    choose_keyframes,
    summarise,
)
from ..data.datasets import registered_files
from ..data.datasets.builtin import ucf101_24_named
from ..data.datasets.epic55 import epic_files
from ..data.epic55_report import COLUMNS, check_epic
from ..data.ucf_report import UCFSummary, check_ucf
from ..formats.config_files import setup_cfg
from ..formats.label_map import class_names
from ..visualization.contact_sheet import Tile, contact_sheet
from ..visualization.drawing import write_picture
from ..visualization.text import name_person
from .command_line import tool_parser

WIDTH = 100  # characters of the tables
MAX_SAME = 30  # findings of one file that are shown


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "data", nargs="+", metavar="FOLDER|NAME", help="folder with own data, or registered names"
    )
    parser.add_argument("--sheet", metavar="PNG", help="contact sheet to draw; default: none")
    parser.add_argument("--sheet-size", type=int, default=24, help="pictures on it")
    parser.add_argument(
        "--config-file", help="whose clips to count with; default: the defaults of config.py"
    )
    parser.add_argument(
        "--no-decode", action="store_true", help="open the videos only (much faster)"
    )
    return parser.parse_args(argv)


def read(data: list[str], report: DatasetReport) -> Path | None:
    """Read all splits that are named; the folder, if it is one."""
    folders = [Path(name).expanduser() for name in data if Path(name).expanduser().is_dir()]
    if folders and len(data) > 1:
        raise ValueError("give one folder, or names of registered data sets")
    if folders:
        read_splits(folder_files(folders[0], report), report)
        return folders[0]
    read_splits({name: registered_files(name) for name in data}, report)
    return None


def print_findings(report: DatasetReport) -> None:
    """One table: what is wrong, then what is unusual."""
    shown, left_out = [], 0
    per_file: Counter[str] = Counter()
    for finding in report.findings:
        name = finding.where.rpartition(":")[0] or finding.where
        per_file[name] += 1
        if per_file[name] > MAX_SAME:
            left_out += 1
            continue
        kind = "WRONG" if finding.wrong else "unusual"
        where = textwrap.fill(finding.where, WIDTH // 3, break_long_words=False)
        shown.append((kind, where, textwrap.fill(finding.what, WIDTH // 2)))
    if shown:
        print(tabulate(shown, headers=("", "where", "what"), disable_numparse=True))
    if left_out:
        print(f"... and {left_out} more, in files of which {MAX_SAME} are shown")
    wrong = sum(finding.wrong for finding in report.findings)
    print(f"\n{wrong} wrong, {len(report.findings) - wrong} unusual")


def print_table(title: str, rows: Sequence[Sequence], headers: Sequence[str]) -> None:
    print(f"\n{title}:\n")
    print(tabulate(rows, headers=headers))


def print_summary(report: DatasetReport, cfg: CfgNode) -> None:
    """What training will see, by split and by class."""
    node = cfg.INPUT
    clip = (node.NUM_FRAMES, node.SAMPLING_RATE, node.CLIP_FPS)
    seconds = node.NUM_FRAMES * node.SAMPLING_RATE / node.CLIP_FPS
    columns = ["split", "videos", "keyframes", "persons", "labels"]
    columns += ["detected persons", "objects", f"clips beyond an end ({seconds:.2f} s)"]
    print_table("What training and testing will see", summarise(report, *clip), columns)
    label_map, counts = report.label_map, class_counts(report)
    if label_map is None:
        return
    names = class_names(label_map)
    rows = [
        (i, names[i - 1], label_map.groups[i] or "-", *(column[i] for column in counts.values()))
        for i in sorted(label_map.names)
    ]
    if any(column[-1] for column in counts.values()):
        nothing = (column[-1] for column in counts.values())
        rows.append(("", "(none of them)", "", *nothing))
    print_table("Rows of each class", rows, ("id", "class", "group", *counts))


def print_groups(report: DatasetReport, folder: Path | None) -> None:
    """The groups of classes, as training will have them, and the keys that name the data."""
    splits = {split.name: split.annotations for split in report.splits}
    names = sorted(name for name, rows in splits.items() if rows is not None)
    if report.label_map is None or not names:
        return
    train, test = ("train", "val") if {"train", "val"} <= {*names} else (names[0], names[-1])
    rows = splits[train]
    groups = class_groups(report.label_map, [] if rows is None else [rows])
    print("\nGroups of classes:\n")
    if groups is None:
        print("  all classes are one: the ids of a group do not follow each other")
    else:
        for name, size in zip(groups.names, groups.sizes):
            print(f"  {name}: {size}" + ", exclude each other" * (name in groups.exclusive))
    if folder is not None:
        name = folder.resolve().name
        keys = {
            "DATASETS.FOLDERS": f"('{folder}',)",
            "DATASETS.TRAIN": f"('{name}_{train}',)",
            "DATASETS.TEST": f"('{name}_{test}',)",
        }
        print("\nKeys of the configuration, for `alphaaction train`:\n")
        print("  " + " \\\n  ".join(f'{key} "{value}"' for key, value in keys.items()))


def print_ucf(summaries: dict[str, UCFSummary]) -> None:
    """What training will see of UCF101-24, by split and by class."""
    columns = ["split", "videos", "frames", "tubes", "detected persons", "objects"]
    rows = [(name, *x[:5]) for name, x in summaries.items()]
    print_table("What training and testing will see", rows, columns)
    if summaries:
        counts = [x.tubes_of_classes for x in summaries.values()]
        of_class = [(i, name, *(x[name] for x in counts)) for i, name in enumerate(counts[0])]
        print_table("Tubes of each class", of_class, ("id", "class", *summaries))


def draw_sheet(
    path: Path, keyframes: list[AnnotatedKeyframe], pictures: dict[tuple[str, int], np.ndarray]
) -> bool:
    """Write the contact sheet; False if no picture is there to be drawn."""
    tiles = []
    for keyframe in keyframes:
        picture = pictures.get(keyframe.key)
        if picture is None:
            continue
        height, width = picture.shape[:2]
        labels = [
            [line for line in (name_person(person), *classes) if line]
            for person, classes in zip(keyframe.person_ids, keyframe.classes)
        ]
        boxes = keyframe.boxes * [width, height, width, height]
        title = f"{keyframe.split}: {keyframe.key[0]}, {keyframe.key[1]} s"
        tiles.append(Tile(picture, boxes, labels, title))
    if tiles:
        write_picture(path, contact_sheet(tiles))
    return bool(tiles)


def draw_data_set(folder: Path, path: Path, pictures: int) -> None:
    """Draw a contact sheet of a folder that is known to be right."""
    report = DatasetReport()
    read([str(folder)], report)
    chosen = choose_keyframes(report, pictures)
    draw_sheet(path, chosen, dict(look_at_videos(report, [x.key for x in chosen], decode=True)))


def main(args: argparse.Namespace) -> int:
    logging.captureWarnings(True)
    if args.config_file:
        cfg = setup_cfg(args.config_file)
    else:
        cfg = get_cfg()
        add_alphaaction_config(cfg)
    if args.sheet and Path(args.sheet).suffix.lower() != ".png":
        raise ValueError(f"--sheet {args.sheet}: give a file that ends in .png")
    report = DatasetReport()
    if of_epic := epic_files(args.data):
        rows = check_epic(of_epic, report, decode=not args.no_decode)
        print_findings(report)
        print_table("What training and testing will see", rows, COLUMNS)
        return 1 if report.is_wrong else 0
    if of_ucf := ucf101_24_named(args.data):
        if args.sheet:
            raise ValueError("--sheet: no contact sheets of UCF101-24 are drawn")
        summaries = check_ucf(of_ucf, report, decode=not args.no_decode)
        print_findings(report)
        print_ucf(summaries)
        return 1 if report.is_wrong else 0
    folder = read(args.data, report)
    chosen = choose_keyframes(report, args.sheet_size) if args.sheet else []
    wanted = [keyframe.key for keyframe in chosen]
    pictures = dict(look_at_videos(report, wanted, decode=not args.no_decode))
    node = cfg.INPUT
    check(report, node.SAMPLING_RATE, node.CLIP_FPS, node.PERSON_SCORE_THRESH_TEST)
    print_findings(report)
    print_summary(report, cfg)
    print_groups(report, folder)
    if args.sheet:
        drawn = draw_sheet(Path(args.sheet), chosen, pictures)
        print(f"\nContact sheet: {args.sheet}" if drawn else "\nNo keyframe to draw")
    return 1 if report.is_wrong else 0
