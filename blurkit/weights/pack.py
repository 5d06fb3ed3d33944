"""Packs trained networks into small checkpoints, such as those that ship with blurkit.

python -m blurkit.weights.pack enc.pt deblur.pt -o blurkit/weights/msdi.pt
python -m blurkit.weights.pack kernel.pt -o blurkit/weights/kernel_space.pt

From stage 1 of MSDI-Net it takes the encoder, the latents and G_r; from stage 2 the deblurring
network without its copy of the encoder. The discriminator and stage 1's own G_d are left out. All
networks of a kernel space are kept. Weights are stored in half precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from blurkit.data.sources import read_records
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, halved, load_checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.io.writing import refuse_existing
from blurkit.metrics.psnr import psnr
from blurkit.reports.progress import program, say
from blurkit.systems.packing import Packing
from blurkit.systems.system import Use, systems
from blurkit.systems.uses import network_for, trained_tile
from blurkit.version import __version__

AGREEMENT = 60.0
"""The minimum PSNR in dB between outputs of packed and original weights: they then differ less than
by rounding to 8 bits, which gives 59 dB."""


def pack(
    trained: Sequence[Checkpoint], about: Mapping[str, Any], pairs: Iterable[Record] = ()
) -> Checkpoint:
    """Return the checkpoints of a system's training stages as one checkpoint in half precision.

    `packing.py` in the system's folder chooses the networks, raises BlurkitError if the checkpoints
    lack one, and defines what the `pairs` are for. `about` is added to the provenance, and so is
    `agreement`, the PSNR in dB between the outputs of packed and original networks, by role.
    Raises BlurkitError if it is below `AGREEMENT`.
    """
    name = trained[0].system
    folder = next((folder for folder, system in systems().items() if system.name == name), "")
    if not folder or find_spec(f"blurkit.systems.{folder}.packing") is None:
        raise BlurkitError(f"{trained[0].where}: networks of its system cannot be packed")
    packing = import_module(f"blurkit.systems.{folder}.packing")
    chosen: Packing = packing.chosen(*trained, pairs=pairs)
    whole = chosen.checkpoint
    networks = {role: halved(state) for role, state in whole.networks.items()}
    packed = replace(whole, networks=networks, where="packed weights")
    agreements = {
        role: agreement(use, packed, *originals)
        for role, (use, originals) in chosen.compared.items()
    }
    packed.provenance = {**about, "agreement": agreements, **whole.provenance}
    return packed


def agreement(use: Use, packed: Checkpoint, *originals: Checkpoint) -> float:
    """Return the PSNR in dB between the outputs of the packed and the original network for a use.

    Both run in float32 on an image of smooth noise, guided by other such images if they need
    guides. The PSNR of identical outputs is 200. Raises BlurkitError if it is below `AGREEMENT`.
    """
    results = []
    for network in (network_for(use, packed), network_for(use, *originals)):
        engine = torch_engine(
            network, trained_tile(packed, network), device="cpu", precision="fp32"
        )
        guides = len(network.guides) if use == "reblurring" else 0  # type: ignore[arg-type]
        results.append(engine(*_pictures(engine.tile, 1 + guides)).clip(0, 1))
    score = min(psnr(*results), 200.0)
    if not score >= AGREEMENT:  # also true for NaN
        raise BlurkitError(
            f"{originals[0].where}: halved weights change the output ({score:.1f} dB to the "
            f"original's, {AGREEMENT:g} needed); these networks need more than half precision"
        )
    return round(score, 2)


def _pictures(side: int, count: int) -> Iterator[np.ndarray]:
    """Return `count` images (side, side, 3) of smooth noise in [0, 1], always the same."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (picture.permute(1, 2, 0).numpy() for picture in fine)


# ---- the command ---------------------------------------------------------------------------------


@program
def main(arguments: Sequence[str]) -> None:
    """Pack the checkpoints named on the command line."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.pack", description=__doc__)
    parser.add_argument("reblur", help="checkpoint of train-reblur, of either system")
    parser.add_argument(
        "deblur", nargs="?", help="checkpoint of train-deblur with the encoder of the first (MSDI)"
    )
    parser.add_argument("-o", "--output", required=True, help="file to write")
    parser.add_argument(
        "--codes",
        default=[],
        nargs="+",
        help="pairs whose codes are scaled to mean 0, deviation 1; those of synthetic blur are "
        "kept for reblur --random",
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    refuse_existing(output, options.force)
    first = last = _dated(load_checkpoint(options.reblur))
    if options.deblur:
        last = _dated(load_checkpoint(options.deblur))
    about = {
        "date": last.provenance["date"],
        "blurkit": __version__,
        "precision": "float16",
    }
    stages = [first, last] if options.deblur else [first]
    packed = pack(stages, about, read_records(options.codes))
    save_checkpoint(packed, output)
    psnrs = ", ".join(f"{role} {dB:.1f} dB" for role, dB in packed.provenance["agreement"].items())
    say(f"{output}: {output.stat().st_size:,} bytes; halved against original: {psnrs}")


def _dated(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the date of its training, by default that of its file."""
    written = datetime.fromtimestamp(Path(checkpoint.where).stat().st_mtime, timezone.utc)
    provenance = {"date": written.date().isoformat(), **checkpoint.provenance}
    return replace(checkpoint, provenance=provenance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
