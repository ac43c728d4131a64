"""Films for a page, one after the other, in a process of its own.

A film that crashes its decoder, or fills the memory, takes that process with it, not the server.
The process keeps the model that it has loaded last. Files in a job's folder tell the one side how
far it is (PROGRESS), the other to stop (STOP); without the folder nobody waits any more.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from multiprocessing import get_context
from pathlib import Path

from ..data.video import VideoInfo, one_line, probe_video, video_name
from ..visualization.text import format_time
from .command_line import USER_ERRORS, describe_error
from .console import OURS, setup_console
from .demo import Demo
from .progress import hearing_progress, share_done
from .video_results import Stopped

logger = logging.getLogger(__name__)

PROGRESS, STOP, ALL_FILES = "progress.txt", "stop.txt", "all.zip"
_LOOK_EVERY = 0.3  # seconds

_kept: dict[str, Demo] = {}  # in the process of the jobs: the model of the last one


@dataclass(frozen=True)
class Job:
    """A film, and what is to be done with it."""

    film: str
    folder: Path  # is there, for the results
    args: argparse.Namespace  # as the demo has them
    max_seconds: float  # of the film

    def listen(self, info: VideoInfo, seconds: float, text: str) -> None:
        """Hear of the progress, and end what is too long (headers may lie) or not wanted."""
        if seconds - info.begin > self.max_seconds:
            most = format_time(self.max_seconds)
            raise ValueError(f"{video_name(self.film)}: longer than {most}, the limit of this page")
        # (an error where the folder is gone)
        (self.folder / PROGRESS).write_text(f"{share_done(info, seconds)} {text}", "utf-8")
        if (self.folder / STOP).exists():
            (self.folder / STOP).unlink()
            raise KeyboardInterrupt


class Worker:
    """The process: it begins with the first job, and again after a crash."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def run(self, job: Job, tell: Callable[[float, str], None]) -> str:
        """Do a job, after those before it; why there are no results, "" if there are. `tell` gets
        the share that is done and a line on the way."""
        if self._pool is None:  # a copy of a server's threads would be none
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=setup_console)
        try:
            future = self._pool.submit(do, job)
            tell(0.0, "Starting")
            while not wait([future], _LOOK_EVERY).done:
                with contextlib.suppress(OSError, ValueError):  # not there, or half written
                    share, _, line = (job.folder / PROGRESS).read_text("utf-8").partition(" ")
                    tell(float(share), line)
            return future.result()
        except BrokenProcessPool:
            self._pool = None
            return f"{one_line(video_name(job.film))}: the process crashed that looked at this film"

    def close(self) -> None:
        """Wait for the job that is there, and end the process."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def do(job: Job) -> str:
    """Write a film's results, the page about them and all of it as one archive, or say why not."""
    told = BufferingHandler(1000)
    told.setLevel(logging.WARNING)
    logging.getLogger(OURS).addHandler(told)
    try:
        info = probe_video(job.film)
        for seconds in (info.duration or 0, 0):  # too long already by its header?
            job.listen(info, info.begin + seconds, "loading the model")
        if (key := repr(job.args)) not in _kept:
            _kept.clear()  # there may be no room for two
            _kept[key] = Demo(job.args)
        try:
            with hearing_progress(job.listen):
                section = _kept[key].process(job.film, job.folder)
        except Stopped as stopped:
            section = stopped.section
        (job.folder / PROGRESS).unlink(missing_ok=True)
        warnings = dict.fromkeys(one_line(record.getMessage()) for record in told.buffer)
        _kept[key].report(job.folder, [section], list(warnings), command="")
        archive = shutil.make_archive(f"{job.folder}_all", "zip", job.folder)
        shutil.move(archive, job.folder / ALL_FILES)
        return ""
    except KeyboardInterrupt:
        return "Stopped before there was a result."
    except USER_ERRORS as error:
        return one_line(describe_error(error))
    except Exception as error:
        logger.exception("%s", one_line(job.film))
        _kept.clear()  # nobody knows its state
        return f"{type(error).__name__}: the terminal of this page tells more"
    finally:
        logging.getLogger(OURS).removeHandler(told)
