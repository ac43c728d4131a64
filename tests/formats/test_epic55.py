"""Files of EPIC-Kitchens-55: times of segments, names of classes, features of detectors."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from alphaaction_d2.formats.epic55 import (
    read_detected_features,
    read_epic_classes,
    read_epic_segments,
)
from alphaaction_d2.formats.tables import DataFileError
from tests.kitchens import CHANNELS, HEADER, write_kitchen


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    return write_kitchen(tmp_path_factory.mktemp("epic") / "kitchen")


def write(path, *rows: str):
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_times_are_seconds(tmp_path):
    row = "7,P03,P03_12,x,00:02:10.99,01:00:00.5,0,0,v,1,n,2,['n'],[2]"
    segments = read_epic_segments(write(tmp_path / "l.csv", row))
    assert segments.starts.tolist() == [130.99] and segments.stops.tolist() == [3600.5]
    assert segments.videos.tolist() == ["P03_12"]
    nobody = segments[np.array([False])]
    assert len(nobody) == len(nobody.videos) == len(nobody.starts) == 0


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ("00:02:10.99,2:10", "l.csv:2: column stop_timestamp: '2:10': expected a time such as"),
        ("x,00:00:01", "column start_timestamp: 'x': expected a time"),
        ("00:00:05.0,00:00:04.9", r"the segment \(uid\) 7 stops before it starts"),
    ],
)
def test_bad_times(tmp_path, times, words):
    path = write(tmp_path / "l.csv", f"7,P03,P03_12,x,{times},0,0,v,1,n,2,['n'],[2]")
    with pytest.raises(DataFileError, match=words):
        read_epic_segments(path)


def test_labels_without_times(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("uid,participant_id,verb_class,noun_class\n7,P03,1,2\n")
    segments = read_epic_segments(path)
    assert np.isnan(segments.starts).all() and segments.videos.tolist() == [""]


def test_classes(kitchen, tmp_path):
    path = kitchen / "annotations" / "EPIC_noun_classes.csv"
    assert read_epic_classes(path) == ["noun-0", "noun-1", "noun-2"]
    again = tmp_path / "EPIC_noun_classes.csv"
    again.write_text("noun_id,class_key,nouns\n2,c,[]\n0,a,[]\n")
    with pytest.raises(DataFileError, match="noun_id: expected the numbers 0 to 1"):
        read_epic_classes(again)


def test_real_classes(shared):
    folder = shared / "ava" / "epic55"
    verbs, nouns = (read_epic_classes(folder / f"EPIC_{x}_classes.csv") for x in ("verb", "noun"))
    assert (len(verbs), len(nouns)) == (125, 352)
    assert verbs[:4] == ["take", "put", "open", "close"] and nouns[1] == "pan"


ONE = np.ones((2, 3), np.float32)


def save(path, content, protocol: int = 2):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def test_features_by_frame_list_or_name(kitchen, tmp_path):
    found = read_detected_features(kitchen / "noun_lfb" / "train_lfb.pkl")
    assert list(found) == ["P01_01", "P02_03"], "in the order of LFB's frame list"
    assert sorted(found["P01_01"]) == [30, 60, 90, 150, 180, 210], "an empty list is nothing"
    assert found["P01_01"][30].shape == (2, CHANNELS)
    path = save(tmp_path / "x.pkl", {"a": {30: ONE.astype(np.float16), 60: []}, "b": {}}, 4)
    assert {v: list(x) for v, x in read_detected_features(path).items()} == {"a": [30], "b": []}
    listed = save(tmp_path / "noun_lfb" / "val_lfb.pkl", [{30: ONE}])
    (tmp_path / "frame_lists").mkdir()
    (tmp_path / "frame_lists" / "val.csv").write_text("P30_01\n")
    assert list(read_detected_features(listed)) == ["P30_01"], "one video a line"


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{30: ONE}], "a list of 1 videos without names: .*frame_lists/x.csv"),
        ({"a": [ONE]}, "a list or dict of videos, each a dict of frames"),
        ({"a": {"x": ONE}}, "a, frame x: expected an array"),
        ({"a": {30: ONE[0]}}, r"a, frame 30: expected an array \(n, channels\)"),
        ({"a": {30: ONE, 60: ONE[:, :2]}}, "frame 30 has 3 channels, a, frame 60 has 2"),
        ({"a": {30: []}}, "has no features"),
        ({"a": Evil()}, "a pickle that wants"),
    ],
)
def test_bad_features(tmp_path, capsys, content, words):
    with pytest.raises(DataFileError, match=words):
        read_detected_features(save(tmp_path / "noun_lfb" / "x.pkl", content))
    assert capsys.readouterr().out == "", "nothing of it is executed"


def test_a_list_of_another_length(tmp_path):
    path = save(tmp_path / "noun_lfb" / "train_lfb.pkl", [{30: ONE}])
    (tmp_path / "frame_lists").mkdir()
    (tmp_path / "frame_lists" / "train.csv").write_text("a\nb\n")
    with pytest.raises(DataFileError, match="a list of 1 videos, .*train.csv names 2"):
        read_detected_features(path)
