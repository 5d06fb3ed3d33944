"""Checkpoints from addresses: fetched once into the user's cache, and verified at every use."""

import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from platformdirs import user_cache_path

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.paths import reading_errors
from blurkit.io.writing import locked, replacing, writing_errors
from blurkit.reports.progress import Progress, say
from blurkit.version import __version__

TIMEOUT = 30.0
"""After so many seconds without a byte, an answer counts as cut."""

SLOWEST = 1000
"""The fewest bytes a second of an answer, in any `TIMEOUT`."""

ATTEMPTS = 3
"""How often a file is requested whose answer is cut."""

LARGEST = 16 << 30
"""The largest file that is fetched, in bytes: an endless answer ends there."""

PIECE = 1 << 20

BEGINNINGS = {
    rb"\s*<(!doctype html|html|head|script)\b": "a web page, not a file",
    rb"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
"""What the first bytes of wrong answers look like."""

HUB = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([^/?#]+))?/([^?#]+)", re.IGNORECASE)
"""A file on the Hugging Face Hub: owner and name, a revision with its "/" as %2F, and the path."""


class _Cut(Exception):
    """An answer that ended early, which another attempt may complete."""


def cache_folder() -> Path:
    """Return the folder of fetched files: BLURKIT_CACHE, or the platform's place for caches."""
    return Path(os.environ.get("BLURKIT_CACHE") or user_cache_path("blurkit"))


def fetched(address: str, digests: Collection[str] = (), quiet: bool = False) -> Path:
    """Return the cached file of an address, fetching it if it is not in the cache.

    The address is one of http or https, or hf://OWNER/NAME[@REVISION]/FILE: a file on the Hugging
    Face Hub, or on the server in HF_ENDPOINT; either gets the token in HF_TOKEN, if there is one.
    The SHA-256 of the file must be one of `digests`, in hexadecimal digits. Without them, the first
    one is recorded beside the file, as `sha256sum` writes it, and every later use is compared with
    it. Processes that fetch the same address wait for each other. Raises BlurkitError if the file
    cannot be fetched whole, is a web page, or does not have the expected SHA-256, and UsageError
    for an invalid digest, endpoint or token.
    """
    wanted = {digest.lower() for digest in digests}
    for digest in digests:
        if not re.fullmatch("[0-9a-f]{64}", digest.lower()):
            raise UsageError(f"--sha256 {digest}: give the 64 hexadecimal digits of a SHA-256")
    address = _checked_address(address)
    folder = cache_folder() / hashlib.sha256(address.encode()).hexdigest()[:16]
    file = folder / _name(address)
    if not _is_cached(file):
        with writing_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, wait=True):
                if not _is_cached(file):
                    _fetch(address, file, wanted, quiet)
    _verify(address, file, wanted)
    return file


def _name(address: str) -> str:
    """Return a file name for what an address names, with its suffix."""
    last = unquote(urlsplit(address).path.rpartition("/")[2])
    return re.sub(r"[^\w.+-]|^\.+", "_", last)[-100:] or "network"


def _checked_address(address: str) -> str:
    """Return an address in the form in which it is cached: in ASCII, without its fragment."""
    parts = HUB.fullmatch(address)
    if address.lower().startswith("hf:") and not parts:
        raise BlurkitError(f"{address}: write hf://OWNER/NAME/FILE, or OWNER/NAME@REVISION/FILE")
    if parts:
        revision = quote(unquote(parts[2] or "main"), safe="")
        return f"hf://{parts[1]}@{revision}/{quote(unquote(parts[3]))}"
    try:
        return quote(urlsplit(address)._replace(fragment="").geturl(), safe="!#$%&'()*+,/:;=?@[]~")
    except ValueError as error:
        raise BlurkitError(f"{address}: is not a valid address ({one_line(error)})") from error


# ---- the cache -----------------------------------------------------------------------------------


def _record(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _recorded(file: Path) -> str:
    """Return the SHA-256 that was recorded when a file was first fetched, "" if there is none."""
    with suppress(OSError):
        return _record(file).read_text(encoding="utf-8", errors="replace").partition(" ")[0]
    return ""


def _is_cached(file: Path) -> bool:
    return file.is_file() and bool(_recorded(file))


def _verify(address: str, file: Path, wanted: Collection[str]) -> None:
    """Raise BlurkitError if a cached file has changed, or is not one that is wanted."""
    with reading_errors(file), file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != _recorded(file):
        raise BlurkitError(f"{file}: has changed since it was fetched; remove it to fetch it again")
    if wanted and found not in wanted:
        raise BlurkitError(
            f"{address}: its file in the cache has the SHA-256 {found}, not the one of --sha256; "
            f"remove {file.parent} to fetch it again"
        )


def _fetch(address: str, file: Path, wanted: Collection[str], quiet: bool) -> None:
    """Fetch a file and record its SHA-256. Raises BlurkitError for an empty or a wrong one."""
    with replacing(file) as partial:
        digest = _received(address, partial, quiet)
        with partial.open("rb") as answer:
            head = answer.read(1000)
        if not head:
            raise BlurkitError(f"{address}: the server answers with an empty file (0 bytes)")
        for beginning, what in BEGINNINGS.items():
            if re.match(beginning, head, re.IGNORECASE):
                _refuse(address, what)
        first = _recorded(file)
        if wanted and digest not in wanted:
            raise BlurkitError(f"{address}: has the SHA-256 {digest}, not the one of --sha256")
        if first and not wanted and digest != first:
            raise BlurkitError(
                f"{address}: has changed: its SHA-256 is {digest}, and was {first} when it was "
                f"first fetched; if that is meant, remove {file.parent}"
            )
        with replacing(_record(file)) as record:  # first, so that no file is without one
            record.write_text(f"{digest}  {file.name}\n", encoding="utf-8")
        size = partial.stat().st_size
    say(f"fetched {address} ({size / 1e6:.1f} MB, SHA-256 {digest}) to {file}", quiet)


# ---- the network ---------------------------------------------------------------------------------


def _received(address: str, partial: Path, quiet: bool) -> str:
    """Write the file at an address to `partial` and return its SHA-256, in up to three attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _answer(address) as response:
                return _written(address, response, partial, quiet)
        except _Cut as error:
            reason = str(error)
            if attempt < ATTEMPTS:
                say(f"{address}: {reason}; trying again", quiet)
    raise BlurkitError(f"{address}: {reason}, {ATTEMPTS} times; try again later")


class _PacedFile(io.RawIOBase):
    """The bytes of an answer, from its first line on. Raises TimeoutError if they come slowly."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file, self._count, self._since = file, 0, time.monotonic()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what has come."""
        data = self._file.read1(len(buffer))
        buffer[: len(data)] = data
        self._count += len(data)
        if (seconds := time.monotonic() - self._since) > TIMEOUT:
            if data and self._count < SLOWEST * seconds:
                raise TimeoutError(f"it comes at {self._count / seconds:.0f} bytes a second")
            self._count, self._since = 0, time.monotonic()
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _PacedAnswer(HTTPResponse):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = io.BufferedReader(_PacedFile(self.fp))


class _Paced(HTTPSHandler, HTTPHandler):
    """Opens connections whose answers are paced: headers, bodies and all between them."""

    def do_open(self, http_class: Any, *request: Any, **options: Any) -> HTTPResponse:
        def connection(*arguments: Any, **named: Any) -> Any:
            opened = http_class(*arguments, **named)
            opened.response_class = _PacedAnswer
            return opened

        return super().do_open(connection, *request, **options)


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(self, req: Request, fp: Any, code: int, *more: Any) -> Request | None:
        """Return the request for the new address, with the token only for the same server."""
        if urlsplit(more[-1]).scheme not in ("http", "https"):
            raise BlurkitError(f"{req.full_url}: redirects to {more[-1]}; only http(s) is allowed")
        request = super().redirect_request(req, fp, code, *more)
        token = req.unredirected_hdrs.get("Authorization")
        if token and request and urlsplit(request.full_url)[:2] == urlsplit(req.full_url)[:2]:
            request.add_unredirected_header("Authorization", token)
        return request


def _request(address: str) -> Request:
    """Return the request for a checked address, with HF_TOKEN for a file on the Hub.

    Raises UsageError if HF_ENDPOINT or HF_TOKEN cannot be used; no message contains the token.
    """
    parts = HUB.fullmatch(address)
    if not parts:
        return Request(address, headers={"User-Agent": f"blurkit/{__version__}"})
    server = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or "https://huggingface.co"
    if not re.match("https?://[^/]", server):
        raise UsageError("HF_ENDPOINT: give an address such as https://huggingface.co")
    request = _request(f"{server}/{parts[1]}/resolve/{parts[2]}/{parts[3]}")
    if token := os.environ.get("HF_TOKEN", "").strip():
        if not re.fullmatch("[!-~]+", token):
            raise UsageError("HF_TOKEN: has characters that no token has")
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _answer(address: str) -> HTTPResponse:
    """Return the server's answer, whose body is a file. Raises BlurkitError or _Cut."""
    try:
        request = _request(address)
        response: HTTPResponse = build_opener(_Redirects, _Paced).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        later = error.code >= 500 or error.code == HTTPStatus.TOO_MANY_REQUESTS
        login = "HF_TOKEN" if HUB.fullmatch(address) else "a login"
        advice = "try again later" if later else f"check the address, and whether it needs {login}"
        reason = one_line(Exception(error.reason))
        raise BlurkitError(
            f"{address}: the server answers {error.code} ({reason}); {advice}"
        ) from error
    except URLError as error:
        reason = getattr(error.reason, "strerror", None) or one_line(Exception(error.reason))
        raise BlurkitError(f"{address}: cannot be reached ({reason})") from error
    except (InvalidURL, ValueError) as error:
        raise BlurkitError(f"{address}: is not a valid address ({one_line(error)})") from error
    except (HTTPException, OSError) as error:
        raise _Cut(f"the server does not answer properly ({one_line(error)})") from error
    if response.headers.get_content_type() == "text/html":
        response.close()
        _refuse(address, "a web page, not a file")
    return response


def _written(address: str, response: HTTPResponse, partial: Path, quiet: bool) -> str:
    """Write the body of an answer to a file and return its SHA-256. Raises BlurkitError or _Cut."""
    length, done, digest = response.length, 0, hashlib.sha256()
    most = min(LARGEST, shutil.disk_usage(partial.parent).free)
    total = None if length is None else -(-length // PIECE)
    progress = Progress(f"fetch {_name(address)}", total, "MiB", quiet=quiet)
    with closing(progress), partial.open("wb") as file:
        for piece in _pieces(response):
            if max(done + len(piece), length or 0) > most:
                raise BlurkitError(
                    f"{address}: is too large: more than the {most / 1e9:.1f} GB that are free or "
                    "allowed"
                )
            file.write(piece)
            digest.update(piece)
            progress.advance((done + len(piece)) // PIECE - done // PIECE)
            done += len(piece)
    return digest.hexdigest()


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the body of an answer. Raises _Cut if it ends early."""
    try:
        while piece := response.read1(PIECE):
            yield piece
    except (HTTPException, OSError) as error:
        raise _Cut(f"the answer was cut ({one_line(error)})") from error
    if response.length:
        raise _Cut(f"the answer was cut ({response.length:,} bytes are missing)")


def _refuse(address: str, what: str) -> NoReturn:
    """Raise BlurkitError for an answer that is another thing, with the address to use instead."""
    parts = urlsplit(address)
    if parts.netloc.endswith("drive.google.com"):
        advice = "download it in a browser, which Google Drive asks to confirm, and name the file"
    elif re.search("/(blob|raw)/", parts.path):
        advice = "use the address of its download: /raw/ on GitHub, /resolve/ on Hugging Face"
    else:
        advice = "give the address of the file itself"
    raise BlurkitError(f"{address}: is {what}; {advice}")
