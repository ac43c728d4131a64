from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.formats.results import KeyframeResult, PersonResult, VideoResult
from alphaaction_d2.visualization.drawing import PanelRenderer, PersonDrawer, enlargement
from alphaaction_d2.visualization.palette import (
    IDENTITY_COLOURS,
    UNKNOWN_COLOUR,
    IdentityColours,
    identity_colours,
)
from alphaaction_d2.visualization.text import fit, format_time, load_font, printable
from alphaaction_d2.visualization.timeline import persons_at

NAMES = ["stand", "talk to (e.g., self, a person, a group)", "walk"]


def person(box, person_id=-1, scores=(0.9, 0.6, 0.1), names=NAMES):
    return PersonResult.from_scores(np.array(box, dtype=float), np.array(scores), names, person_id)


def gray(width, height, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


def draw_persons(frame, persons, caption=""):
    colours = IdentityColours().of([p.person_id for p in persons])
    return PersonDrawer(frame.shape[1], frame.shape[0]).draw(frame, persons, colours, caption)


@pytest.mark.parametrize(
    "size", [(1, 1), (32, 18), (96, 64), (321, 181), (90, 480), (640, 360), (1920, 1080), (2000, 3)]
)
def test_every_size_is_drawn_and_small_ones_are_enlarged(size):
    width, height = size
    box = [0.1 * width, 0.2 * height, 0.6 * width, 0.9 * height]
    frame = gray(width, height)
    drawn = draw_persons(frame, [person(box, 3)], caption="0:01.0")
    scale = enlargement(width, height)
    assert drawn.shape == (height * scale, width * scale, 3) and drawn.dtype == np.uint8
    assert max(drawn.shape) <= max(1920, width, height)
    assert (drawn != 100).any()
    assert (frame == 100).all(), "the frame that came in must stay as it is"


def test_enlargement():
    assert enlargement(32, 18) == 27  # 864 x 486
    assert enlargement(480, 270) == 2
    assert enlargement(1280, 720) == 1
    assert enlargement(90, 480) == 4  # 360 x 1920: the long side limits


def test_nobody_and_no_caption_leave_the_picture_as_it_is():
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_persons(frame, []), frame)


def test_a_box_is_drawn_in_its_colour_around_the_person():
    frame = gray(640, 480)
    drawn = draw_persons(frame, [person([200, 100, 300, 400], scores=(0, 0, 0))])
    changed = np.argwhere((drawn != 100).any(axis=2))
    np.testing.assert_allclose(changed.min(axis=0), [100, 200], atol=3)
    np.testing.assert_allclose(changed.max(axis=0), [400, 300], atol=3)
    assert (drawn == UNKNOWN_COLOUR).all(axis=2).any()
    assert (drawn[120:380, 220:280] == 100).all()


def test_boxes_outside_or_without_area_are_not_drawn():
    frame = gray(640, 480)
    outside = [person(box, 1) for box in ([-90, 0, -5, 50], [700, 0, 1e9, 400], [5, 5, 5, 90])]
    np.testing.assert_array_equal(draw_persons(frame, outside), frame)
    partly = draw_persons(frame, [person([-1e9, -1e9, 300, 200], 1)])
    assert (partly != frame).any()


def test_actions_below_the_threshold_and_unknown_ids_have_no_label():
    frame = gray(640, 480)
    box = [200, 200, 300, 400]
    silent = draw_persons(frame, [person(box, -1, (0.2, 0.1, 0.0))])
    assert (silent[:190] == 100).all()
    for one in (person(box, 5, (0.2, 0.1, 0.0)), person(box, -1, (0.8, 0.1, 0.0))):
        assert (draw_persons(frame, [one])[:190] != 100).any()


def test_names_of_all_scripts_are_drawn():
    names = ["走る 日本語", "кричать \ud800", "a\nb\tc\x00", "🏃 $x$", "", "w" * 500]
    frame = gray(640, 480)
    for name in names:
        drawn = draw_persons(frame, [person([100, 100, 300, 400], 1, [0.9], [name])], name)
        assert drawn.shape == frame.shape
    assert printable("a\nb\x00\ud800") == "a b ?"


