"""How well `alphaaction search` finds people in Puppets, by what is compared.

    python projects/IGMN/search_recall.py demo_output/training

takes a model that is trained (`make demo` leaves one) and its test videos, and asks for everybody
who makes a gesture, with this person's vector, among the persons of all other videos: how many of
the first five are right, and how many queries have a right one among these, against chance.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tabulate import tabulate

from alphaaction_d2 import setup_cfg
from alphaaction_d2.engine import VideoPredictor
from alphaaction_d2.engine.box_sources import KeyframeBoxes

FIRST = 5
VECTORS = {
    "before": "RoI features, before the interaction",
    "after": "what the actions are told of, after it",
    "scores": "the scores of all classes",
}
# What is asked for: who is asked about, and who is right. "return" is the gesture of the one who
# flashed seconds ago, "greet" the same gesture of who looks alike; so are "open" and "close".
QUERIES = {
    "the one who flashed": (["return"], ["return"]),
    "the same gesture (return or greet)": (["return", "greet"], ["return", "greet"]),
    "open": (["open"], ["open"]),
    "the same gesture (open or close)": (["open", "close"], ["open", "close"]),
}


def predict(cfg_file: Path, weights: Path, puppets: Path) -> dict[str, np.ndarray]:
    """Rows of everybody in the test videos: video, second, person, and vectors of each kind."""
    predictor = VideoPredictor(setup_cfg(str(cfg_file), ["MODEL.WEIGHTS", str(weights)]))
    boxes = [puppets / "boxes" / f"val_{kind}.csv" for kind in ("persons", "objects")]
    rows: dict[str, list] = {name: [] for name in ("video", "second", "person", *VECTORS)}
    for video in sorted((puppets / "videos").glob("val_*.mp4")):
        for result in predictor(video, KeyframeBoxes.from_files(boxes, video.stem)):
            found = result["instances"]
            persons, first = np.unique(found.person_index.numpy(), return_index=True)
            rows["video"] += [video.stem] * len(persons)
            rows["second"] += [round(result["timestamp"])] * len(persons)
            rows["person"] += found.person_ids.numpy()[first].tolist()
            rows["before"] += list(result["roi_features"].numpy()[persons])
            rows["after"] += list(result["context_features"].numpy()[persons])
            rows["scores"] += list(found.action_scores.numpy()[first])
    return {name: np.array(x) for name, x in rows.items()}


def recall(
    vectors: np.ndarray, videos: np.ndarray, asked: np.ndarray, right: np.ndarray
) -> dict[str, float]:
    """Ask with each of the rows (n,) that are `asked` among all others' videos, in per cent."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = (vectors / np.maximum(length, 1e-9)).astype(np.float16).astype(np.float32)
    found = []
    for row in np.flatnonzero(asked):
        others = np.flatnonzero(videos != videos[row])
        best = others[np.argsort(-(units[others] @ units[row]), kind="stable")[:FIRST]]
        share = right[others].mean()
        found.append([right[best].mean(), right[best].any(), share, 1 - (1 - share) ** FIRST])
    return dict(zip(("right", "any", "chance", "any by chance"), 100 * np.mean(found, axis=0)))


def labels_of(rows: Mapping[str, np.ndarray], events: Mapping[str, list[dict]]) -> np.ndarray:
    """The class of the gesture that each row's person makes, "" for none."""
    known = {(v, x["time"], x["person_id"]): x["label"] for v, log in events.items() for x in log}
    keys = zip(*(rows[name].tolist() for name in ("video", "second", "person")))
    return np.array([known.get(key, "") for key in keys])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("training", type=Path, help="folder of a training run")
    parser.add_argument("--puppets", type=Path, default=Path("datasets/puppets"))
    args = parser.parse_args(argv)
    weights = args.training / "model_final.pth"
    rows = predict(args.training / "config.yaml", weights, args.puppets)
    labels = labels_of(rows, json.loads((args.puppets / "events" / "val.json").read_text()))
    table = []
    for query, (asked, right) in QUERIES.items():
        which = np.isin(labels, asked), np.isin(labels, right)
        for name, meaning in VECTORS.items():
            numbers = recall(rows[name], rows["video"], *which)
            table.append({"asked for": query, "by": meaning, **numbers, "queries": which[0].sum()})
    print(tabulate(table, headers="keys", tablefmt="github", floatfmt=".1f"))


if __name__ == "__main__":
    main()
