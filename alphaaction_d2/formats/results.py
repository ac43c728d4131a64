"""Results: who does what, where and when in one video, and how good a class is; and their files.

Shape letters: K action classes, P persons of a keyframe, J persons of the memory that an attention
reaches, G side of a map of attention. Boxes are absolute XYXY pixels of the upright picture. The
class with index k (0-based) has action id k + 1, as in the label map. A class whose name is empty
is a gap in the label map: it is never drawn, listed or written.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .writing import write_atomically, write_csv

CSV_HEADER = (
    *("video_id", "timestamp", "x1", "y1", "x2", "y2"),
    *("action_id", "action_name", "score", "person_id"),
)
RESULT_FORMAT, RESULT_VERSION = "alphaaction_d2.video_result", 1


@dataclass(frozen=True, eq=False)
class PersonResult:
    """One person at one moment."""

    box: np.ndarray  # (4,) float, XYXY pixels
    person_id: int  # identity in the video, -1 when unknown
    actions: Sequence[tuple[str, float]]  # (name, score) pairs, best first
    scores: np.ndarray  # (K,) of all classes
    truth: Sequence[str] | None = None  # actions that annotators saw; None where nobody knows
    # (C,) float16 of length 1, what the actions are told of: an index of people has it, no table
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        box = np.asarray(self.box, dtype=np.float64)
        if box.shape != (4,) or not np.isfinite(box).all():
            raise ValueError(f"a person's box must be 4 finite numbers x1 y1 x2 y2, got {self.box}")
        object.__setattr__(self, "box", box)
        object.__setattr__(self, "scores", np.asarray(self.scores, dtype=np.float32))

    @classmethod
    def from_scores(
        cls, box: np.ndarray, scores: np.ndarray, class_names: Sequence[str], person_id: int = -1
    ) -> PersonResult:
        """Build a person from the (K,) scores and the K names of the classes."""
        if len(scores) != len(class_names):
            what = f"{len(scores)} scores for {len(class_names)} class names"
            raise ValueError(f"{what}: one score per class expected")
        order = np.argsort(-np.asarray(scores), kind="stable")
        actions = [(class_names[k], float(scores[k])) for k in order if class_names[k]]
        return cls(box, int(person_id), actions, scores)

    def best_actions(self, count: int, min_score: float) -> list[tuple[str, float]]:
        """The best `count` of the actions that reach `min_score`."""
        return [(name, s) for name, s in self.actions[:count] if s >= min_score]


@dataclass(frozen=True, eq=False)
class MemoryWeights:
    """How the persons of one keyframe share one attention among the persons in the memory."""

    name: str  # of the attention, such as "layer 1"
    step: float  # seconds from one slot that is reached to the next
    offsets: np.ndarray  # (J,) seconds relative to the keyframe
    person_ids: np.ndarray  # (J,) who was there, -1 where unknown
    # (P, J) bool, somebody is there and counts. With `ATTEND_PADDING` attention also falls on
    # places where nobody is.
    seen: np.ndarray
    weights: np.ndarray  # (P, J). A person's add up to 1, or to 0 for who sees nobody.


@dataclass(frozen=True, eq=False)
class ClipWeights:
    """How the persons of one keyframe share one attention among its persons or objects."""

    name: str  # of the attention, such as "P-block 1"
    boxes: np.ndarray  # (J, 4) of the others, XYXY as fractions of the picture's width and height
    # (P, J). What falls on empty places is left out, and a person's other weights add up to 1
    # (AIA, Fig. 4), or to 0 for who sees nobody.
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class ClipAttention:
    """What an interaction module looked at for the persons of one keyframe."""

    map_boxes: np.ndarray  # (P, 4) boxes that the maps divide, XYXY as fractions of the picture
    # name -> (P, G, G) in (0, 1), rows first: "semantic" and "identity", as far as the module has
    # them. The identity map is the one in use, multiplied with the semantic one.
    maps: Mapping[str, np.ndarray]
    memory: Sequence[MemoryWeights]  # one per attention to the memory, in order of computation
    clip: Sequence[ClipWeights] = ()  # the same of those to persons or objects of the keyframe

    def of(self, rows: np.ndarray) -> ClipAttention:
        """Take the persons at these rows alone."""
        maps = {name: x[rows] for name, x in self.maps.items()}
        memory = [replace(x, seen=x.seen[rows], weights=x.weights[rows]) for x in self.memory]
        clip = [replace(x, weights=x.weights[rows]) for x in self.clip]
        return ClipAttention(self.map_boxes[rows], maps, memory, clip)


@dataclass(frozen=True, eq=False)
class KeyframeResult:
    """All persons at one keyframe."""

    timestamp: float  # seconds from the video's first frame
    persons: Sequence[PersonResult]
    attention: ClipAttention | None = None  # None where it was not recorded
    missed: Sequence[Sequence[str]] = ()  # actions of each annotated person who was not detected


@dataclass(frozen=True, eq=False)
class VideoResult:
    """Everything found in one video."""

    video_id: str
    width: int  # of the upright picture in pixels
    height: int
    class_names: Sequence[str]  # K names, "" for a gap in the label map
    # In order of time. A keyframe without persons belongs in the list, too: it says that nobody
    # was there, while a missing keyframe says that nobody looked.
    keyframes: Sequence[KeyframeResult]

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(
                f"{self.video_id}: a picture of {self.width}x{self.height} pixels has no area"
            )
        times = [keyframe.timestamp for keyframe in self.keyframes]
        for earlier, later in zip(times, times[1:]):
            if not earlier < later:
                raise ValueError(
                    f"{self.video_id}: keyframes must be in order of time, once each; "
                    f"{later} s follows {earlier} s"
                )
        for keyframe in self.keyframes:
            for shape in (person.scores.shape for person in keyframe.persons):
                if shape != (len(self.class_names),):
                    what = f"scores of shape {shape} for {len(self.class_names)} classes"
                    raise ValueError(f"{self.video_id} at {keyframe.timestamp} s: {what}")

    @property
    def period(self) -> float:
        """Usual time between two keyframes in seconds; 1 when there are fewer than two."""
        times = [keyframe.timestamp for keyframe in self.keyframes]
        return float(np.median(np.diff(times))) if len(times) > 1 else 1.0


def format_timestamp(seconds: float) -> str:
    """AVA's four digits for whole seconds ("0902"), milliseconds otherwise ("0902.500")."""
    whole = round(seconds)
    return f"{whole:04d}" if abs(seconds - whole) < 5e-4 else f"{seconds:08.3f}"


