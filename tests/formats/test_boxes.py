"""Detected boxes in the forms that people have; what is refused, what is left out and counted."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import convert_to_coco_json
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphaaction_d2 import register_datasets
from alphaaction_d2.formats.boxes import at_keyframes, keyframe_seconds, read_boxes
from alphaaction_d2.formats.tables import DataFileError
from tests.helpers import small_cfg, write_dataset

# two persons and a cup on one keyframe of a picture of 200 x 100, one person on another video's
BOXES = np.array([[0.1, 0.2, 0.5, 0.6], [0.3, 0.2, 0.9, 1], [0, 0, 0.25, 0.5], [0.5, 0.5, 1, 1]])
SCORES = np.array([0.9, 0.8, 0.7, 0.95])
VIDEOS, SECONDS = ["a", "a", "a", "b_1"], [902, 902, 902, 1003]
WIDTH, HEIGHT = 200, 100


def write(folder: Path, content: object, name: str = "boxes") -> Path:
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def detection(image_id="a,0902", bbox=(20, 20, 80, 40), category_id=1, score=0.9) -> dict:
    return {"image_id": image_id, "bbox": list(bbox), "category_id": category_id, "score": score}


def detections(image_ids) -> list[dict]:
    """The four boxes in pixels."""
    corners = BOXES * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    rows = zip(image_ids, xywh, [1, 1, 47, 1], SCORES.tolist())
    return [detection(*row) for row in rows]


def size_of(_: str) -> tuple[int, int]:
    return WIDTH, HEIGHT


def check_the_four(path: Path, names=("category 47",)) -> None:
    rows = read_boxes(path).as_fractions(size_of).rows
    assert rows.video_ids.tolist() == VIDEOS
    assert rows.timestamps.tolist() == SECONDS
    np.testing.assert_allclose(rows.boxes, BOXES, atol=1e-12)
    assert rows.scores.tolist() == SCORES.tolist()
    assert rows.labels.tolist() == [-1, -1, 0, -1]
    assert list(rows.class_names) == list(names)
    assert (rows.person_ids == -1).all()


# ------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("person", ["", "person"])
def test_own_csv(tmp_path, person):
    words = [person, person, "cup", person]
    lines = [
        f"{video},{second:04d},{','.join(map(str, box))},{word},{score}"
        for video, second, box, word, score in zip(VIDEOS, SECONDS, BOXES.tolist(), words, SCORES)
    ]
    path = write(tmp_path, "\n".join(lines))
    rows = read_boxes(path).rows
    assert [rows.class_names[i] if i >= 0 else "" for i in rows.labels] == ["", "", "cup", ""]
    assert rows.boxes.tolist() == BOXES.tolist()
    assert rows.video_ids.tolist() == VIDEOS
    packed = write(tmp_path, gzip.compress(path.read_bytes()), "packed")
    assert read_boxes(packed).rows.boxes.tolist() == BOXES.tolist()


def test_pyslowfast_csv_with_actions(tmp_path, caplog):
    """In its training files a box comes once for each action, with -1 for none."""
    text = (
        "v,0902,0.003,0.125,0.119,0.837,-1,0.742486\n"
        "v,0902,0.3,0.1,0.5,0.8,12,0.99\nv,0902,0.3,0.1,0.5,0.8,79,0.99\n"
    )
    path = write(tmp_path, text)
    for role in ("persons", None):
        with caplog.at_level(logging.WARNING):
            rows = read_boxes(path, role).rows
        assert rows.labels.tolist() == [-1, -1]
        assert rows.scores.tolist() == [0.742486, 0.99]
        assert "left out 1 rows that are there twice" in caplog.text
    no_negatives = write(tmp_path, text.split("\n", 1)[1])
    assert len(read_boxes(no_negatives, "persons").rows) == 1
    # in a file of objects numbers are what a detector's classes may be called
    assert read_boxes(no_negatives, "objects").rows.labels.tolist() == [0, 1]


@pytest.mark.parametrize("separator", [",", "_", "/"])
@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_json_with_names_as_image_ids(tmp_path, separator, ending):
    names = [f"{v}{separator}{s:04d}{ending}" for v, s in zip(VIDEOS, SECONDS)]
    path = write(tmp_path, detections(names))
    assert read_boxes(path).short_side == np.inf  # pixels of the video, whatever its size
    check_the_four(path)


def test_coco_file_with_images_and_categories(tmp_path):
    names = [f"frames/{v}/{s}.jpg" for v, s in zip(VIDEOS, SECONDS)]
    images = [
        {"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)
    ]
    content = {
        "annotations": detections(range(4)),
        "images": images,
        "categories": [{"id": 47, "name": "cup"}, {"id": 1, "name": "person"}],
    }
    path = write(tmp_path, content)
    assert read_boxes(path).short_side is None
    check_the_four(path, ["cup"])
    check_the_four(write(tmp_path, gzip.compress(path.read_bytes())), ["cup"])
    check_the_four(write(tmp_path, "\ufeff" + json.dumps(content, indent=4)), ["cup"])


@pytest.mark.parametrize("folder", ["boxes", "annotations"])
def test_alphaaction_json(tmp_path, folder):
    """Image ids are 10000 x the video's place in a list + the second; pixels those of key frames
    whose short side is at most 360."""
    for name in ("boxes", "annotations"):
        (tmp_path / name).mkdir()
    (tmp_path / folder / "ava_file_names_trainval_v2.1.txt").write_text("x.mkv\na.mp4\nb_1.mkv\n")
    ids = [10902, 10902, 10902, 21003]
    path = write(tmp_path / "boxes", detections(ids))
    file = read_boxes(path)
    assert file.short_side == 360
    check_the_four(path)  # a picture of 200 x 100 has not been scaled
    large = file.as_fractions(lambda _: (1440, 1080)).rows
    np.testing.assert_allclose(large.boxes[0], [20 / 480, 20 / 360, 100 / 480, 60 / 360])


def test_mmaction2_pickle(tmp_path):
    table = np.concatenate([BOXES, SCORES[:, None]], axis=1)
    entries = {"a,0902": table[:2], "a,0903": table[:0], "b_1,1003": table[3:].astype(np.float32)}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        rows = read_boxes(write(tmp_path, pickle.dumps(entries, protocol)), "persons").rows
        assert rows.video_ids.tolist() == ["a", "a", "b_1"]
        assert rows.timestamps.tolist() == [902, 902, 1003]
        np.testing.assert_allclose(rows.boxes, BOXES[[0, 1, 3]])
        np.testing.assert_allclose(rows.scores, SCORES[[0, 1, 3]], atol=1e-6)
        assert rows.labels.tolist() == [-1] * 3
    lists = {"a,0902": BOXES[:2].tolist(), "b_1,1003": [BOXES[3]]}
    rows = read_boxes(write(tmp_path, gzip.compress(pickle.dumps(lists)))).rows
    assert rows.scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "content", ["", "\n", "[]", "{}x", pickle.dumps({}), '{"annotations": []}']
)
def test_empty_files(tmp_path, content):
    path = write(tmp_path, content)
    if content == "{}x":
        with pytest.raises(DataFileError):
            read_boxes(path)
    else:
        rows = read_boxes(path, "persons").as_fractions(size_of).rows
        assert len(rows) == 0 and rows.boxes.shape == (0, 4)


# ------------------------------------------------------------------------------ left out, counted


def test_what_is_left_out_is_counted(tmp_path, caplog):
    content = [
        detection(),
        detection(),
        detection(bbox=[10, 10, 0, 5]),
        detection(category_id=3),
        detection(bbox=[190, 10, 14, 50]),
    ]
    with caplog.at_level(logging.WARNING):
        rows = read_boxes(write(tmp_path, content), "objects").as_fractions(size_of).rows
    assert rows.class_names[rows.labels[0]] == "category 3"
    assert len(rows) == 1
    for text in ("1 boxes without area", "1 rows that are there twice", "2 rows that are persons"):
        assert f"left out {text}" in caplog.text
    with caplog.at_level(logging.WARNING):
        rows = read_boxes(write(tmp_path, content[-1:])).as_fractions(size_of).rows
    np.testing.assert_allclose(rows.boxes, [[0.95, 0.1, 1, 0.6]])
    assert "clipped 1 boxes" in caplog.text


def test_a_file_of_persons_has_persons_only(tmp_path):
    with pytest.raises(DataFileError, match="class 'category 3' in a file of persons"):
        read_boxes(write(tmp_path, [detection(), detection(category_id=3)]), "persons")


def test_videos_that_cannot_be_opened_have_no_boxes(tmp_path):
    file = read_boxes(write(tmp_path, [detection(), detection("b,0007", (0, 0, 5000, 4000))]))
    boxes = file.as_fractions({"a": (WIDTH, HEIGHT)}.get).rows.boxes
    assert np.isnan(boxes[1]).all() and not np.isnan(boxes[0]).any()


# ----------------------------------------------------------------------------------- bad files


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (detection(image_id=None), "image_id NoneType: expected"),
        (detection(image_id=True), "image_id True: expected"),
        (detection(image_id="holiday"), "image_id 'holiday': expected \"video_id,second\""),
        (detection(image_id=20902), "image_id 20902: expected"),
        (detection(image_id=-1), "image_id -1: expected"),
        (detection(category_id="cup"), "category_id 'cup'"),
        (detection(category_id=None), "category_id NoneType"),
        (detection(bbox=[1, 2, 3]), "bbox: expected four"),
        (detection(bbox=[1, 2, 3, "4"]), "bbox: expected four"),
        (detection(bbox=[1, 2, 3, float("nan")]), "bbox: expected four"),
        (detection(bbox=[1, 2, 3, 10**30]), "bbox: expected four"),
        (detection(bbox=[1, 2, -3, 4]), "expected a width and a height from 0 on"),
        (detection(score=float("inf")), "score inf"),
        (detection(score="high"), "score 'high'"),
    ],
)
def test_bad_detections_are_named(tmp_path, bad, words):
    with pytest.raises(DataFileError) as error:
        read_boxes(write(tmp_path, [detection(), bad, detection()]))
    assert str(error.value).startswith(f"{tmp_path / 'boxes'}: detection 2: ")
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_bad_detections_in_one_report(tmp_path):
    content = [detection(), detection(image_id="x"), detection(score=None)] * 15
    with pytest.raises(DataFileError) as error:
        read_boxes(write(tmp_path, content))
    lines = str(error.value).splitlines()
    assert [line.split(":")[1] for line in lines[:3]] == [f" detection {i}" for i in (2, 3, 5)]
    assert lines[20:] == ["... and 10 more"]


def test_boxes_that_do_not_fit_into_the_picture(tmp_path):
    path = write(tmp_path, [detection(), detection(bbox=[20, 20, 400, 50])])
    with pytest.raises(DataFileError, match="boxes: a,0902: column x2: 2.1: expected a fraction"):
        read_boxes(path).as_fractions(size_of)
    image = {"id": "a,0902", "width": 200, "height": 100}
    content = {"images": [image], "annotations": [detection(), detection(bbox=[20, 20, 400, 50])]}
    with pytest.raises(DataFileError, match="detection 2: column x2: 2.1"):
        read_boxes(write(tmp_path, content))
    content["images"] = [{**image, "width": 0}]
    with pytest.raises(DataFileError, match="image 'a,0902': width 0, height 100"):
        read_boxes(write(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"image_id": "a,0902"', "not a json file"),
        ("[1, 2]", "not a text file|columns|expected"),
        ('["a"]', "columns|expected a list of detections"),
        ('{"a": 1}', "expected a list of detections"),
        ('{"annotations": {"a": 1}}', "expected a list of detections"),
        ('{"annotations": [], "images": [{"file_name": "a"}]}', 'entry 1 of "images"'),
        ('{"annotations": [], "categories": 3}', 'entry 1 of "categories"'),
        ("[[" * 100_000, "not a json file"),
        ('[{"image_id": ' + "1" * 5000 + "}]", "not a json file"),
        (b'[{"a": "\xff"}]', "not a text file"),
        (b"\x1f\x8b\x08\x00garbage", "damaged gzip"),
        (gzip.compress(b"v,902,0.1,0.2,0.3,0.4,,0.9\n" * 99, mtime=0)[:-9], "gzip"),
        (b"PK\x03\x04\x14\x00\x00\xff\xfe", "not a text file"),
        (pickle.dumps([1, 2]), "a pickle of a list"),
        (pickle.dumps({"a": np.ones((1, 5))}), "entry 'a': expected \"video_id,second\""),
        (pickle.dumps({("a", "b"): np.ones((1, 5))}), r"entry \('a', 'b'\): expected"),
        (pickle.dumps({"a,2": [[0, 0, 1, 1, "high"]]}), "entry 'a,2': column score: text 'high'"),
        (pickle.dumps({"a,0902": np.ones((1, 6))}), "entry 'a,0902': expected an array"),
        (pickle.dumps({"a,0902": np.ones(5)}), "entry 'a,0902': expected an array"),
        (pickle.dumps({"a,0902": "abc"}), "entry 'a,0902': expected an array"),
        (pickle.dumps({"a,0902": [[1, 2], [3]]}), "entry 'a,0902': expected an array"),
        (pickle.dumps({"a,0902": np.full((1, 5), np.nan)}), "a,0902: column x1: nan"),
        (pickle.dumps({"a,0902": np.array([[5.0, 5, 90, 90, 1]])}), "column x1: 5: expected a fr"),
        (pickle.dumps({"a,0902": np.array([[0.5, 0.1, 0.2, 0.3, 1]])}), "expected more than x1"),
        (pickle.dumps({"a,0902": np.ones((1, 5))})[:-20], "a damaged pickle"),
    ],
)
def test_bad_files_get_one_line(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(DataFileError, match=words) as error:
        read_boxes(path)
    assert len(str(error.value).splitlines()) == 1
    assert str(path) in str(error.value)


def test_a_pickle_that_wants_to_run_something(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Command:
        def __reduce__(self):
            return os.system, ("touch mark",)

    for content in (Command(), {"a,0902": Command()}, {"a,0902": [[Command()]]}):
        path = write(tmp_path, pickle.dumps(content))
        with pytest.raises(DataFileError, match="a pickle that wants '[a-z]+.system'") as error:
            read_boxes(path)
        assert len(str(error.value).splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["boxes"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        read_boxes(tmp_path / "missing")


# ------------------------------------------------------------------------------------- anything


def read_or_refuse(path: Path, expected: int | None = None) -> None:
    """What is read is valid; what is refused is said in lines that name the file."""
    try:
        rows = read_boxes(path).as_fractions(size_of).rows
    except DataFileError as error:
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 21
        assert all(str(path) in line or line.startswith("... and") for line in lines)
        return
    x1, y1, x2, y2 = rows.boxes.T
    assert ((rows.boxes >= 0) & (rows.boxes <= 1)).all() and (x1 < x2).all() and (y1 < y2).all()
    assert np.isfinite(rows.scores).all() and (rows.timestamps >= 0).all()
    if expected is not None:
        assert len(rows) <= expected


@given(st.binary(max_size=200))
def test_any_bytes(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("any")
    for start in (b"", b"[", b'{"', b"\x80\x04", b"v,902,0.1,0.2,0.3,0.4,,0.9\n"):
        read_or_refuse(write(folder, start + data))


numbers = st.one_of(st.floats(), st.integers(), st.sampled_from([0, 1, 50, "x", None, True, []]))
an_entry = st.fixed_dictionaries(
    {
        "image_id": st.one_of(st.sampled_from(["a,0902", "a_1", "b/2.jpg", 7]), numbers, st.text()),
        "bbox": st.one_of(st.lists(st.floats(0, 100), min_size=4, max_size=4), st.lists(numbers)),
        "score": st.one_of(st.floats(0, 1), numbers),
        "category_id": st.one_of(st.integers(1, 90), numbers),
    }
)


@given(st.lists(an_entry, max_size=6))
def test_any_detections(tmp_path_factory, entries):
    folder = tmp_path_factory.mktemp("any")
    read_or_refuse(write(folder, entries), len(entries))
    read_or_refuse(write(folder, {"annotations": entries, "images": [{"id": 7}]}), len(entries))


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["annotations", "images", "categories", "id", "bbox", "image_id", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json(tmp_path_factory, value):
    read_or_refuse(write(tmp_path_factory.mktemp("any"), value))


# Detections that are right, but for what detectors and joined files leave behind: boxes without
# area, rows that come twice, coordinates a little outside.
fractions = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 1.0, -0.02, 1.03])
right_rows = st.lists(
    st.tuples(
        st.sampled_from(["a,0902", "a,902", "b_1,0007"]),
        st.tuples(fractions, fractions, fractions, fractions),
        st.sampled_from([1, 1, 47]),
        st.sampled_from([0.5, 0.9]),
    ),
    max_size=20,
).map(
    lambda rows: [
        (key, (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), category, score)
        for key, (x1, y1, x2, y2), category, score in rows
        # A box that lies outside altogether is wrong, not sloppy.
        if x1 == x2
        or y1 == y2
        or (max(0, min(x1, x2)) < 1 and max(0, min(y1, y2)) < 1)
        and min(1, max(x1, x2)) > 0
        and min(1, max(y1, y2)) > 0
    ]
)


def counted(caplog, path: Path, role: str | None) -> tuple[int, int]:
    """Rows that are read, and rows that the log says are left out."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        rows = read_boxes(path, role).as_fractions(size_of).rows
    left_out = re.findall(r"left out (\d+) ", caplog.text)
    return len(rows), sum(map(int, left_out))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(right_rows, st.sampled_from([None, "objects"]))
