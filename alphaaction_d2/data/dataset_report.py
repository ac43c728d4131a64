"""What is wrong with a data set, what is unusual about it, and what training will see of it.

`read_splits` and `look_at_videos` read; everything else here is a pure function of what they give.
Nothing raises for what is wrong with the data: every problem becomes a `Finding`, all of them at
once.

Shape letters: N rows, K classes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..formats.ava import (
    AVARows,
    concatenate_rows,
    duplicates,
    read_ava_csv,
    read_exclusions,
    select_rows,
)
from ..formats.boxes import at_keyframes, keyframe_seconds, read_boxes
from ..formats.label_map import LabelMap, class_names, read_label_map, with_groups
from ..formats.tables import DataFileError
from .clip_sampling import TIME_TOLERANCE, clip_times, iterate_clips
from .datasets.ava import AVAFiles, Keyframe, keyframes_of
from .datasets.builtin import folder_label_map, folder_splits
from .video import VideoInfo, find_videos, first_that_opens, iterate_frames

logger = logging.getLogger(__name__)

MIN_BOX_SIDE = 8  # pixels; a smaller box shows nobody
MAX_HOLE = 0.5  # seconds between two frames, if that is three times the usual; more is a hole
MAX_RATIO = 2.0  # of sizes and of frame rates; more than this is "very different"
EXCLUSIVE_SHARE = 0.95  # of the persons have just one class of a group whose classes exclude others
MISTAKEN_SHARE = 0.01  # of the persons may have two classes that exclude each other, by mistake
_MAX_ROUNDS = 200  # of reading a file with bad rows; each finds some and leaves them out
_SHOWN = 3
_MAX_LISTED = 20
# What to look at when no keyframe lies in a video, by whether that is a folder.
_TIMES_OF = {
    False: "are the times seconds from its first frame?",
    True: "is 'start' in frames.yaml the second of its first picture (900 in AVA's usual frames)?",
}


@dataclass(frozen=True)
class Finding:
    """One thing about the data that somebody should know.

    Attributes:
        wrong: it has to be mended; otherwise it is unusual and may be meant.
        where: file, split or video.
        what: what it is, how often, and an example.
    """

    wrong: bool
    where: str
    what: str


@dataclass(frozen=True, eq=False)
class SplitData:
    """The rows of one split; None for a part that is not there or that nothing could be read of.

    Rows that come twice and rows between keyframes are left out already, as in training.
    `excluded` are keyframes that do not count, `listed` those of a split without annotations.
    """

    name: str
    files: AVAFiles
    annotations: AVARows | None = None
    persons: AVARows | None = None
    objects: AVARows | None = None
    excluded: frozenset[Keyframe] = frozenset()
    listed: frozenset[Keyframe] = frozenset()

    @functools.cached_property
    def keyframes(self) -> list[Keyframe]:
        """Annotated or listed keyframes that count, in order."""
        found = set() if self.annotations is None else set(row_keyframes(self.annotations))
        return sorted((found | self.listed) - self.excluded)

    def place(self, part: str) -> str:
        """What to call a part in a finding: its file, if it is one."""
        paths = self.files.paths(part)
        return str(paths[0]) if len(paths) == 1 else f"{self.name} ({part})"


@dataclass(frozen=True)
class SeenVideo:
    """A video that can be opened.

    Attributes:
        info: from its header and first frame.
        last_frame: seconds at which its last frame starts; None if decoding did not get there.
        stale: keyframes in holes between frames, which show the frame before.
    """

    info: VideoInfo
    last_frame: float | None = None
    stale: tuple[int, ...] = ()

    def shows(self, second: float) -> bool:
        """Whether training keeps this keyframe."""
        return self.info.spans(second)

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
        """Note a finding, once."""
        finding = Finding(wrong, str(where), what)
        if finding not in self.findings:
            self.findings.append(finding)


# ------------------------------------------------------------------------------------------ reading


def folder_files(folder: Path, report: DatasetReport) -> dict[str, AVAFiles]:
    """The splits of a folder data set by name; what the folder lacks is noted."""
    splits = folder_splits(folder)
    if not splits:
        report.add(True, folder / "annotations", "no <split>.csv with annotations in it")
        label_map = folder_label_map(folder)
        if not label_map.is_file():
            report.add(True, label_map, "no such file")
        if not (folder / "videos").is_dir():
            report.add(True, folder / "videos", "no such folder of videos")
    for path in sorted(folder.glob("annotations/*_excluded.csv")):
        split = path.stem.removesuffix("_excluded")
        if split not in splits:
            report.add(False, path, f"belongs to no split: there is no {split}.csv")
    known = ", ".join(f"{split}_{role}.csv" for split in splits for role in ("persons", "objects"))
    read = {path for files in splits.values() for path in (files.persons, files.objects)}
    for path in sorted(folder.glob("boxes/*")):
        if path.is_file() and path not in read and not path.name.startswith("."):
            report.add(False, path, f"is not read; expected {known or '<split>_persons.csv'}")
    return splits


def read_splits(splits: Mapping[str, AVAFiles], report: DatasetReport) -> None:
    """Read label map, tables and exclusions of all splits into the report."""
    for path in {files.label_map: None for files in splits.values()}:
        with _noting(report, path):
            report.label_map = with_groups(read_label_map(path))
    for name, files in splits.items():
        tables: dict[str, AVARows | None] = {}
        for part in ("annotations", "persons", "objects"):
            read = [_read_rows(path, part, report) for path in files.paths(part)]
            rows = [table for table in read if table is not None]
            with _warnings_noted(report):
                tables[part] = _at_keyframes(part, rows)
        excluded, listed = set(), []
        for path in files.paths("excluded"):
            with _noting(report, path):
                excluded |= read_exclusions(path)
        if not files.paths("annotations"):
            with _noting(report, files.label_map):
                listed = keyframes_of(name, files)
        report.splits.append(
            SplitData(name, files, excluded=frozenset(excluded), listed=frozenset(listed), **tables)
        )


def _at_keyframes(part: str, tables: Sequence[AVARows]) -> AVARows | None:
    """The rows of a part at keyframes, as `load_ava` finds them; None without a file.

    Boxes count file by file: one with boxes for every frame takes nothing from another whose times
    are whole seconds. Annotations are one table, whatever files they come from.
    """
    if not tables:
        return None
    if part == "annotations":
        return at_keyframes(concatenate_rows(tables))
    return concatenate_rows([at_keyframes(rows) for rows in tables])


def _read_part(path: Path, part: str) -> AVARows:
    """The rows that training and testing take of a file."""
    if part != "annotations":
        return read_boxes(path, part).rows
    rows = read_ava_csv(path)
    again = duplicates(rows)
    if again.any():
        logger.warning("%s: %s twice: %s", path, _many(again.sum(), "row"), _at(rows, again))
    return select_rows(rows, ~again)


def _read_rows(path: Path, part: str, report: DatasetReport) -> AVARows | None:
    """Read a table; bad rows are noted and left out, so that the good ones can be looked at."""
    try:
        with _warnings_noted(report):
            return _read_part(path, part)
    except FileNotFoundError as error:
        _note_error(report, path, error)
    except (OSError, DataFileError) as error:
        try:
            return _read_good_rows(path, part, error, report)
        except (OSError, UnicodeDecodeError):  # no plain text: there are no lines to leave out
            _note_error(report, path, error)
    return None


def _read_good_rows(
    path: Path, part: str, problem: Exception, report: DatasetReport
) -> AVARows | None:
    """The rows of a plain text file that are good; each round leaves out those found bad."""
    lines = path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        for _ in range(_MAX_ROUNDS):
            bad = _bad_lines(str(problem), len(lines))
            if not bad:
                break
            for number, what in bad:
                report.add(True, f"{path}:{number}", what)
                lines[number - 1] = "\n"  # a blank line: the others keep their numbers
            copy.write_text("".join(lines), encoding="utf-8")
            try:
                with _warnings_noted(report, {str(copy): str(path)}):
                    return replace(_read_part(copy, part), source=str(path))
            except DataFileError as error:
                problem = DataFileError(str(error).replace(str(copy), str(path)))
    _note_error(report, path, problem)
    return None


def _bad_lines(message: str, num_lines: int) -> list[tuple[int, str]]:
    """Line numbers and problems out of the message of an DataFileError."""
    found = [re.match(r".*?:(\d+): (.*)", line) for line in message.splitlines()]
    pairs = [(int(match[1]), match[2]) for match in found if match]
    return [(number, what) for number, what in pairs if 1 <= number <= num_lines]


@contextlib.contextmanager
def _noting(report: DatasetReport, path: Path) -> Iterator[None]:
    """Turn errors about a file into findings."""
    with _warnings_noted(report):
        try:
            yield
        except (OSError, ValueError) as error:
            _note_error(report, path, error)


def _note_error(report: DatasetReport, path: Path, error: Exception) -> None:
    if isinstance(error, FileNotFoundError):
        report.add(True, path, "no such file")
        return
    for line in str(error).splitlines():
        where, what = _where_and_what(line, str(path))
        report.add(True, where, what)


def _where_and_what(line: str, path: str) -> tuple[str, str]:
    """Split "file:line: what" or "file: what"; a line that names no file is about `path`."""
    match = re.match(rf"({re.escape(path)}(?::\d+)?): (.*)", line, re.DOTALL)
    return (match[1], match[2]) if match else (path, line)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _warnings_noted(
    report: DatasetReport, names: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Turn what the package warns of into findings: what is left out is told there.

    Args:
        names: files that are to be called by another name.
    """
    collector, package = _Collector(), logging.getLogger(__name__.partition(".")[0])
    package.addHandler(collector)
    try:
        yield
    finally:
        package.removeHandler(collector)
        for message in collector.messages:
            where, separator, what = message.partition(": ")
            where = (names or {}).get(where, where)
            report.add(False, where if separator else "", what if separator else message)