def write_results_csv(path: str | os.PathLike, result: VideoResult) -> Path:
    """Write a table in AVA's style: a header, and a row per keyframe, person and action.

    Boxes are fractions of the picture, clipped to it; person_id is -1 where unknown.
    """
    return write_csv(path, _csv_rows(result))


def _csv_rows(result: VideoResult) -> Iterator[tuple]:
    yield CSV_HEADER
    size = np.array([result.width, result.height] * 2, dtype=np.float64)
    for keyframe in result.keyframes:
        moment = result.video_id, format_timestamp(keyframe.timestamp)
        for person in keyframe.persons:
            box = [f"{v:.4f}" for v in np.clip(person.box / size, 0, 1)]
            for k, name in enumerate(result.class_names):
                if name:
                    yield (*moment, *box, k + 1, name, f"{person.scores[k]:.6f}", person.person_id)


def write_results_json(path: str | os.PathLike, result: VideoResult) -> Path:
    """Write everything about one video: boxes in pixels (3 decimals), all scores (6 decimals).

    docs/results.schema.json describes the file. What is added later leaves `version` as it is; it
    grows when something is renamed, removed, or means something else.
    """
    content = {
        "format": RESULT_FORMAT,
        "version": RESULT_VERSION,
        "video_id": result.video_id,
        "width": int(result.width),
        "height": int(result.height),
        "class_names": list(result.class_names),
        "keyframes": [
            {
                "timestamp": float(keyframe.timestamp),
                "persons": [_person_content(person) for person in keyframe.persons],
            }
            for keyframe in result.keyframes
        ],
    }
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        what = f"the result of {result.video_id} holds scores that are not numbers"
        raise ValueError(f"{path}: {what}; the model or its input is damaged") from error
    return write_atomically(path, text + "\n")


