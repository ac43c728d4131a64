"""What is wrong with a data set, what is unusual about it, and what training will see of it.

`read_splits` and `look_at_videos` read; everything else here is a pure function of what they give.
Nothing raises for what is wrong with the data: every problem becomes a `Finding`, all of them at
once.

Shape letters: N rows, K classes.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..formats.ava import (
    AVARows,
    concatenate_rows,
    duplicates,
    read_exclusions,
    rename_videos,
    scan_ava_csv,
    select_rows,
)
from ..formats.boxes import keyframe_seconds, scan_boxes, scan_keyframes
from ..formats.joins import frame_numbers, why_no_persons, why_unjoined
from ..formats.label_map import LabelMap, read_label_map, with_groups
from ..formats.tables import DataFileError, Finding, Findings, listed
from .box_tables import Keyframe, keyframes_in
from .clip_sampling import TIME_TOLERANCE, iterate_clips
from .datasets.ava import AVAFiles, listed_keyframes, meant_videos
from .datasets.builtin import folder_label_map, folder_splits, unread_files
from .video import VideoInfo, find_videos, first_that_opens, hearing_warnings, iterate_frames

MIN_BOX_SIDE = 8  # pixels; a smaller box shows nobody
MAX_HOLE = 0.5  # seconds between two frames, if that is three times the usual; more is a hole
MANY_TIMES = 5  # that a clip repeats each frame; more than this shows no movement
MAX_RATIO = 2.0  # of sizes and of frame rates; more than this is "very different"
_MAX_LISTED = 20
# What to look at when no keyframe lies in a video, by whether that is a folder.
_TIMES_OF = {
    False: "are the times seconds from its first frame? ('start' in a frames.yaml beside it says "
    "where it begins)",
    True: "is 'start' in frames.yaml the second of its first picture (900 in AVA's usual frames)?",
}
PARTS = ("annotations", "persons", "objects")


@dataclass(frozen=True, eq=False)
class SplitData:
    """The rows of one split, by part; a part that is not there or not to be read has none.

    Rows that come twice and rows between keyframes are left out already, as in training.
    """

    name: str
    files: AVAFiles
    annotations: AVARows | None = None
    persons: AVARows | None = None
    objects: AVARows | None = None
    excluded: frozenset[Keyframe] = frozenset()  # that do not count
    listed: frozenset[Keyframe] = frozenset()  # of a split without annotations

    @property
    def tables(self) -> list[AVARows]:
        """The parts that are there."""
        return [rows for rows in (getattr(self, part) for part in PARTS) if rows is not None]

    @functools.cached_property
    def keyframes(self) -> list[Keyframe]:
        """Annotated or listed keyframes that count, in order."""
        found = set() if self.annotations is None else keyframes_in(self.annotations)
        return sorted((found | self.listed) - self.excluded)

    def place(self, part: str) -> str:
        """What to call a part in a finding: its file, if it is one."""
        paths = self.files.paths(part)
        return str(paths[0]) if len(paths) == 1 else f"{self.name} ({part})"


@dataclass(frozen=True)
class SeenVideo:
    """A video that can be opened."""

    info: VideoInfo
    last_frame: float | None = None  # when it starts, s; None if decoding did not get there
    stale: tuple[int, ...] = ()  # keyframes in holes between frames, which show the frame before

    def ends_before(self, second: float) -> bool:
        """Whether the last frame is over by then, as far as is known."""
        if self.last_frame is None:
            return self.info.end is not None and second > self.info.end
        return second > self.last_frame + 1 / self.info.average_fps + TIME_TOLERANCE


@dataclass
class DatasetReport:
    """Everything that is known about a data set."""

    findings: list[Finding] = field(default_factory=list)
    label_map: LabelMap | None = None
    splits: list[SplitData] = field(default_factory=list)
    videos: dict[str, SeenVideo] = field(default_factory=dict)

    @property
    def is_wrong(self) -> bool:
        return any(finding.wrong for finding in self.findings)

    def add(self, wrong: bool, where: object, what: str) -> None:
        """Note a finding."""
        self.add_all([Finding(wrong, str(where), what)])

    def add_all(self, findings: Iterable[Finding]) -> None:
        """Note findings, each once."""
        self.findings += [finding for finding in findings if finding not in self.findings]

    def add_some(self, wrong: bool, where: object, what: str, names: Iterable[object]) -> None:
        """Note a finding about things of these names, if there are any."""
        if names := list(names):
            self.add(wrong, where, f"{what}: {listed(names)}")

    def unusual(self, where: object, keys: Iterable[Keyframe], what: str, noun: str) -> None:
        """Note how many of something there are, if any, with the keyframes of the first ones."""
        keys = list(keys)
        if keys:
            self.add(False, where, f"{_many(len(keys), noun)} {what}: {_example(keys)}")


# ------------------------------------------------------------------------------------------ reading


def folder_files(folder: Path, report: DatasetReport) -> dict[str, AVAFiles]:
    """Find the splits of a folder data set by name; what the folder lacks is noted."""
    splits = folder_splits(folder)
    if not splits:
        report.add(True, folder / "annotations", "no <split>.csv with annotations in it")
        for path, what in ((folder_label_map(folder), "file"), (folder / "videos", "folder")):
            if not path.exists():
                report.add(True, path, f"no such {what}")
    for path, what in unread_files(folder).items():
        report.add(False, path, what)
    return splits


def read_splits(splits: Mapping[str, AVAFiles], report: DatasetReport) -> None:
    """Read label map, tables and exclusions of all splits into the report."""
    for path in {files.label_map: None for files in splits.values()}:
        if not path.is_file():
            there = ", ".join(sorted(x.name for x in path.parent.glob("[!.]*.*")))[:200]
            hint = f"; there: {there}" if there else ""
            report.add(True, path, f"no such file, and no labels.txt{hint}")
            continue
        with noting(report, path):
            report.label_map = with_groups(read_label_map(path))
    for name, files in splits.items():
        tables = {part: _read_part(files, part, report) for part in PARTS}
        excluded: set[Keyframe] = set()
        listed: set[Keyframe] = set()
        for path in files.paths("excluded"):
            with noting(report, path):
                found = read_exclusions(path)
                renamed = meant_videos(files, {video for video, _ in found})
                excluded |= {(renamed.get(video, video), second) for video, second in found}
        with noting(report, files.label_map):
            listed = listed_keyframes(files)
        report.splits.append(
            SplitData(name, files, excluded=frozenset(excluded), listed=frozenset(listed), **tables)
        )


def _read_part(files: AVAFiles, part: str, report: DatasetReport) -> AVARows | None:
    """Read the rows that training and testing take of a part; None if there are no files to read.

    Boxes count file by file: one with boxes for every frame takes nothing from another whose times
    are whole seconds. Annotations are one table, whatever files they come from.
    """
    tables = []
    for path in files.paths(part):
        with noting(report, path):
            rows, findings = _read_table(path, part, report.label_map)
            report.add_all([*findings.wrong(), *findings.notes])
            renamed = meant_videos(files, rows.videos)
            if renamed:
                what = f"{_many(len(renamed), 'video')} called with folder or extension"
                told = [f"{first} for {other}" for first, other in renamed.items()]
                report.add(False, path, f"{what}: {listed(told, 1)}")
            tables.append(rename_videos(rows, renamed))
    if part == "annotations" and tables:
        tables = [concatenate_rows(tables)]
    at_keyframes = []
    for table in tables:
        rows, findings = scan_keyframes(table)
        report.add_all(findings.notes)
        at_keyframes.append(rows)
    return concatenate_rows(at_keyframes) if tables else None


def _read_table(path: Path, part: str, label_map: LabelMap | None) -> tuple[AVARows, Findings]:
    if part != "annotations":
        boxes, findings = scan_boxes(path, part)
        return boxes.rows, findings
    rows, findings = scan_ava_csv(path, label_map=label_map)
    again = duplicates(rows)
    if again.any():
        findings.note(f"{_many(again.sum(), 'row')} twice: {_example(row_keyframes(rows, again))}")
    return select_rows(rows, ~again), findings


@contextlib.contextmanager
def noting(report: DatasetReport, path: object) -> Iterator[None]:
    """Turn errors about a file into findings."""
    try:
        yield
    except FileNotFoundError as error:
        what = "no such file" if error.filename else _without_path(str(error), path)
        report.add(True, error.filename or path, what)
    except DataFileError as error:
        report.add_all(error.findings)
    except (OSError, ValueError) as error:
        report.add(True, path, _without_path(str(error), path))


def _without_path(message: str, path: object) -> str:
    return message.removeprefix(f"{path}: ")


def look_at_videos(
    report: DatasetReport, wanted: Iterable[Keyframe] = (), decode: bool = True
) -> Iterator[tuple[Keyframe, np.ndarray]]:
    """Open every video that the rows name, and decode it as far as annotations touch it.

    Args:
        report: gets the videos, and findings about those that are missing or cannot be used.
        wanted: keyframes whose pictures shall come out.
        decode: False opens them only (and decodes up to the last wanted keyframe).

    Yields:
        (keyframe, (H, W, 3) uint8 RGB).
    """
    keyframes: dict[str, set[int]] = {}
    num_rows: Counter[str] = Counter()
    for split in report.splits:
        for video, second in split.keyframes:
            keyframes.setdefault(video, set()).add(second)
        for rows in split.tables:
            counts = np.bincount(rows.video_codes, minlength=len(rows.videos)).tolist()
            num_rows.update(dict(zip(rows.videos, counts)))
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(split.files.videos for split in report.splits):
        if not folder.is_dir():
            report.add(True, folder, "no such folder of videos")
            return
        for video, paths in find_videos(folder).items():
            found.setdefault(video, []).extend(paths)
    missing = {video: n for video, n in sorted(num_rows.items()) if video not in found}
    if len(missing) > _MAX_LISTED:
        rows_of_them = _many(sum(missing.values()), "row")
        report.add_some(True, "videos", f"{len(missing)} are missing, with {rows_of_them}", missing)
        missing = {}
    for video, count in missing.items():
        report.add(True, video, f"no video of this name; {_many(count, 'row')} of it")
    wanted = set(wanted)
    for video, paths in sorted(found.items()):
        if video not in num_rows:
            continue
        info, problems = first_that_opens(paths)
        if info is None:
            what = _without_path(problems[0], paths[0])
            report.add(True, paths[0], f"{what} ({_many(num_rows[video], 'row')} of it)")
            continue
        report.videos[video] = SeenVideo(info)
        if len(paths) > 1:
            report.add(False, info.path, f"is taken of {len(paths)} videos called {video}")
        mine = {second for name, second in wanted if name == video}
        touched = sorted(keyframes.get(video, set()) if decode else mine)
        if touched:
            yield from _look(video, info, touched, mine, report)


def _look(
    video: str, info: VideoInfo, touched: Sequence[int], wanted: set[int], report: DatasetReport
) -> Iterator[tuple[Keyframe, np.ndarray]]:
    """Decode a video from its start to the last keyframe."""
    last, ended = info.begin, False
    stale: list[int] = []
    period = 1 / info.average_fps

    def watched() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal last, ended
        for seconds, frame in iterate_frames(info.path):
            if seconds - last > max(MAX_HOLE, 3 * period):
                begin, end = last + period - TIME_TOLERANCE, seconds - TIME_TOLERANCE
                stale.extend(t for t in touched if begin <= t < end)
            last = seconds
            yield seconds, frame
        ended = True

    with noting(report, info.path), hearing_warnings(functools.partial(report.add, False)):
        for second, _, picture in iterate_clips(watched(), 1, 1, 1, timestamps=touched):
            if second in wanted:
                yield (video, int(second)), picture
    report.videos[video] = SeenVideo(info, last if ended else None, tuple(stale))


# ------------------------------------------------------------------------------------------- checks


def check(
    report: DatasetReport,
    sampling_rate: float | None = None,
    clip_fps: float | None = None,
    min_person_score: float = -math.inf,
) -> None:
    """Note everything that can be said once rows and videos are read.

    Args:
        sampling_rate, clip_fps: of the clips, see `clip_times`; None: nothing is said about rates.
        min_person_score: of the detected persons that testing looks at.
    """
    for split in report.splits:
        if split.annotations is not None:
            _check_annotations(report, split, split.annotations)
        _check_boxes(report, split, min_person_score)
        _check_times(report, split)
        # a misspelt name, perhaps
        known = {video for video, _ in split.listed}.union(*(rows.videos for rows in split.tables))
        foreign = [key for key in split.excluded if key[0] not in known]
        place = split.place("excluded")
        report.unusual(place, foreign, "of videos that no row names", "keyframe")
    _check_classes(report)
    _check_overlap(report)
    _check_unused_videos(report)
    _check_variety(report)
    if sampling_rate is not None and clip_fps is not None:
        _check_rates(report, clip_fps / sampling_rate)
    report.findings.sort(key=lambda finding: not finding.wrong)


def row_keyframes(rows: AVARows, which: np.ndarray | slice = slice(None)) -> list[Keyframe]:
    """The keyframe of every row, or of some."""
    seconds = keyframe_seconds(rows.timestamps[which]).tolist()
    return [(rows.videos[code], s) for code, s in zip(rows.video_codes[which].tolist(), seconds)]


def _many(count: int, what: str) -> str:
    """A number and what it counts."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _example(keys: Iterable[Keyframe]) -> str:
    return listed(f"{video} {second} s" for video, second in sorted(set(keys)))


