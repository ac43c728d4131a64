from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from alphaaction_d2.formats.results import ClassAP, KeyframeResult, PersonResult, VideoResult
from alphaaction_d2.visualization.charts import (
    MAX_BLOCKS,
    class_ap_chart,
    class_gain_chart,
    comparison_chart,
    timeline_chart,
)
from alphaaction_d2.visualization.palette import GROUP_COLOURS, IDENTITY_COLOURS, UNKNOWN_COLOUR

NAMES = ["walk", "say $x", "走る"]


def read(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count(pixels, colour):
    return int((pixels == colour).all(axis=2).sum())


def test_bars_are_as_long_as_the_precision_and_groups_have_colours(tmp_path):
    classes = [ClassAP("a", 80.0, "pose", 10), ClassAP("b", 40.0, "memory", 10)]
    pixels = read(class_ap_chart(tmp_path / "chart.png", classes, protocol="official2018"))
    assert pixels.shape[1] == 1080
    rows = [(pixels == GROUP_COLOURS[i]).all(axis=2).sum(axis=1).max() for i in (0, 1)]
    # Both bars are cut by their white number; the ratio of their lengths stays about two.
    assert 1.7 < rows[0] / rows[1] < 2.3


def test_a_long_list_makes_a_taller_chart(tmp_path):
    heights = []
    for num_classes in (1, 12, 80):
        classes = [
            ClassAP(f"class number {k} with $ and 名", 100 * k / 80, f"g{k % 10}", k)
            for k in range(num_classes)
        ]
        heights.append(read(class_ap_chart(tmp_path / "chart.png", classes)).shape[0])
    assert heights[0] < heights[1] < heights[2] < 4000


@pytest.mark.parametrize("ap", [0.0, math.nan, 100.0, 120.0])
def test_extreme_precisions_are_drawn(tmp_path, ap):
    pixels = read(class_ap_chart(tmp_path / "chart.png", [ClassAP("a", ap)]))
    assert (count(pixels, GROUP_COLOURS[0]) > 3000) == (ap >= 100)


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="no classes"):
        class_ap_chart(tmp_path / "chart.png", [])
    assert list(tmp_path.iterdir()) == []


def timeline_of(tmp_path, keyframes, **options):
    result = VideoResult("v $1", 64, 48, NAMES, keyframes)
    return read(timeline_chart(tmp_path / "timeline.png", result, **options))


def test_timeline_grows_with_persons_and_actions_up_to_the_limit(tmp_path):
    def keyframes(num_persons):
        return [
            KeyframeResult(
                float(t),
                [
                    PersonResult.from_scores([0, 0, 9, 9], [0.9, 0.5, 0.1], NAMES, n)
                    for n in range(num_persons)
                ],
            )
            for t in range(5)
        ]

    empty = timeline_of(tmp_path, [])
    one = timeline_of(tmp_path, keyframes(1))
    many = timeline_of(tmp_path, keyframes(9))
    assert empty.shape[0] <= one.shape[0] < many.shape[0]
    assert count(one, IDENTITY_COLOURS[0]) > 50  # the mark of person 0
    full = timeline_of(tmp_path, keyframes(MAX_BLOCKS))
    assert timeline_of(tmp_path, keyframes(40)).shape == full.shape


def test_timeline_of_persons_without_actions(tmp_path):
    person = PersonResult.from_scores([0, 0, 9, 9], [0.1, 0.1, 0.1], NAMES)
    pixels = timeline_of(tmp_path, [KeyframeResult(0.0, [person])])
    assert (pixels < 128).any()


def test_persons_without_id_share_a_block_with_their_highest_scores(tmp_path):
    def person(*scores):
        return PersonResult.from_scores([0, 0, 9, 9], scores, NAMES)

    both = [KeyframeResult(0.0, [person(0.9, 0.4, 0), person(0.5, 0.8, 0)])]
    one = [KeyframeResult(0.0, [person(0.9, 0.8, 0)])]
    pixels = timeline_of(tmp_path, both)
    assert (pixels == UNKNOWN_COLOUR).all(axis=2).sum() > 50
    np.testing.assert_array_equal(pixels, timeline_of(tmp_path, one))


def test_timeline_of_a_long_video(tmp_path):
    person = PersonResult.from_scores([0, 0, 9, 9], [0.9, 0.8, 0.7], NAMES, 1)
    pixels = timeline_of(tmp_path, [KeyframeResult(float(t), [person]) for t in range(1800)])
    assert pixels.shape[1] == 1080


def test_comparison_has_a_bar_per_run(tmp_path):
    aps = {"none": [50.0, math.nan], "IA without $memory": [60.0, 20.0], "IA": [70.0, 90.0]}
    runs = {name: dict(zip(["pose", "memory"], values)) for name, values in aps.items()}
    pixels = read(comparison_chart(tmp_path / "chart.png", runs, title="t", subtitle="s"))
    sizes = [count(pixels, GROUP_COLOURS[i]) for i in range(3)]
    assert 0 < sizes[0] < sizes[1] < sizes[2]


def test_gains_are_sorted_coloured_and_counted(tmp_path):
    def run(*aps):
        return [ClassAP(f"class $ {i}", ap, "pose", 9) for i, ap in enumerate(aps)]

    def drawn(before, after):
        path = class_gain_chart(tmp_path / "chart.png", before, after, ("HGNN", "IGMN $"))
        return read(path)

    better, worse = GROUP_COLOURS[0], GROUP_COLOURS[1]
    pixels = drawn(run(10.0, 50.0), run(90.0, 40.0))
    rows = [np.argwhere((pixels[130:] == c).all(axis=2))[:, 0] for c in (better, worse)]
    assert len(rows[0]) and len(rows[1])
    assert rows[0].mean() < rows[1].mean()  # the gain comes first, whatever the order was
    reverse = drawn(run(50.0, 10.0), run(40.0, 90.0))
    rows = [np.argwhere((reverse[130:] == c).all(axis=2))[:, 0] for c in (better, worse)]
    assert rows[0].mean() < rows[1].mean()
    only = drawn(run(10.0), run(20.0))
    assert not (only[130:] == worse).all(axis=2).any()


@pytest.mark.parametrize("num_classes", [1, 12, 60])
def test_gains_of_many_classes(tmp_path, num_classes):
    rng = np.random.default_rng(0)
    runs = [
        [
            ClassAP(f"class number {k}", math.nan if k == 5 else ap, f"g{k % 3}", k)
            for k, ap in enumerate(rng.uniform(0, 100, num_classes))
        ]
        for _ in range(2)
    ]
    path = class_gain_chart(tmp_path / "chart.png", *runs, ("a", "b"), protocol="official2018")
    height = read(path).shape[0]
    assert 25 * num_classes < height < 400 + 36 * num_classes


def test_gains_of_different_classes_are_refused(tmp_path):
    before, after = [ClassAP("walk", 1.0)], [ClassAP("walk", 1.0), ClassAP("run", 1.0)]
    with pytest.raises(ValueError, match="A and B were not evaluated .* 'run' is only in one"):
        class_gain_chart(tmp_path / "chart.png", before, after, ("A", "B"))
    with pytest.raises(ValueError, match="no classes"):
        class_gain_chart(tmp_path / "chart.png", [], [], ("A", "B"))
