"""Files from addresses: downloaded once, whole, and the same ever after.

They lie where detectron2 keeps what it downloads (iopath's cache: $FVCORE_CACHE, else
~/.torch/iopath_cache), so that either finds the other's. Beside each lies `<file>.sha256`, its sum
when it was first seen.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import http.client
import logging
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from iopath.common.file_io import file_lock, get_cache_dir
from tqdm import tqdm

from ..formats.writing import write_atomically

logger = logging.getLogger(__name__)

# Where a mirror of all addresses is: that of https://host/path is $ALPHAACTION_MIRROR/host/path.
MIRROR = "ALPHAACTION_MIRROR"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # connections in a row that come no further
BACKOFF = 0.5  # seconds, doubled with each of them
_BUSY = (429, 500, 502, 503, 504)  # what a server says that is in trouble for a while
_CHUNK = 1 << 20
_DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"
# Owners that publish a sum make its beginning a part of the name: torch.hub's that of SHA-256,
# detectron2's model zoo that of MD5.
_SUMS = (
    ("sha256", re.compile(r"-([0-9a-f]{8,64})\.\w+$")),
    ("md5", re.compile(r"/model_final_([0-9a-f]{6})\.pkl$")),
)


class DownloadError(OSError):
    """What stands in the way of a file, and what to do: one line."""


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(get_cache_dir())


def is_address(text: str) -> bool:
    """Whether a text is an address and not a path."""
    return "://" in text


def local_file(address: str) -> str:
    """Give the path of the file at an address (http://, https://, or detectron2:// as in
    detectron2), downloaded if it is not there yet; DownloadError if it cannot be had, or is not
    what it was.

    Processes that ask for one file wait for the first of them.
    """
    address = re.sub("^detectron2://", _DETECTRON2, address)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or not Path(parts.path).name:
        raise DownloadError(
            f"{address}: expected the address of a file, http:// or https://: fetch what is meant "
            "and name its path"
        )
    path = place_of(address)
    try:
        with file_lock(str(path)):
            if path.is_file():
                _check(address, path, path)
            else:
                _download(address, path)
    except DownloadError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _no_space(path, "more", "nothing") from None
        reason = error.strerror or error
        raise DownloadError(f"{path}: cannot be kept there ({reason}); {_ELSEWHERE}") from None
    return str(path)


_ELSEWHERE = "set FVCORE_CACHE to a folder of yours with room"


def place_of(address: str) -> Path:
    """Where the file of an address is kept: where iopath keeps it, too.

    That leaves the host out: a second file of one path on another host lies in that one's folder.
    """
    parts = urlsplit(address)
    names = [name for name in parts.path.split("/") if name not in ("", ".", "..")]
    if parts.query:
        names[-1] += "?" + parts.query.replace("/", "_")
    path = cache_folder().joinpath(*names)
    pinned = _pinned(path)
    if pinned is not None and pinned[1] != address:
        return cache_folder().joinpath(parts.netloc.replace(":", "_"), *names)
    return path


def _pin_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _pinned(path: Path) -> tuple[str, str] | None:
    """The sum that a file had when it was first seen, and its address."""
    try:
        found = _pin_of(path).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return (found[0], found[1]) if len(found) == 2 else None


def _check(address: str, file: Path, path: Path) -> None:
    """Compare a file, in its place `path` or just come, with the published sum, and with the one
    that it had at first sight; DownloadError if it is another file."""
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with open(file, "rb") as opened:
        while chunk := opened.read(_CHUNK):
            for each in sums.values():
                each.update(chunk)
    new = file != path
    what = f"{address}: what comes from there" if new else f"{path}"
    for kind, pattern in _SUMS:
        published = pattern.search(urlsplit(address).path)
        got = sums[kind].hexdigest()
        if published is not None and not got.startswith(published[1]):
            then = "try again, or fetch it elsewhere" if new else "remove it, and it comes anew"
            raise DownloadError(
                f"{what} is not the published file ({kind} {got[:12]}..., published "
                f"{published[1]}...): {then}"
            )
    digest = sums["sha256"].hexdigest()
    pinned = _pinned(path)
    if pinned is None:
        write_atomically(_pin_of(path), f"{digest}  {address}\n")
    elif pinned[0] != digest:
        then = "" if new else "remove it, and it comes anew; "
        raise DownloadError(
            f"{what} is not the file that was first seen (sha256 {digest[:12]}..., then "
            f"{pinned[0][:12]}...): {then}if it was replaced on purpose, remove {_pin_of(path)}"
        )


class _Cut(Exception):
    """The connection ended before the file did."""


def _download(address: str, path: Path) -> None:
    """Download a file to its place; what has come of it before goes on from there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    furthest, idle = 0, 0
    while True:
        before = furthest
        try:
            for come in _fetch(address, path):
                furthest = max(furthest, come)
            return
        except (_Cut, OSError, http.client.HTTPException) as error:
            if isinstance(error, DownloadError) or getattr(error, "errno", None) == errno.ENOSPC:
                raise
            again = isinstance(error, urllib.error.HTTPError) and error.code in _BUSY
            idle = 1 if furthest > before else idle + 1
            if idle >= ATTEMPTS or not (furthest or again):
                raise _unreachable(address, path, error, furthest) from None
            time.sleep(min(BACKOFF * 2**idle, 30))