def class_counts(report: DatasetReport) -> dict[str, Counter[int]]:
    """Count the rows of every action id, by split."""
    return {
        split.name: Counter([] if split.annotations is None else split.annotations.labels.tolist())
        for split in report.splits
    }


def persons_of(rows: AVARows) -> list[tuple[Keyframe, tuple[float, ...], int]]:
    """Keyframe, box and id: what makes rows be about one person, see `AnnotatedPersons`."""
    boxes = map(tuple, rows.boxes.tolist())
    return list(zip(row_keyframes(rows), boxes, rows.person_ids.tolist()))


def _check_annotations(report: DatasetReport, split: SplitData, rows: AVARows) -> None:
    where = split.place("annotations")
    if not len(rows):
        report.add(True, where, "no annotations")
        return
    if report.label_map is not None:
        _check_ids(report, where, rows, report.label_map)
    if odd := frame_numbers(rows):
        report.add(False, where, odd)
    unknown = rows.person_ids < 0
    if unknown.any():
        count = "all" if unknown.all() else f"{unknown.sum()} of {len(rows)}"
        report.add(False, where, f"{count} rows without a person id: who is who is not known there")
    places: dict[tuple[Keyframe, int], set[tuple[float, ...]]] = {}
    for key, box, person in persons_of(rows):
        if person >= 0:
            places.setdefault((key, person), set()).add(box)
    twice = [key for (key, _), boxes in places.items() if len(boxes) > 1]
    if twice:
        what = f"a person has two boxes at once, {_many(len(twice), 'time')}"
        report.add(False, where, f"{what}: {_example(twice)}")
    infos = [report.videos[v].info if v in report.videos else None for v in rows.videos]
    # no size is known of a video that does not open
    sizes = np.array([(x.width, x.height) if x else (np.nan, np.nan) for x in infos])
    sides = (rows.boxes[:, 2:] - rows.boxes[:, :2]) * sizes[rows.video_codes]
    tiny = row_keyframes(rows, (sides < MIN_BOX_SIDE).any(axis=1))
    report.unusual(where, tiny, f"with a box side below {MIN_BOX_SIDE} pixels", "row")


