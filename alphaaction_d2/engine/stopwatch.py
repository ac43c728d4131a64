"""Where the time goes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class TimeLeft(float):
    """Seconds that something still takes, in messages. Who knows of more to come adds to it."""

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self), 60)
        return f"{minutes}:{seconds:02d} min left"


class Stopwatch(threading.local):
    """Counts the seconds of stages of work; what is done inside another stage counts once.

    Every thread has counts of its own.

    Attributes:
        seconds: by stage, in the order in which they first began.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []  # the innermost last
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside the `with` block."""
        self._count()
        self._running.append(name)
        self.seconds[name] += 0
        try:
            yield
        finally:
            self._count()
            self._running.pop()

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass on items; count the time that each one takes to come."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _count(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def per_second(self, seconds: float) -> str:
        """Say how long each stage took for each second of a video that is so long."""
        length = max(seconds, 1e-6)
        parts = [f"{name} {spent / length:.2f}" for name, spent in self.seconds.items()]
        return f"{sum(self.seconds.values()) / length:.2f} s ({', '.join(parts)})"
