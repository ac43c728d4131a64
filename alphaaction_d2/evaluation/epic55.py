"""Action scores on EPIC-Kitchens-55, as Long-Term Feature Banks (LFB) and AIA count them.

A verb model and a noun model each score every segment. An action is a pair of both; its score is
P(verb) P(noun) prior(verb, noun), where the prior is how often the noun comes with the verb in the
training part, P(noun | verb). Pairs that training never shows have prior 0: on the validation part
of LFB these are 10.6 % of the segments, which can never be right.

Letters: N segments, V verbs, K nouns.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from ..formats.ava import AVAFileError, BadRows, numbered_rows

__all__ = [
    "NUM_NOUNS",
    "NUM_VERBS",
    "EPICAccuracy",
    "EPICSegments",
    "action_hits",
    "action_prior",
    "epic_results_as_json",
    "epic_results_as_text",
    "evaluate_epic55",
    "read_epic_scores",
    "read_epic_segments",
    "split_segments",
    "top_k_hits",
]

NUM_VERBS, NUM_NOUNS = 125, 352
LAST_TRAINING_PARTICIPANT = 25  # P26 to P31 are LFB's validation part
TOP = (1, 5)
_PRIOR_EPSILON = 1e-5
_COLUMNS = ("uid", "participant_id", "verb_class", "noun_class")
_SEGMENTS_AT_A_TIME = 1024  # of one verb, with all nouns


@dataclass(frozen=True)
class EPICSegments:
    """Segments (N) of the annotation file, in its order.

    Attributes:
        uids: (N,) int64.
        participants: (N,) int64, the number in ``P01``.
        verbs: (N,) int64.
        nouns: (N,) int64.
        source: the file's name for messages.
    """

    uids: np.ndarray
    participants: np.ndarray
    verbs: np.ndarray
    nouns: np.ndarray
    source: str = ""

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, which: np.ndarray) -> EPICSegments:
        return EPICSegments(
            *(self.uids[which], self.participants[which], self.verbs[which], self.nouns[which]),
            source=self.source,
        )


@dataclass(frozen=True)
class EPICAccuracy:
    """The result of :func:`evaluate_epic55`.

    Attributes:
        num_segments: N.
        correct: ("verb", "noun", "action", "action without prior") -> {k: segments whose label is
            among the k best}.
        num_unseen: segments whose pair of verb and noun training never shows.
    """

    num_segments: int
    correct: dict[str, dict[int, int]]
    num_unseen: int

    def percent(self, what: str, k: int) -> float:
        """Share of the segments in per cent; NaN without segments."""
        return 100 * self.correct[what][k] / self.num_segments if self.num_segments else np.nan


# ------------------------------------------------------------------------------------------- files


def read_epic_segments(path: str | os.PathLike) -> EPICSegments:
    """Reads ``EPIC_train_action_labels.csv``, or any CSV with a header that names its columns
    uid, participant_id, verb_class and noun_class.

    Raises:
        AVAFileError: one line per bad row.
        FileNotFoundError: there is no such file.
    """
    rows = numbered_rows(path)
    _, header = next(rows, (0, []))
    missing = [name for name in _COLUMNS if name not in header]
    if missing:
        raise AVAFileError(f"{path}:1: no column {missing[0]!r}; expected a header with {_COLUMNS}")
    places = [header.index(name) for name in _COLUMNS]
    limits = (2**31, 1000, NUM_VERBS, NUM_NOUNS)
    found, bad_rows = [], BadRows(path)
    for line, cells in rows:
        if len(cells) != len(header):
            bad_rows.add(line, f"{len(cells)} columns: expected {len(header)}, as in the header")
            continue
        texts = [cells[place] for place in places]
        numbers = [_whole(texts[0]), _whole(texts[1].removeprefix("P")), *map(_whole, texts[2:])]
        wrong = [i for i, (x, limit) in enumerate(zip(numbers, limits)) if not 0 <= x < limit]
        if wrong:
            what = "a participant such as P01" if wrong[0] == 1 else f"0 to {limits[wrong[0]] - 1}"
            bad_rows.add(
                line, f"column {_COLUMNS[wrong[0]]}: {texts[wrong[0]][:80]!r}: expected {what}"
            )
        else:
            found.append(numbers)
    bad_rows.raise_if_any()
    table = np.array(found, dtype=np.int64).reshape(-1, len(_COLUMNS))
    _, first, counts = np.unique(table[:, 0], return_index=True, return_counts=True)
    if (counts > 1).any():
        uid = table[first[counts > 1][0], 0]
        raise AVAFileError(f"{path}: the segment (uid) {uid} comes more than once")
    return EPICSegments(*table.T, source=str(path))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def split_segments(segments: EPICSegments) -> tuple[EPICSegments, EPICSegments]:
    """LFB's training part (P01 to P25) and validation part (P26 to P31)."""
    is_training = segments.participants <= LAST_TRAINING_PARTICIPANT
    return segments[is_training], segments[~is_training]


def read_epic_scores(
    path: str | os.PathLike, segments: EPICSegments, num_classes: int
) -> np.ndarray:
    """Reads a model's logits.

    Args:
        path: a ``.npy`` file of an array (N, classes), a row a segment in the order of
            ``segments``; or an ``.npz`` file of "uids" (N,) and "logits" (N, classes), in any
            order.
        segments: those to score; the file must have just these.
        num_classes: :data:`NUM_VERBS` or :data:`NUM_NOUNS`.

    Returns:
        (N, classes) float64, in the order of ``segments``.

    Raises:
        ValueError: the file is something else, or has other segments; in one line.
        FileNotFoundError: there is no such file.
    """
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            logits, uids = content, segments.uids
        else:
            with content:
                logits, uids = content["logits"], content["uids"]
    except FileNotFoundError:
        raise
    except KeyError:
        raise ValueError(f'{path}: expected the arrays "uids" and "logits"') from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not an array of numbers in numpy's format ({reason})") from None
    expected = (len(segments), num_classes)
    if logits.shape != expected or logits.dtype.kind not in "fiu":
        raise ValueError(
            f"{path}: logits {logits.shape} of {logits.dtype}; expected {expected} numbers, a row "
            f"for each of the {len(segments)} segments of {segments.source or 'the list'}"
        )
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise ValueError(f"{path}: row {row} has numbers that are not finite")
    if uids.shape != segments.uids.shape:
        raise ValueError(
            f"{path}: uids {uids.shape}; expected {segments.uids.shape}, one for each row of logits"
        )
    values, counts = np.unique(uids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{path}: the segment (uid) {values[counts > 1][0]} comes more than once")
    if not np.array_equal(values, np.sort(segments.uids)):
        strange = sorted(set(segments.uids.tolist()) - set(uids.tolist()))
        raise ValueError(f"{path}: has no scores for the segments (uids) {strange[:5]} ...")
    order = np.empty(len(segments), dtype=np.int64)
    order[np.argsort(segments.uids)] = np.argsort(uids)
    return logits[order].astype(np.float64)


# ------------------------------------------------------------------------------------- the formulas


def action_prior(
    verbs: np.ndarray, nouns: np.ndarray, num_verbs: int = NUM_VERBS, num_nouns: int = NUM_NOUNS
) -> np.ndarray:
    """P(noun | verb) of the training part, as LFB computes it.

    f / (sum over nouns of f + 1e-5), f being the share of a pair among all segments. NOTE: f sums
    to 1 over all pairs, so 1e-5 is not small for rare verbs: of a verb that comes once in 23 191
    segments the prior sums to 0.81.

    Args:
        verbs, nouns: (N,) labels of the training segments.

    Returns:
        (V, K) float64.
    """
    if not len(verbs):
        return np.zeros((num_verbs, num_nouns))
    pairs = np.bincount(verbs * num_nouns + nouns, minlength=num_verbs * num_nouns)
    frequency = pairs.reshape(num_verbs, num_nouns) / len(verbs)
    return frequency / (frequency.sum(axis=1, keepdims=True) + _PRIOR_EPSILON)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, float64."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def top_k_hits(scores: np.ndarray, labels: np.ndarray, k: Sequence[int]) -> dict[int, int]:
    """How many rows have their label among the k best classes.

    Of equal scores the last class ranks first, as in a stable ``argsort(scores)[-k:]``.

    Args:
        scores: (N, C).
        labels: (N,).
        k: the numbers of classes.
    """
    own = _take(scores, labels)[:, None]
    is_after = np.arange(scores.shape[1]) > labels[:, None]
    better = np.count_nonzero((scores > own) | (scores == own) & is_after, axis=1)
    return {n: int(np.count_nonzero(better < n)) for n in k}


def action_hits(
    verb_scores: np.ndarray,
    noun_scores: np.ndarray,
    verbs: np.ndarray,
    nouns: np.ndarray,
    prior: np.ndarray | None,
    k: Sequence[int],
) -> dict[int, int]:
    """What :func:`top_k_hits` counts of all pairs' scores, P(verb) P(noun) prior.

    Of equal scores the first verb ranks first, then the first noun, as in a stable
    ``argsort(-scores)``. Most of the 44 000 pairs of a segment need no look: it is out of the race
    once enough pairs are better, and a verb whose best pair could not reach the label has no better
    one.

    Args:
        verb_scores: (N, V) and
        noun_scores: (N, K) probabilities.
        verbs, nouns: (N,) labels.
        prior: (V, K), 1 at most; None: 1 everywhere.
    """
    num_nouns = noun_scores.shape[1]
    labels = verbs * num_nouns + nouns
    own = _take(verb_scores, verbs) * _take(noun_scores, nouns)
    best = verb_scores * noun_scores.max(axis=1, keepdims=True)  # of a verb's pairs
    if prior is not None:
        own *= prior[verbs, nouns]
        best *= prior.max(axis=1)
    by_best = np.argsort(-best, axis=1)
    better = np.zeros(len(verbs), dtype=np.int64)
    for rank in range(verb_scores.shape[1]):
        verb = by_best[:, rank]
        open_ones = np.flatnonzero((better < max(k)) & (_take(best, verb) >= own))
        for start in range(0, len(open_ones), _SEGMENTS_AT_A_TIME):
            i = open_ones[start : start + _SEGMENTS_AT_A_TIME]
            scores = verb_scores[i, verb[i], None] * noun_scores[i]
            if prior is not None:
                scores *= prior[verb[i]]
            better[i] += (scores > own[i, None]).sum(axis=1, dtype=np.int64)
            ties, noun = np.divmod(np.flatnonzero(scores == own[i, None]), num_nouns)
            tied = i[ties]
            np.add.at(better, tied, verb[tied] * num_nouns + noun < labels[tied])
    return {n: int(np.count_nonzero(better < n)) for n in k}


def _take(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return scores[np.arange(len(labels)), labels]


def evaluate_epic55(
    verb_logits: np.ndarray,
    noun_logits: np.ndarray,
    verbs: np.ndarray,
    nouns: np.ndarray,
    prior: np.ndarray,
) -> EPICAccuracy:
    """Accuracies of verbs, nouns and actions, among the best one and the best five.

    Args:
        verb_logits: (N, V).
        noun_logits: (N, K).
        verbs, nouns: (N,) labels.
        prior: (V, K), see :func:`action_prior`.
    """
    verb_scores, noun_scores = softmax(verb_logits), softmax(noun_logits)
    pairs = (verb_scores, noun_scores, verbs, nouns)
    return EPICAccuracy(
        num_segments=len(verbs),
        correct={
            "verb": top_k_hits(verb_scores, verbs, TOP),
            "noun": top_k_hits(noun_scores, nouns, TOP),
            "action": action_hits(*pairs, prior, TOP),
            "action without prior": action_hits(*pairs, None, TOP),
        },
        num_unseen=int(np.count_nonzero(prior[verbs, nouns] == 0)),
    )


# ------------------------------------------------------------------------------------ summaries

_PROTOCOL = "EPIC-Kitchens-55, LFB protocol: P01-P25 train, P26-P31 validate"
_PRIOR = "P(verb) P(noun) prior(noun | verb)"


def epic_results_as_json(result: EPICAccuracy) -> str:
    """The result as JSON text; shares in per cent."""
    content: dict[str, object] = {
        "metric": _PROTOCOL,
        "action_score": _PRIOR,
        "num_segments": result.num_segments,
        "num_unseen_actions": result.num_unseen,
    }
    for what, counts in result.correct.items():
        for k, count in counts.items():
            name = f"{what.replace(' ', '_')}_top{k}"
            content[f"{name}_correct"] = count
            content[f"{name}_percent"] = result.percent(what, k) if result.num_segments else None
    return json.dumps(content, indent=1) + "\n"


def epic_results_as_text(result: EPICAccuracy) -> str:
    """The result as a table in per cent, with the protocol."""
    rows = [
        (what, *(f"{result.percent(what, k):.2f}" for k in TOP), *counts.values())
        for what, counts in result.correct.items()
    ]
    headers = ("", *(f"top {k} %" for k in TOP), *(f"correct {k}" for k in TOP))
    aligned = ("left", *("right",) * (len(headers) - 1))
    table = tabulate(rows, headers=headers, colalign=aligned, disable_numparse=True)
    return (
        f"{table}\n\n{_PROTOCOL}; {result.num_segments} segments. Actions are scored by {_PRIOR}; "
        f"{result.num_unseen} segments show a pair that training does not, and count as wrong with "
        "the prior."
    )
