"""What `check_dataset` finds: each kind of problem, all at once, and nothing in good data."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from alphaaction_d2.data.class_groups import class_groups
from alphaaction_d2.data.dataset_report import (
    DatasetReport,
    check,
    class_counts,
    folder_files,
    look_at_videos,
    read_splits,
)
from alphaaction_d2.data.dataset_summary import choose_keyframes, summarise
from alphaaction_d2.data.datasets import load_ava
from alphaaction_d2.data.video import VideoWriter
from alphaaction_d2.formats.label_map import LabelMap
from tests.helpers import write_dataset


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_dataset(tmp_path / "shapes")


def examine(folder: Path, decode: bool = True, **clips: float) -> DatasetReport:
    report = DatasetReport()
    read_splits(folder_files(folder, report), report)
    for _ in look_at_videos(report, decode=decode):
        pass
    check(report, **clips)
    return report


def lines(report: DatasetReport) -> list[str]:
    return [f"{'wrong' if f.wrong else 'unusual'} {f.where}: {f.what}" for f in report.findings]


def add(path: Path, *rows: str) -> None:
    with path.open("a") as file:
        file.writelines(f"{row}\n" for row in rows)


def write_video(path: Path, frames: int, fps: float = 8, size: tuple[int, int] = (64, 48)) -> None:
    with VideoWriter(path, fps, *size, gop=4) as writer:
        for _ in range(frames):
            writer.write(np.zeros((size[1], size[0], 3), np.uint8))


def test_good_data(folder):
    report = examine(folder)
    assert lines(report) == []
    assert [split.name for split in report.splits] == ["train", "val"]
    train, val = summarise(report, num_frames=16, sampling_rate=1, clip_fps=8)
    assert (train.videos, train.keyframes, train.persons, train.objects) == (2, 8, 8, train.objects)
    assert train.labels == sum(class_counts(report)["train"].values()) and train.detected == 8
    # Clips reach one second back and 7 / 8 s ahead; the videos end at 5 s.
    assert train.clips_at_ends == 0
    assert (val.videos, val.keyframes) == (2, 7), "one keyframe is excluded"


def test_clips_beyond_the_ends(folder):
    report = examine(folder)
    # Two seconds back and 15 / 8 s ahead: keyframes 1 and 4 of the four in each video.
    train, _ = summarise(report, num_frames=32, sampling_rate=1, clip_fps=8)
    assert train.clips_at_ends == 4


def test_all_problems_at_once(folder):
    train = folder / "annotations" / "train.csv"
    number = len(train.read_text().splitlines())
    box = "0.1,0.1,0.5,0.9"
    add(
        train,
        f"gone,0001,{box},1,1",
        f"pointer,0001,{box},1,1",
        f"train_0,0001,{box},9,1",
        f"train_0,0001,0.5,0.1,0.4,0.9,1,1",  # noqa: F541
        f"train_0,x,{box},1,1",
    )
    (folder / "videos" / "pointer.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    add(folder / "boxes" / "val_persons.csv", "val_0,0001,0.1,0.1,0.5,0.9,cat,0.5")
    (folder / "annotations" / "val_excluded.csv").write_text("val_0,1,2\n")
    report = examine(folder)
    text = "\n".join(lines(report))
    for expected in (
        f"wrong {train}:{number + 4}: column x2: 0.4: expected more than x1 = 0.5",
        f"wrong {train}:{number + 5}: column timestamp: 'x': expected a number",
        "wrong gone: no video of this name; 1 row of it",
        f"wrong {folder / 'videos' / 'pointer.mp4'}: a Git LFS pointer",
        f"wrong {train}: action ids 9 (1 row) are not in the label map, which ends at 3",
        f"wrong {folder / 'boxes' / 'val_persons.csv'}: class 'cat' in a file of persons",
        f"wrong {folder / 'annotations' / 'val_excluded.csv'}:1: 'val_0,1,2': expected two columns",
    ):
        assert expected in text, expected
    assert report.is_wrong and text.count("wrong ") == 7
    # What is right is looked at all the same.
    assert summarise(report, 16, 1, 8)[0].keyframes == 8


def test_many_bad_rows_are_all_found(folder):
    train = folder / "annotations" / "train.csv"
    good = len(train.read_text().splitlines())
    add(train, *(f"train_0,0001,0.1,0.1,0.5,bad{i},1,1" for i in range(45)))
    report = examine(folder, decode=False)
    found = [f for f in report.findings if f.wrong]
    assert len(found) == 45 and found[44].what.startswith("column y2: 'bad44'")
    assert len(report.splits[0].annotations) == good


def test_many_missing_videos_are_one_line(folder):
    train = folder / "annotations" / "train.csv"
    add(train, *(f"gone{i:02d},0001,0.1,0.1,0.5,0.9,1,1" for i in range(30)))
    report = examine(folder)
    wrong = [f.what for f in report.findings if f.wrong]
    assert wrong == ["30 are missing, with 30 rows: gone00, gone01, gone02, ..."]


def test_what_is_unusual(folder):
    train = folder / "annotations" / "train.csv"
    first, number = train.read_text().splitlines()[0], len(train.read_text().splitlines())
    write_video(folder / "videos" / "large.mp4", 30, fps=30, size=(320, 240))
    add(
        train,
        first,
        "train_1,0002,0.1,0.1,0.12,0.9,1,",
        "train_1,0007,0.1,0.1,0.5,1.02,1,3",
        "train_1,2.4,0.1,0.1,0.5,0.9,1,3",
        "train_1,2.4,0.2,0.1,0.5,0.9,1,3",
        "train_1,0003,0.1,0.1,0.5,0.9,1,3",
        "train_1,0003,0.2,0.1,0.5,0.9,1,3",
        "large,0001,0.1,0.1,0.5,0.9,1,3",
        "val_1,0002,0.1,0.1,0.5,0.9,1,1",
    )
    write_video(folder / "videos" / "unused.mp4", 8)
    add(folder / "label_map.pbtxt", 'item { name: "never" id: 4 label_type: OBJECT }')
    persons = folder / "boxes" / "val_persons.csv"
    rows = persons.read_text().splitlines()
    persons.write_text("\n".join([*rows[1:-1], "val_1,0000,0.1,0.1,0.5,0.9,,0.9"]) + "\n")
    (folder / "boxes" / "vall_persons.csv").write_text("")
    (folder / "annotations" / "test_excluded.csv").write_text("")
    report = examine(folder)
    text = "\n".join(lines(report))
    for expected in (
        f"{train}: clipped 1 boxes that reach outside of the frame",
        f"{train}: 1 row twice: train_0 1 s",
        f"{train}: used the {number + 6} rows nearest to whole seconds, not the other 2",
        "rows without a person id",
        f"{train}: a person has two boxes at once, 1 time: train_1 3 s",
        f"{train}: 1 row with a box side below 8 pixels: train_1 2 s",
        f"{train}: left out 1 of 5 keyframes of train_1, without a frame",
        "1 keyframe in both: val_1 2 s",
        f"{persons}: no detected person on 1 of 7 keyframes: val_1 4 s",
        f"{persons}: persons on 1 keyframe without annotations: val_1 0 s",
        "videos: 1 video that no row names: unused",
        "train: 1 of 4 classes have no row: never",
        "videos: short side from 48 (train_0) to 240 pixels (large)",
        "videos: frame rate from 8 (train_0) to 30 frames/s (large)",
        "vall_persons.csv: is not read; expected train_persons.csv",
        "test_excluded.csv: belongs to no split: there is no test.csv",
    ):
        assert expected in text, f"{expected}\nnot in\n{text}"
    assert not report.is_wrong


def test_boxes_of_several_files_count_as_in_training(folder):
    """A dense file and a sparse one: each gives the times that are nearest in itself."""
    files = folder_files(folder, DatasetReport())["train"]
    sparse, dense = folder / "boxes" / "sparse.csv", folder / "boxes" / "dense.csv"
    sparse.write_text("train_0,0001,0.1,0.1,0.5,0.9,,0.9\n")
    dense.write_text(
        "".join(f"train_0,{t},0.2,0.1,0.6,0.9,,0.9\n" for t in (0.8, 0.9, 1.2, 1.6, 2.1))
    )
    files = replace(files, persons=(sparse, dense))
    report = DatasetReport()
    read_splits({"train": files}, report)
    persons = report.splits[0].persons
    found = {1: 0, 2: 0}
    for x in load_ava("both_files", files):
        if x["video_id"] == "train_0" and x["timestamp"] in found:
            found[x["timestamp"]] = len(x["persons"])
    MetadataCatalog.remove("both_files")
    assert sorted(persons.timestamps.tolist()) == [0.9, 1, 2.1]
    assert found == {1: 2, 2: 1}


def test_exclusions_of_unknown_videos(folder):
    add(folder / "annotations" / "val_excluded.csv", "val_9,0001", "val_0.mp4,0003", "val_9,2.0")
    assert lines(examine(folder)) == [
        f"unusual {folder / 'annotations' / 'val_excluded.csv'}: 2 keyframes of videos that no row "
        "names: val_9 1 s, val_9 2 s"
    ]


def test_times_in_other_units(folder):
    add(folder / "annotations" / "val.csv", *(f"late,{t},0,0,1,1,1,1" for t in (900, 901)))
    write_video(folder / "videos" / "late.mp4", 16)
    findings = [f for f in examine(folder).findings if f.wrong]
    assert len(findings) == 1
    assert findings[0].what == (
        "all keyframes of late (2) lie outside it (the video has seconds 0.0 to 2.0): all "
        "times lie 900 s late; are the times seconds from its first frame? ('start' in a "
        "frames.yaml beside it says where it begins)"
    )
    (folder / "videos" / "frames.yaml").write_text("start: 900")
    assert "all times lie 900 s early; " in "\n".join(lines(examine(folder)))


def test_annotations_of_films_that_begin_later(shared, tmp_path):
    folder = tmp_path / "films"
    shutil.copytree(shared / "cases" / "12" / "data", folder, copy_function=shutil.copyfile)
    assert not lines(examine(folder))
    (folder / "videos").chmod(0o755)
    (folder / "videos" / "frames.yaml").unlink()
    found = [x.what for x in examine(folder).findings if x.wrong]
    assert len(found) == 3 and all("all times lie 900 s late; " in what for what in found)


@pytest.mark.parametrize("name", ["data", "data_pictures"])
def test_videos_with_a_frame_a_second(shared, name):
    report = examine(shared / "cases" / "25" / name, sampling_rate=1, clip_fps=25)
    (finding,) = [x for x in report.findings if "a second or less" in x.what]
    assert not finding.wrong
    assert finding.what.partition(": ")[0].endswith("1 frame a second or less, clips want 25")
    assert "each frame is seen 25 times, movement is not: clip_a, clip_" in finding.what


def test_truncated_video(folder):
    path = folder / "videos" / "train_0.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 8, 64, 48, gop=4) as writer:
        for _ in range(40):
            writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    report = examine(folder)
    text = "\n".join(lines(report))
    assert "the rest is missing or damaged" in text, text
    assert "train_0 after its last frame, at" in text, text
    # Opening alone cannot know.
    assert "last frame" not in "\n".join(lines(examine(folder, decode=False)))


@pytest.mark.parametrize("what", ["videos", "label_map.pbtxt", "annotations"])
def test_missing_parts(folder, what):
    (folder / what).rename(folder / "elsewhere")
    report = examine(folder)
    assert report.is_wrong
    assert any(str(folder / what) in f.where for f in report.findings if f.wrong)
    summarise(report, 16, 1, 8)


def test_plain_list_of_classes(folder):
    (folder / "label_map.pbtxt").unlink()
    (folder / "labels.txt").write_text("[pose]\nleft\nright\n[object]\nbright\n")
    report = examine(folder)
    assert lines(report) == []
    groups = class_groups(report.label_map, [split.annotations for split in report.splits])
    assert groups.names == ("pose", "object") and groups.sizes == (2, 1)


def test_groups():
    label_map = LabelMap(
        names={1: "stand", 2: "walk", 4: "carry", 5: "push", 6: "wave"},
        groups={1: "pose", 2: "pose", 4: "object", 5: "object", 6: ""},
    )
    rows = make_rows([(0, 1), (0, 4), (0, 5), (1, 2), (1, 6), (2, 1)])
    groups = class_groups(label_map, [rows])
    assert groups.names == ("pose", "object", "all") and groups.sizes == (3, 2, 1)
    assert groups.exclusive == ("pose",), "person 0 carries and pushes at a time"
    # What the label file says counts more than what annotations show.
    said = replace(label_map, exclusive=("object",))
    assert class_groups(said, [rows]).exclusive == ("object",)
    assert class_groups(replace(label_map, exclusive=()), [rows]).exclusive == ()
    # Somebody who stands and walks, or who does neither: not exclusive.
    assert class_groups(label_map, [make_rows([(0, 1), (0, 2)])]).exclusive == ()
    assert class_groups(label_map, [make_rows([(0, 1), (1, 6)])]).exclusive == ()
    mixed = LabelMap({1: "a", 2: "b", 3: "c"}, {1: "x", 2: "y", 3: "x"})
    assert class_groups(mixed, []) is None


def make_rows(pairs):
    """Annotations of (person, action) on one keyframe."""
    from alphaaction_d2.formats.ava import AVARows

    persons = np.array([person for person, _ in pairs])
    boxes = np.stack([persons * 0.1, persons * 0, persons * 0.1 + 0.1, persons * 0 + 1], axis=1)
    return AVARows(
        videos=["v"],
        video_codes=np.zeros(len(pairs), np.int32),
        timestamps=np.ones(len(pairs)),
        boxes=boxes,
        labels=np.array([action for _, action in pairs]),
        scores=np.ones(len(pairs)),
        person_ids=persons,
    )


def test_chosen_keyframes_show_every_class_and_video(folder):
    add(folder / "annotations" / "train.csv", "train_1,0003,0.5,0.5,0.9,0.9,3,2")
    report = DatasetReport()
    read_splits(folder_files(folder, report), report)
    chosen = choose_keyframes(report, 6)
    assert len({(k.split, k.key) for k in chosen}) == 6
    assert {k.key[0] for k in chosen} == {"train_0", "train_1", "val_0", "val_1"}
    assert {name for k in chosen for names in k.classes for name in names} == {
        "left",
        "right",
        "bright",
    }
    everything = choose_keyframes(report, 100)
    assert len(everything) == 15, "all there are"
    two = next(k for k in everything if k.key == ("train_1", 3))
    assert two.person_ids == [1, 2] and two.boxes.shape == (2, 4) and two.classes[1] == ["bright"]
    pictures = dict(look_at_videos(report, [k.key for k in chosen], decode=False))
    assert set(pictures) == {k.key for k in chosen}
    assert all(picture.shape == (48, 64, 3) for picture in pictures.values())


def test_names_of_files_in_annotations(shared):
    """Exclusions under AVA's names, leftovers of macOS and Excel, and other lists of labels."""
    cases = shared / "cases"
    report = DatasetReport()
    splits = folder_files(cases / "14" / "data", report)
    assert sorted(splits) == ["train", "val"]
    assert [splits[x].excluded.name for x in ("train", "val")] == [
        f"ava_{x}_excluded_timestamps_v2.2.csv" for x in ("train", "val")
    ]
    assert [Path(x.where).name for x in report.findings] == ["frame_lists.csv"]
    assert sorted(folder_files(cases / "15" / "data", report)) == ["more", "test", "train", "val"]
    assert folder_files(cases / "17" / "data", report)["val"].label_map.name == "label_map.txt"


def test_videos_called_with_an_extension(folder):
    path = folder / "annotations" / "val.csv"
    path.write_text(path.read_text().replace("val_0", "val_0.mp4"))
    assert lines(examine(folder)) == [
        f"unusual {path}: 1 video called with folder or extension: val_0.mp4 for val_0"
    ]
