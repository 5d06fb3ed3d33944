"""Files from addresses, from a server on the loopback address that does all that servers do."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from blurkit.errors import BlurkitError, UsageError
from blurkit.tasks import fetch
from blurkit.tasks.fetch import fetched
from tests.cli.test_interrupts import wait_for
from tests.tasks.server import SLOW, Server, serving

DATA = np.random.default_rng(0).bytes(3_000_001)
DIGEST = hashlib.sha256(DATA).hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        server.files["/net.pth"] = DATA
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("BLURKIT_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    return folder


def kept(cache: Path) -> list[str]:
    """The names of all files in the cache, hidden and temporary ones too."""
    return sorted(path.name for path in cache.rglob("*") if not path.is_dir())


def refusal(address: str, *digests: str) -> str:
    """The line that says why an address is refused."""
    with pytest.raises(BlurkitError) as error:
        fetched(address, digests)
    line = str(error.value)
    assert "\n" not in line and f"{address.partition('?')[0]}: " in line
    return line


@pytest.mark.parametrize("kind", ["files", "chunked", "moved"])
def test_a_file_is_fetched_once_and_its_digest_is_recorded(
    kind: str, server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.address(f"/{kind}/net.pth?download=true")
    file = fetched(address)
    assert file.read_bytes() == DATA and file.name == "net.pth"
    assert kept(cache) == ["net.pth", "net.pth.sha256"]
    told = address.removesuffix("?download=true")
    assert f"fetched {told} (3.0 MB, SHA-256 {DIGEST}) to {file}" in capsys.readouterr().err
    assert subprocess.run(["sha256sum", "-c", "net.pth.sha256"], cwd=file.parent).returncode == 0
    requests = len(server.requests)
    server.shutdown()
    assert fetched(address) == fetched(address, [DIGEST.upper()]) == file
    assert len(server.requests) == requests and capsys.readouterr().err == ""


def test_addresses_of_one_name_are_different_files(server: Server) -> None:
    server.files["/other/net.pth"] = b"other"
    first, second = (fetched(server.address(f"/files{p}")) for p in ("/net.pth", "/other/net.pth"))
    assert first.read_bytes() == DATA and second.read_bytes() == b"other"
    server.files["/"] = b"nameless"
    assert fetched(server.address("/files/")).name == "network"
    server.files["/na%C3%AFve%20..pth"] = b"odd"
    assert fetched(server.address("/files/na\u00efve ..pth")).name == "na\u00efve_..pth"


def test_a_digest_is_compared(server: Server, cache: Path) -> None:
    address = server.address("/files/net.pth")
    line = refusal(address, OTHER)
    assert DIGEST in line and "--sha256" in line and kept(cache) == []
    file = fetched(address, [OTHER, DIGEST])
    line = refusal(address, OTHER)
    assert DIGEST in line and str(file.parent) in line
    for bad in ("1234", "g" * 64):
        with pytest.raises(UsageError, match="64 hexadecimal digits"):
            fetched(address, [bad])


def test_a_changed_file_is_refused(server: Server, cache: Path) -> None:
    address = server.address("/files/net.pth")
    file = fetched(address)
    file.write_bytes(DATA[:-1])
    with pytest.raises(BlurkitError, match=f"{file}: has changed since it was fetched; remove"):
        fetched(address)
    server.files["/net.pth"] = b"other"
    file.unlink()
    line = refusal(address)
    assert DIGEST in line and OTHER in line and not file.exists()
    assert fetched(address, [OTHER]).read_bytes() == b"other"  # a digest that is given decides
    assert fetched(address) == file


@pytest.mark.parametrize("kind", ["files", "chunked"])
def test_a_cut_answer_is_requested_again(
    kind: str, server: Server, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = server.address(f"/{kind}/net.pth")
    server.cuts = fetch.ATTEMPTS
    line = refusal(address)
    assert "cut" in line and "3 times" in line and kept(cache) == []
    assert len(server.requests) == fetch.ATTEMPTS
    server.cuts = fetch.ATTEMPTS - 1
    assert fetched(address).read_bytes() == DATA
    assert capsys.readouterr().err.count("trying again") == 2 * (fetch.ATTEMPTS - 1)


def test_a_slow_answer_ends(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    server.pause, started = SLOW, time.monotonic()
    assert "timed out" in refusal(server.address("/files/net.pth"))
    assert time.monotonic() - started < SLOW / 3 and kept(cache) == []


@pytest.mark.parametrize("path", ["/net.pth", "/empty"])
def test_an_answer_that_comes_byte_by_byte_ends(
    path: str, server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/empty"] = b""  # here the bytes are those of a header
    monkeypatch.setattr(fetch, "TIMEOUT", 0.2)
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    assert "bytes a second" in refusal(server.address(f"/trickle{path}"))
    assert kept(cache) == []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/gone/net.pth", ["404 (Not Found)", "check the address"]),
        ("/private/net.pth", ["403 (Forbidden)", "whether it needs a login"]),
        ("/ill/net.pth", ["503 (Service Unavailable)", "try again later"]),
        ("/page/net.pth", ["is a web page, not a file", "give the address of the file itself"]),
        ("/page/u/r/blob/main/net.pth", ["is a web page", "/raw/ on GitHub", "/resolve/"]),
        ("/hidden/net.pth", ["is a web page, not a file"]),
        ("/files/pointer", ["pointer of Git LFS"]),
        ("/files/empty", ["empty file (0 bytes)"]),
        ("/circle/net.pth", ["302", "loop"]),
        ("/elsewhere/ftp://127.0.0.1/net.pth", ["redirects to ftp:", "only http(s)"]),
        ("/elsewhere/file:///etc/passwd", ["302", "not allowed"]),
        ("/huge/net.pth", ["is too large"]),
        ("/endless/net.pth", ["is too large"]),
        ("/garbage/net.pth", ["does not answer properly"]),
    ],
)
def test_a_wrong_answer_is_one_line(
    path: str, words: list[str], server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "LARGEST", 20_000_000)
    server.files |= {"/empty": b"", "/pointer": b"version https://git-lfs.github.com/spec/v1\n"}
    line = refusal(server.address(path))
    for word in words:
        assert word in line
    assert kept(cache) == []


def test_a_proxy_is_used_and_google_drive_is_known(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.address(""))
    line = refusal("http://drive.google.com/page/uc?id=1")
    assert "is a web page" in line and "download it in a browser" in line
    assert fetched("http://example.org/files/net.pth").read_bytes() == DATA


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:1/net.pth", "cannot be reached (Connection refused)"),
        ("http://nowhere.invalid/net.pth", "cannot be reached"),
        ("http://127.0.0.1:port/net.pth", "is not a valid address"),
        ("http://[::1/net.pth", "is not a valid address"),
        ("http:///net.pth", "cannot be reached (no host given)"),
    ],
)
def test_an_address_without_a_server_is_one_line(address: str, words: str, cache: Path) -> None:
    assert words in refusal(address)
    assert kept(cache) == []


def test_a_full_disk_is_one_line(
    server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLURKIT_CACHE", str(small_disk))
    assert "is too large" in refusal(server.address("/files/net.pth"))
    with pytest.raises(BlurkitError, match=r"is too large|the disk is full"):
        fetched(server.address("/chunked/net.pth"))
    assert kept(small_disk) == []


def test_a_folder_without_permission_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BLURKIT_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(BlurkitError, match="cannot be written"):
        fetched(server.address("/files/net.pth"))


SCRIPT = "import sys; from blurkit.tasks.fetch import fetched; print(fetched(sys.argv[1]))"


def process(address: str) -> subprocess.Popen[bytes]:
    """A process of its own that fetches."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SCRIPT, address], stdout=pipe, stderr=pipe)


