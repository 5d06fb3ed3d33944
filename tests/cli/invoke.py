"""Running a command in the test's own process, which saves the time torch takes to start."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from typer.testing import CliRunner

from blurkit.cli.app import app
from tests.cli.command import Ran


@contextlib.contextmanager
def inside(folder: Path | None) -> Iterator[None]:
    """In another working directory, if one is given."""
    before = Path.cwd()
    os.chdir(folder or before)
    try:
        yield
    finally:
        os.chdir(before)


def invoke(*arguments: object, input: bytes = b"", cwd: Path | None = None) -> Ran:
    """`blurkit ARGUMENTS` in this process. No command may ever raise anything but its exit."""
    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    runner = CliRunner(env={"COLUMNS": "160"})
    try:
        with inside(cwd):
            done = runner.invoke(app, [*map(str, arguments)], input)
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout_bytes, done.stderr)
