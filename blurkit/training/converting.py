"""Programs that make one checkpoint from another: `python -m PROGRAM in.pt -o out.pt`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.writing import refuse_existing
from blurkit.reports.progress import say


def convert(
    program: str,
    about: str | None,
    trained: str,
    made: Callable[[Path], Checkpoint],
    arguments: Sequence[str],
) -> None:
    """Write what `made` returns of the file among the arguments.

    `about` is the program's help, and `trained` that of the file it reads.
    """
    parser = argparse.ArgumentParser(f"python -m {program}", description=about)
    parser.add_argument("trained", type=Path, help=trained)
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    o = parser.parse_args(arguments)
    refuse_existing(o.output, o.force)
    save_checkpoint(made(o.trained), o.output)
    say(f"{o.output}: {o.output.stat().st_size:,} bytes")
