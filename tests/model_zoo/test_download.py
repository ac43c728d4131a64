"""Downloads from a server on 127.0.0.1: whole, once, and one line for whatever goes wrong."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from alphaaction_d2.model_zoo import download
from alphaaction_d2.model_zoo.download import DownloadError, local_file, place_of
from tests.model_zoo.server import serve

CONTENT = np.random.default_rng(0).bytes(3_000_000)
OTHER = np.random.default_rng(1).bytes(3_000_000)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ALPHAACTION_MIRROR", raising=False)
    monkeypatch.setattr(download, "BACKOFF", 0.001)
    return tmp_path / "cache"


@pytest.fixture
def server():
    with serve() as files:
        files.contents["/zoo/net.pth"] = CONTENT
        yield files


def refusal(address: str) -> str:
    with pytest.raises(DownloadError) as caught:
        local_file(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(cache: Path) -> set[str]:
    return {p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock"}


def test_a_file_comes_once_and_lies_where_detectron2_looks(server, cache):
    path = local_file(f"{server.address}/zoo/net.pth")
    assert Path(path) == cache / "zoo" / "net.pth" and Path(path).read_bytes() == CONTENT
    assert left(cache) == {"net.pth", "net.pth.sha256"}
    assert local_file(f"{server.address}/zoo/net.pth") == path
    assert server.requests == [""]
    from detectron2.utils.file_io import PathManager

    assert PathManager.get_local_path(f"{server.address}/zoo/net.pth") == path
    assert server.requests == [""]


def test_progress_is_shown(server, capsys, caplog):
    with caplog.at_level("INFO"):
        local_file(f"{server.address}/zoo/net.pth")
    assert "(3.0 MB)" in caplog.text
    assert "net.pth: 100%" in capsys.readouterr().err


def test_a_file_that_is_there_needs_no_server(cache):
    (cache / "zoo").mkdir(parents=True)
    (cache / "zoo" / "net.pth").write_bytes(CONTENT)
    assert local_file("http://127.0.0.1:1/zoo/net.pth") == str(cache / "zoo" / "net.pth")
    pin = (cache / "zoo" / "net.pth.sha256").read_text()
    assert pin == f"{hashlib.sha256(CONTENT).hexdigest()}  http://127.0.0.1:1/zoo/net.pth\n"


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("etag", [True, False])
def test_a_cut_is_mended(server, ranges, etag):
    server.ranges, server.etag = ranges, etag
    server.cut = [2_000_000]
    path = local_file(f"{server.address}/zoo/net.pth")
    assert Path(path).read_bytes() == CONTENT
    resumed = [given for given in server.requests if given]
    assert resumed == (["bytes=2000000-"] if ranges and etag else [])


def test_what_came_before_a_stop_is_not_fetched_again(server, cache):
    server.cut = [1_500_000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    line = refusal(f"{server.address}/zoo/net.pth")
    assert "the connection was cut (at 1.5 MB of 3.0 MB)" in line and "goes on from there" in line
    (part,) = left(cache)
    assert part.startswith("net.pth.") and part.endswith(".part")
    server.cut, server.requests = [], []
    assert Path(local_file(f"{server.address}/zoo/net.pth")).read_bytes() == CONTENT
    assert server.requests == ["", "bytes=1500000-"]
    assert left(cache) == {"net.pth", "net.pth.sha256"}


def test_a_part_that_was_asked_for_may_come_as_the_whole(server):
    server.cut, server.whole = [2_000_000], True
    assert Path(local_file(f"{server.address}/zoo/net.pth")).read_bytes() == CONTENT
    assert "bytes=2000000-" in server.requests


def test_a_server_that_always_ends_at_one_place_is_given_up(server):
    server.ranges = False
    server.cut = [1_500_000] * 100
    assert "the connection was cut (at 1.5 MB" in refusal(f"{server.address}/zoo/net.pth")
    assert len(server.requests) == 5


def test_parts_of_two_versions_never_meet(server, cache):
    server.cut = [1_500_000] + [0] * 12
    refusal(f"{server.address}/zoo/net.pth")
    server.cut, server.requests = [], []
    server.contents["/zoo/net.pth"] = OTHER
    assert Path(local_file(f"{server.address}/zoo/net.pth")).read_bytes() == OTHER
    assert server.requests == [""] and left(cache) == {"net.pth", "net.pth.sha256"}


def test_a_busy_server_is_asked_again(server):
    server.status = [503, 500]
    assert Path(local_file(f"{server.address}/zoo/net.pth")).read_bytes() == CONTENT
    server.contents["/zoo/b.pth"] = CONTENT
    server.status = [503] * 20
    assert "the server says 503" in refusal(f"{server.address}/zoo/b.pth")
    assert len(server.status) == 15


def test_nothing_there(server, cache):
    line = refusal(f"{server.address}/zoo/nothing.pth")
    assert "nothing.pth: the server says 404" in line and "check address" in line
    assert f"put it at {cache / 'zoo' / 'nothing.pth'}" in line
    assert server.requests == [""] and left(cache) == set()


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/a.pth", "http://no-such-host.invalid/a"])
def test_no_network(address):
    assert "cannot be reached (" in refusal(address)


@pytest.mark.parametrize(
    "address", ["s3://bucket/a.pth", "rtsp://a/b", "http:///a.pth", "https://host/", "https://host"]
)
def test_no_address_of_a_file(address):
    assert "expected the address of a file" in refusal(address)


@pytest.mark.parametrize("content_type", ["text/html", "application/octet-stream"])
def test_a_web_page(server, cache, content_type):
    server.content_type = content_type
    server.contents["/zoo/net.pth"] = b"\n<!DOCTYPE html><html>log in</html>"
    assert "a web page (HTML) comes instead of the file" in refusal(f"{server.address}/zoo/net.pth")
    assert "net.pth" not in left(cache)


def test_no_space(server, cache, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    line = refusal(f"{server.address}/zoo/net.pth")
    assert "no space: it needs 3.0 MB, 1.0 MB is free" in line and "FVCORE_CACHE" in line


def test_no_space_while_writing(server, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield

    monkeypatch.setattr(download, "_copy", full)
    assert "no space" in refusal(f"{server.address}/zoo/net.pth")


def test_a_cache_that_cannot_be_written(server, monkeypatch, cache):
    cache.mkdir()
    (cache / "zoo").write_text("a file where a folder should be")
    assert "cannot be kept there" in refusal(f"{server.address}/zoo/net.pth")


def test_a_changed_file(server, cache):
    address = f"{server.address}/zoo/net.pth"
    path = Path(local_file(address))
    path.write_bytes(OTHER)
    line = refusal(address)
    assert f"{path} is not the file that was first seen" in line and "remove it" in line
    path.unlink()
    assert Path(local_file(address)).read_bytes() == CONTENT
    path.unlink()
    server.contents["/zoo/net.pth"] = OTHER  # its owner has replaced it
    line = refusal(address)
    assert "what comes from there is not the file that was first seen" in line
    assert str(path) + ".sha256" in line and not path.exists()
    Path(f"{path}.sha256").unlink()
    assert Path(local_file(address)).read_bytes() == OTHER


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_published_sum(server, cache, kind):
    digest = hashlib.new(kind, CONTENT).hexdigest()
    name = f"net-{digest[:8]}.pth" if kind == "sha256" else f"model_final_{digest[:6]}.pkl"
    server.contents[f"/{name}"] = CONTENT
    local_file(f"{server.address}/{name}")
    wrong = name.replace(digest[:6], "000000")
    server.contents[f"/{wrong}"] = CONTENT
    line = refusal(f"{server.address}/{wrong}")
    assert f"what comes from there is not the published file ({kind} " in line
    assert wrong not in left(cache)
    (cache / wrong).write_bytes(CONTENT)
    assert "remove it, and it comes anew" in refusal(f"{server.address}/{wrong}")


def test_one_path_on_two_hosts(server, cache):
    with serve() as other:
        other.contents["/zoo/net.pth"] = OTHER
        first, second = (f"{x.address}/zoo/net.pth" for x in (server, other))
        assert Path(local_file(first)).read_bytes() == CONTENT
        assert Path(local_file(second)).read_bytes() == OTHER
        assert Path(local_file(first)).read_bytes() == CONTENT
        assert [len(x.requests) for x in (server, other)] == [1, 1]


def test_no_way_out_of_the_cache(cache):
    assert place_of("http://host/../../etc/a.pth") == cache / "etc" / "a.pth"
    assert place_of("http://host/a.pth?b=/../c").parent == cache


def test_a_mirror(server, monkeypatch, cache):
    monkeypatch.setenv("ALPHAACTION_MIRROR", f"{server.address}/mirror/")
    server.contents["/mirror/dl.example.org/zoo/net.pth"] = CONTENT
    path = local_file("https://dl.example.org/zoo/net.pth")
    assert Path(path) == cache / "zoo" / "net.pth"
    assert "https://dl.example.org/zoo/net.pth" in Path(f"{path}.sha256").read_text()


def test_detectron2s_own_addresses(server, monkeypatch):
    monkeypatch.setenv("ALPHAACTION_MIRROR", server.address)
    server.contents["/dl.fbaipublicfiles.com/detectron2/a/R-50.pkl"] = CONTENT
    assert Path(local_file("detectron2://a/R-50.pkl")).read_bytes() == CONTENT


def test_many_processes_fetch_one_file_once(server):
    address = f"{server.address}/zoo/net.pth"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        paths = pool.map(local_file, [address] * 4)
    assert len(set(paths)) == 1 and Path(paths[0]).read_bytes() == CONTENT
    assert server.requests == [""]
