"""Find people in many videos: who acts like somebody, or who does something.

    alphaaction demo films --output results
    alphaaction search --index results --like film.mp4@12.0#3
    alphaaction search --index results --action "hand wave" --pictures found.png

An index is the people.arrow of a video, or a folder with any number of them. --like names a video,
seconds and the number of a person, as annotated videos and tables show them. Of everybody found the
best moment is listed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
from tabulate import tabulate

from ..formats import people
from ..formats.writing import write_csv
from .command_line import import_models, tool_parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument("--index", nargs="+", default=["."], metavar="PATH", help="default: .")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--like", metavar="VIDEO@SECONDS#PERSON", help="who is like this person")
    what.add_argument("--action", metavar="NAME", help="who does this")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="how many (20)")
    parser.add_argument("--csv", metavar="FILE", help="write the table, with boxes (fractions)")
    parser.add_argument("--pictures", metavar="FILE", help="draw who was found (.png, .jpg)")
    parser.add_argument("--join", metavar="FILE", help="write the whole index as one file")
    args = parser.parse_args(argv)
    if args.top < 1 or not (args.like or args.action or args.join):
        parser.error("give --like, --action or --join, and --top N of 1 or more")
    if (args.csv or args.pictures) and not (args.like or args.action):
        parser.error("--csv and --pictures are of who was found: give --like or --action")
    return args


def main(args: argparse.Namespace) -> None:
    table = people.read_people(args.index)
    if args.join:
        print(f"{people.write_people(args.join, table)}: {len(table)} rows")
    if args.like:
        row, kind = people.find_person(table, args.like), "similarity"
        values = people.similarities(table, row)
    elif args.action:
        row, kind, values = -1, "score", people.action_scores(table, args.action.strip())
    else:
        return
    rows = people.best_rows(table, values, args.top, but=row)
    if not len(rows):
        raise ValueError(f"{args.like}: nobody else is in this index")
    names, lines = people.class_names_of(table), []
    for number, x in zip(rows, table.take(pa.array(rows, pa.int64())).to_pylist()):
        best = sorted(((score, name) for score, name in zip(x["scores"], names) if name))[-2:]
        does = ", ".join(f"{name} {score:.2f}" for score, name in best[::-1])
        who = x["video"], round(x["second"], 3), x["person_id"]
        lines.append((*who, round(float(values[number]), 4), does, *x["box"]))
    header = ("video", "second", "person", kind, "does")
    print(tabulate([x[:5] for x in lines], header, disable_numparse=[0, 4]))
    if args.csv:
        write_csv(args.csv, [(*header, "x1", "y1", "x2", "y2"), *lines])
    if args.pictures:
        asked = [row] if args.like else []
        draw_found(Path(args.pictures), table.take(asked + rows), values[asked + rows])


def draw_found(path: Path, found: pa.Table, values: np.ndarray) -> None:
    """Draw persons of an index, each with its value."""
    import_models()  # which know the decoder
    from ..data.video import VideoReader
    from ..visualization.contact_sheet import Tile, contact_sheet
    from ..visualization.drawing import write_picture
    from ..visualization.text import format_time, name_person

    tiles = []
    for x, value in zip(found.to_pylist(), values):
        with VideoReader(x["file"]) as reader:
            picture = reader.pictures([x["second"]])[0]
        name, box = name_person(x["person_id"]), np.array([x["box"]])
        title = f"{x['video']} {format_time(x['second'])} {name}: {value:.2f}"
        tiles.append(Tile(picture, box * (picture.shape[1::-1] * 2), [[name]], title))
    print(write_picture(path, contact_sheet(tiles)))
