"""Converts a checkpoint, or the saved state of a training run, to a checkpoint of half the size.

python -m blurkit.weights.halve deblur.pt -o small.pt
python -m blurkit.weights.halve deblur.state.pt -o so-far.pt

The averaged weights of a state are used if it has any. The result can be used like any other
checkpoint, for example by `deblur -c` and `train-deblur --start`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, halved, load_checkpoint
from blurkit.reports.progress import program
from blurkit.training.converting import convert
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


def halved_checkpoint(path: Path) -> Checkpoint:
    """Return `so_far` of a file in half precision."""
    checkpoint = so_far(path)
    networks = {role: halved(state) for role, state in checkpoint.networks.items()}
    return replace(checkpoint, networks=networks)


@program
def main(arguments: Sequence[str]) -> None:
    """Halve the file named on the command line."""
    trained = "checkpoint, or running state x.state.pt"
    convert("blurkit.weights.halve", __doc__, trained, halved_checkpoint, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
