"""One video from prediction to everything a person wants to see of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.clip_sampling import StillLimit, is_shown_by
from ..data.video import VideoInfo, VideoWriter, iterate_frames, one_line, probe_video, video_name
from ..engine.box_sources import BoxSource
from ..engine.predictor import VideoPredictor
from ..formats.results import (
    KeyframeResult,
    PersonResult,
    VideoResult,
    write_results_csv,
    write_results_json,
)
from ..structures import AnnotatedPersons
from ..visualization import VideoSection
from ..visualization.annotate import persons_at
from ..visualization.charts import timeline_chart
from ..visualization.drawing import PersonDrawer, write_picture
from ..visualization.palette import identity_colours
from ..visualization.text import format_time
from ..visualization.timeline import Truth, shown_actions, with_truth
from .attention_pictures import KeyframeChoice, remove_attention_pictures, write_attention_pictures

logger = logging.getLogger(__name__)

MIN_FPS, MAX_FPS = 1.0, 60.0  # of annotated videos
ATTENTION_KEYFRAMES = 3  # of which attention is drawn, per video


def process_video(
    predictor: VideoPredictor,
    video: str | Path,
    boxes: BoxSource | None,
    folder: Path,
    class_names: list[str],
    *,
    min_score: float = 0.3,
    truth: Truth | None = None,
) -> VideoSection:
    """Predict, then write annotated.mp4, timeline.png, poster.png, results.csv and results.json.

    The video is decoded twice, since labels are known only when their memory window is complete;
    memory stays bounded. With an `AttentionPredictor` of a model that has attention there are also
    pictures of it, at a few keyframes (:class:`KeyframeChoice`). Those of an earlier run are
    removed.

    Args:
        boxes: where persons and objects are; None: what `VideoPredictor` does without.
        folder: where the files go; made if needed.
        class_names: one per class.
        min_score: lowest score that is drawn. The files hold all scores.
        truth: what annotators saw, to be shown beside, see `truth_of`.

    Raises:
        VideoError: the video cannot be opened.
    """
    info = probe_video(video)
    keyframes, choice = [], KeyframeChoice(ATTENTION_KEYFRAMES)
    for x in predictor(video, boxes):
        keyframe = keyframe_result(x, class_names)
        keyframe = with_truth(keyframe, truth or {})
        choice.add(keyframe)
        keyframes.append(replace(keyframe, attention=None))  # too much to hold of every second
    _tell_of_unused(video, boxes, info)
    for why in boxes.why_nobody(predictor.mapper.choice.min_person_score) if boxes else ():
        logger.warning("%s: %s", one_line(video_name(video)), why)
    result = VideoResult(video_name(video), info.width, info.height, class_names, keyframes)
    folder.mkdir(parents=True, exist_ok=True)
    # those of an earlier run show other keyframes, which no report would link
    remove_attention_pictures(folder)
    attention = write_attention_pictures(video, folder, choice.chosen, result)
    tables = [
        write_results_csv(folder / "results.csv", result),
        write_results_json(folder / "results.json", result),
    ]
    timeline = timeline_chart(folder / "timeline.png", result, min_score=min_score)
    drawn, poster = folder / "annotated.mp4", folder / "poster.png"
    fps = min(max(info.average_fps, MIN_FPS), MAX_FPS)
    is_random = not predictor.cfg.MODEL.WEIGHTS
    note = "RANDOM NETWORK " if is_random else ""
    cuts = write_annotated_video(video, drawn, poster, result, fps, min_score, note)
    persons = sum(len(k.persons) for k in keyframes)
    name = one_line(result.video_id)
    logger.info("%s: %d persons on %d keyframes", name, persons, len(keyframes))
    return VideoSection(
        title=result.video_id,
        video=drawn,
        result=result,
        tables=tables,
        timeline=timeline,
        poster=poster,
        attention=attention,
        begin=info.begin,
        cuts=cuts,
        is_random=is_random,
    )


def truth_of(keyframes: Iterable[dict], video_id: str, class_names: Sequence[str]) -> Truth:
    """What the annotators of a data set saw in one of its videos.

    Args:
        keyframes: dataset dicts of whole videos.
        class_names: of the data set.
    """
    found = {}
    for x in keyframes:
        if x["video_id"] == video_id:
            persons = AnnotatedPersons.of(x)
            actions: list[list[str]] = [[] for _ in range(len(persons))]
            for row, annotation in zip(persons.rows, x["annotations"]):
                actions[row].append(class_names[annotation["category_id"]])
            found[float(x["timestamp"])] = persons.boxes, actions
    return found


def _tell_of_unused(video: str | Path, boxes: BoxSource | None, info: VideoInfo) -> None:
    """Warn of boxes at times that the video does not have."""
    unused = {} if boxes is None else boxes.unused()
    if unused:
        logger.warning(
            "%s: %d boxes are not used, they are at seconds that the video does not have, such as "
            "%d; it has %s",
            *(one_line(video_name(video)), sum(unused.values()), min(unused), info.span_text()),
        )


def keyframe_result(result: dict, class_names: list[str]) -> KeyframeResult:
    """The persons of a predictor's result, from the rows of :func:`action_inference`."""
    instances = result["instances"].to("cpu")
    persons_with_rows, first_rows = np.unique(instances.person_index.numpy(), return_index=True)
    # Copies of these rows: views would keep all rows, one a class, for as long as the result lives.
    rows = instances[torch.from_numpy(first_rows)]
    persons = [
        PersonResult.from_scores(box, scores, class_names, int(person_id))
        for box, scores, person_id in zip(
            rows.pred_boxes.tensor.numpy(), rows.action_scores.numpy(), rows.person_ids
        )
    ]
    attention = result.get("attention")
    attention = None if attention is None else attention.of(persons_with_rows)
    return KeyframeResult(float(result["timestamp"]), persons, attention)


