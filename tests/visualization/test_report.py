from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from alphaaction_d2.formats.results import ClassAP, KeyframeResult, PersonResult, VideoResult
from alphaaction_d2.visualization.report import (
    MAX_KEYFRAMES_LISTED,
    MAX_PERSONS_LISTED,
    VideoSection,
    write_report,
)

VOID = {"meta", "img", "br", "hr", "input", "link"}
EVIL = "<script>alert(\"x\")</script> & 'quoted' \x00"


class Page(HTMLParser):
    """Collects tags, attributes and text; refuses tags that are not closed in order."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "chart.png"
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(path)
    return path


def result_of(num_keyframes, name="walk"):
    person = PersonResult.from_scores([0, 0, 9, 9], [0.876, 0.1], [name, "stand"], 7)
    keyframes = [KeyframeResult(float(t), [person] if t else []) for t in range(num_keyframes)]
    return VideoResult("v", 64, 48, [name, "stand"], keyframes)


def test_a_full_page(tmp_path, picture):
    folder = tmp_path / "out"
    folder.mkdir()
    video = folder / "naïve: #2 100% &.mp4"
    video.write_bytes(b"video")
    table = folder / "results.csv"
    table.write_text("a,b\n")
    classes = [ClassAP("open", 81.25, "memory", 1234), ClassAP("gone", math.nan, "memory")]
    path = write_report(
        folder,
        title="Puppets demo",
        subtitle="four minutes",
        videos=[VideoSection("first video", video, result_of(3), [table], poster=picture)],
        classes=classes,
        protocol="official2018",
        charts={"Average precision": picture},
        warnings=["stopped at 1.87 of 4.47 s"],
        command="make demo",
        config="MODEL: x",
    )
    assert path == folder / "report.html"
    page = Page(path)
    for expected in (
        *("Puppets demo", "four minutes", "first video", "mAP, official2018", "81.2"),
        *("1,234", "walk", "88%", "#7", "nobody", "stopped at 1.87", "make demo", "MODEL: x"),
    ):
        assert expected in page.text
    (player,) = page.of("video")
    assert "controls" in player and player["poster"].startswith("data:image/png;base64,")
    for url in [player["src"], *(link["href"] for link in page.of("a"))]:
        parts = urlsplit(url)
        assert not parts.scheme and not parts.netloc and not parts.fragment and not parts.query
        assert (folder / unquote(parts.path)).is_file()
    assert [image["src"][:22] for image in page.of("img")] == ["data:image/png;base64,"]
    assert page.of("link") == [] and all("src" not in script for script in page.of("script"))
    times = [button["data-time"] for button in page.of("button")]
    assert times == ["0", "1", "2"]


def test_missing_parts_do_not_appear(tmp_path):
    page = Page(write_report(tmp_path, title="nothing"))
    assert page.text.split() == ["nothing", "nothing"]  # the title and the heading
    for tag in ("section", "table", "video", "img", "pre", "a"):
        assert page.of(tag) == []


def test_the_buttons_of_a_film_that_begins_later_lead_into_the_video(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    section = VideoSection("v", video, result_of(3), begin=-900.0)
    page = Page(write_report(tmp_path, title="t", videos=[section]))
    assert [button["data-time"] for button in page.of("button")] == ["900", "901", "902"]


def test_the_buttons_know_what_the_video_leaves_out(tmp_path):
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    section = VideoSection("v", video, result_of(3), cuts=[(1.0, 0.5), (2.0, 0.25)])
    page = Page(write_report(tmp_path, title="t", videos=[section]))
    assert [button["data-time"] for button in page.of("button")] == ["0", "0.5", "1.25"]


def test_a_result_without_a_video_has_no_buttons(tmp_path):
    page = Page(write_report(tmp_path, title="t", videos=[VideoSection("v", None, result_of(2))]))
    assert page.of("button") == [] and "0:01.0" in page.text


def test_all_text_is_escaped(tmp_path, picture):
    page = Page(
        write_report(
            tmp_path,
            title=EVIL,
            subtitle=EVIL,
            videos=[VideoSection(EVIL, None, result_of(2, name=EVIL))],
            classes=[ClassAP(EVIL, 5.0, EVIL)],
            protocol=EVIL,
            charts={EVIL: picture},
            warnings=[EVIL],
            command=EVIL,
            config=EVIL,
        )
    )
    assert len(page.of("script")) == 1  # our own
    assert page.text.count('<script>alert("x")</script>') >= 10
    assert "\x00" not in page.text
    assert any(EVIL[:8] in image["alt"] for image in page.of("img"))


def test_names_that_are_not_unicode_do_not_stop_the_report(tmp_path):
    assert "bad?name" in Page(write_report(tmp_path, title="bad\udce9name")).text


def test_a_long_video_is_listed_up_to_a_limit(tmp_path):
    result = result_of(MAX_KEYFRAMES_LISTED + 5)
    page = Page(write_report(tmp_path, title="t", videos=[VideoSection("v", None, result)]))
    assert len(page.of("tr")) == MAX_KEYFRAMES_LISTED + 1
    assert "5 more keyframes" in page.text


def test_a_missing_file_is_named(tmp_path):
    missing = tmp_path / "missing.mp4"
    for arguments in (
        {"videos": [VideoSection("v", missing)]},
        {"videos": [VideoSection("v", attention={"what": missing})]},
        {"charts": {"c": missing}},
        {"videos": [VideoSection("v", tables=[missing])]},
        {"downloads": [missing]},
    ):
        with pytest.raises(FileNotFoundError, match="missing.mp4"):
            write_report(tmp_path, title="t", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_attention_are_inside(tmp_path, picture):
    section = VideoSection("v", attention={"Attention maps at 0:03.0": picture})
    page = Page(write_report(tmp_path, title="t", videos=[section, VideoSection("w")]))
    (image,) = page.of("img")
    assert image["alt"] == "Attention maps at 0:03.0 in v"
    assert page.text.count("What the model looked at") == 1


def section_with_truth(tmp_path, **fields):
    """Two persons at one moment: one thing right, one wrong, one overlooked, one person missing."""
    names = ["walk", "wave", "open"]
    first = PersonResult.from_scores([0, 0, 9, 9], [0.9, 0.8, 0.1], names, 7)
    first = replace(first, truth=("walk", "open"))
    keyframe = KeyframeResult(0.0, [first], missed=[("wave",)])
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    return VideoSection("v", video, VideoResult("v", 64, 48, names, [keyframe]), **fields)


def test_truth_stands_beside_what_was_predicted(tmp_path):
    page = Page(write_report(tmp_path, title="t", videos=[section_with_truth(tmp_path)]))
    text = " ".join(page.text.split())
    assert "1 of 2 actions that are shown are right (50%)" in text
    assert "2 of 3 true ones are missing" in text
    assert "1 of 2 annotated persons were not found" in text
    assert "\u2713 walk" in text and "\u2717 wave" in text and "not seen: open" in text
    assert "a person who was not found: wave" in text
    assert "Nobody has annotated" not in text
    # In the timeline: two bars; marks below what is true.
    assert len(page.of("s")) == 2


def test_without_truth_nothing_is_right_or_wrong(tmp_path):
    page = Page(write_report(tmp_path, title="t", videos=[VideoSection("v", None, result_of(3))]))
    assert "\u2713" not in page.text and "true, as annotated" not in page.text
    assert "Nobody has annotated this video" in page.text
    assert page.of("s") == []


def test_random_weights_are_shouted(tmp_path):
    section = section_with_truth(tmp_path, is_random=True)
    page = Page(write_report(tmp_path, title="t", videos=[VideoSection("w"), section]))
    assert "The network is random" in page.text
    assert "random" in {x.get("class", "").split(" ")[-1] for x in page.of("p")}
    page = Page(write_report(tmp_path, title="t", videos=[section_with_truth(tmp_path)]))
    assert "The network is random" not in page.text


def test_the_timeline_has_every_action_and_leads_into_the_video(tmp_path):
    names = [f"action {i}" for i in range(12)]
    person = PersonResult.from_scores([0, 0, 9, 9], [0.9] * 12, names, 7)
    result = VideoResult("v", 64, 48, names, [KeyframeResult(t, [person]) for t in (900.0, 901.0)])
    video = tmp_path / "v.mp4"
    video.write_bytes(b"video")
    section = VideoSection("v", video, result, begin=900.0, cuts=[(901.0, 0.5)])
    page = Page(write_report(tmp_path, title="t", videos=[section]))
    (player,) = page.of("video")
    assert (player["data-begin"], json.loads(player["data-cuts"])) == ("900.0", [[901.0, 0.5]])
    (line,) = [x for x in page.of("div") if "timeline" in x.get("class", "")]
    assert (line["data-video"], line["data-begin"], line["data-length"]) == (
        player["id"],
        *("899.5", "2.0"),
    )
    strips = [x for x in page.of("div") if x.get("class") == "strip"]
    assert len(strips) == 12
    assert page.text.count("+4 more") == 2  # in the table, which has eight of them


def test_persons_beyond_the_limit_are_counted(tmp_path):
    people = [
        PersonResult.from_scores([i, 0, i + 1, 9], [0.9], ["walk"], i)
        for i in range(MAX_PERSONS_LISTED + 3)
    ]
    result = VideoResult("v", 64, 48, ["walk"], [KeyframeResult(0.0, people)])
    page = Page(write_report(tmp_path, title="t", videos=[VideoSection("v", None, result)]))
    assert "+3 more persons" in page.text


def test_what_chance_would_get_is_told(tmp_path):
    classes = [ClassAP("open", 81.25, "memory", 10, chance=12.5)]
    page = Page(write_report(tmp_path, title="t", classes=classes))
    assert "random scores: 12.5" in " ".join(page.text.split()) and "random 12.5" in page.text
