"""What every command shares: how it ends, and a few checks of what it was given."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

import typer

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.interrupts import Terminated, raise_signals
from blurkit.reports.plain import to_json

INTERRUPTED = 130
CLOSED_PIPE = 128 + 13


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become one line on standard error and the right exit status.

    1: something failed; 2: wrong usage; 130: interrupted; 143: terminated; 141: the reader of its
    output has gone, which is no error and says nothing.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        raise_signals()
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
            return
        except BlurkitError as error:
            line, status = f"error: {error}", error.exit_status
        except BrokenPipeError:
            # Python flushes standard output once more at exit; let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            line, status = "", CLOSED_PIPE
        except KeyboardInterrupt:
            line, status = "interrupted", INTERRUPTED
        except Terminated:
            line, status = "terminated", 128 + signal.SIGTERM
        except MemoryError:
            line, status = "error: out of memory; try a smaller --tile, --batch or --crop", 1
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            line, status = f"error: {where}{error.strerror or one_line(error)}", 1
        # Only here are the command's frames gone, and with them the files that they held open.
        leave(line, status)

    return guarded


def run_later(module: str, function: str, *arguments: Any) -> None:
    """Run a function of a module of the command line, which is imported only now.

    What is slow to import, numpy and torch above all, is not there before: help and wrong options
    are answered at once.
    """
    getattr(import_module(f"blurkit.cli.{module}"), function)(*arguments)


def leave(line: str, status: int) -> NoReturn:
    """End the command with a line on standard error, "" for none, and an exit status."""
    if line:
        typer.echo(line, err=True)
    raise typer.Exit(status)


def width_and_height(option: str, size: str) -> tuple[int, int]:
    """`1280x720` as (1280, 720). Raises UsageError naming the option for anything else."""
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"{option} {size}: write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def refuse_two_streams(*named: Sequence[str | None]) -> None:
    """Raises UsageError when more than one of the inputs and checkpoints is standard input."""
    if sum(list(files).count("-") for files in named) > 1:
        raise UsageError("standard input can be one thing: an input, or a checkpoint ('-c -')")


def print_json(line: dict[str, Any]) -> None:
    """One JSON line on standard output; what is not finite becomes null."""
    typer.echo(to_json(line))


def processes(jobs: int) -> int:
    """The number of processes that `--jobs` asks for; 0 is one per processor this may use."""
    if jobs:
        return jobs
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
