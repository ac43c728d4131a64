"""Results of videos as files: a CSV table in AVA's style, and JSON that can be read back."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..formats.writing import write_atomically
from .results import ClassAP, KeyframeResult, PersonResult, VideoResult

CSV_HEADER = (
    "video_id",
    "timestamp",
    "x1",
    "y1",
    "x2",
    "y2",
    "action_id",
    "action_name",
    "score",
    "person_id",
)
JSON_FORMAT = "alphaaction_d2.video_result"
JSON_VERSION = 1


def format_timestamp(seconds: float) -> str:
    """AVA's four digits for whole seconds ("0902"), milliseconds otherwise ("0902.500")."""
    whole = round(seconds)
    return f"{whole:04d}" if abs(seconds - whole) < 5e-4 else f"{seconds:08.3f}"


def _csv_rows(result: VideoResult, min_score: float) -> Iterator[tuple]:
    size = np.array([result.width, result.height] * 2, dtype=np.float64)
    for keyframe in result.keyframes:
        timestamp = format_timestamp(keyframe.timestamp)
        for person in keyframe.persons:
            box = [f"{v:.4f}" for v in np.clip(person.box / size, 0, 1)]
            for k, name in enumerate(result.class_names):
                if name and person.scores[k] >= min_score:
                    score = f"{person.scores[k]:.6f}"
                    ids = result.video_id, timestamp
                    yield (*ids, *box, k + 1, name, score, person.person_id)


def write_results_csv(
    path: str | os.PathLike,
    results: VideoResult | Sequence[VideoResult],
    *,
    min_score: float = 0.0,
) -> Path:
    """Write one row per keyframe, person and action, with a header.

    Boxes are normalised to [0, 1]; person_id is -1 where unknown.

    Args:
        path: the file; it appears complete or not at all.
        results: one video or several.
        min_score: rows with a lower score are left out.
    """
    if isinstance(results, VideoResult):
        results = [results]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for result in results:
        writer.writerows(_csv_rows(result, min_score))
    return write_atomically(path, text.getvalue())


def write_results_json(path: str | os.PathLike, result: VideoResult) -> Path:
    """Write everything about one video: boxes in pixels (3 decimals), all scores (6 decimals)."""
    content = {
        "format": JSON_FORMAT,
        "version": JSON_VERSION,
        "video_id": result.video_id,
        "width": int(result.width),
        "height": int(result.height),
        "class_names": list(result.class_names),
        "keyframes": [
            {
                "timestamp": float(keyframe.timestamp),
                "persons": [
                    {
                        "box": [round(float(v), 3) for v in person.box],
                        "person_id": int(person.person_id),
                        "actions": [
                            {"name": name, "score": round(float(score), 6)}
                            for name, score in person.actions
                        ],
                        "scores": [round(float(v), 6) for v in person.scores],
                    }
                    for person in keyframe.persons
                ],
            }
            for keyframe in result.keyframes
        ],
    }
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"{path}: the result of {result.video_id} holds scores that are not numbers; "
            "the model or its input is damaged"
        ) from error
    return write_atomically(path, text + "\n")


def read_results_json(path: str | os.PathLike) -> VideoResult:
    """Read what `write_results_json` wrote.

    Raises:
        ValueError: one line, when the file is not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # both bad JSON and bad UTF-8
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict) or content.get("format") != JSON_FORMAT:
        raise ValueError(f"{path}: not a video result (expected format {JSON_FORMAT!r})")
    if content.get("version") != JSON_VERSION:
        raise ValueError(
            f"{path}: version {content.get('version')!r} of the format; this program reads "
            f"version {JSON_VERSION}"
        )
    try:
        return VideoResult(
            video_id=content["video_id"],
            width=content["width"],
            height=content["height"],
            class_names=content["class_names"],
            keyframes=[
                KeyframeResult(
                    keyframe["timestamp"],
                    [
                        PersonResult(
                            box=person["box"],
                            person_id=person["person_id"],
                            actions=[(a["name"], a["score"]) for a in person["actions"]],
                            scores=person["scores"],
                        )
                        for person in keyframe["persons"]
                    ],
                )
                for keyframe in content["keyframes"]
            ],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: incomplete video result ({error!r})") from error


def read_class_aps(path: str | os.PathLike) -> list[ClassAP]:
    """Read the average precision of every class from the AVA evaluator's `ava_results.json`.

    Returns:
        One entry per class of the label map, in per cent; NaN without ground truth.

    Raises:
        ValueError: one line, when the file is not such a file.
    """
    return read_evaluation(path)[0]


def read_evaluation(path: str | os.PathLike) -> tuple[list[ClassAP], str]:
    """Read the average precision of every class, and the protocol that it was measured by.

    Returns:
        See :func:`read_class_aps`; the name of the evaluator's dialect.

    Raises:
        ValueError: one line, when the file is not an `ava_results.json`.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        groups = content["group_of_class"]
        classes = [
            ClassAP(
                name=content["class_names"][number],
                ap=math.nan if ap is None else 100 * ap,
                group=groups[number],
                num_boxes=content["num_ground_truth_per_class"][number],
            )
            for number, ap in content["AP_per_class"].items()
        ]
        return classes, str(content["dialect"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a result file of the AVA evaluator (ava_results.json): {error!r}"
        ) from error
