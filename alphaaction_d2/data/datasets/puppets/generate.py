"""Puppets: a small AVA-style data set of rendered videos that needs every idea of the papers.

Two to four puppets stand, walk, jump and crouch before a plain background and make gestures. What a
gesture *means* is decided by something outside the 2-second crop of the puppet that makes it:

========  ==========================  ==========================================================
group     classes                     what decides
========  ==========================  ==========================================================
POSE      stand, walk, jump, crouch   the crop itself (softmax, exactly one per keyframe)
OBJECT    reach for, carry            a ball on the side the arms point to, outside the box;
                                      carry is plainly visible
PERSON    wave to                     somebody else of the clip waves as well
MEMORY    open, close                 the same gesture at the same chest: first open, then,
                                      2 to 6 s later, close
IDENTITY  return, greet               the same gesture by two look-alikes: the one that flashed
                                      3 to 7 s ago returns, the other one greets
OVERLAP   ring                        two boxes overlap, both show the bell, one puppet holds it
========  ==========================  ==========================================================

`scripts` plans the videos, `drawing` draws them, and this module writes the folder.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from ....formats.writing import write_csv
from ...video import VideoWriter
from .drawing import object_boxes, person_box, render_frame
from .scripts import PUPPET_CLASSES, SPLITS, Box, PuppetParams, VideoScript, keyframes, plan_video

logger = logging.getLogger(__name__)

VERSION = 4  # of what is written for the same parameters
_ACTION_ID = {c.name: c.action_id for c in PUPPET_CLASSES}


def generate_puppets(root: str | Path, *, num_workers: int = 2, **parameters: int) -> Path:
    """Write a Puppets data set, or return at once when the folder holds it already.

    The folder is written beside its final place and renamed when complete, so an interrupted run
    leaves nothing that looks finished. A folder of other parameters or with missing files is
    replaced; a folder that this function has not written is never touched.

    Args:
        num_workers: processes that render; 0 or 1 renders in this one.
        parameters: see `PuppetParams`. The same ones give the same files, to the byte.

    Raises:
        ValueError: for parameters out of range, or when `root` holds something else.
    """
    params = PuppetParams(**parameters)
    root = Path(root)
    if root.exists():
        if _is_complete(root, params):
            logger.info("puppets: %s is complete, nothing to do", root)
            return root
        if not root.is_dir() or (any(root.iterdir()) and not (root / _RECORD).is_file()):
            raise ValueError(
                f"puppets: {root} exists and is not a Puppets data set; choose another folder"
            )
    work = root.with_name(f".{root.name}.partial-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    for folder in ("videos", "annotations", "boxes", "events"):
        (work / folder).mkdir(parents=True)
    try:
        _write_all(work, params, num_workers)
        if not _is_complete(root, params):  # else another process has been faster
            if root.exists():
                shutil.rmtree(root)
            work.rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    logger.info("puppets: wrote %d + %d videos to %s", params.num_train, params.num_val, root)
    return root


_RECORD = "puppets.json"


def _is_complete(root: Path, params: PuppetParams) -> bool:
    """Whether this version wrote the folder with these parameters and all files are still there."""
    try:
        record = json.loads((root / _RECORD).read_text())
        same = record["version"] == VERSION and record["parameters"] == asdict(params)
        return same and all((root / f).stat().st_size == n for f, n in record["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_all(root: Path, params: PuppetParams, num_workers: int) -> None:
    """Write all files of a data set below an existing folder."""
    (root / "label_map.pbtxt").write_text(_label_map())
    jobs = [(root, params, split, i) for split in SPLITS for i in range(params.count(split))]
    if num_workers > 1:
        with ProcessPoolExecutor(num_workers) as pool:
            tables = list(pool.map(_write_video, *zip(*jobs), chunksize=4)) if jobs else []
    else:
        tables = [_write_video(*job) for job in jobs]
    for split in SPLITS:
        mine = [t for t, job in zip(tables, jobs) if job[2] == split]
        for kind in ("annotations", "persons", "objects"):
            name = f"boxes/{split}_{kind}.csv" if kind != "annotations" else f"{kind}/{split}.csv"
            write_csv(root / name, [row for table in mine for row in table[kind]])
        log = {t["video_id"]: t["events"] for t in mine}
        (root / "events" / f"{split}.json").write_text(json.dumps(log, indent=0) + "\n")
    write_csv(root / "annotations" / "val_excluded.csv", _excluded(params))
    files = sorted(p for p in root.rglob("*") if p.is_file())
    record = {
        "generator": "puppets",
        "version": VERSION,
        "parameters": asdict(params),
        "files": {p.relative_to(root).as_posix(): p.stat().st_size for p in files},
    }
    (root / _RECORD).write_text(json.dumps(record, indent=1) + "\n")


def _label_map() -> str:
    return "".join(
        f'label {{\n  name: "{c.name}"\n  label_id: {c.action_id}\n  label_type: {c.group}\n}}\n'
        for c in PUPPET_CLASSES
    )


def _excluded(params: PuppetParams) -> list[list]:
    """A few keyframes of the val split that evaluation has to ignore, about one in a hundred."""
    rng = np.random.default_rng([params.seed, 7])
    all_rows = [
        [f"val_{i:03d}", f"{t:04d}"] for i in range(params.num_val) for t in keyframes(params)
    ]
    rows = [row for row in all_rows if rng.random() < 0.01]
    return rows or [["val_000", f"{keyframes(params)[-1]:04d}"]][: params.num_val]


def _write_video(root: Path, params: PuppetParams, split: str, index: int) -> dict:
    """Render one video and returns its rows of all tables."""
    # The images are tiny, and the processes are what runs in parallel. Not 1: in a process that was
    # forked from one whose threads OpenCV has used, it waits for these, which are not there.
    cv2.setNumThreads(0)
    script = plan_video(params, split, index)
    path = root / "videos" / f"{script.video_id}.mp4"
    size = (params.width, params.height)
    with VideoWriter(path, params.fps, *size, crf=12, gop=params.fps, repeatable=True) as writer:
        for frame in range(params.seconds * params.fps):
            writer.write(render_frame(script, frame / params.fps))
    return tabulate(script, np.random.default_rng([params.seed, 2 + SPLITS.index(split), index]))


def tabulate(script: VideoScript, rng: np.random.Generator) -> dict:
    """The rows that a video adds to the tables, and its log of `events`.

    The detectors' errors are drawn from `rng`.
    """
    annotations, persons, objects = [], [], []
    for time in keyframes(script.params):
        head = [script.video_id, f"{time:04d}"]
        for puppet in script.puppets:
            person_id = puppet.person_id
            box = person_box(script, person_id, time)
            for name in script.labels(person_id, time):
                annotations.append([*head, *_digits(box), _ACTION_ID[name], person_id])
            if rng.random() >= 0.015:  # else the detector misses the puppet
                score = rng.uniform(0.82, 1.0) if rng.random() < 0.97 else rng.uniform(0.5, 0.8)
                persons.append([*head, *_digits(_jitter(box, rng)), "", f"{score:.3f}", person_id])
        if rng.random() < 0.06:
            box, score = _false_box(rng), rng.uniform(0.1, 0.7)
            persons.append([*head, *_digits(box), "", f"{score:.3f}", -1])
        for name, box in object_boxes(script, time):
            score = rng.uniform(0.6, 1.0)
            objects.append([*head, *_digits(_jitter(box, rng)), name, f"{score:.3f}"])
        if rng.random() < 0.06:
            name, box = str(rng.choice(["ball", "chest", "parcel"])), _false_box(rng)
            objects.append([*head, *_digits(box), name, f"{rng.uniform(0.1, 0.45):.3f}"])
    return {
        "video_id": script.video_id,
        "annotations": annotations,
        "persons": persons,
        "objects": objects,
        "events": [asdict(e) for e in script.events],
    }


def _digits(box: Box) -> list[str]:
    return [f"{v:.4f}" for v in box]


def _jitter(box: Box, rng: np.random.Generator) -> Box:
    """Move each side of a box by about 3 % of its size."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    moved = np.array(box) + rng.normal(0, 0.03, 4).clip(-0.08, 0.08) * [w, h, w, h]
    x1, y1, x2, y2 = moved.clip(0, 1).tolist()
    return x1, y1, x2, y2


def _false_box(rng: np.random.Generator) -> Box:
    """A box of about a puppet's shape, anywhere."""
    w, h = rng.uniform(0.08, 0.2), rng.uniform(0.25, 0.5)
    x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
    return float(x), float(y), float(x + w), float(y + h)
