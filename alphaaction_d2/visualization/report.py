"""One HTML page about one run: the annotated video, the numbers, the charts, what was detected.

The page is a single static file without scripts from elsewhere: pictures are inside, videos and
tables are linked by relative paths, so the folder can be copied, zipped or put on any web server.
"""

from __future__ import annotations

import base64
import html
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from ..formats.writing import write_atomically
from .drawing import format_time
from .palette import GROUP_COLOURS, IDENTITY_COLOURS, hex_colour
from .results import ClassAP, VideoResult, group_classes, mean_ap
from .tracks import identify

MAX_KEYFRAMES_LISTED = 600


@dataclass(frozen=True)
class VideoSection:
    """What the page shows about one video; whatever is missing doesn't appear.

    Attributes:
        title: heading, such as the video's name.
        video: the annotated video file, played by the browser (H.264 in mp4).
        result: for the table of detections.
        timeline: PNG of `charts.timeline_chart`.
        poster: PNG or JPEG, shown until the video plays.
        attention: what a picture (PNG or JPEG) shows of what the model looked at -> its file.
        begin: seconds that `result` tells for the video's first frame.
    """

    title: str
    video: str | os.PathLike | None = None
    result: VideoResult | None = None
    timeline: str | os.PathLike | None = None
    poster: str | os.PathLike | None = None
    attention: Mapping[str, str | os.PathLike] = field(default_factory=dict)
    begin: float = 0.0


def write_report(
    directory: str | os.PathLike,
    *,
    title: str,
    subtitle: str = "",
    numbers: Mapping[str, str] | None = None,
    videos: Sequence[VideoSection] = (),
    classes: Sequence[ClassAP] = (),
    dialect: str = "",
    charts: Mapping[str, str | os.PathLike] | None = None,
    warnings: Sequence[str] = (),
    command: str = "",
    config: str = "",
    downloads: Sequence[str | os.PathLike] = (),
    min_score: float = 0.3,
    max_actions: int = 4,
    name: str = "report.html",
) -> Path:
    """Write the page. Parts without content don't appear.

    Args:
        directory: where the page goes.
        title: of the page.
        subtitle: a line below it.
        numbers: key numbers in large type, label to value, such as {"persons": "3"}. The mean AP
            of `classes` is added in front.
        videos: sections with an annotated video, its timeline and its detections.
        classes: average precision per class, for the table; empty without evaluation.
        dialect: the evaluation protocol's name, shown with the mean AP.
        charts: heading to PNG file; the pictures are copied into the page.
        warnings: one line each, shown at the top.
        command: the command that made the results.
        config: the configuration, shown folded.
        downloads: files to link, such as the CSV and JSON results.
        min_score: actions with a lower score are left out of the detection tables.
        max_actions: most actions per person in the detection tables.
        name: file name of the page.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: when a chart, a video or a download does not exist.
    """
    directory = Path(directory)
    body: list[str] = [f"<header><h1>{_text(title)}</h1>"]
    if subtitle:
        body.append(f'<p class="sub">{_text(subtitle)}</p>')
    body.append("</header>")
    if warnings:
        items = "".join(f"<li>{_text(warning)}</li>" for warning in warnings)
        body.append(f'<ul class="card warn">{items}</ul>')
    body += _number_tiles(numbers or {}, classes, dialect)
    for index, section in enumerate(videos):
        body += _video_section(directory, section, index, min_score, max_actions)
    for heading, path in (charts or {}).items():
        picture = _embedded_picture(path, heading)
        body.append(f"<section><h2>{_text(heading)}</h2>{picture}</section>")
    if classes:
        body.append(f"<section><h2>Classes</h2>{_class_tables(classes)}</section>")
    if downloads:
        links = "".join(_download_link(directory, path) for path in downloads)
        body.append(f'<section><h2>Files</h2><p class="files">{links}</p></section>')
    if command or config:
        body.append("<section><h2>How this was made</h2>")
        if command:
            body.append(f'<pre class="card">{_text(command)}</pre>')
        if config:
            summary = "<summary>Configuration</summary>"
            body.append(f'<details class="card">{summary}<pre>{_text(config)}</pre></details>')
        body.append("</section>")
    page = _PAGE.format(title=_text(title), style=_STYLE, body="\n".join(body), script=_SCRIPT)
    return write_atomically(directory / name, page)