def test_every_detection_is_read_or_counted(tmp_path_factory, caplog, rows, role):
    folder = tmp_path_factory.mktemp("any")
    # A csv has rows without area reported as wrong; those are not in it.
    with_area = [row for row in rows if row[1][0] < row[1][2] and row[1][1] < row[1][3]]
    lines = [
        f"{key},{','.join(map(str, box))},{'' if category == 1 else 'cup'},{score}\n"
        for key, box, category, score in with_area
    ]
    assert sum(counted(caplog, write(folder, "".join(lines)), role)) == len(with_area)
    entries = []
    for key, (x1, y1, x2, y2), category, score in rows:
        xywh = (WIDTH * x1, HEIGHT * y1, WIDTH * (x2 - x1), HEIGHT * (y2 - y1))
        entries.append(detection(key, xywh, category, score))
    assert sum(counted(caplog, write(folder, entries), role)) == len(rows)
    table: dict[str, list] = {}
    for key, box, _, score in rows:
        table.setdefault(key, []).append([*box, score])
    arrays = {key: np.array(boxes) for key, boxes in table.items()}
    assert sum(counted(caplog, write(folder, pickle.dumps(arrays)), role)) == len(rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60)), min_size=1, max_size=30))
def test_every_row_between_keyframes_is_used_or_counted(tmp_path_factory, caplog, times):
    lines = [f"{v},{n / 15:.4f},0,0,1,{1 - i / 99:.3f},,1\n" for i, (v, n) in enumerate(times)]
    rows = read_boxes(write(tmp_path_factory.mktemp("any"), "".join(lines))).rows
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        kept = at_keyframes(rows)
    told = re.findall(
        r"used the (\d+) rows nearest to whole seconds, not the other (\d+)", caplog.text
    )
    if told:
        assert [tuple(map(int, told[0]))] == [(len(kept), len(rows) - len(kept))]
    else:
        assert len(kept) == len(rows)
    keys = list(zip(kept.video_ids, keyframe_seconds(kept.timestamps)))
    expected = set()
    for video in rows.videos:  # no keyframe is lost; of a video on whole seconds only these are
        times_of = [t for v, t in zip(rows.video_ids, rows.timestamps) if v == video]
        seconds = {math.floor(t + 0.5) for t in times_of}
        on_time = {s for s in seconds if any(abs(t - s) < 1e-4 for t in times_of)}
        seconds = on_time if 2 * len(on_time) >= len(seconds) else seconds
        expected |= {(video, s) for s in seconds}
    assert set(keys) == expected