def test_a_panel_is_rendered_once_and_the_cache_is_bounded():
    panels = PanelRenderer(640, 480, capacity=2)
    rows = (("walk", 87), ("stand", 31))
    first = panels.label("#1", rows, (240, 228, 66))
    assert panels.label("#1", rows, (240, 228, 66)) is first
    assert panels.label("", (), (240, 228, 66)) is None
    panels.label("#2", rows, (240, 228, 66))
    panels.label("#3", rows, (240, 228, 66))
    assert panels.label("#1", rows, (240, 228, 66)) is not first


def test_long_names_are_shortened_to_the_picture():
    panels = PanelRenderer(360, 640)
    width, _ = panels.label("#1", (("w" * 300, 100),), (0, 0, 0)).size
    assert width < 360


@pytest.mark.parametrize("text", ["w" * 90, "it is a  longer text", "i", ""])
def test_text_is_cut_as_late_as_possible(text):
    font = load_font(14)
    for width in (12, 30, 80, 2000):
        cut = fit(text, font, width)
        if font.getlength(text) <= width:
            assert cut == text
            continue
        kept = cut.removesuffix("...")
        assert cut.endswith("...") and text.startswith(kept)
        assert font.getlength(cut) <= width or cut == text[:1] + "..."
        longer = text[: len(kept) + 1].rstrip()
        assert longer == kept or font.getlength(longer + "...") > width


@pytest.mark.parametrize("background", [0, 128, 255])
def test_text_stands_out_on_any_background(background):
    frame = gray(640, 480, background)
    panel = PanelRenderer(640, 480).label("", (("stand", 90),), (86, 180, 233))
    panel.paste(frame, 10, 10)
    width, height = panel.size
    text = frame[10 : 10 + height, 20 : 10 + width].astype(int).sum(axis=2)
    assert text.max() > 720  # white letters
    assert np.median(text) < 330  # on a dark ground


def test_wrong_frames_are_refused_in_one_line():
    drawer = PersonDrawer(64, 48)
    for frame in (gray(48, 64), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3))):
        with pytest.raises(ValueError, match="expected frames of shape"):
            drawer.draw(frame, [], [])


def test_time_format():
    assert [format_time(s) for s in (-1, 0, 2.96, 61.2, 3723.5)] == [
        "0:00.0",
        "0:00.0",
        "0:02.9",
        "1:01.2",
        "1:02:03.5",
    ]


def moving_result(num_keyframes=4):
    keyframes = [
        KeyframeResult(float(t), [person([50 + 60 * t, 60, 150 + 60 * t, 300], 4)])
        for t in range(num_keyframes)
    ]
    return VideoResult("v", 640, 480, NAMES, keyframes)


def columns_of(drawn, colour):
    return np.flatnonzero((drawn[200] == colour).all(axis=1))


def annotated(drawer, result, seconds):
    before = [k for k in result.keyframes if k.timestamp <= seconds]
    after = [k for k in result.keyframes if k.timestamp > seconds]
    persons = persons_at(seconds, before[-1] if before else None, after[0] if after else None)
    colours = identity_colours(result).of([p.person_id for p in persons])
    return drawer.draw(gray(640, 480), persons, colours, format_time(seconds))


def test_boxes_move_with_the_video_and_vanish_after_the_last_keyframe():
    drawer, result = PersonDrawer(640, 480), moving_result()
    drawn = [annotated(drawer, result, t) for t in (0.0, 0.5, 1.0, 3.4, 3.6)]
    lefts = [columns_of(picture, IDENTITY_COLOURS[4]) for picture in drawn]
    assert [abs(left[0] - x) <= 3 for left, x in zip(lefts[:4], (50, 80, 110, 230))] == [True] * 4
    assert (drawn[4][50:] == 100).all()  # below the time


def test_frames_depend_little_on_those_before():
    """Panels stay where they are for a while, boxes and their colours never differ."""
    result = moving_result()
    drawer = PersonDrawer(640, 480)
    for n in range(16):
        drawn = annotated(drawer, result, n / 5)
        alone = annotated(PersonDrawer(640, 480), result, n / 5)
        np.testing.assert_array_equal(drawn[150:290], alone[150:290])