def _check_ids(report: DatasetReport, where: str, rows: AVARows, label_map: LabelMap) -> None:
    counts = Counter(rows.labels.tolist())

    def note(wrong: bool, belongs: Callable[[int], bool], what: str) -> None:
        ids = sorted(filter(belongs, counts))
        if ids:
            shown = ", ".join(map(str, ids[:6]))
            num_rows = _many(sum(counts[i] for i in ids), "row")
            report.add(wrong, where, f"action ids {shown} ({num_rows}) {what}")

    last = label_map.num_classes
    note(True, lambda i: i > last, f"are not in the label map, which ends at {last}")
    names = label_map.names
    note(False, lambda i: 0 <= i <= last and i not in names, "have no name in the label map")


def _check_boxes(report: DatasetReport, split: SplitData, min_person_score: float) -> None:
    if split.persons is None:
        return
    where, annotated = split.place("persons"), set(split.keyframes)
    persons = split.persons
    odd = why_no_persons(persons, persons.labels < 0, min_person_score)
    if split.annotations is not None and len(persons):
        odd += why_unjoined(split.annotations, persons)
    for what in odd:
        report.add(False, where, what)
    found = keyframes_in(split.persons)
    if without := annotated - found:
        what = f"no detected person on {len(without)} of {len(annotated)} keyframes"
        report.add(False, where, f"{what}: {_example(without)}")
    if extra := found - annotated - split.excluded:
        what = f"persons on {_many(len(extra), 'keyframe')} without annotations: {_example(extra)}"
        report.add(False, where, f"{what}; testing counts what it finds there as wrong")