def constant_rate(
    frames: Iterable[tuple[float, np.ndarray]],
    fps: float,
    cuts: list[tuple[float, float]] | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Show frames of any times at a constant rate: repeat the one on screen, drop the rest.

    Holes without frames (see `StillLimit`) are left out: one of an hour is a gigabyte of nothing.

    Args:
        frames: (seconds, frame) in order of time.
        fps: frames per second of the output, which begins with the first frame.
        cuts: gets (seconds at which a hole ends, seconds of it that are left out).

    Yields:
        (seconds on the axis of `frames`, frame).
    """
    begin, number, shown, stills = 0.0, 0, None, StillLimit()
    for time, frame in frames:
        until = stills.shown_until(time)
        if shown is None:
            begin = time
        while shown is not None and not is_shown_by(time, moment := begin + number / fps):
            if moment > until:
                begin += time - moment
                if cuts is not None:
                    cuts.append((time, time - moment))
                break
            yield moment, shown
            number += 1
        shown = frame
    if shown is not None:
        yield begin + number / fps, shown


def write_annotated_video(
    video: str | Path,
    path: Path,
    poster: Path,
    result: VideoResult,
    fps: float,
    min_score: float,
    note: str = "",
) -> list[tuple[float, float]]:
    """Draw persons and actions on every frame; the poster is the keyframe that tells the most.

    Args:
        note: stands before the time in every frame.

    Returns:
        What was cut out of the time, see :func:`constant_rate`.
    """
    cuts: list[tuple[float, float]] = []
    drawer = PersonDrawer(result.width, result.height, min_score=min_score)
    # Of whole keyframes, though not all of their persons may be drawn: as in the charts.
    colours, period = identity_colours(result), result.period
    times = [k.timestamp for k in result.keyframes]
    fullest = max(result.keyframes, key=lambda k: _worth_showing(k, min_score), default=None)
    poster_time = 0.0 if fullest is None else fullest.timestamp
    poster_frame = None
    # Small pictures are enlarged before anything is drawn: encoding them is most of the work here.
    with VideoWriter(path, fps, *drawer.output_size, preset="veryfast") as writer:
        for time, frame in constant_rate(iterate_frames(video, threads=0), fps, cuts):
            i = int(np.searchsorted(times, time, side="right"))
            before = result.keyframes[i - 1] if i else None
            after = result.keyframes[i] if i < len(times) else None
            persons = persons_at(time, before, after, period=period)
            rgb = colours.of([person.person_id for person in persons])
            drawn = drawer.draw(frame, persons, rgb, note + format_time(time))
            writer.write(drawn)
            if poster_frame is None or time <= poster_time:
                poster_frame = drawn
    assert poster_frame is not None, f"{video}: frames that were there are not any more"
    write_picture(poster, poster_frame)
    return cuts


def _worth_showing(keyframe: KeyframeResult, min_score: float) -> tuple[int, int, float]:
    """How well a keyframe stands for a video: different actions, right ones if that is known."""
    persons = keyframe.persons
    actions = [(a, s, p) for p in persons for a, s in shown_actions(p, min_score)]
    good = [(a, s) for a, s, p in actions if p.truth is None or a in p.truth]
    return len({a for a, _ in good}), len(persons), sum(s for _, s in good)
