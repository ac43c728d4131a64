from __future__ import annotations

import numpy as np
import pytest

from alphaaction_d2.visualization.annotate import FrameAnnotator, annotate_frame, annotate_frames
from alphaaction_d2.visualization.drawing import (
    DrawStyle,
    PanelRenderer,
    PersonDrawer,
    draw_persons,
    enlargement,
    format_time,
    printable,
)
from alphaaction_d2.visualization.palette import IDENTITY_COLOURS
from alphaaction_d2.visualization.results import KeyframeResult, PersonResult, VideoResult

NAMES = ["stand", "talk to (e.g., self, a person, a group)", "walk"]


def person(box, person_id=-1, scores=(0.9, 0.6, 0.1), names=NAMES):
    return PersonResult.from_scores(np.array(box, dtype=float), np.array(scores), names, person_id)


def gray(width, height, value=100):
    return np.full((height, width, 3), value, dtype=np.uint8)


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
    assert enlargement(32, 18, DrawStyle(min_short_side=1)) == 1


def test_nobody_and_no_caption_leave_the_picture_as_it_is():
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_persons(frame, []), frame)


def test_a_box_is_drawn_in_its_colour_around_the_person():
    frame = gray(640, 480)
    drawn = draw_persons(frame, [person([200, 100, 300, 400], scores=(0, 0, 0))])
    changed = np.argwhere((drawn != 100).any(axis=2))
    np.testing.assert_allclose(changed.min(axis=0), [100, 200], atol=3)
    np.testing.assert_allclose(changed.max(axis=0), [400, 300], atol=3)
    assert any((drawn == colour).all(axis=2).any() for colour in IDENTITY_COLOURS)
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
    drawn = draw_persons(
        frame, [person([100, 100, 300, 400], 1, [0.9] * 6, names)], style=DrawStyle(max_actions=6)
    )
    assert drawn.shape == frame.shape
    assert printable("a\nb\x00\ud800") == "a b ?"


def test_a_panel_is_rendered_once_and_the_cache_is_bounded():
    panels = PanelRenderer(640, 480, DrawStyle(), capacity=2)
    rows = (("walk", 87), ("stand", 31))
    first = panels.label("#1", rows, (240, 228, 66))
    assert panels.label("#1", rows, (240, 228, 66)) is first
    assert panels.label("", (), (240, 228, 66)) is None
    panels.caption("a")
    panels.caption("b")
    assert panels.label("#1", rows, (240, 228, 66)) is not first


def test_long_names_are_shortened_to_the_picture():
    panels = PanelRenderer(360, 640, DrawStyle())
    width, _ = panels.label("#1", (("w" * 300, 100),), (0, 0, 0)).size
    assert width < 360


@pytest.mark.parametrize("background", [0, 128, 255])
def test_text_stands_out_on_any_background(background):
    frame = gray(640, 480, background)
    panel = PanelRenderer(640, 480, DrawStyle()).label("", (("stand", 90),), (86, 180, 233))
    panel.paste(frame, 10, 10)
    width, height = panel.size
    text = frame[10 : 10 + height, 20 : 10 + width].astype(int).sum(axis=2)
    assert text.max() > 720  # white letters
    assert np.median(text) < 330  # on a dark ground


def test_wrong_frames_are_refused_in_one_line():
    drawer = PersonDrawer(64, 48)
    for frame in (gray(48, 64), np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3))):
        with pytest.raises(ValueError, match="expected frames of shape"):
            drawer.draw(frame, [], keys=[], colours=[])


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


def test_boxes_move_with_the_video_and_vanish_after_the_last_keyframe():
    times = [0.0, 0.5, 1.0, 3.4, 3.6]
    frames = ((t, gray(640, 480)) for t in times)
    drawn = list(annotate_frames(frames, moving_result(), show_time=False))
    lefts = [columns_of(picture, IDENTITY_COLOURS[4]) for picture in drawn]
    assert [abs(left[0] - x) <= 3 for left, x in zip(lefts[:4], (50, 80, 110, 230))] == [True] * 4
    assert (drawn[4] == 100).all()


def test_annotating_is_lazy_and_needs_few_frames_at_a_time():
    taken = []

    def frames():
        for n in range(100):
            taken.append(n)
            yield n / 25, gray(640, 480)

    drawn = annotate_frames(frames(), moving_result())
    assert taken == []
    next(drawn)
    next(drawn)
    assert len(taken) == 2


def test_streaming_draws_the_same_as_the_whole_video():
    result = moving_result()
    annotator = FrameAnnotator(640, 480)
    whole = annotate_frames(((n / 5, gray(640, 480)) for n in range(16)), result)
    for n, expected in enumerate(whole):
        before, after = result.keyframes[n // 5], None
        if n // 5 + 1 < len(result.keyframes):
            after = result.keyframes[n // 5 + 1]
        drawn = annotator.annotate(gray(640, 480), n / 5, before, after)
        np.testing.assert_array_equal(drawn, expected)


def test_a_single_frame_can_be_annotated():
    result = moving_result()
    drawn = annotate_frame(gray(640, 480), 0.5, *result.keyframes[:2])
    assert abs(columns_of(drawn, IDENTITY_COLOURS[4])[0] - 80) <= 3
    assert annotate_frame(gray(32, 18), 0.0, None).shape == (486, 864, 3)


def test_live_use_skips_keyframes_and_forgets_old_ones():
    annotator = FrameAnnotator(64, 48)
    for t in range(50):
        keyframe = KeyframeResult(float(t), [person([5, 5, 30, 40])])
        annotator.annotate(gray(64, 48), t + 0.2, keyframe)
    assert len(annotator._known) <= 8


def test_a_keyframe_that_is_left_out_does_not_mix_up_the_persons():
    left, right = [50, 60, 150, 300], [400, 60, 500, 300]
    first = KeyframeResult(0.0, [person(left), person(right)])
    dropped = KeyframeResult(0.5, [person(right), person(left)])
    later = KeyframeResult(1.0, [person(left), person(right)])
    annotator = FrameAnnotator(640, 480, show_time=False)
    annotator.annotate(gray(640, 480), 0.2, first, dropped)
    drawn = annotator.annotate(gray(640, 480), 0.4, first, later)
    assert (drawn[290:305, 170:380] == 100).all(), "nobody walks through the middle"
    assert (drawn[290:305, 50:150] != 100).any() and (drawn[290:305, 400:500] != 100).any()
