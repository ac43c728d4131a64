"""One video from prediction to everything a person wants to see of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from ..data.clip_sampling import StillLimit, is_shown_by
from ..data.video import (
    VideoError,
    VideoInfo,
    VideoWriter,
    iterate_frames,
    one_line,
    open_sound,
    probe_video,
    video_name,
)
from ..engine.box_sources import BoxSource
from ..engine.predictor import VideoPredictor
from ..engine.stopwatch import Stopwatch
from ..evaluation import tubes as tubes_of
from ..formats.people import PEOPLE_FILE, people_table, write_people
from ..formats.results import (
    KeyframeResult,
    PersonResult,
    VideoResult,
    write_results_csv,
    write_results_json,
)
from ..structures import AnnotatedPersons
from ..visualization import VideoSection
from ..visualization.charts import timeline_chart
from ..visualization.drawing import PersonDrawer, write_picture
from ..visualization.palette import identity_colours
from ..visualization.shown import MIN_SCORE, ShownClasses
from ..visualization.text import format_time
from ..visualization.timeline import Truth, persons_at, shown_actions, with_truth
from .attention_pictures import KeyframeChoice, remove_attention_pictures, write_attention_pictures
from .progress import Progress

logger = logging.getLogger(__name__)

# Beginning or ending to act costs this between keyframes, which are rarer than frames: one keyframe
# that is sure (0.75) is enough.
KEYFRAME_PENALTY = 0.25

MIN_FPS, MAX_FPS = 1.0, 60.0  # of annotated videos
ATTENTION_KEYFRAMES = 3  # of which attention is drawn, per video


class Stopped(KeyboardInterrupt):
    """Ctrl-C within a video, after what is known of it was written.

    Attributes:
        section: what there is to show.
    """

    def __init__(self, section: VideoSection) -> None:
        super().__init__()
        self.section = section


def process_video(
    predictor: VideoPredictor,
    video: str | Path,
    boxes: BoxSource | None,
    folder: Path,
    class_names: list[str],
    *,
    min_scores: float | Sequence[float] = MIN_SCORE,
    truth: Truth | None = None,
) -> VideoSection:
    """Predict, then write annotated.mp4, timeline.png, poster.png, results.csv and results.json.

    The video is decoded twice, since labels are known only when their memory window is complete;
    memory stays bounded. With an `AttentionPredictor` of a model that has attention there are also
    pictures of it, at a few keyframes (:class:`KeyframeChoice`). Those of an earlier run are
    removed.

    Args:
        boxes: where persons and objects are; None: what `VideoPredictor` does without.
        min_scores: see `ShownClasses.of`. The files hold all scores.
        truth: what annotators saw, to be shown beside, see `truth_of`.

    Raises:
        VideoError: the video cannot be opened.
        Stopped: Ctrl-C came after the first results.
    """
    info, drawn = probe_video(video), folder / "annotated.mp4"
    if drawn.exists() and drawn.samefile(info.path):
        raise VideoError(f"{info.path}: the annotated video would replace it: name another output")
    predictor.stopwatch = Stopwatch()
    boxes = predictor.default_boxes() if boxes is None else boxes
    shown = ShownClasses.of(class_names, min_scores)
    name, start = one_line(video_name(video)), monotonic()
    keyframes, choice = [], KeyframeChoice(ATTENTION_KEYFRAMES)
    predictor.progress = progress = Progress(info, "finding actions,")
    is_stopped = False
    try:
        for x in predictor(video, boxes):
            keyframe = with_truth(keyframe_result(x, class_names), truth or {})
            choice.add(shown.keyframe(keyframe))
            keyframes.append(replace(keyframe, attention=None))  # too much to hold of every second
    except KeyboardInterrupt:
        if not keyframes:
            raise
        is_stopped = True
        until = format_time(keyframes[-1].timestamp)
        logger.warning("%s: stopped; writing what is known up to %s", name, until)
    finally:
        progress.end()
    if not is_stopped:
        tell_of_boxes(info, boxes, predictor)
    result = VideoResult(video_name(video), info.width, info.height, class_names, keyframes)
    with predictor.stopwatch.stage("drawing and writing"):
        is_random = not predictor.cfg.MODEL.WEIGHTS
        tables = write_tables(folder, result, info.path, predictor.checksum)
        section = _write(
            *(info, folder, result, tables, shown, choice),
            is_random=is_random,
            is_stopped=is_stopped,
        )
    length = keyframes[-1].timestamp - info.begin + 1 if keyframes else 1
    logger.info(
        "%s: %s; %.0f s, for each second of video %s",
        *(name, _count_persons(keyframes), monotonic() - start),
        predictor.stopwatch.per_second(length if is_stopped else info.duration or length),
    )
    if is_stopped:
        raise Stopped(section)
    return section


def _write(
    info: VideoInfo,
    folder: Path,
    result: VideoResult,
    tables: list[Path],
    shown: ShownClasses,
    choice: KeyframeChoice,
    *,
    is_random: bool,
    is_stopped: bool,
) -> VideoSection:
    """Write all files of a video."""
    folder.mkdir(parents=True, exist_ok=True)
    # those of an earlier run show other keyframes, which no report would link
    remove_attention_pictures(folder)
    result = shown.result(result)
    attention = write_attention_pictures(info.path, folder, choice.chosen, result)
    timeline_chart(folder / "timeline.png", result, min_score=shown.lowest)
    drawn, poster = folder / "annotated.mp4", folder / "poster.png"
    fps = min(max(info.average_fps, MIN_FPS), MAX_FPS)
    until = result.keyframes[-1].timestamp + 0.5 if is_stopped else math.inf
    alarm = "RANDOM NETWORK" if is_random else ""
    cuts = write_annotated_video(info, drawn, poster, result, fps, alarm=alarm, until=until)
    return VideoSection(
        title=result.video_id,
        video=drawn,
        result=result,
        tables=tables,
        poster=poster,
        attention=attention,
        begin=info.begin,
        cuts=cuts,
        tubes=action_tubes(result, shown.lowest),
        is_random=is_random,
    )


def action_tubes(
    result: VideoResult, min_score: float
) -> list[tuple[int, str, float, float, float]]:
    """Say what known persons do from when to when: tubes of their identities, as in `evaluation`,
    that score at least `min_score`, by person and time: (person_id, action, first and last second,
    score)."""
    seen: dict[int, list[tuple[int, np.ndarray, np.ndarray]]] = {}
    for keyframe in result.keyframes:
        number = round(keyframe.timestamp / result.period)
        for person in keyframe.persons:
            seen.setdefault(person.person_id, []).append((number, person.box, person.scores))
    tubes = []
    for person_id in sorted(person_id for person_id in seen if person_id >= 0):
        frames, boxes, scores = (np.array(x) for x in zip(*seen[person_id]))
        for label, name in enumerate(result.class_names):
            path = tubes_of.Path(frames, boxes, scores[:, label])
            for tube in tubes_of.path_tubes(path, 0, label, min_frames=1, penalty=KEYFRAME_PENALTY):
                if name and tube.score >= min_score:
                    first, last = (x * result.period for x in (tube.first, tube.stop - 1))
                    tubes.append((person_id, name, first, last, tube.score))
    return sorted(tubes, key=lambda x: (x[0], x[2], -x[4]))


def truth_of(keyframes: Iterable[dict], video_id: str, class_names: Sequence[str]) -> Truth:
    """What the annotators of a data set, of which these are dicts of whole videos, saw in one of
    them."""
    found = {}
    for x in keyframes:
        if x["video_id"] == video_id:
            persons = AnnotatedPersons.of(x)
            actions: list[list[str]] = [[] for _ in range(len(persons))]
            for row, annotation in zip(persons.rows, x["annotations"]):
                actions[row].append(class_names[annotation["category_id"]])
            found[float(x["timestamp"])] = persons.boxes, actions
    return found


def _count_persons(keyframes: Sequence[KeyframeResult]) -> str:
    """Say how many people there were: who comes without an identity is not counted as one."""
    ids = [person.person_id for keyframe in keyframes for person in keyframe.persons]
    persons = len({i for i in ids if i >= 0})
    unknown = ", some without an identity" if -1 in ids else ""
    return f"{persons} persons{unknown} in {len(ids)} boxes at {len(keyframes)} keyframes"


def write_tables(folder: Path, result: VideoResult, file: Path, network: str) -> list[Path]:
    """Write the files for programs: all scores of a video, which is a file; and an index of its
    people, by the features of a network of this checksum."""
    return [
        write_results_csv(folder / "results.csv", result),
        write_results_json(folder / "results.json", result),
        write_people(folder / PEOPLE_FILE, people_table(result, file, network)),
    ]


def tell_of_boxes(info: VideoInfo, boxes: BoxSource, predictor: VideoPredictor) -> None:
    """Warn, at the end of a video, of boxes at times that it does not have, and of nobody in it."""
    name, unused = one_line(video_name(info.path)), boxes.unused()
    if unused:
        logger.warning(
            "%s: %d boxes are not used, they are at seconds that the video does not have, such as "
            "%d; it has %s",
            *(name, sum(unused.values()), min(unused), info.span_text()),
        )
    for why in boxes.why_nobody(predictor.mapper.choice.min_person_score):
        logger.warning("%s: %s", name, why)


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
    if "context_features" in result:
        found = result["context_features"].to("cpu", torch.float32)[persons_with_rows]
        features = torch.nn.functional.normalize(found).half().numpy()
        persons = [replace(x, features=row) for x, row in zip(persons, features)]
    attention = result.get("attention")
    attention = None if attention is None else attention.of(persons_with_rows)
    return KeyframeResult(float(result["timestamp"]), persons, attention)


def constant_rate(
    frames: Iterable[tuple[float, np.ndarray]],
    fps: float,
    cuts: list[tuple[float, float]] | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Show (seconds, frame) of any times at a constant rate, from the first one on: repeat the one
    on screen, drop the rest.

    Holes without frames (see `StillLimit`) are left out: one of an hour is a gigabyte of nothing.
    `cuts` gets (seconds at which a hole ends, seconds of it that are left out). The seconds that
    are yielded are on the axis of `frames`.
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
    info: VideoInfo,
    path: Path,
    poster: Path,
    result: VideoResult,
    fps: float,
    *,
    alarm: str = "",
    until: float = math.inf,
) -> list[tuple[float, float]]:
    """Draw persons and what they do on every frame; the poster is the keyframe that tells the most.

    The sound stays, if there is one. `alarm` is a line in red in every picture. What was cut out of
    the time is returned, see :func:`constant_rate`.
    """
    cuts: list[tuple[float, float]] = []
    drawer = PersonDrawer(result.width, result.height, min_score=0, alarm=alarm)
    # Of whole keyframes, though not all of their persons may be drawn: as in the charts.
    colours, period = identity_colours(result), result.period
    times = [k.timestamp for k in result.keyframes]
    fullest = max(result.keyframes, key=_worth_showing, default=None)
    poster_time = 0.0 if fullest is None else fullest.timestamp
    poster_frame = None
    progress = Progress(info, "drawing,")
    with ExitStack() as stack:
        stack.callback(progress.end)
        sound = open_sound(info)
        if sound is not None:
            stack.callback(sound.close)
        # Small pictures are enlarged before anything is drawn: encoding is most of the work here.
        size = drawer.output_size
        writer = VideoWriter(path, fps, *size, preset="veryfast", sound=sound)
        stack.enter_context(writer)
        for time, frame in constant_rate(iterate_frames(info.path, threads=0), fps, cuts):
            if time > until:
                break
            progress(time)
            i = int(np.searchsorted(times, time, side="right"))
            before = result.keyframes[i - 1] if i else None
            after = result.keyframes[i] if i < len(times) else None
            persons = persons_at(time, before, after, period=period)
            rgb = colours.of([person.person_id for person in persons])
            drawn = drawer.draw(frame, persons, rgb, format_time(time))
            writer.write(drawn, time)
            if poster_frame is None or time <= poster_time:
                poster_frame = drawn
    assert poster_frame is not None, f"{info.path}: frames that were there are not any more"
    write_picture(poster, poster_frame)
    return cuts


def _worth_showing(keyframe: KeyframeResult) -> tuple[int, int, float]:
    """How well a keyframe stands for a video: different actions, right ones if that is known."""
    persons = keyframe.persons
    actions = [(a, s, p) for p in persons for a, s in shown_actions(p, 0)]
    good = [(a, s) for a, s, p in actions if p.truth is None or a in p.truth]
    return len({a for a, _ in good}), len(persons), sum(s for _, s in good)
