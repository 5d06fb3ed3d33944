"""What every command shares: its errors, its options, and the way records go through it."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blurkit.errors import BlurkitError, DiskFull, UsageError, one_line
from blurkit.interrupts import Terminated, raise_signals

if TYPE_CHECKING:
    from blurkit.engine.engine import Engine
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink
    from blurkit.systems.system import Use

INTERRUPTED = 130
CLOSED_PIPE = 128 + 13

# ---- options that mean the same everywhere -------------------------------------------------------

SystemName = Literal["msdi", "kernel-space"]
System = Annotated[
    SystemName | None,
    typer.Option(
        help="MSDI-Net or the encoded blur kernel space; with -c it is the checkpoint's.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Precision = Annotated[
    PrecisionName,
    typer.Option(help="Number format; auto is bf16 where the hardware has it."),
]
CheckpointFile = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        "-c",
        help="Trained networks; - reads them from a pipe; else those that come with blurkit.",
        show_default=False,
    ),
]
EncoderFiles = Annotated[
    list[str],
    typer.Option(
        "--encoder", help="Encoder or latents to use in place of the checkpoint's; repeatable."
    ),
]
Tile = Annotated[str, typer.Option(help="Tile side in pixels; auto is the size it was trained on.")]
Overlap = Annotated[
    int | None,
    typer.Option(help="Pixels that tiles share and blend over; default 32 or half the tile."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="JSON lines on standard output.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn.")]
Part = Annotated[str, typer.Option(metavar="I/N", help="Do the I-th of N shares of the work.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes; 0: one per processor.")]


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
        except BlurkitError as error:
            _leave(f"error: {error}", error.exit_status)
        except BrokenPipeError:
            # Python flushes standard output once more at exit; let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from None
        except KeyboardInterrupt:
            _leave("interrupted", INTERRUPTED)
        except Terminated:
            _leave("terminated", 128 + signal.SIGTERM)
        except MemoryError:
            _leave("error: out of memory; try a smaller --tile, --batch or --crop", 1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _leave(f"error: {where}{error.strerror or one_line(error)}", 1)

    return guarded


def _leave(line: str, status: int) -> None:
    typer.echo(line, err=True)
    raise typer.Exit(status) from None


class Problems:
    """The bad items of a batch: each is told at once, and all of them again at the end."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def add(self, where: str, error: BlurkitError) -> None:
        """Tell of one bad item and go on. Wrong usage and a full disk end the command instead."""
        if isinstance(error, (UsageError, DiskFull)):
            raise error
        from blurkit.reports.progress import say

        say(f"error: {error}" if where in str(error) else f"error: {where}: {error}")
        self.failed.append(where)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """A block in which a BlurkitError is one bad item."""
        try:
            yield
        except BlurkitError as error:
            self.add(where, error)

    def finish(self, done: int, what: str) -> None:
        """The last line, and exit status 1, when something failed or nothing was there to do."""
        if self.failed:
            names = ", ".join(self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
            _leave(f"{len(self.failed)} failed, {done} {what}: {names}", 1)
        if not done:
            _leave(f"error: nothing was {what}: the input held no record for it", 1)


def run_records(
    records: Iterable[Record],
    work: Callable[[Record], Record],
    sink: Sink,
    problems: Problems,
    label: str,
    quiet: bool = False,
) -> Iterator[Record]:
    """Send every record through `work` into `sink`; yields each when it is written.

    A record that fails is one of the `problems`, and the rest goes on.
    """
    jobs = ((record, functools.partial(work, record)) for record in records)
    yield from run_jobs(jobs, sink, problems, label, quiet)


def run_jobs(
    jobs: Iterable[tuple[Record, Callable[[], Record]]],
    sink: Sink,
    problems: Problems,
    label: str,
    quiet: bool = False,
) -> Iterator[Record]:
    """As `run_records`; a job is a record and the work that gives it back finished."""
    from blurkit.reports.progress import track

    with sink:
        for record, work in track(jobs, label, None, "record", quiet):
            with problems.guard(record.name):
                sink.claim(record)
                finished = work()
                sink.write(finished)
                yield finished


def start_engine(
    use: Use,
    checkpoints: Sequence[Checkpoint],
    tile: int | None,
    overlap: int | None,
    device: str,
    precision: PrecisionName,
    **options: Any,
) -> Engine:
    """Return the engine that runs the network of `checkpoints` for a use, warning on stderr."""
    from blurkit.reports.progress import say
    from blurkit.tasks import engines

    return engines.start_engine(
        use,
        *checkpoints,
        tile=tile,
        overlap=overlap,
        device=device,
        precision=precision,
        warn=lambda text: say(f"warning: {text}"),
        **options,
    )


def refuse_json_and_stream(json: bool, output: str | None) -> None:
    """Raises UsageError when both want standard output."""
    if json and output == "-":
        raise UsageError("--json and '-o -' both want standard output; choose one")


def tile_side(tile: str) -> int | None:
    """The pixels that `--tile` names, None for auto. Raises UsageError for anything else."""
    if tile == "auto":
        return None
    if not tile.isdecimal():
        raise UsageError(f"--tile {tile}: give a number of pixels, or auto")
    return int(tile)


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


def load_checkpoints(
    checkpoint: str | None,
    encoder: Sequence[str] = (),
    quiet: bool = False,
    system: str | None = None,
    use: Use = "deblurring",
) -> list[Checkpoint]:
    """The checkpoints that `-c` and `--encoder` name, in the order in which networks are taken.

    Without `-c` the first is the one that comes with blurkit for a `use`, of the `system` that is
    named, which is said unless `quiet`. Raises BlurkitError for a bad file.
    """
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.reports.progress import say
    from blurkit.systems.shipped import introduction, load_shipped

    if checkpoint is None:
        first = load_shipped(system, use)
        say(introduction(first), quiet)
    else:
        first = load_checkpoint(checkpoint)
    return [first, *map(load_checkpoint, encoder)]


def print_json(line: dict[str, Any]) -> None:
    """One JSON line on standard output; what is not finite becomes null."""
    from blurkit.reports.plain import to_json

    typer.echo(to_json(line))


def processes(jobs: int) -> int:
    """The number of processes that `--jobs` asks for; 0 is one per processor this may use."""
    if jobs:
        return jobs
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
