"""Double the channels of a deblurring network of MSDI-Net without changing what it computes.

python -m tests.tools.widen deblur.pt -o wide.pt

Training then starts from a network that has learned, instead of from noise (Net2WiderNet; Chen et
al., ICLR 2016): `train-deblur --width 32 --start wide.pt`. Modulated skip connections are left out,
so what a conditioned network computes does change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.reports.progress import program
from blurkit.systems.msdi.networks import MODULATION_KEYS
from tests.tools.convert import add_files, convert

FIRST, LAST = ("conv_01.", "conv_02."), "last."
"""The keys of the layers whose inputs, or outputs, are pixels and are not doubled."""

ASYMMETRY = 0.5
"""How unequally two copies of a channel are weighted, so that they learn different things."""


def widened(state: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return the state dict of a network of twice the channels with the same outputs.

    Each channel becomes two adjacent ones of the same values. A layer that reads them weighs one of
    them by (1 + s) / 2 and the other by (1 - s) / 2, with an own normal s of deviation `ASYMMETRY`
    per weight.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        key: _wider(key, tensor.float(), generator)
        for key, tensor in state.items()
        if not key.startswith(MODULATION_KEYS)
    }


def _wider(key: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    into, out = (0, 1) if ".up.weight" in key else (1, 0)  # a transposed convolution
    if tensor.ndim == 1:
        return tensor if key.startswith(LAST) else tensor.repeat_interleave(2)
    if not key.startswith(LAST):
        tensor = tensor.repeat_interleave(2, out)
    if key.startswith(FIRST):
        return tensor
    shift = ASYMMETRY * torch.randn(tensor.shape, generator=generator)
    pair = torch.stack([tensor * (1 + shift), tensor * (1 - shift)], into + 1)
    return pair.flatten(into, into + 1) / 2


def widened_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file with its network widened. Raises BlurkitError without one."""
    checkpoint = load_checkpoint(path)
    if checkpoint.system != "msdi" or "deblur" not in checkpoint.networks:
        raise BlurkitError(f"{path}: holds no deblurring network of MSDI-Net")
    wide = {"deblur": widened(checkpoint.networks["deblur"])}
    return Checkpoint(wide, checkpoint.system, provenance=checkpoint.provenance)


@program
def main(arguments: Sequence[str]) -> None:
    """Widen the file named on the command line."""
    parser = argparse.ArgumentParser("python -m tests.tools.widen", description=__doc__)
    add_files(parser, "checkpoint of train-deblur")
    convert(parser.parse_args(arguments), widened_checkpoint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
