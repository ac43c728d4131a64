"""The page of `alphaaction web`: its jobs, its visitors, what it answers, and in a real browser."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from alphaaction_d2.apps import web, web_jobs
from alphaaction_d2.apps.demo import Demo
from alphaaction_d2.apps.web_jobs import ALL_FILES, PROGRESS, STOP, Job, Worker, do
from alphaaction_d2.data.video import VideoWriter
from tests.browser import CHROMIUM, chromium

ROOT = Path(__file__).resolve().parents[2]
MODEL = ["--config-file", str(ROOT / "configs" / "Puppets" / "aia.yaml"), "--random"]
SMALL = ["--opts", "MODEL.DEVICE", "cpu", "MODEL.SLOWFAST.STEM_CHANNELS", "4"]
SMALL += ["MODEL.MEMORY.WINDOW", "(1,1)", "INPUT.MIN_SIZE_TEST", "48", "DATASETS.FOLDERS", "()"]
POLICY = "content-security-policy"
EVIL = "<img src=x onerror=alert(1)>'&quot;`${alert(2)}`.mp4"


def arguments(*more: str) -> argparse.Namespace:
    return web.parse_args([*MODEL, "--boxes", "whole-frame", *more, *SMALL])


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("films") / "film.mp4"
    with VideoWriter(path, 8, 96, 64) as writer:
        for i in range(32):
            writer.write(np.full((64, 96, 3), 7 * i, np.uint8))
    return path


@pytest.fixture
def job(film, tmp_path, monkeypatch):
    """Makes jobs, in folders of their own; nothing is loaded before."""
    monkeypatch.setattr(web_jobs, "_kept", {})

    def make(path: Path = film, minutes: float = 1, *more: str) -> Job:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        return Job(str(path), folder, arguments(*more), 60 * minutes)

    return make


def test_a_job_leaves_all_that_the_demo_does_and_an_archive(job):
    one = job()
    assert do(one) == ""
    names = {x.name for x in one.folder.iterdir()}
    assert names >= {"annotated.mp4", "results.csv", "results.json", "report.html", ALL_FILES}
    assert PROGRESS not in names
    with zipfile.ZipFile(one.folder / ALL_FILES) as archive:
        assert set(archive.namelist()) - {"./"} == names - {ALL_FILES}
    page = (one.folder / "report.html").read_text()
    assert "its results mean nothing" in page  # what a terminal is warned of
    assert "What the model looked at" in page and "Actions in film" in page
    result = json.loads((one.folder / "results.json").read_text())
    assert [x["timestamp"] for x in result["keyframes"]] == [0, 1, 2, 3]


def test_a_model_is_loaded_once_and_one_at_a_time(job, monkeypatch):
    loaded = []
    load = Demo.__init__
    monkeypatch.setattr(Demo, "__init__", lambda *a: loaded.append(1) or load(*a))
    assert [do(job()), do(job())] == ["", ""] and len(loaded) == 1
    other = job()
    other.args.min_score = 0.9
    assert do(other) == "" and len(loaded) == 2 and len(web_jobs._kept) == 1


def test_mistakes_are_one_line(job, film, tmp_path):
    text = tmp_path / "two\nlines.mp4"
    text.write_text("no film")
    line = do(job(text))
    assert "lines.mp4" in line and "\n" not in line and "Traceback" not in line
    assert do(job(tmp_path / "gone.mp4")).startswith(str(tmp_path / "gone.mp4"))
    assert do(job(film, 0.05)) == "film: longer than 0:03.0, the limit of this page"
    bad = job()
    bad.args.weights, bad.args.random = "nothing.pth", False
    assert "nothing.pth" in do(bad)
    assert do(job()) == ""


def test_a_film_that_is_longer_than_its_header_says(job, monkeypatch):
    monkeypatch.setattr("alphaaction_d2.apps.progress.EVERY_SECONDS", 0)
    monkeypatch.setattr(
        "alphaaction_d2.apps.progress.Progress.__call__",
        lambda self, seconds: self._listener(self._info, 1000 * seconds, ""),
    )
    assert "longer than 1:00.0" in do(job())


def test_an_error_of_ours_loses_the_model_and_goes_on(job, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Demo, "process", lambda *a: [][0])
        assert do(job()) == "IndexError: the terminal of this page tells more"
    assert web_jobs._kept == {} and do(job()) == ""


def test_stopped_in_the_middle_what_is_known_is_kept(job, monkeypatch):
    one, heard = job(), []

    def hear(self, seconds: float) -> None:
        heard.append(seconds)
        if seconds == 2.5:
            (one.folder / STOP).touch()
        if self._listener is not None:
            self._listener(self._info, seconds, "text")

    monkeypatch.setattr("alphaaction_d2.apps.progress.Progress.__call__", hear)
    assert do(one) == ""
    keyframes = json.loads((one.folder / "results.json").read_text())["keyframes"]
    assert 0 < len(keyframes) < 4
    assert "stopped; writing what is known" in (one.folder / "report.html").read_text()
    assert not (one.folder / STOP).exists()
    before = job()
    (before.folder / STOP).touch()
    assert do(before) == "Stopped before there was a result."


def test_nobody_waits_without_a_folder(job):
    one = job()
    one.folder.rmdir()
    assert do(one) != "" and not one.folder.exists()


def test_awkward_films_end_in_a_result_or_a_line(job, shared):
    folder = shared / "videos" / "awkward"
    opened = {"truncated_faststart.mp4", "naïve café (1) 100% #2.mp4", "-leading-dash-.mp4"}
    for name in (*opened, "git_lfs_pointer.mp4", "audio_only.mp4", "zero_length.mp4"):
        one = job(folder / name)
        line = do(one)
        assert (line == "") == (name in opened) and "\n" not in line, line
        assert (one.folder / "report.html").exists() == (name in opened)
        if name.startswith("truncated"):
            assert "of 4.47 s" in (one.folder / "report.html").read_text()


# ---- The page ----


@pytest.fixture
def page(film, tmp_path):
    pytest.importorskip("gradio")
    from alphaaction_d2.apps.web_page import Page

    class Recorded:
        jobs: list[Job] = []
        error = ""

        def run(self, job, tell):
            tell(0.5, "half")
            self.jobs.append(job)
            return self.error

        def close(self):
            pass

    page = Page(arguments("--videos", str(film.parent), "--max-mb", "1"), tmp_path / "results")
    page.worker = Recorded()
    page.worker.jobs = []
    page.folder.mkdir()
    return page


def request(session: str) -> SimpleNamespace:
    return SimpleNamespace(session_hash=session)


def ask(page, session: str, upload: str | None = None, picked: str | None = None) -> str:
    told = []
    if upload:
        page.hold(upload, request(session))
    page.begin(request(session))
    model, detector = "configs/x.yaml", "whole-frame"
    return page.find(
        upload, picked, model, detector, request(session), lambda *a, **k: told.append(a)
    )


def test_a_picked_film_and_an_upload(page, film, tmp_path):
    assert "Upload a film" in ask(page, "a") and page.worker.jobs == []
    assert "Upload a film" in ask(page, "a", picked="../../etc/passwd")
    html = ask(page, "a", picked="film.mp4")
    assert page.worker.jobs[-1].film == str(film)
    folder = page.worker.jobs[-1].folder
    assert f'src="results/{folder.name}/report.html"' in html and "film_results.csv" in html
    assert page.worker.jobs[-1].max_seconds == 30 * 60
    html = ask(page, "a", upload=f"/x/{EVIL}")
    assert "<img" not in html and "onerror=alert(1)>" not in html
    assert not folder.exists() and page.worker.jobs[-1].folder.is_dir()  # the older one is gone
    page.worker.error = f"{EVIL}: no film"
    html = ask(page, "a", upload=f"/x/{EVIL}")
    assert html.startswith('<p class="wrong">&lt;img') and "iframe" not in html


def test_who_leaves_takes_everything_along(page, tmp_path):
    uploads = [tmp_path / name / "film.mp4" for name in ("one", "both")]
    for path in uploads:
        path.parent.mkdir()
        path.touch()
        ask(page, "a", upload=str(path))
    ask(page, "b", upload=str(uploads[1]))
    of_a, of_b = (page._results[x] for x in "ab")
    page.leave(request("a"))
    assert not of_a.exists() and of_b.exists()
    assert not uploads[0].exists() and uploads[1].exists()
    page.stop(request("b"))
    assert (of_b / STOP).exists()
    page.leave(request("b"))
    page.leave(request("nobody"))
    assert list(page.folder.iterdir()) == [] and not uploads[1].exists()


def test_a_result_that_comes_after_its_page_was_closed_is_removed(page, monkeypatch):
    def run(job, tell):
        page.leave(request("a"))
        job.folder.mkdir()
        return ""

    page.worker.run = run
    ask(page, "a", picked="film.mp4")
    assert list(page.folder.iterdir()) == []


def test_choices():
    pytest.importorskip("gradio")
    from alphaaction_d2.apps.web_page import chosen, detectors, models

    args = arguments()
    name, first = models(args)[0], detectors(args)[0]
    assert name[0] == name[1] == args.config_file and first == "whole-frame"
    assert chosen(args, name[1], first) == args
    other = chosen(args, "AVA/published/umt_vit_B", "torchvision:fasterrcnn_resnet50_fpn_v2")
    assert (other.config_file, other.random, other.weights) == (
        "AVA/published/umt_vit_B",
        False,
        "",
    )
    assert other.boxes is None and len(other.person_detector) == 1 and other.opts == args.opts
    default = web.parse_args([])
    assert detectors(default)[0] == "auto" and detectors(default)[-1] == "whole-frame"
    called, value = models(default)[0]
    assert value == default.config_file and "24.67 mAP" in called
    values = [x for _, x in models(default)]
    assert len(set(values)) == len(values) and not any("released" in x for x in values)
    assert chosen(default, value, "whole-frame").boxes == ["whole-frame"]


def test_what_the_server_answers(page, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    from alphaaction_d2.apps.web_page import application

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    page.folder.rmdir()
    blocks = page.build()
    monkeypatch.setattr(page, "build", lambda: blocks)
    with TestClient(application(page), base_url="http://127.0.0.1") as client:
        start = client.get("/")
        assert start.status_code == 200 and "frame-ancestors 'self'" in start.headers[POLICY]
        assert client.get("/", headers={"host": "evil.example"}).status_code == 400
        # results: sandboxed, listed nowhere
        (page.folder / "x").mkdir()
        (page.folder / "x" / "report.html").write_text("<p>")
        answer = client.get("/results/x/report.html")
        assert answer.text == "<p>" and "sandbox allow-scripts" in answer.headers[POLICY]
        for path in ("/results/", "/results/x/", "/results/%2e%2e/film.mp4", "/results/x/../../y"):
            assert client.get(path).status_code == 404, path
        # no file but what was uploaded
        for path in ("/etc/passwd", str(ROOT / "setup.py"), "C:/x"):
            assert client.get(f"/gradio_api/file={path}").status_code in (403, 404), path
        big = {"files": ("big.mp4", b"0" * 1_100_000)}
        assert client.post("/gradio_api/upload", files=big).status_code == 413
        for name in (EVIL, "../../../x.mp4", "a" * 300 + ".mp4", "two\nlines.mp4", "x\0.mp4"):
            sent = client.post("/gradio_api/upload", files={"files": (name, b"1")})
            assert sent.status_code == 200, (name, sent.text)
            (path,) = map(Path, sent.json())
            assert path.resolve().is_relative_to(tmp_path / "uploads") and path.is_file()
        sent = client.post("/gradio_api/upload", files={"files": ("..", b"1")})
        assert sent.status_code == 400
        # a choice that is none, and a file that was not uploaded
        find = next(i for i, x in blocks.fns.items() if x.fn == page.find)
        for data in (
            [None, "film.mp4", "configs/evil.py", "whole-frame"],
            [None, "film.mp4", page.args.config_file, "/tmp/evil.yaml"],
            [None, "/etc/passwd", page.args.config_file, "whole-frame"],
            [
                {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
                *(None, page.args.config_file, "whole-frame"),
            ],
        ):
            body = {"data": data, "fn_index": find, "session_hash": "s"}
            assert client.post("/gradio_api/run/predict", json=body).status_code >= 400, data
        assert page.worker.jobs == []


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "alphaaction_d2.apps.web_page", None)
    monkeypatch.setattr(signal, "signal", lambda *a: None)
    with pytest.raises(ValueError, match=r"pip install 'alphaaction_d2\[web\]'"):
        web.main(arguments())


def test_a_port_that_is_taken(page, monkeypatch):
    import socket

    from alphaaction_d2.apps.web_page import serve

    with socket.create_server(("127.0.0.1", 0)) as taken:
        page.args.port = taken.getsockname()[1]
        with pytest.raises(OSError, match=r"in use.*127.0.0.1"):
            serve(page.args, page.folder)


# ---- For real ----


@pytest.mark.slow
def test_a_process_that_crashes_takes_one_film_with_it(job):
    worker, one = Worker(), job()
    try:

        def crash(share: float, line: str) -> None:
            os.kill(next(iter(worker._pool._processes)), signal.SIGKILL)

        assert worker.run(one, crash) == "film: the process crashed that looked at this film"
        lines = []
        assert worker.run(one, lambda share, line: lines.append((share, line))) == ""
        assert (one.folder / "annotated.mp4").is_file()
        assert lines[0] == (0.0, "Starting") and {x for _, x in lines} > {"Starting"}
    finally:
        worker.close()


@pytest.fixture
def server(film, tmp_path):
    """The command in a process of its own; its address, and the folder of its temporary files."""
    pytest.importorskip("gradio")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "alphaaction_d2", "web", *MODEL, "--boxes", "whole-frame"]
    command += ["--videos", str(film.parent), "--port", "0", *SMALL]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            line = next(x for x in process.stdout if "Open" in x)
            yield line.split()[2], temporary
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
    assert process.wait() == 130
    assert list(temporary.glob("alphaaction_web_*")) == []


BUTTON = "[...document.querySelectorAll('button')].find(x => x.innerText.startsWith('%s'))"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_in_a_browser(server, tmp_path, film):
    """Upload, wait, play, click into the timeline, download; a bad film; stop; close."""
    address, temporary = server
    (folder,) = temporary.glob("alphaaction_web_*")
    evil = tmp_path / EVIL
    shutil.copy(film, evil)
    downloads = tmp_path / "downloads"
    with chromium(tmp_path / "profile") as browser:
        browser.open(address)
        browser.wait("document.querySelector('input[type=file]') !== null")
        browser.choose_file("input[type=file]", evil)
        browser.wait("document.querySelector('.file-preview') !== null")
        browser.run(f"{BUTTON % 'Find out'}.click()")
        browser.wait(f"{BUTTON % 'Stop'} !== undefined")
        browser.wait("document.querySelector('iframe') !== null", seconds=180)
        browser.screenshot(tmp_path / "wide.png")
        # play
        frame = "report.html"
        browser.wait("document.querySelector('video').readyState >= 2", frame)
        browser.run("document.querySelector('video').play()", frame)
        browser.wait("document.querySelector('video').currentTime > 0.3", frame)
        browser.run("document.querySelector('video').pause()", frame)
        # a click at three quarters of a bar of the timeline
        browser.run("document.querySelector('iframe').scrollIntoView({block: 'start'})")
        browser.run("document.querySelector('.strip').scrollIntoView({block: 'center'})", frame)
        time.sleep(0.5)
        outer = browser.run(
            "[...Object.values(document.querySelector('iframe').getBoundingClientRect().toJSON())]"
        )
        inner = browser.run(
            "[...Object.values(document.querySelector('.strip').getBoundingClientRect().toJSON())]",
            frame,
        )
        x, y = outer[0] + inner[0] + 0.75 * inner[2], outer[1] + inner[1] + inner[3] / 2
        browser.click_at(x, y)
        browser.wait("Math.abs(document.querySelector('video').currentTime - 2.5) < 0.1", frame)
        # the report cannot reach the page that it is in
        with pytest.raises(RuntimeError, match="SecurityError|cross-origin"):
            browser.run("parent.document.body.innerText", frame)
        browser.downloads_to(downloads)
        for name in ("csv", "json", "zip"):
            browser.run(f"document.querySelector('nav a[href$={name}]').click()")
        deadline = time.monotonic() + 30
        while len([x for x in downloads.glob("*") if x.suffix in (".csv", ".json", ".zip")]) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (table,) = downloads.glob("*.csv")
        assert table.read_bytes() == next(folder.glob("results/*/results.csv")).read_bytes()
        # narrow: nothing is wider than the screen
        browser.resize(390, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 390
        assert browser.run("document.documentElement.scrollWidth", frame) <= 390
        browser.screenshot(tmp_path / "narrow.png")
        # a film that is none, then the one of the server, which the model is there for
        bad = tmp_path / "bad.mp4"
        bad.write_text("version https://git-lfs.github.com/spec/v1")
        browser.resize(1280, 900)
        browser.run("document.querySelector('button[aria-label=Clear]').click()")
        browser.wait("document.querySelector('input[type=file]') !== null")
        browser.choose_file("input[type=file]", bad)
        browser.wait("document.querySelector('.file-preview') !== null")
        browser.run(f"{BUTTON % 'Find out'}.click()")
        browser.wait("document.querySelector('.wrong')?.innerText.includes('git lfs pull')")
        assert browser.run("document.querySelector('iframe')") is None
        assert [x for x in browser.requests if not x.startswith((address, "data:", "blob:"))] == []
        assert [x for x in browser.messages if "dialog" in x or "ontent" in x] == []
        browser.open("about:blank")  # what closing the page is for the server
        deadline = time.monotonic() + 30
        while list((folder / "results").iterdir()) or list((folder / "uploads").rglob("*.mp4")):
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("10.0.0.1", False), ("box", False)],
)
def test_hosts_by_name_and_by_number(host, is_local):
    pytest.importorskip("gradio")
    from alphaaction_d2.apps.web_page import _is_local

    assert _is_local(host) == is_local