def read_results_json(path: str | os.PathLike) -> VideoResult:
    """Read what :func:`write_results_json` wrote; ValueError of one line for any other file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=_refuse_constant)
        if (content["format"], content["version"]) != (RESULT_FORMAT, RESULT_VERSION):
            what = f"{content['format']} of version {content['version']}"
            raise ValueError(f"{what}, expected {RESULT_FORMAT} of version {RESULT_VERSION}")
        names = [str(name) for name in content["class_names"]]
        keyframes = []
        for entry in content["keyframes"]:
            persons = [
                PersonResult.from_scores(x["box"], x["scores"], names, x["person_id"])
                for x in entry["persons"]
            ]
            keyframes.append(KeyframeResult(float(entry["timestamp"]), persons))
        size = int(content["width"]), int(content["height"])
        return VideoResult(str(content["video_id"]), *size, names, keyframes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: not a results.json of a video ({reason})") from error


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _person_content(person: PersonResult) -> dict:
    return {
        "box": [round(float(v), 3) for v in person.box],
        "person_id": int(person.person_id),
        "actions": [{"name": name, "score": round(float(s), 6)} for name, s in person.actions],
        "scores": [round(float(v), 6) for v in person.scores],
    }


def coco_content(results: Sequence[VideoResult], min_score: float = 0.0) -> dict:
    """Make what a COCO file holds: keyframes as images, called "video/second.jpg", annotations for
    every action of a person that reaches `min_score`; ValueError where videos have other classes.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    names = list(results[0].class_names)
    ids = {name: k for k, name in enumerate(names, 1) if name}
    for result in results:
        if list(result.class_names) != names:
            raise ValueError(f"{result.video_id}: other classes than {results[0].video_id}")
        of_video = {name: getattr(result, name) for name in ("width", "height", "video_id")}
        for keyframe in result.keyframes:
            name = f"{result.video_id}/{format_timestamp(keyframe.timestamp)}.jpg"
            image = {"id": len(images) + 1, "file_name": name, "timestamp": keyframe.timestamp}
            images.append(image | of_video)
            for person in keyframe.persons:
                x, y, *corner = person.box.round(3).tolist()
                width, height = (round(b - a, 3) for a, b in zip((x, y), corner))
                place = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
                place |= {"image_id": image["id"], "person_id": person.person_id}
                for action, score in person.best_actions(len(names), min_score):
                    what = {"category_id": ids[action], "score": score}
                    annotations.append({"id": len(annotations) + 1, **place, **what})
    categories = [{"id": k, "name": name} for name, k in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


@dataclass(frozen=True)
class ClassAP:
    """Average precision of one class."""

    name: str
    ap: float  # in percent; NaN when the class has no ground truth
    group: str = ""  # kind of class ("label_type" of the label map)
    num_boxes: int = 0  # of the ground truth
    # About what random scores would get, in percent: the share of detected persons who do it.
    chance: float = math.nan  # where that is not known


def group_classes(classes: Sequence[ClassAP]) -> dict[str, list[ClassAP]]:
    """Classes by group, groups in order of appearance, best class first, unmeasured ones last."""
    groups: dict[str, list[ClassAP]] = {}
    for entry in sorted(classes, key=lambda x: math.inf if math.isnan(x.ap) else -x.ap):
        groups.setdefault(entry.group, []).append(entry)
    return {group: groups[group] for group in dict.fromkeys(entry.group for entry in classes)}


def mean_ap(classes: Sequence[ClassAP]) -> float:
    """Mean of the average precisions that exist, in percent; NaN when none does."""
    values = [entry.ap for entry in classes if not math.isnan(entry.ap)]
    return sum(values) / len(values) if values else math.nan


def mean_chance(classes: Sequence[ClassAP]) -> float:
    """What :func:`mean_ap` would be with random scores; NaN where that is not known."""
    return mean_ap([replace(entry, ap=entry.chance) for entry in classes if entry.ap == entry.ap])


def read_evaluation(path: str | os.PathLike) -> tuple[list[ClassAP], str]:
    """Read the AVA evaluator's `ava_results.json`; ValueError of one line for any other file.

    Returns:
        Every class of the label map, AP in per cent, NaN without ground truth; the name of the
        protocol that it was measured by.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        groups, counts = content["group_of_class"], content["num_ground_truth_per_class"]
        # Every detected person has a score of every class, or of those that are not nearly 0.
        persons = max(content.get("num_detections_per_class", {}).values(), default=0)
        classes = [
            ClassAP(
                name=content["class_names"][number],
                ap=math.nan if ap is None else 100 * ap,
                group=groups[number],
                num_boxes=counts[number],
                chance=min(100.0, 100 * counts[number] / persons) if persons else math.nan,
            )
            for number, ap in content["AP_per_class"].items()
        ]
        # "dialect": what it was called before
        return classes, str(content.get("protocol") or content["dialect"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = "not a result file of the AVA evaluator (ava_results.json)"
        raise ValueError(f"{path}: {what}: {error!r}") from error


def read_best_scores(path: str | os.PathLike, class_names: Sequence[str]) -> dict[str, float]:
    """Read from `ava_results.json` from which score on a class, by name, is to be shown.

    Nothing is known where the file is missing, older, or of other classes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        names, scores = content["class_names"], content["best_score_per_class"]
        known = {names[number]: float(s) for number, s in scores.items() if s is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return known if set(known) <= set(class_names) else {}
