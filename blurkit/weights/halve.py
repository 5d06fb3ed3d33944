"""Converts a checkpoint, or the saved state of a training run, to a checkpoint of half the size.

python -m blurkit.weights.halve deblur.pt -o small.pt
python -m blurkit.weights.halve deblur.state.pt -o so-far.pt

The averaged weights of a state are used if it has any. The result can be used like any other
checkpoint, for example by `deblur -c` and `train-deblur --start`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blurkit.errors import BlurkitError, one_line
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.half import halved
from blurkit.io.writing import refuse_existing
from blurkit.reports.progress import say
from blurkit.training.state import read_state, state_checkpoint


def so_far(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    The file may also be the running state of train-reblur or train-deblur; its current weights are
    then returned. Raises BlurkitError if it is neither.
    """
    if not path.name.endswith(".state.pt"):
        return load_checkpoint(path)
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    return state_checkpoint(read_state(path), str(path))


def main(arguments: Sequence[str]) -> int:
    """Halve the file named on the command line; return the exit status."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.halve", description=__doc__)
    parser.add_argument("trained", type=Path, help="checkpoint, or running state x.state.pt")
    parser.add_argument("-o", "--output", type=Path, required=True, help="checkpoint to write")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    o = parser.parse_args(arguments)
    try:
        refuse_existing(o.output, o.force)
        checkpoint = so_far(o.trained)
        networks = {role: halved(state) for role, state in checkpoint.networks.items()}
        save_checkpoint(replace(checkpoint, networks=networks), o.output)
    except (BlurkitError, OSError) as error:
        say(f"error: {one_line(error)}")
        return 1
    say(f"{o.output}: {o.output.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
