"""Running a command in the test's own process, which saves the time torch takes to start."""

from __future__ import annotations

import signal
import sys

from typer.testing import CliRunner

from blurkit.cli.app import app
from tests.cli.command import Ran


def invoke(*arguments: object) -> Ran:
    """`blurkit ARGUMENTS` in this process. No command may ever raise anything but its exit."""
    handler, hook = signal.getsignal(signal.SIGTERM), sys.unraisablehook
    try:
        done = CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, arguments)])
    finally:
        signal.signal(signal.SIGTERM, handler)
        sys.unraisablehook = hook
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ran(done.exit_code, done.stdout_bytes, done.stderr)
