"""Running a command in the test's own process, which saves the time torch takes to start."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from blurkit.cli.app import app
from blurkit.io.records import Record
from tests.cli.command import Ran, assert_done, assert_refused, files, records, shard_records


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


def done(*arguments: object, input: bytes = b"", cwd: Path | None = None) -> Ran:
    """`blurkit ARGUMENTS` in this process, which did all it was asked to."""
    ran = invoke(*arguments, input=input, cwd=cwd)
    assert_done(ran)
    return ran


def results(output: str | Path, *arguments: object) -> list[Record]:
    """The records of `blurkit ARGUMENTS -q -o OUTPUT`: a shard, or without suffix a folder."""
    folder = not Path(output).suffix
    done(*arguments, "-q", "-o", f"{output}/" if folder else output)
    return shard_records(output) if folder else records(output)


def timeless(made: Sequence[Record]) -> Sequence[Record]:
    """The records without the seconds that each took."""
    for record in made:
        record.attrs = {k: v for k, v in record.attrs.items() if not k.endswith("_seconds")}
    return made


def assert_each_refused(
    cases: Mapping[Any, str], *command: object, status: int = 2, cwd: Path | None = None
) -> None:
    """With each of the options, the command says in one line why not, and changes no file."""
    before = files(cwd or ".")
    for options, words in cases.items():
        assert_refused(invoke(*command, *options, cwd=cwd), words, status=status)
    assert files(cwd or ".") == before