def _check_times(report: DatasetReport, split: SplitData) -> None:
    """Note keyframes outside their video."""
    by_video: dict[str, list[int]] = {}
    for video, second in split.keyframes:
        by_video.setdefault(video, []).append(second)
    where = split.place("annotations")
    for video, seconds in by_video.items():
        seen = report.videos.get(video)
        if seen is None:
            continue
        outside = [second for second in seconds if not seen.info.spans(second)]
        if outside:
            span = f"the video has {seen.info.span_text()}"
            if len(outside) == len(seconds):
                what = f"all keyframes of {video} ({len(seconds)}) lie outside it ({span}): "
                shift = _shift_of(seconds, seen.info)
                report.add(True, where, what + shift + _TIMES_OF[seen.info.path.is_dir()])
            else:
                what = f"left out {len(outside)} of {len(seconds)} keyframes of {video}, without a"
                report.add(False, where, f"{what} frame: {span}")
        stale = [(video, second) for second in sorted(set(seen.stale) & set(seconds))]
        what = f"of {video} where frames are missing, which show an older one"
        report.unusual(where, stale, what, "keyframe")
        frozen = [x for x in seconds if seen.info.spans(x) and seen.ends_before(x)]
        if frozen:
            what = f"{_many(len(frozen), 'keyframe')} of {video} after its last frame"
            report.add(False, where, f"{what}, at {seen.last_frame:.1f} s, which they show")


