"""Code that commands share: exit statuses, and checks of arguments."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import typer

from blurkit.data.places import parse_part, part_of_job
from blurkit.errors import BlurkitError, UsageError, memory_errors, one_line, printable
from blurkit.interrupts import Terminated, raise_signals
from blurkit.io.paths import refuse_missing
from blurkit.reports.progress import say
from blurkit.reports.values import to_json
from blurkit.tasks.addresses import is_address, local_file, refuse_unused

if TYPE_CHECKING:
    from blurkit.io.records import Image, Record

INTERRUPTED = 130
CLOSED_PIPE = 128 + 13


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose errors become one line on standard error and an exit status.

    1: something failed; 2: wrong usage; 130: interrupted; 143: terminated; 129: its terminal was
    closed; 141: the reader of its output closed the pipe, which is not an error and prints nothing.
    """

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        raise_signals()
        try:
            with memory_errors("; try a smaller --tile, --batch or --crop"):
                function(*args, **kwargs)
            sys.stdout.flush()
            return
        except BlurkitError as error:
            line, status = f"error: {error}", error.exit_status
        except BrokenPipeError:
            line, status = "", CLOSED_PIPE
        except KeyboardInterrupt:
            line, status = "interrupted", INTERRUPTED
        except Terminated as stop:
            line, status = "terminated", 128 + stop.signal
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            line, status = f"error: {where}{error.strerror or one_line(error)}", 1
        # Only here are the command's frames released, and with them the files that they held open.
        leave(line, status)

    return guarded


def leave(line: str, status: int) -> NoReturn:
    """End the command with an exit status and, unless `line` is "", a line on standard error."""
    if line:
        with suppress(OSError):  # nobody listens
            typer.echo(printable(line), err=True)
    try:
        sys.stdout.flush()
    except OSError:  # Python flushes once more at exit; discard that
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(status)


def open_standard_streams() -> None:
    """Open those of the three standard streams that are closed, before a file gets their number.

    What is written to a closed standard output fails, messages to nobody are discarded, and a
    closed standard input is empty.
    """
    modes = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
    for number, (name, mode) in enumerate(zip(("stdin", "stdout", "stderr"), modes, strict=True)):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, mode)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            stream = os.fdopen(number, "w" if number else "r", closefd=False)
            setattr(sys, name, stream)


def width_and_height(option: str, size: str) -> tuple[int, int]:
    """Return `1280x720` as (1280, 720). Raises UsageError, naming the option, for other texts."""
    width, _, height = size.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"{option} {size}: write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def refuse_two_streams(*named: Sequence[str | None]) -> None:
    """Raise UsageError if more than one of the inputs and checkpoints is standard input."""
    if sum(list(files).count("-") for files in named) > 1:
        raise UsageError("standard input can be read only once, as an input or a checkpoint")


def local_files(
    given: Mapping[str, Any], sha256: Sequence[str], quiet: bool, what: str = "checkpoint"
) -> dict[str, Any]:
    """Return the values of options that name files, with addresses fetched into the cache.

    `given` maps options to a file, several or none; `sha256` are the values of `--sha256`. Raises
    UsageError for a `--sha256` without an address, and BlurkitError for a file that does not
    exist, before torch is imported. `what` describes such a file; "{}" in it is the option.
    """
    named = {o: (v,) if isinstance(v, str) else v or () for o, v in given.items()}
    refuse_unused(sha256, itertools.chain(*named.values()))
    for option, files in named.items():
        missing = (file for file in files if file and not is_address(file))
        refuse_missing(missing, what.format(option.replace("_", "-")))
    return {
        option: tuple(str(local_file(file, sha256, quiet)) for file in value)
        if isinstance(value, tuple)
        else value and str(local_file(value, sha256, quiet))
        for option, value in given.items()
    }


def print_json(line: dict[str, Any]) -> None:
    """Print one JSON line on standard output; numbers that are not finite become null."""
    typer.echo(to_json(line))


def result_values(record: Record, image: Image, made: str, **named: Any) -> dict[str, Any]:
    """Return what `--json` prints of every result first: its name, what is `named`, size and time.

    `made` is what was done, as in the names of attributes, and `image` shows it.
    """
    height, width = image.shape[:2]
    size = {"width": width, "height": height, "seconds": record.attrs[f"{made}_seconds"]}
    return {"name": record.name, **named, **size}


Settings = TypeVar("Settings", bound=Any)


def with_part(options: Settings) -> Settings:
    """Return options whose part is I/N, which `{part}` in other options stands for.

    If a cluster states the part, that is printed. For `--status`, `{part}` stays, and the number of
    parts is enough. Raises UsageError for a part that does not exist.
    """
    status, text = getattr(options, "status", False), options.part
    if status and text.startswith("auto/"):
        text = text.replace("auto", "1")
    if text.startswith("auto"):
        _, slash, count = text.partition("/")
        part, stated = part_of_job(os.environ, parse_part(f"1/{count}").count if slash else None)
        say(f"part {part} ({stated})", options.quiet)
    else:
        part = parse_part(text)
    if status:
        return replace(options, part=str(part))

    def filled(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(filled, value))
        return type(value)(part.fill(str(value))) if isinstance(value, (str, Path)) else value

    values = {f.name: filled(getattr(options, f.name)) for f in fields(options)}
    return replace(options, **values | {"part": str(part)})
