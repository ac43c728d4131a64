"""Files of EPIC-Kitchens-55: labels of segments, and models' logits."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass

import numpy as np

from .tables import Column, DataFileError, read_table, strict

NUM_VERBS, NUM_NOUNS = 125, 352


@dataclass(frozen=True)
class EPICSegments:
    """Segments (N) of the annotation file, in its order.

    Attributes:
        uids: (N,) int64.
        participants: (N,) int64, the number in `P01`.
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


def read_epic_segments(path: str | os.PathLike) -> EPICSegments:
    """Read `EPIC_train_action_labels.csv`, or any CSV with a header that names its columns uid,
    participant_id, verb_class and noun_class.

    Raises:
        DataFileError: one line per bad row.
        FileNotFoundError: there is no such file.
    """
    table = read_table(path, _COLUMNS, has_header=True)
    columns = strict((table.columns, table.findings))
    uids, first, counts = np.unique(columns["uid"], return_index=True, return_counts=True)
    if (counts > 1).any():
        raise DataFileError(path, f"the segment (uid) {uids[counts > 1][0]} comes more than once")
    numbers = [int(word.removeprefix("P")) for word in table.words["participant_id"]]
    return EPICSegments(
        uids=columns["uid"],
        participants=np.array(numbers, dtype=np.int64)[columns["participant_id"]],
        verbs=columns["verb_class"],
        nouns=columns["noun_class"],
        source=str(path),
    )


def _below(name: str, limit: int) -> Column:
    return Column(name, int, lambda x: (0 <= x) & (x < limit), f"0 to {limit - 1}")


_COLUMNS = (
    _below("uid", 2**31),
    Column(
        "participant_id", str, re.compile(r"P?[0-9]{1,3}").fullmatch, "a participant such as P01"
    ),
    _below("verb_class", NUM_VERBS),
    _below("noun_class", NUM_NOUNS),
)


def read_epic_scores(
    path: str | os.PathLike, segments: EPICSegments, num_classes: int
) -> np.ndarray:
    """Read a model's logits.

    Args:
        path: a `.npy` file of an array (N, classes), a row a segment in the order of
            `segments`; or an `.npz` file of "uids" (N,) and "logits" (N, classes), in any
            order.
        segments: those to score; the file must have just these.
        num_classes: `NUM_VERBS` or `NUM_NOUNS`.

    Returns:
        (N, classes) float64, in the order of `segments`.

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
