"""Running blurkit as a user does: real processes, files and pipes, and what they leave behind."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blurkit.data.sources import read_records
from blurkit.io.records import Record
from tests.cli.warm import address

BIN = Path(sys.executable).parent
WARM = Path(__file__).parent / "bin/blurkit"
OURS = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
ENVIRONMENT = os.environ | OURS


@dataclass(frozen=True)
class Ran:
    """How a command ended: its exit status, standard output, and standard error as text."""

    status: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines on standard error."""
        return self.err.splitlines()

    @property
    def json(self) -> list[dict[str, Any]]:
        """The JSON lines on standard output."""
        return [json.loads(line) for line in self.out.splitlines()]


def run(*arguments: object, input: bytes = b"", cwd: Path | None = None) -> Ran:
    """`blurkit ARGUMENTS` to its end. No command may ever show a traceback.

    After `-m MODULE` or `-c CODE`, that is what runs, with torch and all of blurkit imported.
    """
    return _run(["blurkit", *map(str, arguments)], input, cwd)


def shell(script: str, cwd: Path | None = None, timeout: float = 300) -> Ran:
    """A line of bash with pipes, failing as its last failing stage does; `timeout` in seconds."""
    return _run(["bash", "-o", "pipefail", "-c", script], b"", cwd, timeout)


def piped(script: str, cwd: Path | None = None) -> Ran:
    """Such a line, all of which did what it was asked to."""
    ran = shell(script, cwd)
    assert_done(ran)
    return ran


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """`blurkit ARGUMENTS`, still running; signals to its process reach the command.

    With `env=ENVIRONMENT`, it is a process group of its own, with the workers of the command.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {"env": warm_environment(), "start_new_session": True} | pipes | options
    return subprocess.Popen(["blurkit", *map(str, arguments)], **options)


def warm_environment() -> dict[str, str]:
    """An environment in which `blurkit` is run by the process of tests/cli/warm.py."""
    path = f"{WARM.parent}{os.pathsep}{ENVIRONMENT['PATH']}"
    return ENVIRONMENT | {"PATH": path, "BLURKIT_TEST_SERVER": address()}


def fresh(*arguments: object, input: str = "", **variables: str) -> Ran:
    """`python ARGUMENTS` in a process that has imported nothing, with more in its environment."""
    command = [sys.executable, *map(str, arguments)]
    return _run(command, input.encode(), None, env=os.environ | OURS | variables)


def _run(
    command: list[str], input: bytes, cwd: Path | None, timeout: float = 300, env: Any = None
) -> Ran:
    given: dict[str, Any] = {"cwd": cwd, "env": env or warm_environment(), "timeout": timeout}
    done = subprocess.run(command, input=input, capture_output=True, **given)
    ran = Ran(done.returncode, done.stdout, done.stderr.decode())
    assert "Traceback" not in ran.err, ran.err
    return ran


def assert_done(ran: Ran) -> None:
    """The command did all it was asked to."""
    assert ran.status == 0, ran.err


def assert_refused(ran: Ran, *words: str, status: int = 1) -> None:
    """The command did nothing and said why in one line with all of `words`."""
    assert ran.status == status, ran.err
    assert len(ran.lines) == 1 and ran.err.startswith("error: "), ran.err
    for word in words:
        assert word in ran.err
    assert ran.out == b""


def assert_failed(ran: Ran, name: str, *words: str) -> None:
    """Part of a batch failed: a line with all of `words` says why, the last line names `name`."""
    assert ran.status == 1, ran.err
    *before, last = ran.lines
    assert name in last, ran.err
    assert "failed, " in last, ran.err
    assert any(all(word in line for word in words) for line in before), ran.err


def records(*paths: str | Path) -> list[Record]:
    """The records of some shards, or of streams saved to files."""
    return list(read_records(paths))


def shard_records(folder: str | Path) -> list[Record]:
    """The records of a folder of shards."""
    return records(*sorted(Path(folder).glob("*.h5")))


def files(folder: str | Path = ".") -> dict[str, str]:
    """Every file below a folder, hidden ones too, with a digest of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }
