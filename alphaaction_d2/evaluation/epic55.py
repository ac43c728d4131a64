"""Action scores on EPIC-Kitchens-55, as Long-Term Feature Banks (LFB) and AIA count them.

A verb model and a noun model each score every segment. An action is a pair of both; its score is
P(verb) P(noun) prior(verb, noun), where the prior is how often the noun comes with the verb in the
training part, P(noun | verb). Pairs that training never shows have prior 0: on the validation part
of LFB these are 10.6 % of the segments, which can never be right.

Letters: N segments, V verbs, K nouns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..formats.epic55 import NUM_NOUNS, NUM_VERBS
from .summaries import as_json, as_table

TOP = (1, 5)
_PRIOR_EPSILON = 1e-5
_SEGMENTS_AT_A_TIME = 1024  # of one verb, with all nouns


@dataclass(frozen=True)
class EPICAccuracy:
    """The result of `evaluate_epic55`."""

    num_segments: int  # N
    # ("verb", "noun", "action", "action without prior") -> {k: segments whose label is among the k
    # best}
    correct: dict[str, dict[int, int]]
    num_unseen: int  # segments whose pair of verb and noun training never shows

    def percent(self, what: str, k: int) -> float:
        """Share of the segments in per cent; NaN without segments."""
        return 100 * self.correct[what][k] / self.num_segments if self.num_segments else np.nan


# ------------------------------------------------------------------------------------- the formulas


def action_prior(
    verbs: np.ndarray, nouns: np.ndarray, num_verbs: int = NUM_VERBS, num_nouns: int = NUM_NOUNS
) -> np.ndarray:
    """P(noun | verb), (V, K), of the labels (N,) of the training part, as LFB computes it.

    f / (sum over nouns of f + 1e-5), f being the share of a pair among all segments. NOTE: f sums
    to 1 over all pairs, so 1e-5 is not small for rare verbs: of a verb that comes once in 23 191
    segments the prior sums to 0.81.
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
    """Count the rows of scores (N, C) that have their label (N,) among the k best classes, for each
    k.

    Of equal scores the last class ranks first, as in a stable `argsort(scores)[-k:]`.
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
    """Count what `top_k_hits` counts of all pairs' scores, P(verb) P(noun) prior.

    Of equal scores the first verb ranks first, then the first noun, as in a stable
    `argsort(-scores)`. Most of the 44 000 pairs of a segment need no look: it is out of the race
    once enough pairs are better, and a verb whose best pair could not reach the label has no better
    one.

    Args:
        verb_scores, noun_scores: (N, V) and (N, K) probabilities; labels (N,).
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
    """Compute the accuracies of verbs, nouns and actions, among the best one and the best five,
    from logits (N, V) and (N, K), labels (N,) and the `action_prior` (V, K)."""
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
    """Write the result as JSON text; shares in per cent."""
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
            content[f"{name}_percent"] = result.percent(what, k)
    return as_json(content)


def epic_results_as_text(result: EPICAccuracy) -> str:
    """Write the result as a table in per cent, with the protocol."""
    rows = [
        (what, *(f"{result.percent(what, k):.2f}" for k in TOP), *counts.values())
        for what, counts in result.correct.items()
    ]
    headers = ("", *(f"top {k} %" for k in TOP), *(f"correct {k}" for k in TOP))
    table = as_table(headers, rows, left=("",))
    return (
        f"{table}\n\n{_PROTOCOL}; {result.num_segments} segments. Actions are scored by {_PRIOR}; "
        f"{result.num_unseen} segments show a pair that training does not, and count as wrong with "
        "the prior."
    )