cells = st.one_of(
    st.sampled_from(["v", "902", "0.1", "0.5", "1.04", "-0.01", "", "person", "-1", "nan", "1e9"]),
    st.text(max_size=4),
    st.floats().map(str),
)


@given(st.lists(st.lists(cells, max_size=10), max_size=6))
def test_any_csv(tmp_path_factory, rows):
    text = "\n".join(",".join(row) for row in rows)
    folder = tmp_path_factory.mktemp("any")
    read_or_refuse(write(folder, text.encode("utf-8", "surrogatepass")))


@given(
    st.dictionaries(
        st.one_of(st.sampled_from(["a,0902", "b,7"]), st.text(max_size=5), st.integers()),
        st.one_of(
            st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=5), max_size=3),
            st.lists(st.lists(numbers, max_size=5), max_size=3),
            st.integers(0, 9).map(lambda n: np.full((n % 4, n), n / 9)),
        ),
        max_size=4,
    )
)
def test_any_pickle(tmp_path_factory, entries):
    read_or_refuse(write(tmp_path_factory.mktemp("any"), pickle.dumps(entries)))


def test_our_data_set_through_detectron2s_converter(tmp_path):
    """A box comes once for each action; all of them are persons."""
    folder = write_dataset(tmp_path / "own")
    register_datasets(small_cfg(folder))
    path = tmp_path / "own.json"
    convert_to_coco_json("own_train", str(path))
    rows = read_boxes(path, "persons").rows
    assert len(read_boxes(path).rows) == len(rows)
    found = sorted(
        zip((rows.videos[c] for c in rows.video_codes), rows.timestamps, rows.boxes[:, 0])
    )
    expected = sorted(
        (x["video_id"], x["timestamp"], a["bbox"][0] / x["width"])
        for x in DatasetCatalog.get("own_train")
        for a in x["annotations"]
        if a["category_id"] < 2  # left or right: each person is one of them
    )
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert np.allclose([row[2] for row in found], [row[2] for row in expected], atol=1e-4)
    assert (rows.labels == -1).all()