def _text(text: object) -> str:
    """Escaped for HTML; control characters, which HTML forbids, become spaces."""
    text = "".join(c if c >= " " or c in "\n\t" else " " for c in str(text))
    return html.escape(text, quote=True)


def _relative_url(directory: Path, path: str | os.PathLike) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: the report should link to this file, but it is not there")
    return quote(Path(os.path.relpath(path, directory)).as_posix())


def _data_url(path: str | os.PathLike) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: the report should show this picture, but it is not there")
    content = Path(path).read_bytes()
    kind = "jpeg" if content.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _embedded_picture(path: str | os.PathLike, description: str) -> str:
    picture = f'<img alt="{_text(description)}" src="{_data_url(path)}" />'
    return f'<div class="card chart">{picture}</div>'


def _number_tiles(
    numbers: Mapping[str, str], classes: Sequence[ClassAP], dialect: str
) -> Iterator[str]:
    tiles = []
    average = mean_ap(classes)
    if not math.isnan(average):
        label = f"mAP, {dialect}" if dialect else "mAP"
        tiles.append((label, f"{average:.1f}"))
    tiles += [(label, value) for label, value in numbers.items()]
    if tiles:
        cells = "".join(
            f'<div class="card"><b>{_text(value)}</b><span>{_text(label)}</span></div>'
            for label, value in tiles
        )
        yield f'<div class="tiles">{cells}</div>'


def _video_section(
    directory: Path, section: VideoSection, index: int, min_score: float, max_actions: int
) -> Iterator[str]:
    yield f"<section><h2>{_text(section.title)}</h2>"
    if section.video is not None:
        url = _text(_relative_url(directory, section.video))
        poster = f' poster="{_data_url(section.poster)}"' if section.poster is not None else ""
        yield (
            f'<video id="video{index}" class="card" controls="controls" muted="muted" '
            f'playsinline="playsinline" preload="metadata"{poster} src="{url}">'
            f'<a href="{url}">{_text(Path(section.video).name)}</a></video>'
        )
    if section.timeline is not None:
        yield _embedded_picture(section.timeline, f"Actions over time in {section.title}")
    if section.attention:
        yield "<h3>What the model looked at</h3>"
        for what, path in section.attention.items():
            yield _embedded_picture(path, f"{what} in {section.title}")
    if section.result is not None:
        video_id = f"video{index}" if section.video is not None else ""
        yield _detection_table(section.result, video_id, section.begin, min_score, max_actions)
    yield "</section>"


def _detection_table(
    result: VideoResult, video_id: str, begin: float, min_score: float, limit: int
) -> str:
    """Folded table, one row per keyframe; a click on a time moves the video there."""
    rows = []
    for keyframe, (_, colours) in zip(result.keyframes[:MAX_KEYFRAMES_LISTED], identify(result)):
        in_video = keyframe.timestamp - begin
        seek = f' data-video="{video_id}" data-time="{in_video:g}"' if video_id else ""
        time = format_time(keyframe.timestamp)
        cell = f'<button type="button"{seek}>{time}</button>' if video_id else time
        persons = []
        for person, colour in zip(keyframe.persons, colours):
            rgb = hex_colour(IDENTITY_COLOURS[colour])
            who = f"#{person.person_id} " if person.person_id >= 0 else ""
            shown = [(n, s) for n, s in person.actions[:limit] if s >= min_score]
            actions = ", ".join(f"{_text(n)}&#160;<i>{round(100 * s)}%</i>" for n, s in shown)
            actions = actions or "<i>no action above the threshold</i>"
            persons.append(
                f'<span class="who"><u style="background:{rgb}"></u><b>{who}</b>{actions}</span>'
            )
        content = "".join(persons) or "<i>nobody</i>"
        rows.append(f"<tr><td>{cell}</td><td>{content}</td></tr>")
    hidden = len(result.keyframes) - len(rows)
    note = f'<p class="sub">{hidden} more keyframes are in the files.</p>' if hidden > 0 else ""
    # A short table is open from the start; a long one would hide what follows.
    opened = ' open="open"' if len(rows) <= 40 else ""
    return (
        f'<details class="card"{opened}><summary>Detections at {len(result.keyframes)} keyframes '
        f'(score at least {min_score:.0%})</summary><div class="scroll"><table class="detections">'
        f"<thead><tr><th>time</th><th>persons and actions</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{note}</details>"
    )


