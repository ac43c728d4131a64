"""What a row of the benchmark is, and how its times are taken."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: what was measured.
        value: the figure, in `unit`.
        yardstick: what it is compared with, in the same unit and from the same run;
            `yardstick_name` says what that is.
        limit: the most the ratio (without a yardstick: the value) may be, or with `at_least` the
            least. None: nothing is demanded.
        note: sizes and circumstances that a reader needs.
    """

    name: str
    value: float
    unit: str
    yardstick: float | None = None
    yardstick_name: str = ""
    limit: float | None = None
    note: str = ""
    at_least: bool = False

    @property
    def ratio(self) -> float | None:
        """`value / yardstick`; None without a yardstick."""
        return None if self.yardstick is None else self.value / self.yardstick

    @property
    def ok(self) -> bool | None:
        """Whether the limit is kept; None without a limit. What is not a number keeps none."""
        if self.limit is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged >= self.limit if self.at_least else judged <= self.limit


def interleaved_medians(functions: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median run time of each function, in seconds.

    Every function runs once to warm up; then they take turns, so that whatever else the machine
    does meanwhile falls on all of them alike.
    """
    if repeats < 1:
        raise ValueError(f"interleaved_medians: repeats {repeats} must be at least 1")
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


@contextlib.contextmanager
def num_threads(count: int | None) -> Iterator[None]:
    """Let torch compute with this many threads (None: all cores of this process) for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or available_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_facts() -> dict[str, str | int]:
    """What a figure depends on besides the code."""
    return {
        "processor": _processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
