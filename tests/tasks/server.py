"""A server on the loopback address whose answers are right, cut, slow, wrong or huge."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW = 30
"""The seconds of a `pause` in which a slow answer sends nothing."""

REFUSALS = {"gone": 404, "ill": 503, "private": 403, "gated": 401}
"""By kind of address, the status of answers without a file."""

PAGES = {"page": "text/html; charset=utf-8", "hidden": "application/octet-stream"}
"""By kind of address, as what a web page is sent: as one, or as a file."""

PAGE = b"\n<!DOCTYPE html><html><title>net.pth at main</title></html>"

REDIRECTS = {"moved": "/files{path}", "circle": "/circle{path}"}
REDIRECTS |= {"elsewhere": "{address}", "away": "{mirror}/files{path}"}
"""By kind of address, where a redirect leads: to the file, to itself, to the address in the path
(/elsewhere/ftp:...), and to the file on another server."""


class Server(ThreadingHTTPServer):
    """Serves `files` by path; `requests` are the paths of all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.tokens: list[str | None] = []
        """What each request has as its authorization."""
        self.mirror = ""
        """The address of the server to which /away/... redirects."""
        self.cuts = 0
        """So many of the next answers are cut."""
        self.pause = 0.0
        """Seconds before the second half of a file."""

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that leave early."""

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of a path: /files/..., /chunked/..., /page/..., and so on."""

    server: Server

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.tokens.append(self.headers["Authorization"])
        if not self.path.startswith("/"):  # as proxies are asked
            self.path = "/" + self.path.split("/", 3)[3]
        kind = self.path.split("/")[1]
        path = self.path.partition("?")[0].removeprefix(f"/{kind}")
        if kind in REFUSALS:
            return self.send_error(REFUSALS[kind])
        if kind in REDIRECTS:
            there = {"path": path, "address": path[1:], "mirror": self.server.mirror}
            return self.begin(302, Location=REDIRECTS[kind].format(**there))
        if kind in PAGES:
            self.begin(Content_Type=PAGES[kind])
            self.wfile.write(PAGE)
            return None
        return getattr(self, f"answer_{kind}")(path)

    def begin(self, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send_forever(self, piece: bytes, pause: float = 0) -> None:
        """Until the client leaves."""
        with suppress(OSError):
            while True:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(pause)

    def answer_files(self, path: str) -> None:
        """The file whole, or half of it and the end of the connection."""
        data = self.server.files[path]
        half = len(data) // 2
        self.begin(Content_Type="application/octet-stream", Content_Length=len(data))
        self.wfile.write(data[:half])
        if self.server.cuts:
            self.server.cuts -= 1
            return
        time.sleep(self.server.pause)
        self.wfile.write(data[half:])

    def answer_chunked(self, path: str) -> None:
        """The file in two chunks, or one and no end."""
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        data = self.server.files[path]
        self.begin(Transfer_Encoding="chunked", Connection="close")
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            if self.server.cuts:
                self.server.cuts -= 1
                return
        self.wfile.write(b"0\r\n\r\n")

    def answer_trickle(self, path: str) -> None:
        """A byte, and another one, and so on: of the body, or of a header if the file is empty."""
        if self.server.files[path]:
            self.begin(Content_Length=10**6)
        else:
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        self.send_forever(b"x", 0.02)

    def answer_huge(self, path: str) -> None:
        """A file that claims a petabyte."""
        self.begin(Content_Length=10**15)
        self.wfile.write(b"x" * 1000)

    def answer_endless(self, path: str) -> None:
        """A file that states no size and does not end."""
        self.begin()
        self.send_forever(b"x" * (1 << 20))

    def answer_garbage(self, path: str) -> None:
        """No answer of HTTP."""
        self.wfile.write(b"\0\1\2\3\r\n\r\n")


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