def _class_tables(classes: Sequence[ClassAP]) -> str:
    tables = []
    for index, (group, members) in enumerate(group_classes(classes).items()):
        colour = hex_colour(GROUP_COLOURS[index % len(GROUP_COLOURS)])
        average = mean_ap(members)
        value = "" if math.isnan(average) else f"{average:.1f}"
        rows = "".join(_class_row(entry, colour) for entry in members)
        heading = _text(group.replace("_", " ").lower() if group else "all classes")
        tables.append(
            f'<div class="card"><table class="classes"><thead><tr><th>{heading}</th>'
            f"<th>boxes</th><th>AP&#160;{value}</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return f'<div class="groups">{"".join(tables)}</div>'


def _class_row(entry: ClassAP, colour: str) -> str:
    if math.isnan(entry.ap):
        value, bar = "&#8211;", ""
    else:
        width = min(max(entry.ap, 0), 100)
        value = f"{entry.ap:.1f}"
        bar = f'<span class="bar"><s style="width:{width:.1f}%;background:{colour}"></s></span>'
    boxes = f"{entry.num_boxes:,}" if entry.num_boxes else "&#8211;"
    return f"<tr><td>{_text(entry.name)}{bar}</td><td>{boxes}</td><td>{value}</td></tr>"


def _download_link(directory: Path, path: str | os.PathLike) -> str:
    size = Path(path).stat().st_size if Path(path).is_file() else 0
    unit = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(1, round(size / 1e3))} kB"
    url = _text(_relative_url(directory, path))
    return f'<a class="card" href="{url}">{_text(Path(path).name)} <i>{unit}</i></a>'


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root { color-scheme: light dark; --page: #f5f6f8; --card: #fff; --text: #16181d;
  --soft: #626a76; --line: #e2e5ea; --accent: #0068b0; --track: #eceef2; }
@media (prefers-color-scheme: dark) { :root { --page: #111318; --card: #1a1d24; --text: #eceef2;
  --soft: #9aa3b0; --line: #2b303a; --accent: #63b4f0; --track: #2a2f39; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 18px 60px; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 36px 0 12px; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 24px 0 10px; }
.sub { color: var(--soft); margin: 6px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.warn { list-style: none; padding: 12px 16px; margin: 18px 0 0; border-left: 5px solid #e69f00; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(135px, 1fr)); gap: 12px;
  margin-top: 22px; }
.tiles .card { padding: 14px 16px; }
.tiles b { display: block; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .86rem; }
video, img { display: block; width: 100%; height: auto; }
video.card { background: #000; max-height: 78vh; }
.chart { background: #fff; padding: 10px; overflow-x: auto; }
.chart img { min-width: 600px; }
section > .card + .card { margin-top: 12px; }
details { padding: 12px 16px; }
summary { cursor: pointer; color: var(--accent); }
.scroll { max-height: 460px; overflow: auto; margin-top: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
.detections th { position: sticky; top: 0; background: var(--card); }
td, th { padding: 6px 8px; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child td { border-bottom: 0; }
td { overflow-wrap: anywhere; }
td i, a i { color: var(--soft); font-style: normal; white-space: nowrap; }
.detections td:first-child { width: 5.2em; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
button { font: inherit; color: var(--accent); background: none; border: 0; padding: 0;
  cursor: pointer; text-decoration: underline; }
.who { display: block; }
.who u { display: inline-block; width: .72em; height: .72em; border-radius: 3px;
  margin-right: .45em; border: 1px solid #0006; }
.groups { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 12px;
  align-items: start; }
.groups .card { padding: 8px 8px 4px; }
.classes th:first-child::first-letter { text-transform: uppercase; }
.classes td:nth-child(n+2), .classes th:nth-child(n+2) { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; width: 4.4em; }
.bar { display: block; height: 5px; border-radius: 3px; background: var(--track); margin: 4px 0 2px;
  overflow: hidden; }
.bar s { display: block; height: 100%; border-radius: 3px; }
.files { display: flex; flex-wrap: wrap; gap: 10px; margin: 0; }
.files a { padding: 8px 14px; color: var(--accent); text-decoration: none;
  overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: .86rem/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre.card { padding: 12px 16px; }
details pre { margin-top: 10px; max-height: 460px; overflow: auto; }
"""

_SCRIPT = """
document.addEventListener("click", function (event) {
  var button = event.target.closest("button[data-video]");
  if (!button) return;
  var video = document.getElementById(button.dataset.video);
  video.currentTime = Number(button.dataset.time);
  video.scrollIntoView({behavior: "smooth", block: "center"});
});
"""
