"""A web server on 127.0.0.1 for tests: files, and everything that goes wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """What a server has, and how it behaves; `requests` are the ranges that were asked for.

    Attributes:
        contents: bytes by path, such as "/a/b.pth".
        cut: bytes after which a connection ends, once an entry, in this order.
        status: answers instead of files, once each.
        ranges: whether parts of files can be had.
        etag: whether versions are told.
        whole: every answer is the whole file, although parts are offered.
    """

    contents: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    ranges: bool = True
    etag: bool = True
    whole: bool = False
    content_type: str = "application/octet-stream"
    requests: list[str] = field(default_factory=list)
    address: str = ""


@contextlib.contextmanager
def serve() -> Iterator[Files]:
    files = Files()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Range", "")
            files.requests.append(given)
            if files.status:
                return self.send_error(files.status.pop(0))
            content = files.contents.get(self.path)
            if content is None:
                return self.send_error(404)
            etag = f'"{hashlib.md5(content).hexdigest()}"'
            start = 0
            if given and files.ranges and not files.whole and self.headers.get("If-Range") == etag:
                start = int(given.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                end = len(content) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{end + 1}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", files.content_type)
            self.send_header("Content-Length", str(len(content) - start))
            if files.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if files.etag:
                self.send_header("ETag", etag)
            self.end_headers()
            # (a probe that only looks at the headers cuts nothing)
            most = files.cut.pop(0) if files.cut else len(content)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(content[start : start + most])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    files.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
