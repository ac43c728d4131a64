"""A terminal shows a line a stage; the file has everything."""

from __future__ import annotations

import io
import logging
import warnings

import pytest

from alphaaction_d2.apps.console import setup_console

NAMES = ("alphaaction_d2", "detectron2", "fvcore", "py.warnings")


@pytest.fixture
def loggers():
    """The loggers, which are put back as they were."""
    kept = {}
    for name in NAMES:
        logger = logging.getLogger(name)
        kept[name] = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logging.captureWarnings(False)
    for name, (handlers, level, propagate) in kept.items():
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_what_is_shown_and_what_is_filed(tmp_path, loggers):
    screen = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logger = setup_console(tmp_path, stream=screen)
        logger.info("a stage")
        logger.debug("a configuration\nof many lines")
        logger.warning("look out")
        library = logging.getLogger("detectron2.engine.defaults")
        library.info("Model:\nResNet(\n)")
        library.error("it broke")
        logging.getLogger("detectron2.evaluation.evaluator").info("done 3/9. ETA=0:01:00")
        warnings.warn("will be removed", FutureWarning, stacklevel=1)
    shown = [line.split(" ", 1)[1] for line in screen.getvalue().splitlines()]
    assert shown == ["a stage", "WARNING: look out", "ERROR: it broke", "done 3/9. ETA=0:01:00"]
    filed = (tmp_path / "log.txt").read_text()
    for text in ("of many lines", "ResNet(", "will be removed", "a stage", "it broke"):
        assert text in filed
    assert "\x1b" not in filed  # no colours


def test_a_fault_of_ours_shows_where(loggers):
    screen = io.StringIO()
    try:
        {}["nothing"]
    except KeyError as error:
        setup_console(stream=screen).error("film.mp4", exc_info=error)
    assert "ERROR: film.mp4\nTraceback" in screen.getvalue()
    assert screen.getvalue().endswith("KeyError: 'nothing'\n")


def test_lines_appear_once_however_often_it_is_set_up(tmp_path, loggers):
    setup_console(stream=io.StringIO())
    screen = io.StringIO()
    setup_console(tmp_path, stream=screen).info("once")
    assert screen.getvalue().count("once") == 1


def test_other_processes_are_silent(tmp_path, loggers):
    screen = io.StringIO()
    setup_console(tmp_path, rank=1, stream=screen).warning("from rank 1")
    assert screen.getvalue() == ""
    assert "from rank 1" in (tmp_path / "log.txt.rank1").read_text()
