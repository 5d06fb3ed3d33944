"""What a person at a terminal sees while a command works."""

import fcntl
import os
import pty
import struct
import termios
from pathlib import Path

import numpy as np
import pytest

from blurkit.systems.system import shipped_file
from tests.cli.command import start, warm_environment
from tests.cli.pictures import write
from tests.systems.deconvolution.photos import photo
from tests.tasks.server import serving


def terminal(*arguments: object, **environment: str) -> str:
    """What a command writes to a terminal of 100 columns; it has to succeed."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    process = start(*arguments, stderr=theirs, env=warm_environment() | environment)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # a terminal's end
        os.close(ours)
    assert process.wait() == 0, seen
    return seen.decode()


@pytest.mark.slow
def test_windows_are_counted_while_their_blur_is_undone(tmp_path: Path) -> None:
    blurry = write(tmp_path / "wide.png", (photo("astronaut", 200, 500) * 255).astype(np.uint8))
    kernel = write(tmp_path / "kernel.png", np.full((1, 9), 255, np.uint8))
    output = tmp_path / "out.png"
    seen = terminal("deblur", blurry, "--kernel", kernel, "-o", output)
    assert "undo blur:" in seen and "| 0/2 [" in seen and "window/s]" in seen
    output.unlink()
    assert "undo" not in terminal("deblur", blurry, "--kernel", kernel, "-o", output, "-q")


def test_a_file_that_is_fetched_is_counted_in_megabytes(tmp_path: Path) -> None:
    with serving() as server:
        server.files["/net.pt"] = shipped_file().read_bytes()
        server.pause = 0.5
        cache = {"BLURKIT_CACHE": str(tmp_path), "no_proxy": "127.0.0.1"}
        seen = terminal("info", server.address("/files/net.pt"), **cache)
    size = -(-shipped_file().stat().st_size // 2**20)
    assert "fetch net.pt:" in seen and f"/{size} [" in seen and "MiB/s]" in seen