def _unreachable(address: str, path: Path, error: Exception, came: int) -> DownloadError:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server says {error.code} {error.reason}"
    elif isinstance(error, urllib.error.URLError):
        reason = f"cannot be reached ({error.reason})"
    else:
        reason = f"the connection was cut ({error or type(error).__name__})"
    advice = "try again later, it goes on from there" if came else "check address and network"
    return DownloadError(
        f"{address}: {reason}: {advice}, or fetch it elsewhere and name its path, or put it at "
        f"{path}"
    )


def _fetch(address: str, path: Path) -> Iterator[int]:
    """Bring a file to its place, and yield how many bytes of it are there, chunk by chunk.

    What has come lies in `<file>.<version>.part`, where the version is the server's own word for
    the contents: parts of two versions never meet.
    """
    response = _open(address, {})
    with response:
        headers = response.headers
        version = headers.get("ETag") or headers.get("Last-Modified") or ""
        total = int(headers.get("Content-Length") or 0)
        key = hashlib.sha256(f"{version} {total}".encode()).hexdigest()[:8]
        part = path.with_name(f"{path.name}.{key}.part")
        for other in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            if other != part:
                other.unlink()
        start = part.stat().st_size if part.is_file() else 0
        resumable = version and not version.startswith("W/") and total
        if not resumable or start > total or headers.get("Accept-Ranges") != "bytes":
            start = 0
        if 0 < start < total:
            response.close()
            response = _open(address, {"Range": f"bytes={start}-", "If-Range": version})
            if response.status != 206:  # all of it, after all
                start = 0
        free = shutil.disk_usage(path.parent).free
        if total - start > free:
            raise _no_space(path, _megabytes(total - start), _megabytes(free))
        logger.info("Downloading %s (%s) to %s", address, _megabytes(total), path)
        with response, open(part, "ab" if start else "wb") as file:
            if start < total or not total:
                yield from _copy(response, file, address, path, start, total)
    _check(address, part, path)
    os.replace(part, path)


def _open(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    parts = urlsplit(address)
    if mirror := os.environ.get(MIRROR):
        address = f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}"
    request = urllib.request.Request(address, headers={"User-Agent": "alphaaction_d2", **headers})
    return urllib.request.urlopen(request, timeout=TIMEOUT)


def _copy(
    response: http.client.HTTPResponse,
    file: IO[bytes],
    address: str,
    path: Path,
    start: int,
    total: int,
) -> Iterator[int]:
    """Write what a server sends; raise _Cut where it stops before the end."""
    bar = tqdm(
        desc=path.name,
        initial=start,
        total=total or None,
        unit="B",
        unit_scale=True,
        mininterval=0.2 if sys.stderr.isatty() else 10,  # a line each time, in a file
    )
    is_page = response.headers.get_content_type() == "text/html"
    done = start
    with bar:
        while chunk := response.read(_CHUNK):
            if not done and (is_page or re.match(rb"\s*<(!doctype|html)", chunk, re.I)):
                raise DownloadError(
                    f"{address}: a web page (HTML) comes instead of the file, from a login or a "
                    f"proxy perhaps: open it in a browser, and put the file at {path}"
                )
            file.write(chunk)
            done += len(chunk)
            bar.update(len(chunk))
            yield done
    if done < total:
        raise _Cut(f"at {_megabytes(done)} of {_megabytes(total)}")


def _no_space(path: Path, needed: str, free: str) -> DownloadError:
    return DownloadError(f"{path}: no space: it needs {needed}, {free} is free; {_ELSEWHERE}")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
