"""How far a video is."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from alphaaction_d2.apps.progress import Progress, hearing_progress, progress_text, share_done
from alphaaction_d2.data.video import VideoInfo

INFO = VideoInfo(Path("v.mp4"), 64, 48, 25.0, 200.0, rotation=0, start_time=0.0)


def test_share_and_time_that_is_left():
    assert progress_text(INFO, 50, 30) == "25 % (0:50.0 of 3:20.0), 1.5 minutes left"
    assert progress_text(INFO, 250, 60).startswith("100 % ") and "0.0 minutes" in progress_text(
        INFO, 250, 60
    )
    part = replace(INFO, begin=900.0)  # of a film, with the film's seconds
    assert progress_text(part, 950, 30) == "25 % (15:50.0 of 18:20.0), 1.5 minutes left"
    assert progress_text(INFO, 0, 0.0).startswith("0 % ")


def test_a_length_that_nobody_knows():
    assert progress_text(replace(INFO, duration=None), 50, 30) == "at 0:50.0"


def test_a_listener_hears_it_instead_of_the_terminal(monkeypatch, capsys):
    now = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    heard = []
    with hearing_progress(lambda info, seconds, text: heard.append((seconds, text))):
        progress = Progress(INFO, "drawing,")
    progress(50.0)
    assert heard == [(50.0, "v: drawing, 25 % (0:50.0 of 3:20.0), 0.1 minutes left")]
    progress.end()
    assert capsys.readouterr() == ("", "")
    Progress(INFO, "drawing,")(50.0)
    assert len(heard) == 1
    assert share_done(INFO, 50) == 0.25 and share_done(replace(INFO, duration=None), 50) == 0