def _shift_of(seconds: Sequence[int], info: VideoInfo) -> str:
    """Say by how much all of a video's keyframes are late or early, if one number puts them right.

    Of those that do it is the roundest: films of AVA begin at 900 s, annotations of them at 902.
    """
    if info.end is None:
        return ""
    least, most = max(seconds) - info.end, min(seconds) - info.begin
    for step in (900, 600, 300, 100, 60, 50, 30, 10, 5, 1):
        shift = math.ceil(least / step) * step
        if shift <= most:
            return f"all times lie {abs(shift)} s {'late' if shift > 0 else 'early'}; "
    return ""


def _check_rates(report: DatasetReport, wanted: float) -> None:
    """Note videos with so few frames a second that clips hardly show movement."""
    rates = {video: seen.info.average_fps for video, seen in report.videos.items()}
    slow = {video: rate for video, rate in sorted(rates.items()) if MANY_TIMES * rate < wanted}
    if slow:
        rate = max(slow.values())
        what = f"{_many(len(slow), 'video')} with {rate:.3g} frame{'s' * (rate != 1)} a second or "
        what += f"less, clips want {wanted:g}: each frame is seen {wanted / rate:.0f} times, "
        report.add_some(False, "videos", f"{what}movement is not", slow)


def _check_classes(report: DatasetReport) -> None:
    """Note classes without a row."""
    names = {} if report.label_map is None else report.label_map.names
    for split, column in class_counts(report).items():
        empty = [name for i, name in names.items() if not column[i]]
        if empty and sum(column.values()):
            what = f"{len(empty)} of {len(names)} classes have no row: {listed(empty, 6)}"
            report.add(False, split, what)


def _check_overlap(report: DatasetReport) -> None:
    for number, first in enumerate(report.splits):
        for second in report.splits[number + 1 :]:
            where = f"{first.name}, {second.name}"
            both = set(first.keyframes) & set(second.keyframes)
            report.unusual(where, both, "in both", "keyframe")
            videos = [{video for video, _ in split.keyframes} for split in (first, second)]
            if not both and (common := sorted(videos[0] & videos[1])):
                report.add_some(False, where, f"{_many(len(common), 'video')} in both", common)


def _check_unused_videos(report: DatasetReport) -> None:
    used = {video for split in report.splits for rows in split.tables for video in rows.videos}
    for folder in dict.fromkeys(split.files.videos for split in report.splits):
        unused = sorted(set(find_videos(folder)) - used) if folder.is_dir() else []
        what = f"{_many(len(unused), 'video')} that no row names"
        report.add_some(False, folder, what, unused)


def _check_variety(report: DatasetReport) -> None:
    """Note very different sizes or frame rates."""
    measures: tuple[tuple[str, str, Callable[[VideoInfo], float]], ...] = (
        ("short side", "pixels", lambda info: min(info.width, info.height)),
        ("frame rate", "frames/s", lambda info: info.average_fps),
    )
    for what, unit, measure in measures:
        values = sorted((measure(seen.info), video) for video, seen in report.videos.items())
        if values and values[-1][0] > MAX_RATIO * values[0][0]:
            (low, a), (high, b) = values[0], values[-1]
            report.add(False, "videos", f"{what} from {low:g} ({a}) to {high:g} {unit} ({b})")