def test_processes_fetch_the_same_address_once(server: Server, cache: Path) -> None:
    server.pause = 1.5
    address = server.address("/files/net.pth")
    done = [(p, *p.communicate(timeout=60)) for p in [process(address) for _ in range(3)]]
    assert {(p.returncode, out) for p, out, _ in done} == {(0, done[0][1])}
    assert len(server.requests) == 1 and kept(cache) == ["net.pth", "net.pth.sha256"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_leaves_no_file(how: signal.Signals, server: Server, cache: Path) -> None:
    server.pause = SLOW
    address = server.address("/files/net.pth")
    environment = os.environ | {"BLURKIT_CACHE": str(cache)}
    command = [sys.executable, "-m", "blurkit", "info", address]
    started = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    wait_for(lambda: any(name.endswith(".partial") for name in kept(cache)))
    started.send_signal(how)
    error = started.communicate(timeout=20)[1]
    if how != signal.SIGKILL:
        assert b"Traceback" not in error and kept(cache) == []
    server.pause = 0
    assert fetched(address).read_bytes() == DATA
    assert kept(cache) == ["net.pth", "net.pth.sha256"]


def test_the_cache_is_in_the_platforms_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BLURKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    if sys.platform == "linux":
        assert fetch.cache_folder() == Path("/somewhere/blurkit")
