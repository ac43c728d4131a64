"""The page of `alphaaction web`: its parts, who has which files, the server. It needs gradio."""

from __future__ import annotations

import argparse
import logging
import secrets
import shutil
import socket
from collections import defaultdict
from html import escape
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..data.video import one_line, video_name
from ..formats.names import file_name
from ..model_zoo import table
from ..modeling.coco_detectors import AUTO, RF_DETR_SIZES, TORCHVISION, TRANSFORMERS, has_rf_detr
from .video_arguments import WHOLE_FRAME, find_inputs
from .web_jobs import ALL_FILES, STOP, Job, Worker

logger = logging.getLogger(__name__)

FILES = {"annotated.mp4": "Video", "results.csv": "CSV", "results.json": "JSON", ALL_FILES: "ZIP"}
# What browsers let the page do: nothing comes from elsewhere, no other site has it in a frame.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
SANDBOX = "allow-scripts allow-downloads"  # for a report, which has no business in the page
HOUR = 3600  # seconds
MAX_WAITING = 16
CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.results, .results > div { padding: 0 !important; }
.results iframe { width: 100%; height: 94vh; border: 1px solid var(--border-color-primary);
  border-radius: 8px; }
.results nav { display: flex; flex-wrap: wrap; gap: 8px; margin-bottom: 10px; }
.results nav a { padding: 6px 14px; border-radius: 8px; text-decoration: none;
  border: 1px solid var(--border-color-primary); }
