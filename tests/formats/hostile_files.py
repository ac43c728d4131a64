"""Reads a megabyte of every format, made to be slow or large; a script, which prints what it took.

    python tests/formats/hostile_files.py [NAME ...]

One JSON object: name of the file -> seconds of the processor, megabytes above what the process
had, and what came.
Nothing of torch is imported, so that the numbers are the readers' own.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from alphaaction import import_lightly  # noqa: E402

import_lightly()

from alphaaction_d2.formats.arrays import read_arrays  # noqa: E402
from alphaaction_d2.formats.ava import (  # noqa: E402
    lists_keyframes,
    read_exclusions,
    read_seconds,
    read_video_list,
    scan_ava_csv,
)
from alphaaction_d2.formats.boxes import scan_boxes  # noqa: E402
from alphaaction_d2.formats.epic55 import read_epic_classes, read_epic_segments  # noqa: E402
from alphaaction_d2.formats.label_map import LabelMap, read_label_map  # noqa: E402
from alphaaction_d2.formats.results import read_evaluation  # noqa: E402
from alphaaction_d2.formats.ucf101_24 import (  # noqa: E402
    read_ucf_annotations,
    read_ucf_detections,
)
from alphaaction_d2.formats.yaml_files import read_yaml  # noqa: E402

MB = 1 << 20
LABELS = LabelMap({1: "stand", 2: "walk"}, {1: "", 2: ""})


def fill(text: str | bytes) -> Any:
    """A megabyte of it."""
    return text * (MB // len(text))


def lines(line: Callable[[int], str]) -> str:
    """A megabyte of lines with a number in each."""
    found, size, i = [], 0, 0
    while size < MB:
        found.append(line(i))
        size += len(found[-1]) + 1
        i += 1
    return "\n".join(found) + "\n"


def tables() -> Iterator[tuple[str, str | bytes]]:
    """Texts that are, or claim to be, tables."""
    number = random.Random(0).random
    yield "one line", "v" * MB
    yield "commas", "," * MB
    yield "line ends", "\n" * MB
    yield "quotes", '"' * MB
    yield "an open quote", '"' + lines(lambda i: f"v{i},1,0.1,0.1,0.2,0.2,1")
    yield "quoted line ends", fill('"\n",')
    yield "zeros", bytes(MB)
    yield "spaces", " " * MB
    yield "good rows", lines(lambda i: f"v,{i % 1000},0,0,1,1,1,0.5")
    yield "videos", lines(lambda i: f"v{i},1,0.1,0.1,0.2,0.2,1,0.5")
    yield "fine times", lines(lambda i: f"v,{i / 1000},0.1,0.1,0.2,0.2,1,0.5")
    yield "classes", lines(lambda i: f"v,1,0.1,0.1,0.2,0.2,c{i},0.5,1")
    yield "identities", lines(lambda i: f"v,1,0.1,0.1,0.2,0.2,1,person {i}")
    yield "bad rows", lines(lambda i: f"v,1,0.1,0.1,0.2,0.2,x{i},1")
    yield "bad numbers", lines(lambda i: f"v,1,0.1,0.1,0.2,{i}x,1,1")
    yield "random rows", lines(lambda i: f"v,1,{number()},{number()},{number()},{number()},1,1")
    yield "rows of other lengths", lines(lambda i: "v,1" + ",0.5" * (i % 60))
    yield "two columns", lines(lambda i: f"v{i},{i}")
    yield "one column", lines(str)
    yield "a wide header", ",".join(f"c{i}" for i in range(150_000)) + "\n1,2,3\n"
    yield (
        "a header",
        "video_id;second;xmin;ymin;xmax;ymax;label\n"
        + lines(lambda i: f"v;{i},0;0,1;0,1;0,2;0,2;stand"),
    )
    yield "digits", f"v,{'9' * MB},0,0,1,1,1\n"
    yield "an exponent", lines(lambda i: f"v,1e{i}99999,0,0,1,1,1")
    yield "UTF-16", lines(lambda i: f"v{i},1,0.1,0.1,0.2,0.2,1").encode("utf-16")[:MB]
    yield "Latin-1", lines(lambda i: f"é{i},1,0.1,0.1,0.2,0.2,1").encode("latin-1")
    yield "a gzip bomb", gzip.compress(bytes(1 << 27))
    rows = lines(lambda i: f"v,{i % 100},0.1,0.1,0.2,0.2,1,{number():.3f}")
    yield "gzip of good rows", gzip.compress((rows * 20).encode())[:MB]


def texts() -> Iterator[tuple[str, str | bytes]]:
    """Label maps, settings, and JSON."""
    yield "items", lines(lambda i: f'item {{ name: "c{i}" id: {i + 1} }}')
    yield "one item often", fill('item { name: "c" id: 1 }\n')
    yield "open items", fill("item { ")
    yield "names without items", fill('name: "')
    yield "numbered", lines(lambda i: f"{i + 1}: c{i}")
    yield "large ids", lines(lambda i: f"{10**12 + i}: c{i}")
    yield "a list of names", json.dumps([f"c{i}" for i in range(100_000)])
    yield "names by id", json.dumps({i: f"c{i}" for i in range(1, 60_000)})
    yield "braces", "{" * MB
    yield "brackets", "[" * MB
    yield "closed brackets", "[" * (MB // 2) + "]" * (MB // 2)
    yield "objects in objects", '{"a":' * (MB // 5)
    yield "one number", "9" * MB
    yield "base 60", "a: " + "1:" * (MB // 2) + "1"
    yield "base 60 fractions", "a: " + "1:" * (MB // 2) + "1.5"
    yield "an exponent of YAML", "fps: 1e" + "9" * MB
    yield "list marks", "- " * (MB // 2)
    yield "keys", lines(lambda i: f"k{i}: {i}")
    yield "question marks", "? " * (MB // 2)
    yield "indents", "\n".join(" " * i + "a:" for i in range(1400))
    yield "anchors", lines(lambda i: f"a{i}: &a{i} [1]")
    laughs = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    yield "laughs", "a0: &a0 [x]\n" + laughs
    yield "merges", "a0: &a0 {x: 1}\n" + lines(lambda i: f"b{i}: {{<<: [*a0, *a0, *a0]}}")
    yield "tags", lines(lambda i: f"- !!python/object/apply:os.system [{i}]")
    yield "flow", "{" + "a: [1, 2], " * (MB // 11) + "}"
    yield (
        "categories",
        json.dumps(
            {
                "images": [],
                "annotations": [],
                "categories": [{"id": i, "name": f"c{i}"} for i in range(26_000)],
            }
        ),
    )
    boxes = [{"image_id": f"v,{i}", "bbox": [1, 1, 2, 2], "score": 0.5} for i in range(17_000)]
    yield "boxes", json.dumps(boxes)
    yield "results", json.dumps({"AP_per_class": dict.fromkeys(range(60000), 0.5), "protocol": "x"})


def binary() -> Iterator[tuple[str, bytes]]:
    """Pickles and arrays."""
    yield "marks", b"\x80\x04" + b"(" * MB + b"."
    yield "nested tuples", b"\x80\x04" + b"K\x01" + b"\x85" * MB + b"."
    yield "nested lists", b"\x80\x04" + b"]" * MB + b"a" * (MB - 1) + b"."
    doubled = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(200))
    yield "doubled tuples", b"\x80\x04K\x01\x94" + doubled + b"."
    yield "a tuple of many as key", b"\x80\x04}" + b"K\x01" + b"\x85" * 100_000 + b"K\x01s."
    yield "a long number", b"\x80\x04\x8b" + struct.pack("<i", MB) + b"\x7f" * MB + b"."
    yield "a number of digits", b"I" + b"9" * MB + b"\n."
    yield "a claim of bytes", b"\x80\x04B" + struct.pack("<I", 0xFFFFFFF0) + b"x" * 100 + b"."
    yield (
        "boxes by frame",
        pickle.dumps({f"v,{i:04d}": np.full((1, 5), 0.5) for i in range(6_500)})[: 2 * MB],
    )
    yield "rows of text", pickle.dumps({f"v,{i:04d}": [["0.1"] * 5] for i in range(40_000)})[:MB]
    for shape in ("(9999999999999,)", "(200000000,)", "(1,)" + " " * 50):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(
            117
        )
        yield f"array {shape.strip()}", b"\x93NUMPY\x01\x00v\x00" + header + b"\n" + bytes(MB)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("logits.npy", "w", force_zip64=True) as member:
            for _ in range(8):
                member.write(bytes(1 << 24))
    yield "an archive that unpacks to 128 MB", archive.getvalue()


def cases() -> Iterator[tuple[str, str | bytes, Callable[[Path], Any]]]:
    """Every file with every reader that it may come to."""
    readers: dict[str, Callable[[Path], Any]] = {
        "annotations": lambda path: scan_ava_csv(path, label_map=LABELS),
        "boxes": scan_boxes,
        "results": lambda path: scan_ava_csv(path, "results"),
        "exclusions": read_exclusions,
        "exclusions?": lists_keyframes,
        "seconds": read_seconds,
        "videos": read_video_list,
        "labels": read_label_map,
        "UCF detections": read_ucf_detections,
        "EPIC segments": read_epic_segments,
        "EPIC classes": read_epic_classes,
    }
    for name, content in tables():
        for reader, read in readers.items():
            yield f"{reader}: {name}", content, read
    for name, content in texts():
        for reader, read in (
            *(("labels", read_label_map), ("settings", read_yaml), ("boxes", scan_boxes)),
            ("evaluation", read_evaluation),
        ):
            yield f"{reader}: {name}", content, read
    for name, content in binary():
        for reader, read in (
            *(("boxes", scan_boxes), ("arrays", read_arrays)),
            ("UCF annotations", lambda path: read_ucf_annotations(path, ["v"])),
        ):
            yield f"{reader}: {name}", content, read


def peak() -> float:
    """Megabytes, the most since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(path: Path, read: Callable[[Path], Any]) -> tuple[float, float, str]:
    """Seconds of the processor, megabytes and what came of reading a file."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, start = peak(), time.process_time()
    try:
        came = f"read: {type(read(path)).__name__}"
    except ValueError as error:
        came = f"refused: {error}"
    except Exception as error:
        came = f"{type(error).__name__}: {error}"
    return time.process_time() - start, peak() - before, came


if __name__ == "__main__":
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content, read in cases():
            if sys.argv[1:] and not any(x in name for x in sys.argv[1:]):
                continue
            path = Path(folder, "file")
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            found[name] = measure(path, read)
            if sys.stderr.isatty() or len(sys.argv) > 1:
                print(name, *found[name], file=sys.stderr)
    print(json.dumps(found))