def test_objects_in_folders_with_numbers_keep_their_classes(tmp_path):
    """Ids of the same form, but of pictures: no data set of ours."""
    images = [{"id": "a,0902", "file_name": "a/0902.jpg", "width": 640, "height": 480}]
    content = {
        "images": images,
        "annotations": [detection(category_id=2)],
        "categories": [{"id": 2, "name": "ball"}],
    }
    rows = read_boxes(write(tmp_path, json.dumps(content)), "objects").rows
    assert rows.class_names == ["ball"] and rows.labels.tolist() == [0]


NUMBERS = [[0.1, 0.2, 0.3, 0.4, 0.5]]


@pytest.mark.parametrize(
    "entries",
    [
        {"a,0902": [[*NUMBERS[0][:4], "0.5\n"]]},
        {"a,0902": np.array(NUMBERS).astype(str)},
        {"a,0902": np.array(NUMBERS).astype("S")},
        {"a,0902": np.array(NUMBERS, object)},
        {("a", 902): NUMBERS},
        {("a", np.int64(902)): [np.array(NUMBERS[0])]},
        {("a", "0902"): NUMBERS},
        [
            {
                "video": "a",
                "time": 902,
                "labels": [{"bounding_box": NUMBERS[0][:4], "score": 0.5, "label": [1]}],
            }
        ],
    ],
)
def test_proposals_as_scripts_write_them(tmp_path, entries):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        rows = read_boxes(write(tmp_path, pickle.dumps(entries, protocol)), "persons").rows
        assert rows.videos == ["a"] and rows.timestamps.tolist() == [902]
        assert [*rows.boxes[0].tolist(), rows.scores[0]] == NUMBERS[0]


def test_proposals_of_the_case(shared):
    for path in sorted((shared / "cases" / "18").glob("data*/boxes/val_persons.pkl")):
        rows = read_boxes(path, "persons").rows
        assert len(rows) >= 6 and rows.videos == ["clip_c"], path


def test_many_categories_cost_little(tmp_path):
    box = '{{"image_id": "a,{0}", "category_id": {1}, "bbox": [0, 0, 1, 1], "score": 1}}'
    text = "[" + ",".join(box.format(i % 99, i + 2) for i in range(50_000)) + "]"
    start = time.perf_counter()
    assert len(read_boxes(write(tmp_path, text)).rows.class_names) == 50_000
    words = "".join(f"a,1,0,0,1,1,word{i},1\n" for i in range(50_000))
    assert len(read_boxes(write(tmp_path, words)).rows.class_names) == 50_000
    assert time.perf_counter() - start < 5
