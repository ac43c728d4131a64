"""EPIC-Kitchens-55: the original script's numbers, its rules spelled out, and files."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphaaction_d2.evaluation.epic55 import (
    action_prior,
    epic_results_as_json,
    epic_results_as_text,
    evaluate_epic55,
    softmax,
)
from alphaaction_d2.formats.epic55 import (
    NUM_NOUNS,
    NUM_VERBS,
    EPICSegments,
    read_epic_scores,
    read_epic_segments,
    split_segments,
)
from alphaaction_d2.formats.tables import DataFileError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate_epic.py"
HEADER = "uid,participant_id,video_id,narration,verb,verb_class,noun,noun_class\n"


# ------------------------------------------------------------------------- a literal reading


def literal(verb_logits, noun_logits, verbs, nouns, training: list[tuple[int, int]]) -> dict:
    """Counts of correct segments, one segment and one pair after the other."""
    num_verbs, num_nouns = verb_logits.shape[1], noun_logits.shape[1]
    f = np.zeros((num_verbs, num_nouns))
    for v, n in training:
        f[v, n] += 1
    f = f / len(training) if training else f
    prior = np.zeros_like(f)
    for v in range(num_verbs):
        total = sum(f[v, n] for n in range(num_nouns)) + 1e-5
        for n in range(num_nouns):
            prior[v, n] = f[v, n] / total
    found = {name: {1: 0, 5: 0} for name in ("verb", "noun", "action", "action without prior")}
    for i, (verb, noun) in enumerate(zip(verbs, nouns)):
        pv, pn = softmax(verb_logits[i]), softmax(noun_logits[i])
        pairs = np.array([[a * b for b in pn] for a in pv])
        label = verb * num_nouns + noun
        for k in (1, 5):
            found["verb"][k] += verb in np.argsort(pv, kind="stable")[-k:]
            found["noun"][k] += noun in np.argsort(pn, kind="stable")[-k:]
            for name, scores in (("action without prior", pairs), ("action", pairs * prior)):
                found[name][k] += label in np.argsort(-scores.ravel(), kind="stable")[:k]
    return found


@settings(max_examples=100)
@given(data=st.data(), v=st.integers(1, 6), n=st.integers(1, 7), count=st.integers(0, 8))
def test_agrees_with_a_literal_reading(data, v, n, count):
    """Few values: many ties, in verbs, nouns and pairs."""

    def logits(classes: int) -> np.ndarray:
        rows = st.lists(st.sampled_from([-60.0, 0.0, 0.5, 3.0]), min_size=classes, max_size=classes)
        rows = data.draw(st.lists(rows, min_size=count, max_size=count))
        return np.array(rows, dtype=np.float64).reshape(count, classes)

    def labels(size: int, classes: int) -> np.ndarray:
        drawn = data.draw(st.lists(st.integers(0, classes - 1), min_size=size, max_size=size))
        return np.array(drawn, dtype=np.int64)

    size = data.draw(st.integers(0, 12))
    training = labels(size, v), labels(size, n)
    verb_logits, noun_logits, verbs, nouns = (
        logits(v),
        logits(n),
        labels(count, v),
        labels(count, n),
    )
    prior = action_prior(*training, v, n)
    result = evaluate_epic55(verb_logits, noun_logits, verbs, nouns, prior)
    seen = list(zip(*(x.tolist() for x in training)))
    assert result.correct == literal(verb_logits, noun_logits, verbs, nouns, seen)
    assert result.num_unseen == sum(pair not in seen for pair in zip(verbs, nouns))
    assert result.num_segments == count


def test_prior_of_a_rare_verb():
    """Once in 23 191 segments: 1e-5 takes a fifth away."""
    prior = action_prior(np.array([0] * 23190 + [1]), np.array([2] * 23190 + [3]), 2, 4)
    assert prior[1, 3] == pytest.approx(1 / (1 + 0.23191))
    assert prior[0, 2] == pytest.approx(1, abs=2e-5)
    assert np.count_nonzero(prior) == 2


def test_the_prior_is_of_the_noun_given_the_verb():
    """Two verbs share a noun: it is certain of each of them."""
    prior = action_prior(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0]), 2, 2)
    np.testing.assert_allclose(prior, [[2 / 3, 1 / 3], [1, 0]], atol=1e-4)


# --------------------------------------------------------------------------------------- files


def write_labels(path: Path, rows: list[tuple]) -> Path:
    """Rows of (uid, participant, verb, noun)."""
    lines = [f'{u},{p},{p}_01,"cut, slowly",cut,{v},bread,{n}\n' for u, p, v, n in rows]
    path.write_text(HEADER + "".join(lines))
    return path


ROWS = [(7, "P01", 0, 1), (3, "P26", 2, 3), (9, "P25", 0, 0), (5, "P31", 124, 351)]


def test_labels_and_their_parts(tmp_path):
    segments = read_epic_segments(write_labels(tmp_path / "l.csv", ROWS))
    training, validation = split_segments(segments)
    assert training.uids.tolist() == [7, 9] and training.nouns.tolist() == [1, 0]
    assert validation.uids.tolist() == [3, 5] and validation.verbs.tolist() == [2, 124]
    assert len(validation) == 2 and validation.source.endswith("l.csv")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((1, "P1x", 0, 0), "column participant_id: 'P1x': expected a participant such as P01"),
        ((1, "P01", 125, 0), "column verb_class: '125': expected 0 to 124"),
        ((1, "P01", 0, 352), "column noun_class: '352': expected 0 to 351"),
        ((1, "P01", 0, -1), "column noun_class: '-1'"),
        (("x", "P01", 0, 0), "column uid: 'x'"),
    ],
)
def test_bad_labels(tmp_path, row, words):
    path = write_labels(tmp_path / "l.csv", [*ROWS, row, row])
    with pytest.raises(DataFileError) as error:
        read_epic_segments(path)
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{path}:6: ") and words in first and f"{path}:7" in second


def test_labels_without_columns_or_with_a_segment_twice(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("0,P01,P01_01,open door\n")
    with pytest.raises(DataFileError, match="l.csv:1: no column 'uid'"):
        read_epic_segments(path)
    path.write_text("")
    with pytest.raises(DataFileError, match="no column 'uid'"):
        read_epic_segments(path)
    write_labels(path, [*ROWS, ROWS[0]])
    with pytest.raises(DataFileError, match=r"\(uid\) 7 comes more than once"):
        read_epic_segments(path)
    path.write_text(HEADER + "1,P01\n")
    with pytest.raises(DataFileError, match="l.csv:2: 2 columns: expected 8"):
        read_epic_segments(path)


def segments_of(*uids: int) -> EPICSegments:
    zeros = np.zeros(len(uids), dtype=np.int64)
    return EPICSegments(np.array(uids), zeros, zeros, zeros)


def test_scores_in_any_order(tmp_path):
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "a.npy", logits)
    np.savez(tmp_path / "b.npz", uids=np.array([9, 3, 7]), logits=logits)
    segments = segments_of(3, 7, 9)
    np.testing.assert_array_equal(read_epic_scores(tmp_path / "a.npy", segments, 2), logits)
    found = read_epic_scores(tmp_path / "b.npz", segments, 2)
    np.testing.assert_array_equal(found, logits[[1, 2, 0]])
    assert found.dtype == np.float64


def test_bad_scores(tmp_path):
    segments, path = segments_of(3, 7), tmp_path / "x.npy"

    def refused(words: str, file: Path = path) -> None:
        with pytest.raises(ValueError, match=words) as error:
            read_epic_scores(file, segments, 2)
        assert "\n" not in str(error.value) and file.name in str(error.value)

    np.save(path, np.zeros((3, 2)))
    refused(r"logits \(3, 2\) of float64; expected \(2, 2\)")
    np.save(path, np.array([[1, 2], [np.nan, 0]]))
    refused("row 1 has numbers that are not finite")
    np.save(path, np.array([[1, 2], [print, 0]], dtype=object))
    refused("not an array of numbers")
    for text in ("some text", "", "\x93NUMPY", "PK\x03\x04"):
        path.write_text(text, encoding="latin1")
        refused("not an array of numbers")
    np.savez(tmp_path / "x.npz", logits=np.zeros((2, 2)))
    refused('expected the arrays "uids" and "logits"', tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", logits=np.zeros((2, 2)), uids=np.array([3, 8]))
    refused(r"no scores for the segments \(uids\) \[7\]", tmp_path / "x.npz")
    for uids, words in (
        ([[3], [7]], r"uids \(2, 1\); expected \(2,\), one for each row of logits"),
        ([3, 7, 7], r"uids \(3,\); expected \(2,\)"),
        ([3, 3], r"the segment \(uid\) 3 comes more than once"),
    ):
        np.savez(tmp_path / "x.npz", logits=np.zeros((2, 2)), uids=np.array(uids))
        refused(words, tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError):
        read_epic_scores(tmp_path / "no.npy", segments, 2)


# -------------------------------------------------------------------------- published numbers


def test_published_numbers(shared):
    """The case's logits, and what the original script counts of them."""
    folder, labels = shared / "ava" / "cases" / "epic55", shared / "ava" / "epic55"
    labels = labels / "EPIC_train_action_labels.csv"
    spec = importlib.util.spec_from_file_location("make_epic", folder / "make_epic.py")
    make_epic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_epic)
    verb_logits, noun_logits, verbs, nouns = make_epic.make(labels)
    expected = json.loads((folder / "expected.json").read_text())
    training, validation = split_segments(read_epic_segments(labels))
    np.testing.assert_array_equal(validation.verbs, verbs)
    np.testing.assert_array_equal(validation.nouns, nouns)
    prior = action_prior(training.verbs, training.nouns)
    checks = expected["prior_checks"]
    assert (len(training), len(validation)) == (checks["train_segments"], expected["segments"])
    assert np.count_nonzero(prior) == checks["distinct_train_actions"]
    assert prior.sum() == pytest.approx(checks["sum_prior"], rel=1e-12)
    assert prior[2, 8] == pytest.approx(checks["prior[2,8] open door"], rel=1e-12)
    result = evaluate_epic55(verb_logits, noun_logits, verbs, nouns, prior)
    names = {
        "verb": "verb",
        "noun": "noun",
        "action": "action_lfb_prior",
        "action without prior": "action_no_prior",
    }
    for what, name in names.items():
        for k in (1, 5):
            assert result.correct[what][k] == expected[f"{name}_top{k}_correct"]
            assert result.percent(what, k) == pytest.approx(expected[f"{name}_top{k}_%"], rel=1e-12)
    assert result.num_unseen == expected["unseen_val_actions(prior 0)"]


