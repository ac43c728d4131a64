"""Seconds by stage, with a clock that tests turn by hand."""

from __future__ import annotations

import pytest

from alphaaction_d2.engine import stopwatch
from alphaaction_d2.engine.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A list whose sum is the time."""
    spent: list[float] = []
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: sum(spent))
    return spent


def test_what_is_done_inside_another_stage_counts_once(clock):
    watch = Stopwatch()
    with watch.stage("network"):
        clock.append(2)
        with watch.stage("detector"):
            clock.append(5)
        clock.append(1)
    clock.append(100)  # outside
    assert watch.seconds == {"network": 3, "detector": 5}
    assert watch.per_second(4) == "2.00 s (network 0.75, detector 1.25)"


def test_items_count_while_they_are_made_and_not_while_they_are_used(clock):
    def items():
        for i in range(3):
            clock.append(1)
            yield i

    watch = Stopwatch()
    for _ in watch.each("decoding", items()):
        clock.append(10)
    assert watch.seconds == {"decoding": 3}


def test_a_stage_that_fails_ends(clock):
    watch = Stopwatch()
    with pytest.raises(ValueError), watch.stage("network"):
        clock.append(1)
        raise ValueError
    clock.append(7)
    with watch.stage("decoding"):
        clock.append(2)
    assert watch.seconds == {"network": 1, "decoding": 2}
