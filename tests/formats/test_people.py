"""The index of people: what is written is found again, and what cannot be is told in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from alphaaction_d2.formats.people import (
    action_scores,
    best_rows,
    class_names_of,
    find_person,
    people_table,
    read_people,
    similarities,
    write_people,
)
from alphaaction_d2.formats.results import KeyframeResult, PersonResult, VideoResult

NAMES = ["walk", "", "open"]


def person(angle: float, person_id: int, open_score: float = 0.5) -> PersonResult:
    features = np.array([np.cos(angle), np.sin(angle)], np.float16)
    box, scores = np.array([10.0, 20, 30, 40]), np.array([0.25, 0.95, open_score])
    found = PersonResult.from_scores(box, scores, NAMES, person_id)
    return replace(found, features=features)


def write(folder, video, keyframes, network="abc", names=NAMES):
    moments = [KeyframeResult(second, persons) for second, persons in keyframes.items()]
    result = VideoResult(video, 100, 80, names, moments)
    return write_people(folder / "people.arrow", people_table(result, f"{video}.mp4", network))


@pytest.fixture
def index(tmp_path):
    write(tmp_path / "a", "film", {1.0: [person(0, 1), person(1, 2)], 2.0: [], 3.0: [person(2, 1)]})
    write(tmp_path / "b", "other", {1.0: [person(0.5, 1, 0.9), person(0.25, -1)]})
    write(tmp_path / "c", "nobody", {1.0: []})
    return tmp_path


def test_what_is_written_is_read_from_all_folders(index):
    table = read_people([index])
    assert table.schema.names[:5] == ["video", "file", "second", "person_id", "box"]
    assert table["video"].to_pylist() == ["film"] * 3 + ["other"] * 2
    assert table["second"].to_pylist() == [1, 1, 3, 1, 1]
    assert table["person_id"].to_pylist() == [1, 2, 1, 1, -1]
    np.testing.assert_allclose(table["box"][0].as_py(), [0.1, 0.25, 0.3, 0.5], rtol=1e-6)
    assert table.schema.field("features").type == pa.list_(pa.float16(), 2)
    assert class_names_of(table) == NAMES


def test_rows_are_mapped_not_loaded(index):
    before = pa.total_allocated_bytes()
    table = read_people([index / "a"])
    assert table["features"].chunk(0).flatten().to_numpy().shape == (6,)
    assert pa.total_allocated_bytes() == before


def test_the_most_alike_come_first_everybody_once(index):
    table = read_people([index])
    row = find_person(table, "film@1#1")
    values = similarities(table, row)
    np.testing.assert_allclose(values, np.cos([0, 1, 2, 0.5, 0.25]), atol=1e-3)
    assert best_rows(table, values, 9, but=row) == [4, 3, 1, 2]
    assert best_rows(table, values, 9) == [0, 4, 3, 1]  # person 1 of the film once
    assert best_rows(table, values, 2, but=row) == [4, 3]
    scores = action_scores(table, "open")
    assert best_rows(table, scores, 1) == [3] and scores[3] == np.float16(0.9)


def test_many_rows_go_in_blocks(tmp_path):
    angles = np.linspace(0, 3, 5000)
    path = write(tmp_path, "film", {1.0: [person(x, i) for i, x in enumerate(angles)]})
    values = similarities(read_people([path]), 4999)
    np.testing.assert_allclose(values, np.cos(3 - angles), atol=2e-3)


@pytest.mark.parametrize("video", ["film", "film.mp4", "some/folder/film.mkv"])
@pytest.mark.parametrize("seconds", ["3", "3.", "3.0", "3.4"])
def test_a_person_is_named_by_video_second_and_id(index, video, seconds):
    table = read_people([index])
    assert find_person(table, f"{video}@{seconds}#1") == find_person(table, f"{video}@{seconds}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("film", "'film': expected VIDEO@SECONDS#PERSON, such as film.mp4@12.0#3"),
        ("film@x#1", "expected VIDEO@SECONDS#PERSON"),
        ("cinema@1#1", "no video cinema in this index; it has film, other"),
        ("film@1#7", "film: no person #7; at 1 s there is #1, #2"),
        ("film@1", "film: which one? Add #PERSON; at 1 s there is #1, #2"),
        ("film@2#1", "film: nobody at 2 s; the nearest: at 1 s there is #1, #2"),
        ("film@99#1", "film: nobody at 99 s; the nearest: at 3 s there is #1"),
    ],
)
def test_who_is_not_there_is_told_with_who_is(index, text, message):
    with pytest.raises(ValueError) as error:
        find_person(read_people([index]), text)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_action_that_is_not_there(index):
    for name in ("Open", ""):
        with pytest.raises(ValueError, match="no action .* in this index; it has walk, open$"):
            action_scores(read_people([index]), name)


def test_what_does_not_belong_together_is_refused(index):
    write(index / "d", "third", {1.0: [person(0, 1)]}, network="def")
    with pytest.raises(ValueError, match="d/people.arrow: from another network.*a/people.arrow"):
        read_people([index])
    write(index / "d", "third", {1.0: [person(0, 1)]}, names=["a", "b", "c"])
    with pytest.raises(ValueError, match="other names of classes"):
        read_people([index])


def test_empty_missing_damaged_and_later_files(index):
    with pytest.raises(ValueError, match="c: an empty index, nobody is in its 1 files"):
        read_people([index / "c"])
    with pytest.raises(FileNotFoundError):
        read_people([index / "people.arrow"])
    whole = (index / "a" / "people.arrow").read_bytes()
    for content in (b"", b"not arrow", whole[: len(whole) // 2], whole[:-20]):
        (index / "bad.arrow").write_bytes(content)
        with pytest.raises(ValueError, match="bad.arrow: not an index of people") as error:
            read_people([index / "bad.arrow"])
        assert "\n" not in str(error.value)
    table = read_people([index / "a"])
    for about in ({}, {b"alphaaction_d2.people": json.dumps({"version": 2})}):
        write_people(index / "bad.arrow", table.replace_schema_metadata(about))
        with pytest.raises(ValueError, match="not an index of people"):
            read_people([index / "bad.arrow"])


def test_joined_files_are_one_and_may_grow_in_place(index):
    joined = index / "all.arrow"
    write_people(joined, read_people([index / "a"]))
    write_people(joined, read_people([joined, index / "b"]))
    assert read_people([joined]).equals(read_people([index / "a", index / "b"]))