# ------------------------------------------------------------------------------------ the tool


def test_texts():
    prior = action_prior(np.array([0]), np.array([0]), 2, 2)
    verbs = nouns = np.array([0, 1])
    result = evaluate_epic55(np.eye(2), np.eye(2), verbs, nouns, prior)
    text = epic_results_as_text(result)
    assert ["action", "50.00", "100.00", "1", "2"] in [line.split() for line in text.splitlines()]
    assert "LFB protocol" in text and "1 segments show a pair that training does not" in text
    numbers = json.loads(epic_results_as_json(result))
    assert numbers["verb_top1_percent"] == 100 and numbers["action_top1_correct"] == 1
    assert numbers["num_unseen_actions"] == 1


def test_tool(tmp_path):
    labels = write_labels(tmp_path / "l.csv", ROWS)
    verbs, nouns = np.zeros((2, NUM_VERBS)), np.zeros((2, NUM_NOUNS))
    verbs[0, 2] = verbs[1, 124] = nouns[0, 3] = nouns[1, 350] = 9
    np.save(tmp_path / "v.npy", verbs)
    np.save(tmp_path / "n.npy", nouns)
    common = ["--labels", labels, "--verbs", tmp_path / "v.npy", "--nouns", tmp_path / "n.npy"]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, TOOL, *common, *arguments]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    done = run("--output", tmp_path / "out.json")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["verb", "100.00", "100.00", "2", "2"] in rows
    assert ["noun", "50.00", "100.00", "1", "2"] in rows
    assert json.loads((tmp_path / "out.json").read_text())["noun_top1_percent"] == 50
    for arguments, words in (
        (("--labels", tmp_path / "no.csv"), "no.csv"),
        (("--verbs", tmp_path / "n.npy"), r"n.npy: logits (2, 352)"),
        (("--nouns", labels), "l.csv: not an array of numbers"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr and len(done.stderr.splitlines()) == 1