def look_at_videos(
    report: DatasetReport,
    wanted: Iterable[Keyframe] = (),
    decode: bool = True,
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
    named: Counter[str] = Counter()
    for split in report.splits:
        for video, second in split.keyframes:
            keyframes.setdefault(video, set()).add(second)
        for rows in (split.annotations, split.persons, split.objects):
            if rows is not None:
                named.update(dict(zip(rows.videos, np.bincount(rows.video_codes).tolist())))
    wanted = set(wanted)
    found = _found_videos(report)
    if found is None:
        return
    _note_missing(report, {video: n for video, n in sorted(named.items()) if video not in found})
    for video, count in sorted(named.items()):
        path = _open_first(video, count, found.get(video, []), report)
        if path is None:
            continue
        mine = {second for name, second in wanted if name == video}
        touched = sorted(keyframes.get(video, set()) if decode else mine)
        yield from _look(video, path, touched, mine, report)


def _found_videos(report: DatasetReport) -> dict[str, list[Path]] | None:
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(split.files.videos for split in report.splits):
        if not folder.is_dir():
            report.add(True, folder, "no such folder of videos")
            return None
        for video, paths in find_videos(folder).items():
            found.setdefault(video, []).extend(paths)
    return found


def _note_missing(report: DatasetReport, missing: Mapping[str, int]) -> None:
    """Note videos that are not there, with the rows of each; many of them in one line."""
    if len(missing) <= _MAX_LISTED:
        for video, count in missing.items():
            report.add(True, video, f"no video of this name; {_many(count, 'row')} of it")
        return
    names = ", ".join(list(missing)[:_SHOWN])
    rows = _many(sum(missing.values()), "row")
    report.add(True, "videos", f"{len(missing)} are missing, with {rows}: {names}, ...")


def _open_first(
    video: str, count: int, paths: Sequence[Path], report: DatasetReport
) -> Path | None:
    info, problems = first_that_opens(paths)
    if info is not None:
        report.videos[video] = SeenVideo(info)
        if len(paths) > 1:
            report.add(False, info.path, f"is taken of {len(paths)} videos called {video}")
        return info.path
    for problem in problems[:1]:
        where, what = _where_and_what(problem, str(paths[0]))
        report.add(True, where, f"{what} ({_many(count, 'row')} of it)")
    return None


def _look(
    video: str, path: Path, touched: Sequence[int], wanted: set[int], report: DatasetReport
) -> Iterator[tuple[Keyframe, np.ndarray]]:
    """Decode a video from its start to the last keyframe."""
    info = report.videos[video].info
    last, ended = info.begin, False
    stale: list[int] = []
    period = 1 / info.average_fps

    def watched() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal last, ended
        for seconds, frame in iterate_frames(path):
            if seconds - last > max(MAX_HOLE, 3 * period):
                begin, end = last + period - TIME_TOLERANCE, seconds - TIME_TOLERANCE
                stale.extend(t for t in touched if begin <= t < end)
            last = seconds
            yield seconds, frame
        ended = True

    if not touched:
        return
    with _noting(report, path):
        for second, _, picture in iterate_clips(watched(), 1, 1, 1, timestamps=touched):
            if second in wanted:
                yield (video, int(second)), picture
    report.videos[video] = SeenVideo(info, last if ended else None, tuple(stale))


# ------------------------------------------------------------------------------------------- checks


def check(report: DatasetReport) -> None:
    """Note everything that can be said once rows and videos are read."""
    for split in report.splits:
        if split.annotations is not None:
            _check_annotations(report, split, split.annotations)
        _check_boxes(report, split)
        _check_times(report, split)
        _check_excluded(report, split)
    _check_classes(report)
    _check_overlap(report)
    _check_unused_videos(report)
    _check_variety(report)
    report.findings.sort(key=lambda finding: not finding.wrong)


def row_keyframes(rows: AVARows) -> list[Keyframe]:
    """The keyframe of every row."""
    seconds = keyframe_seconds(rows.timestamps).tolist()
    return [(rows.videos[code], s) for code, s in zip(rows.video_codes.tolist(), seconds)]


def _many(count: int, what: str) -> str:
    """A number and what it counts."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _example(keys: Iterable[Keyframe]) -> str:
    keys = sorted(set(keys))
    text = ", ".join(f"{video} {second} s" for video, second in keys[:_SHOWN])
    return text + (", ..." if len(keys) > _SHOWN else "")


def _at(rows: AVARows, mask: np.ndarray) -> str:
    keys = zip(rows.video_ids[mask], keyframe_seconds(rows.timestamps[mask]).tolist())
    return _example(keys)


def _check_annotations(report: DatasetReport, split: SplitData, rows: AVARows) -> None:
    where = split.place("annotations")
    if not len(rows):
        report.add(True, where, "no annotations")
        return
    if report.label_map is not None:
        _check_ids(report, where, rows, report.label_map)
    unknown = rows.person_ids < 0
    if unknown.any():
        count = "all" if unknown.all() else f"{unknown.sum()} of {len(rows)}"
        report.add(False, where, f"{count} rows without a person id: who is who is not known there")
    _check_identities(report, where, rows)
    _check_sizes(report, where, rows)


def _check_ids(report: DatasetReport, where: object, rows: AVARows, label_map: LabelMap) -> None:
    counts = Counter(rows.labels.tolist())
    outside = {i: n for i, n in sorted(counts.items()) if i > label_map.num_classes}
    if outside:
        ids = ", ".join(map(str, list(outside)[: 2 * _SHOWN]))
        report.add(
            True,
            where,
            f"action ids {ids} ({_many(sum(outside.values()), 'row')}) are not in the label map, "
            f"which ends at {label_map.num_classes}",
        )
    unnamed = {i: n for i, n in counts.items() if i not in label_map.names and i not in outside}
    if unnamed:
        ids = ", ".join(map(str, sorted(unnamed)[: 2 * _SHOWN]))
        what = f"action ids {ids} ({_many(sum(unnamed.values()), 'row')})"
        report.add(False, where, f"{what} have no name in the label map")


def _check_identities(report: DatasetReport, where: object, rows: AVARows) -> None:
    """The same person at two places at once."""
    places: dict[tuple[Keyframe, int], set[tuple[float, ...]]] = {}
    for key, person, box in zip(row_keyframes(rows), rows.person_ids.tolist(), rows.boxes.tolist()):
        if person >= 0:
            places.setdefault((key, person), set()).add(tuple(box))
    twice = [key for (key, _), boxes in places.items() if len(boxes) > 1]
    if twice:
        what = f"a person has two boxes at once, {_many(len(twice), 'time')}"
        report.add(False, where, f"{what}: {_example(twice)}")


def _check_sizes(report: DatasetReport, where: object, rows: AVARows) -> None:
    sides = rows.boxes[:, 2:] - rows.boxes[:, :2]
    sizes = np.full((len(rows.videos), 2), np.nan)
    for code, video in enumerate(rows.videos):
        if video in report.videos:
            info = report.videos[video].info
            sizes[code] = info.width, info.height
    with np.errstate(invalid="ignore"):  # no size is known of a video that does not open
        tiny = (sides * sizes[rows.video_codes] < MIN_BOX_SIDE).any(axis=1)
    if tiny.any():
        what = f"{_many(tiny.sum(), 'row')} with a box side below {MIN_BOX_SIDE} pixels"
        report.add(False, where, f"{what}: {_at(rows, tiny)}")


def _check_boxes(report: DatasetReport, split: SplitData) -> None:
    annotated = set(split.keyframes)
    if split.persons is None:
        return
    where, found = split.place("persons"), set(row_keyframes(split.persons))
    without = annotated - found
    if without:
        what = f"no detected person on {len(without)} of {len(annotated)} keyframes"
        report.add(False, where, f"{what}: {_example(without)}")
    extra = found - annotated - split.excluded
    if extra:
        what = f"persons on {_many(len(extra), 'keyframe')} without annotations: {_example(extra)}"
        report.add(False, where, f"{what}; testing counts what it finds there as wrong")


def _check_times(report: DatasetReport, split: SplitData) -> None:
    """Keyframes outside their video."""
    by_video: dict[str, list[int]] = {}
    for video, second in split.keyframes:
        by_video.setdefault(video, []).append(second)
    where = split.place("annotations")
    for video, seconds in by_video.items():
        seen = report.videos.get(video)
        if seen is None:
            continue
        outside = [second for second in seconds if not seen.shows(second)]
        frozen = [s for s in seconds if seen.shows(s) and seen.ends_before(s)]
        if outside:
            span = f"the video has {seen.info.span_text()}"
            if len(outside) == len(seconds):
                what = f"all keyframes of {video} ({len(seconds)}) lie outside it ({span}): "
                report.add(True, where, what + _TIMES_OF[seen.info.path.is_dir()])
            else:
                what = f"left out {len(outside)} of {len(seconds)} keyframes of {video}, without a"
                report.add(False, where, f"{what} frame: {span}")
        stale = sorted(set(seen.stale) & set(seconds))
        if stale:
            what = f"{_many(len(stale), 'keyframe')} of {video} where frames are missing"
            example = _example((video, second) for second in stale)
            report.add(False, where, f"{what}, which show an older one: {example}")
        if frozen:
            what = f"{_many(len(frozen), 'keyframe')} of {video} after its last frame"
            report.add(False, where, f"{what}, at {seen.last_frame:.1f} s, which they show")


def _check_excluded(report: DatasetReport, split: SplitData) -> None:
    """Excluded keyframes of videos that the split does not have: a misspelt name, perhaps."""
    known = {video for video, _ in split.listed}
    for rows in (split.annotations, split.persons, split.objects):
        known |= set() if rows is None else set(rows.videos)
    foreign = {key for key in split.excluded if key[0] not in known}
    if foreign:
        what = f"{_many(len(foreign), 'keyframe')} of videos that no row names: {_example(foreign)}"
        report.add(False, split.place("excluded"), what)


def _check_classes(report: DatasetReport) -> None:
    if report.label_map is None:
        return
    counts = class_counts(report)
    for split, column in counts.items():
        empty = [i for i in report.label_map.names if not column[i]]
        if empty and sum(column.values()):
            names = ", ".join(report.label_map.names[i] for i in empty[: 2 * _SHOWN])
            more = ", ..." if len(empty) > 2 * _SHOWN else ""
            total = len(report.label_map.names)
            report.add(False, split, f"{len(empty)} of {total} classes have no row: {names}{more}")


def _check_overlap(report: DatasetReport) -> None:
    for number, first in enumerate(report.splits):
        for second in report.splits[number + 1 :]:
            both = set(first.keyframes) & set(second.keyframes)
            where = f"{first.name}, {second.name}"
            if both:
                report.add(
                    False, where, f"{_many(len(both), 'keyframe')} in both: {_example(both)}"
                )
                continue
            videos = [{video for video, _ in split.keyframes} for split in (first, second)]
            if common := sorted(videos[0] & videos[1]):
                what = f"{_many(len(common), 'video')} in both: {', '.join(common[:_SHOWN])}"
                report.add(False, where, what)


def _check_unused_videos(report: DatasetReport) -> None:
    used: set[str] = set()
    for split in report.splits:
        for rows in (split.annotations, split.persons, split.objects):
            used |= set() if rows is None else set(rows.videos)
    for folder in dict.fromkeys(split.files.videos for split in report.splits):
        if folder.is_dir() and (unused := sorted(set(find_videos(folder)) - used)):
            more = ", ..." if len(unused) > _SHOWN else ""
            what = f"{_many(len(unused), 'video')} that no row names"
            report.add(False, folder, f"{what}: {', '.join(unused[:_SHOWN])}{more}")


def _check_variety(report: DatasetReport) -> None:
    """Very different sizes or frame rates."""
    measures = (
        ("short side", "pixels", lambda info: min(info.width, info.height)),
        ("frame rate", "frames/s", lambda info: info.average_fps),
    )
    for what, unit, measure in measures:
        values = sorted((measure(seen.info), video) for video, seen in report.videos.items())
        if values and values[-1][0] > MAX_RATIO * values[0][0]:
            (low, a), (high, b) = values[0], values[-1]
            report.add(False, "videos", f"{what} from {low:g} ({a}) to {high:g} {unit} ({b})")


# --------------------------------------------------------------------------- what training will see


def class_counts(report: DatasetReport) -> dict[str, Counter[int]]:
    """Rows of every action id, by split."""
    return {
        split.name: Counter([] if split.annotations is None else split.annotations.labels.tolist())
        for split in report.splits
    }


@dataclass(frozen=True)
class SplitSummary:
    """What training or testing sees of a split."""

    name: str
    videos: int
    keyframes: int
    persons: int
    labels: int
    detected: int
    objects: int
    clips_at_ends: int


def summarise(
    report: DatasetReport, num_frames: int, sampling_rate: float, clip_fps: float
) -> list[SplitSummary]:
    """One line for each split: what remains of it without what cannot be used.

    Args:
        num_frames, sampling_rate, clip_fps: the clip, see `clip_times`. A clip that reaches beyond
            its video, whose first or last frame is then repeated, counts in `clips_at_ends`.
    """
    offsets = clip_times(0.0, num_frames, sampling_rate, clip_fps)
    lines = []
    for split in report.splits:
        keys = [k for k in split.keyframes if k[0] in report.videos]
        keys = {key for key in keys if report.videos[key[0]].shows(key[1])}

        def at_end(key: Keyframe) -> bool:
            seen = report.videos[key[0]]
            starts_early = key[1] + offsets[0] < seen.info.begin - TIME_TOLERANCE
            return starts_early or seen.ends_before(key[1] + offsets[-1])

        def count(rows: AVARows | None, keys: set[Keyframe] = keys) -> int:
            return 0 if rows is None else sum(key in keys for key in row_keyframes(rows))

        persons: set[tuple] = set()
        if split.annotations is not None:
            persons = {person for person in _persons(split.annotations) if person[0] in keys}
        lines.append(
            SplitSummary(
                name=split.name,
                videos=len({video for video, _ in keys}),
                keyframes=len(keys),
                persons=len(persons),
                labels=count(split.annotations),
                detected=count(split.persons),
                objects=count(split.objects),
                clips_at_ends=sum(map(at_end, keys)),
            )
        )
    return lines


def _persons(rows: AVARows) -> list[tuple[Keyframe, tuple[float, ...], int]]:
    """Keyframe, box and id: what makes rows be about one person, see `AnnotatedPersons`."""
    boxes = map(tuple, rows.boxes.tolist())
    return list(zip(row_keyframes(rows), boxes, rows.person_ids.tolist()))


@dataclass(frozen=True)
class Groups:
    """Classes in runs of ids, as the configuration describes them."""

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    exclusive: tuple[str, ...]

    def config_keys(self) -> list[tuple[str, str]]:
        """The keys and values of the configuration that describe the classes."""
        prefix = "MODEL.ROI_ACTION_HEAD."
        return [
            (prefix + "GROUP_NAMES", repr(self.names)),
            (prefix + "GROUP_SIZES", repr(self.sizes)),
            (prefix + "GROUP_LOSS_WEIGHTS", repr((1.0,) * len(self.names))),
            (prefix + "SOFTMAX_GROUPS", repr(self.exclusive)),
        ]


def class_groups(label_map: LabelMap, tables: Sequence[AVARows]) -> Groups | None:
    """Describe the classes for the configuration.

    A group is exclusive when the annotations say so: hardly anybody has two of its classes at a
    time, and nearly everybody has one.

    Args:
        label_map: ids that it leaves out belong to the group of the id before.
        tables: annotations.

    Returns:
        None when a group's ids do not follow each other, which the configuration cannot say.
    """
    ordered, current = [], label_map.groups[min(label_map.names)]
    for action in range(1, label_map.num_classes + 1):
        current = label_map.groups.get(action, current)
        ordered.append(current or "all")
    starts = [i for i in range(len(ordered)) if i == 0 or ordered[i] != ordered[i - 1]]
    names = tuple(ordered[i] for i in starts)
    if len(set(names)) < len(names):
        return None
    sizes = tuple(b - a for a, b in zip(starts, [*starts[1:], len(ordered)]))
    numbers: dict[tuple, int] = {}  # of persons
    labels = {
        (numbers.setdefault((table, *person), len(numbers)), action)
        for table, rows in enumerate(tables)
        for person, action in zip(_persons(rows), rows.labels.tolist())
    }
    persons, actions = np.array(sorted(labels), dtype=np.int64).reshape(-1, 2).T
    exclusive = []
    for name, start, size in zip(names, starts, sizes):
        of_group = (start < actions) & (actions <= start + size)
        counts = np.bincount(persons[of_group], minlength=len(numbers))
        one = (counts == 1).sum() > EXCLUSIVE_SHARE * len(numbers)
        if size > 1 and one and (counts > 1).sum() <= MISTAKEN_SHARE * len(numbers):
            exclusive.append(name)
    return Groups(names, sizes, tuple(exclusive))


# ------------------------------------------------------------------------------------ contact sheet


@dataclass(frozen=True, eq=False)
class AnnotatedKeyframe:
    """A keyframe to be shown.

    Attributes:
        split: its name.
        key: video and second.
        boxes: (P, 4) float64, fractions of width and height.
        person_ids: P ids, -1 for unknown.
        classes: of each person, names of its classes.
    """

    split: str
    key: Keyframe
    boxes: np.ndarray
    person_ids: list[int]
    classes: list[list[str]]


def choose_keyframes(report: DatasetReport, count: int) -> list[AnnotatedKeyframe]:
    """Choose keyframes that show every class, rare ones first, from as many videos as possible.

    The choice depends on nothing but the data.
    """
    where: dict[int, list[tuple[str, Keyframe]]] = {}
    for split in report.splits:
        counted = set(split.keyframes)
        if split.annotations is None:
            continue
        pairs = zip(split.annotations.labels.tolist(), row_keyframes(split.annotations))
        for action, key in sorted(set(pairs)):
            if key in counted:
                where.setdefault(action, []).append((split.name, key))
    rarest_first = sorted(where, key=lambda action: (len(where[action]), action))
    chosen: dict[tuple[str, Keyframe], None] = {}
    videos: Counter[str] = Counter()
    rng = np.random.default_rng(0)
    while len(chosen) < count and any(where.values()):
        for action in rarest_first:
            left = [place for place in where[action] if place not in chosen]
            where[action] = left
            if not left or len(chosen) == count:
                continue
            fewest = min(videos[key[0]] for _, key in left)
            best = [place for place in left if videos[place[1][0]] == fewest]
            place = best[int(rng.integers(len(best)))]
            chosen[place] = None
            videos[place[1][0]] += 1
    by_name = {split.name: split for split in report.splits}
    return [
        _annotated(by_name[split].annotations, split, key, report.label_map)
        for split, key in sorted(chosen)
    ]


def _annotated(
    rows: AVARows, split: str, key: Keyframe, label_map: LabelMap | None
) -> AnnotatedKeyframe:
    names = [] if label_map is None else class_names(label_map)
    here = rows.video_codes == rows.videos.index(key[0])
    here &= keyframe_seconds(rows.timestamps) == key[1]
    persons: dict[tuple, list[str]] = {}
    for box, person, action in zip(rows.boxes[here], rows.person_ids[here], rows.labels[here]):
        name = names[action - 1] if action <= len(names) else f"class {action}"
        persons.setdefault((*box.tolist(), int(person)), []).append(name)
    return AnnotatedKeyframe(
        split=split,
        key=key,
        boxes=np.array([person[:4] for person in persons]).reshape(-1, 4),
        person_ids=[person[4] for person in persons],
        classes=[sorted(set(classes)) for classes in persons.values()],
    )
