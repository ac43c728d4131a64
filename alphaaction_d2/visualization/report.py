"""One HTML page about one run: the annotated video, the numbers, the charts, what was detected.

The page is a single static file without scripts from elsewhere: pictures are inside, videos and
tables are linked by relative paths, so the folder can be copied, zipped or put on any web server.
"""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import jinja2

from ..formats.results import ClassAP, VideoResult, group_classes, mean_ap, mean_chance
from ..formats.writing import write_atomically
from .palette import RGB, group_colour, hex_colour, identity_colours, mix
from .text import format_time, name_person
from .timeline import Tally, overlooked, persons_over_time, shown_actions

MAX_KEYFRAMES_LISTED = 600
MAX_PERSONS_LISTED = 30  # in a timeline
MAX_ACTIONS_LISTED = 8  # of a person at a keyframe


@dataclass(frozen=True)
class VideoSection:
    """What there is to show of one video; whatever is missing doesn't appear."""

    title: str  # heading, such as the video's name
    # the annotated video file, played by the browser (H.264 in mp4)
    video: str | os.PathLike | None = None
    result: VideoResult | None = None  # for the table of detections
    tables: Sequence[str | os.PathLike] = ()  # files with the result, to link
    poster: str | os.PathLike | None = None  # PNG or JPEG, shown until the video plays
    # what a picture (PNG or JPEG) shows of what the model looked at -> its file
    attention: Mapping[str, str | os.PathLike] = field(default_factory=dict)
    begin: float = 0.0  # seconds that `result` tells for the video's first frame
    # (second, how many before it the video leaves out), in order
    cuts: Sequence[tuple[float, float]] = ()
    # what a person does from one second to another: (person_id, action, from, to, score)
    tubes: Sequence[tuple[int, str, float, float, float]] = ()
    is_random: bool = False  # the network has no weights, so that nothing of this means anything

    def place_of(self, timestamp: float) -> float:
        """Where in the video file a second of `result` is shown."""
        left_out = sum(length for second, length in self.cuts if second <= timestamp)
        return timestamp - self.begin - left_out


def write_report(
    directory: str | os.PathLike,
    *,
    title: str,
    subtitle: str = "",
    videos: Sequence[VideoSection] = (),
    classes: Sequence[ClassAP] = (),
    protocol: str = "",
    charts: Mapping[str, str | os.PathLike] | None = None,
    warnings: Sequence[str] = (),
    command: str = "",
    config: str = "",
    downloads: Sequence[str | os.PathLike] = (),
    min_score: float = 0.3,
) -> Path:
    """Write `report.html`. Parts without content don't appear; a file that is missing is a
    FileNotFoundError.

    Args:
        videos: a section each.
        classes: average precision per class, for the table and the mean.
        charts: heading to PNG file; the pictures are copied into the page.
        warnings: one line each, shown at the top.
        command, config: what made the results, and the configuration, shown folded.
        downloads: files to link, besides the tables of the videos.
        min_score: actions with a lower score are left out of the detection tables.
    """
    directory = Path(directory)

    def link(path: str | os.PathLike) -> str:
        """The relative address of a file."""
        path = _existing(path, "link to this file")
        return quote(Path(os.path.relpath(path, directory)).as_posix())

    template = _environment().get_template("report.html.jinja")
    page = template.render(
        title=title,
        subtitle=subtitle,
        videos=videos,
        classes=classes,
        protocol=protocol,
        charts=charts or {},
        warnings=warnings,
        command=command,
        config=config,
        downloads=[*downloads, *(path for section in videos for path in section.tables)],
        min_score=min_score,
        max_actions=MAX_ACTIONS_LISTED,
        max_keyframes=MAX_KEYFRAMES_LISTED,
        max_persons=MAX_PERSONS_LISTED,
        link=link,
        label=lambda path: Path(os.path.relpath(path, directory)).as_posix(),
        embed=_data_url,
        tally=Tally.of,
        persons_over_time=persons_over_time,
        shown_actions=shown_actions,
        overlooked=overlooked,
        name_person=name_person,
        ticks=_ticks,
    )
    return write_atomically(directory / "report.html", page)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_control_characters,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ap": lambda percent: "\u2013" if math.isnan(percent) else f"{percent:.1f}",
        "file_name": lambda path: Path(path).name,
        "file_size": lambda path: Path(path).stat().st_size,
        "group_classes": group_classes,
        "group_colour": group_colour,
        "hex_colour": hex_colour,
        "identity_colours": identity_colours,
        "mean_ap": mean_ap,
        "mean_chance": mean_chance,
        "on_paper": _on_paper,
        "percent": lambda share: f"{share:.0%}",
        "time": format_time,
    }
    environment.tests["nan"] = math.isnan
    return environment


def _on_paper(colour: RGB) -> str:
    """A colour of the video, darker: in charts it stands on white."""
    return hex_colour(mix(colour, (40, 44, 52), 0.8))


def _ticks(begin: float, end: float) -> list[float]:
    """Round seconds below a timeline, six or so."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((x for x in steps if (end - begin) / x <= 8), 7200)
    first = math.ceil(max(begin, 0) / step)
    return [float(i * step) for i in range(first, math.floor(end / step) + 1)]


def _without_control_characters(value: object) -> object:
    """HTML forbids them: they become spaces."""
    # Of a plain text only: what is markup already has been here.
    return re.sub(r"[\x00-\x08\x0b-\x1f]", " ", value) if type(value) is str else value


def _existing(path: str | os.PathLike, purpose: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: the report should {purpose}, but it is not there")
    return Path(path)


def _data_url(path: str | os.PathLike) -> str:
    """A picture as an address that holds it."""
    content = _existing(path, "show this picture").read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