.results .wrong { color: #c8401e; overflow-wrap: anywhere; }
"""


def models(args: argparse.Namespace) -> list[tuple[str, str]]:
    """What may be chosen (what it is called, what it stands for): the model of the command line,
    then those for AVA that can be downloaded."""
    given = one_line(args.weights or args.config_file)
    rows = {name: table.find(name) for name in table.names() if name.startswith("AVA/")}
    known = {name: f"{name} ({row.score})" for name, row in rows.items() if row and row.address}
    return [(x, name) for name, x in {given: known.get(given, given), **known}.items()]


def detectors(args: argparse.Namespace) -> list[str]:
    """The same for what finds the persons."""
    given = args.boxes or args.person_detector
    names = [one_line(" ".join(Path(x).name for x in given))] if given else []
    names += [AUTO, *(f"{TRANSFORMERS}rf-detr-{x}" for x in RF_DETR_SIZES if has_rf_detr())]
    names += [f"{TORCHVISION}fasterrcnn_{x}" for x in ("resnet50_fpn_v2", "mobilenet_v3_large_fpn")]
    return list(dict.fromkeys([*names, WHOLE_FRAME]))


def chosen(args: argparse.Namespace, model: str, detector: str) -> argparse.Namespace:
    """The command line's arguments with another model and detector, unless these are its own."""
    args = argparse.Namespace(**vars(args))
    if detector != detectors(args)[0]:
        is_whole = detector == WHOLE_FRAME
        args.boxes = [WHOLE_FRAME] if is_whole else None
        args.person_detector = None if is_whole else [detector]
    if model != models(args)[0][1]:
        args.config_file, args.weights, args.label_map, args.random = model, "", "", False
    return args


class Page:
    """What the page does.

    gradio knows a page that somebody has opened by an id. What was uploaded and found there is
    removed when it is closed.
    """

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        """`args` are the command's; `folder` gets a folder for each result."""
        self.args, self.folder, self.worker = args, folder, Worker()
        self.films = {one_line(Path(x).name): str(x) for x in find_inputs(args.videos)}  # to pick
        self._results: dict[str | None, Path] = {}  # also of what is waited for
        self._uploads: dict[str | None, set[Path]] = defaultdict(set)

    def hold(self, upload: str, request: gr.Request) -> None:
        """Take an upload; nothing is picked any more."""
        self._uploads[request.session_hash].add(Path(upload).parent)

    def begin(self, request: gr.Request) -> tuple[dict, dict, str]:
        """Forget the last result, and show how to stop what comes."""
        _remove(self._results.pop(request.session_hash, None))
        # a name that nobody guesses, and which no browser has seen before
        folder = self._results[request.session_hash] = self.folder / secrets.token_urlsafe(16)
        folder.mkdir()
        return gr.update(visible=False), gr.update(visible=True), ""

    def find(
        self,
        upload: str | None,
        picked: str | None,
        model: str,
        detector: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (how gradio is asked for one)
    ) -> str:
        """Find out who does what in a film; what to show, as HTML."""
        film = upload or self.films.get(picked or "")
        if not film:
            return _wrong("Upload a film first, or pick one.")
        folder, args = self._results[request.session_hash], chosen(self.args, model, detector)
        job = Job(film, folder, args, max_seconds=60 * args.max_minutes)
        error = self.worker.run(job, lambda share, line: progress(share, desc=line))
        if request.session_hash not in self._results:  # the page was closed
            _remove(folder)
        return _wrong(error) if error else _result(film, folder)

    def stop(self, request: gr.Request) -> None:
        """End what is waited for; what is known is shown."""
        (self._results[request.session_hash] / STOP).touch()

    def leave(self, request: gr.Request) -> None:
        """Forget a page that was closed."""
        _remove(self._results.pop(request.session_hash, None))
        uploads = self._uploads.pop(request.session_hash, set())
        for folder in uploads.difference(*self._uploads.values()):  # equal ones are there once
            _remove(folder)

    def build(self) -> gr.Blocks:
        """Lay it out."""
        films = list(self.films)
        hidden: Any = {"api_visibility": "private"}
        with gr.Blocks(title="Who does what", delete_cache=(HOUR, 24 * HOUR)) as page:
            gr.Markdown("# Who does what in a film")
            with gr.Row():
                with gr.Column():
                    upload = gr.File(label=f"A film of at most {self.args.max_minutes:g} minutes")
                    pick = gr.Dropdown(
                        films, value=None, label="or one of these", visible=bool(films)
                    )
                with gr.Column():
                    model = gr.Dropdown(models(self.args), label="Model for the actions")
                    detector = gr.Dropdown(detectors(self.args), label="Who finds the persons")
                    start = gr.Button("Find out", variant="primary")
                    stop = gr.Button("Stop, and show what is known", visible=False)
            result = gr.HTML(min_height=120, elem_classes="results")
            upload.upload(self.hold, upload, pick, **hidden)
            pick.input(lambda: None, None, upload, **hidden)
            begun = start.click(self.begin, None, [start, stop, result], queue=False, **hidden)
            inputs = [upload, pick, model, detector]
            done = begun.then(self.find, inputs, result, concurrency_limit=1, **hidden)
            as_before = gr.update(visible=True), gr.update(visible=False)
            done.then(lambda: as_before, None, [start, stop], queue=False, **hidden)
            stop.click(self.stop, queue=False, **hidden)
            page.unload(self.leave)
        return page.queue(max_size=MAX_WAITING)


def _result(film: str, folder: Path) -> str:
    """Links to the files of a result, and its report."""
    where, name = f"results/{folder.name}/", escape(file_name(video_name(film)))
    links = f'<a href="{where}report.html" target="_blank">Report</a>'
    for file, what in FILES.items():
        links += f'<a href="{where}{file}" download="{name}_{file}">{what}</a>'
    frame = f'<iframe src="{where}report.html" sandbox="{SANDBOX}" allowfullscreen></iframe>'
    return f"<nav>{links}</nav>{frame}"


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _wrong(line: str) -> str:
    return f'<p class="wrong">{escape(line)}</p>'


def serve(args: argparse.Namespace, folder: Path) -> None:
    """Show the page until the process is interrupted; results are in `folder`."""
    page = Page(args, folder)
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    listening = socket.create_server((args.host, args.port), family=family)
    # (pages that are open keep connections)
    config = uvicorn.Config(application(page), log_level="warning", timeout_graceful_shutdown=2)
    host = f"[{args.host}]" if ":" in args.host else args.host
    where = f"http://{host}:{listening.getsockname()[1]}"
    logger.info("Open %s (Ctrl-C ends it)", where)
    if not _is_local(args.host):
        logger.warning("Whoever reaches %s may use it: there are no passwords", where)
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        _remove(folder)  # without it a job ends
        page.worker.close()


def application(page: Page) -> Any:
    """The ASGI application with the page, and the results below `/results`."""
    app = FastAPI(openapi_url=None)
    page.folder.mkdir()
    app.mount("/results", StaticFiles(directory=page.folder))
    font = ("system-ui", "sans-serif")
    theme = gr.themes.Default(font=font, font_mono=font, primary_hue="blue")
    limit = f"{page.args.max_mb}mb"
    gr.mount_gradio_app(
        app, page.build(), "/", footer_links=[], max_file_size=limit, theme=theme, css=CSS
    )
    if _is_local(page.args.host):  # other sites, whose names may lead here, are not answered
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", page.args.host])

    @app.middleware("http")
    async def tell_policy(request: Request, call_next: Any) -> Response:
        response = await call_next(request)
        is_result = request.url.path.startswith("/results/")
        policy = f"{POLICY}; sandbox {SANDBOX}" if is_result else POLICY
        response.headers["content-security-policy"] = policy
        return response

    return app


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name
        return False
