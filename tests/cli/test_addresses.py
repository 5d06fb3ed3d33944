"""Checkpoints named by addresses, wherever a command accepts a checkpoint."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import blurkit
from blurkit.errors import UsageError
from tests.cli.command import assert_failed, assert_refused, files, fresh
from tests.cli.invoke import done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.cli.test_eval_runs import onnx_network
from tests.shared import ROOT
from tests.systems.kernel_space.searches import QUICK_CONFIG
from tests.tasks.server import Server, serving

BLURRY = blurred(photo(0))


@pytest.fixture
def server(checkpoint: Path, joint: Path) -> Iterator[Server]:
    with serving() as server:
        server.files |= {"/tiny.pt": checkpoint.read_bytes(), "/enc.pt": joint.read_bytes()}
        yield server


@pytest.fixture(autouse=True)
def surroundings(inside: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo, and the cache in cache/."""
    monkeypatch.setenv("BLURKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    write("photo.png", BLURRY)


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_an_address_then_offline(server: Server, checkpoint: Path, joint: Path) -> None:
    given = "-c", server.address("/files/tiny.pt"), "--encoder", server.address("/files/enc.pt")
    both = "--sha256", digest(checkpoint), "--sha256", digest(joint)
    first = done("deblur", "photo.png", *given, *both, "-o", "first.png")
    assert [line.split()[0] for line in first.lines].count("fetched") == 2
    server.shutdown()
    second = done("deblur", "photo.png", *given, "-o", "second.png")
    assert "fetched" not in second.err and len(server.requests) == 2
    done("deblur", "photo.png", "-c", checkpoint, "--encoder", joint, "-o", "third.png")
    assert len({digest(f"{name}.png") for name in ("first", "second", "third")}) == 1


def test_every_command_takes_an_address(server: Server, checkpoint: Path, shard: Path) -> None:
    tiny, encoder = server.address("/files/tiny.pt"), server.address("/files/enc.pt")
    done("info", tiny, "--sha256", digest(checkpoint), "--size", "64x64")
    done("eval", shard, "-c", tiny, "--input-size", "64x64")
    done("train-deblur", shard, "--dry-run", "--encoder", encoder, "--preset", "small")
    for command in (
        ["reblur", "photo.png", "--like", "photo.png", "-o", "reblurred.png"],
        ["transfer", "photo.png", shard, "--part", "1/4", "-o", "transferred/"],
        ["interpolate", shard, "--part", "1/4", "--steps", "2", "-o", "frames/"],
        ["prepare", shard, "--transfer-from", shard, "--part", "1/4", "-o", "more.h5"],
    ):
        done(*command, "-c", encoder)
    assert server.requests == ["/files/tiny.pt", "/files/enc.pt"]
    node = helper.make_node("Identity", ["image"], ["restored"])
    server.files["/net.onnx"] = onnx_network(Path("net.onnx"), node).read_bytes()
    onnx = server.address("/files/net.onnx?download=1")
    done("deblur", "photo.png", "-c", onnx, "-o", "onnx.png")
    np.testing.assert_array_equal(blurkit.load(onnx).deblur(BLURRY), BLURRY)


def test_python_takes_an_address(server: Server, checkpoint: Path, joint: Path) -> None:
    address, encoder = server.address("/files/tiny.pt"), server.address("/files/enc.pt")
    digests = [digest(checkpoint), digest(joint)]
    fetched = blurkit.load(address, encoder, sha256=digests).deblur(BLURRY)
    np.testing.assert_array_equal(fetched, blurkit.load(checkpoint, joint).deblur(BLURRY))
    with pytest.raises(UsageError, match="--sha256 is for files from addresses"):
        blurkit.load(checkpoint, sha256=digest(checkpoint))
    with pytest.raises(blurkit.BlurkitError, match="not the one of --sha256"):
        blurkit.load(address, sha256=digest(joint))


def test_a_file_on_the_hub(
    server: Server, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token goes to the Hub alone: also after a redirect there, not to another server."""
    monkeypatch.setenv("HF_ENDPOINT", server.address("/"))
    monkeypatch.setenv("HF_TOKEN", "hf_hidden\n")
    names = "/nets/resolve/main/a/tiny.pt", "/nets/resolve/refs%2Fpr%2F1/tiny.pt"
    server.files |= dict.fromkeys(names, checkpoint.read_bytes())
    first = done("deblur", "photo.png", "-c", "hf://files/nets/a/tiny.pt", "-o", "first.png")
    assert first.lines[0].startswith("fetched hf://files/nets@main/a/tiny.pt (")
    done("info", "hf://moved/nets@refs%2Fpr%2F1/tiny.pt", "--size", "64x64")
    moved = ["/moved" + names[1], "/files" + names[1]]
    assert server.requests == ["/files" + names[0], *moved]
    assert server.tokens == ["Bearer hf_hidden"] * 3
    with serving() as other:
        other.files, server.mirror = server.files, other.address("")
        done("info", "hf://away/nets/a/tiny.pt", "--size", "64x64")
        assert other.tokens == [None]
    monkeypatch.delenv("HF_ENDPOINT")  # the Hub itself, whose file is in the cache by now
    done("deblur", "photo.png", "-c", "hf://files/nets@main/a/tiny.pt", "-o", "second.png")
    assert digest("first.png") == digest("second.png")
    done("info", server.address("/files/tiny.pt"), "--size", "64x64")
    assert server.tokens[-1] is None


def test_what_is_wrong_on_the_hub(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address(""))
    monkeypatch.setenv("HF_TOKEN", "hf_hidden")
    gated = invoke("info", "hf://gated/nets/tiny.pt")
    assert "hf://gated/nets@main/tiny.pt: the server answers 401" in gated.err
    assert "HF_TOKEN" in gated.err and "hidden" not in gated.err
    for name in ("nets/tiny.pt", "", "a/b@/tiny.pt", "a/b/tiny.pt?token=hidden"):
        ran = invoke("export", f"hf://{name}", "-o", "net.onnx")
        assert_refused(ran, "write hf://OWNER/NAME/FILE")
        assert "hidden" not in ran.err
    for variable, value in (("HF_TOKEN", "hf_hidden hidden\r\nX: y"), ("HF_ENDPOINT", "hub")):
        monkeypatch.setenv(variable, value)
        ran = invoke("export", "hf://files/nets/tiny.pt", "-o", "net.onnx")
        assert_refused(ran, f"{variable}: ", status=2)
        assert "hidden" not in ran.err
    assert server.requests == ["/gated/nets/resolve/main/tiny.pt"]


def test_what_is_wrong_is_one_line(server: Server, checkpoint: Path) -> None:
    before = files()
    gone, page = server.address("/gone/net.pth"), server.address("/page/u/r/blob/main/net.pth")
    assert_refused(invoke("deblur", "photo.png", "-c", gone), gone, "404 (Not Found)")
    assert_refused(invoke("export", page, "-o", "net.onnx"), page, "is a web page", "/raw/")
    tiny, other = server.address("/files/tiny.pt"), "0" * 64
    ran = invoke("deblur", "photo.png", "-c", tiny, "--sha256", other)
    assert_refused(ran, tiny, digest(checkpoint), "not the one of --sha256")
    assert files() == before
    for command in (
        ["deblur", "photo.png", "-c", checkpoint],
        ["blind-deblur", "photo.png"],
        ["info", checkpoint],
        ["export", checkpoint, "-o", "net.onnx"],
        ["train-reblur", "shards/"],
        ["eval", "photo.png", "photo.png"],
    ):
        assert_refused(invoke(*command, "--sha256", other), "--sha256 is for files", status=2)
    missing = invoke("deblur", "photo.png", "-c", tiny, "--encoder", "missing.pt")
    assert_refused(missing, "missing.pt: no such checkpoint")
    wrong = invoke("deblur", "photo.png", "-c", tiny, "--gamma", 2)
    assert_refused(wrong, "--gamma requires --kernel", status=2)
    assert server.requests == ["/gone/net.pth", "/page/u/r/blob/main/net.pth", "/files/tiny.pt"]


def test_secrets_stay_secret(server: Server, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, secret = server.address("/files/tiny.pt"), "?token=hidden"
    ran = done("deblur", "photo.png", "-c", tiny + secret, "-o", "a.png")
    assert f"fetched {tiny} (" in ran.err and "hidden" not in ran.err
    gone = server.address("/gone/net.pth")
    ran = invoke("deblur", "photo.png", "-c", gone + secret)
    assert_refused(ran, f"error: {gone}: the server answers 404")
    assert "hidden" not in ran.err
    ran = invoke("info", "https://me:hidden@[::1]:9/net.pt?token=hidden")
    assert "https://[::1]:9/net.pt: cannot be reached" in ran.err
    assert "hidden" not in ran.err
    assert_refused(invoke("deblur", "photo.png", "-c", "http://[::1"), "is not a valid address")
    ran = invoke("info", "--json", "http://me:hidden@[::1/net.pt", f"{gone}{secret}")
    assert ran.status == 1 and "2 failed" in ran.err and "hidden" not in ran.err + ran.out.decode()
    moved = server.address("/elsewhere/ftp://me:hidden@h/net.pt?token=hidden")
    ran = invoke("deblur", "photo.png", "-c", moved)
    assert_refused(ran, "redirects to ftp://h/net.pt; only http(s)")
    assert "hidden" not in ran.err
    ran = invoke("deblur", "photo.png", "--kernel", f"https://me:hidden@h/a.png{secret}")
    assert ran.status and "https:/h/a.png" in ran.err and "hidden" not in ran.err
    folder = ["deblur", "photo.png", "-c", tiny + secret, "-o", "out/", "--resume"]
    assert "hidden" not in done(*folder).err
    assert not [path for path in Path("out").rglob("*") if b"hidden" in path.read_bytes()]
    shards = ["train-deblur", shard, "--preset", "small", "--iterations", 1, "--batch", 1]
    encoder = server.address("/files/enc.pt")
    monkeypatch.setattr(sys, "argv", ["blurkit", "--encoder", encoder + secret])
    done(*shards, "--encoder", encoder + secret, "--crop", 32, "--validate-on", 0, "-o", "new.pt")
    (about,) = invoke("info", "new.pt", "--json").json
    assert about["provenance"]["command"] == f"blurkit --encoder {encoder}"


def test_info_goes_on_after_an_address_that_fails(server: Server, checkpoint: Path) -> None:
    gone = server.address("/gone/net.pth")
    ran = invoke("info", gone, checkpoint, "--json")
    assert_failed(ran, gone, "404 (Not Found)")
    assert [line["file"] for line in ran.json] == [str(checkpoint)]


def test_an_address_is_refused_before_torch_is_imported(server: Server) -> None:
    command = ("-X", "importtime", "-m", "blurkit", "deblur", "photo.png")
    ran = fresh(*command, "-c", server.address("/gone/net.pth"))
    loaded = {line.rpartition("|")[2].strip() for line in ran.lines}
    assert ran.status == 1 and "urllib.request" in loaded
    assert not loaded & {"torch", "onnxruntime"}


COMMANDS = """
import sys
from tests.cli.invoke import invoke

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {arguments[1:]}")

sys.addaudithook(refuse)
for command in [line.split() for line in sys.stdin]:
    ran = invoke(*command)
    assert ran.status == 0, (command, ran)
    print(command[0])
import socket
try:
    socket.create_connection(("127.0.0.1", 1))
except SystemExit:
    print("refused")
"""


@pytest.mark.slow
def test_nothing_else_opens_a_connection(shard: Path, checkpoint: Path) -> None:
    """The process ends where a socket connects or a name is looked up."""
    short = f"--operator convolution --iterations 1 --config {QUICK_CONFIG}"
    commands = f"""
        info --size 64x64
        info {checkpoint} --size 64x64
        deblur photo.png --method network
        deblur photo.png -c {checkpoint} -o tiny.png
        reblur photo.png --random -o reblurred.png
        prepare photo.png --synthesize shake --as sharp -o pairs.h5
        eval {shard} --html report/
        blind-deblur photo.png {short} -o blind.png
        train-deblur {shard} --dry-run --system msfs --preset small
    """
    lines = [line.strip() for line in commands.strip().splitlines()]
    ran = fresh("-c", COMMANDS, input="\n".join(lines), PYTHONPATH=str(ROOT))
    assert ran.status == 0, ran.err
    assert ran.out.decode().split() == [*(line.split()[0] for line in lines), "refused"]
