"""Trained networks as small checkpoints, such as those that come with blurkit.

python -m blurkit.weights.pack enc.pt deblur.pt -o blurkit/weights/msdi.pt
python -m blurkit.weights.pack kernel.pt -o blurkit/weights/kernel_space.pt

Of MSDI-Net's stage 1 it takes encoder, latents and G_r; of stage 2 the deblurring network without
the copy of the encoder inside it. Discriminator and stage 1's own G_d are left out. A kernel space
is taken as it is. Weights are halved.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import blurkit
from blurkit.data.crops import central_crop
from blurkit.data.sources import read_records
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, one_line
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.half import halved
from blurkit.io.paths import refuse_existing
from blurkit.io.records import Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.nn.blueprints import blueprints
from blurkit.reports.progress import say
from blurkit.systems.kernel_space.inference import Transfer
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.msdi.inference import GuidedGenerator
from blurkit.systems.msdi.networks import STEERING_KEYS, MSDINet
from blurkit.systems.roles import STEERING, held, load_networks, steering
from blurkit.tasks.deblur import deblurring_network, trained_tile
from blurkit.tasks.reblur import reblurring_network

AGREEMENT = 60.0
"""PSNR in dB that outputs of packed and original weights must have to each other: together they
then differ less than by rounding to 8 bits, which alone is worth 59."""


def pack(first: Checkpoint, second: Checkpoint, about: Mapping[str, Any]) -> Checkpoint:
    """One checkpoint of stage 1 (`first`) and stage 2 (`second`), in half precision.

    Its configuration and provenance have those of the stages under the role of each one's
    generator, `reblur` and `deblur`; `about` is added to the provenance, with `agreement`, the
    PSNR in dB between the outputs of packed and original networks by role.
    Raises BlurkitError for stages that lack a network or do not share one encoder, and for outputs
    further apart than `AGREEMENT`.
    """
    networks, after = load_networks(first), load_networks(second)
    lacking = [role for role in (*STEERING, "reblur") if role not in networks]
    if lacking:
        names = ", ".join(lacking)
        raise BlurkitError(f"{first.where}: holds {held(networks)}, but no {names}")
    if "deblur" not in after:
        raise BlurkitError(f"{second.where}: holds {held(after)}, but no deblurring network")
    deblur = after["deblur"]
    for role, network in steering(after, "deblur").items():
        if not _same(network, networks[role]):
            raise BlurkitError(
                f"{second.where} and {first.where} differ in their {role}; "
                "one file holds one encoder, that of both stages"
            )
    states: dict[str, Mapping[str, Tensor]] = {
        role: networks[role].state_dict() for role in (*STEERING, "reblur")
    }
    inside = STEERING_KEYS if isinstance(deblur, MSDINet) else ()
    states["deblur"] = {
        key: tensor for key, tensor in deblur.state_dict().items() if not key.startswith(inside)
    }
    packed = Checkpoint(
        {role: halved(state) for role, state in states.items()},
        second.system or first.system,
        {"reblur": first.configuration, "deblur": second.configuration},
        where="packed weights",
    )
    packed.blueprints = blueprints(load_networks(packed))
    packed.provenance = {
        **about,
        "agreement": {
            "reblur": agreement(reblurring_network, packed, first),
            "deblur": agreement(deblurring_network, packed, second, first),
        },
        "reblur": first.provenance,
        "deblur": second.provenance,
    }
    return packed


def pack_kernel_space(
    trained: Checkpoint, about: Mapping[str, Any], pairs: Iterable[Record] = ()
) -> Checkpoint:
    """One checkpoint of F and G in half precision; `about` and errors are those of `pack`.

    The codes of a light network get mean 0 and deviation 1 on the middles of `pairs`, records with
    sharp and blur, if there are any. Its provenance has that of the training under `kernel_space`.
    """
    networks = load_networks(trained)
    network = networks.get("kernel_space")
    if not isinstance(network, EncodedBlur):
        raise BlurkitError(f"{trained.where}: holds {held(networks)}, but no kernel space")
    codes = [middle_code(network, pair) for pair in pairs]
    if codes and isinstance(network, LightKernelSpace):
        together = torch.cat(codes, 1)
        network.standardise(together.mean(1), together.std(1))
    state = halved(network.state_dict())
    packed = Checkpoint(
        {"kernel_space": state}, trained.system, trained.configuration, where="packed weights"
    )
    packed.blueprints = blueprints({"kernel_space": network})
    packed.provenance = {
        **about,
        "agreement": {"kernel_space": agreement(reblurring_network, packed, trained)},
        "kernel_space": trained.provenance,
    }
    return packed


@torch.no_grad()
def middle_code(network: EncodedBlur, pair: Record) -> Tensor:
    """G's code (code, places) of the middle 256x256 pixels of a record with sharp and blur.

    Raises BlurkitError for a record that lacks one of them, or is smaller.
    """
    side = EncodedBlur.size.minimum
    images = []
    for role in ("sharp", "blur"):
        cut = central_crop(pair.image(role), side, side)
        images.append(torch.from_numpy(to_float(cut)).permute(2, 0, 1)[None])
    code, _ = network.encode(*images)
    return code.flatten(2)[0]


def agreement(build: Callable[..., nn.Module], packed: Checkpoint, *originals: Checkpoint) -> float:
    """PSNR in dB between what the networks that `build` makes of `packed` and `originals` give.

    On a picture of smooth noise, guided by others where it takes guides, in float32; 200 for equal
    ones. Raises BlurkitError below `AGREEMENT`.
    """
    results = []
    for network in (build(packed), build(*originals)):
        engine = Engine(network, trained_tile(packed, network), device="cpu", precision="fp32")
        guides = network.guides if isinstance(network, (GuidedGenerator, Transfer)) else ()
        count = 1 + len(guides) if build is reblurring_network else 1
        results.append(engine(*_pictures(engine.tile, count)).clip(0, 1))
    found = min(psnr(*results), 200.0)
    if not found >= AGREEMENT:  # nor for what is no number
        raise BlurkitError(
            f"{originals[0].where}: halved weights give other pictures ({found:.1f} dB to the "
            f"original's, {AGREEMENT:g} needed); these networks do not bear half precision"
        )
    return round(found, 2)


def _pictures(side: int, count: int) -> Iterator[np.ndarray]:
    """So many pictures (side, side, 3) of smooth noise in [0, 1], always the same."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)
    return (picture.permute(1, 2, 0).numpy() for picture in fine)


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# ---- the command ---------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Pack as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.pack", description=__doc__)
    parser.add_argument("reblur", help="checkpoint of train-reblur, of either system")
    parser.add_argument(
        "deblur", nargs="?", help="checkpoint of train-deblur with the encoder of the first (MSDI)"
    )
    parser.add_argument("-o", "--output", required=True, help="file to write")
    parser.add_argument("--images", default="", help="what the training images are, in words")
    parser.add_argument("--terms", default="", help="the terms that they carry")
    parser.add_argument(
        "--codes", default=[], nargs="+", help="pairs whose codes get mean 0 and deviation 1"
    )
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    try:
        refuse_existing(output, options.force)
        first = last = _dated(load_checkpoint(options.reblur))
        if options.deblur:
            last = _dated(load_checkpoint(options.deblur))
        told = {
            "date": last.provenance["date"],
            "blurkit": blurkit.__version__,
            "precision": "float16",
            "images": options.images,
            "terms": options.terms,
        }
        about = {key: text for key, text in told.items() if text}
        if options.deblur:
            packed = pack(first, last, about)
        else:
            packed = pack_kernel_space(first, about, read_records(options.codes))
        save_checkpoint(packed, output)
    except (BlurkitError, OSError) as error:
        say(f"error: {one_line(error)}")
        return 1
    near = ", ".join(f"{role} {dB:.1f} dB" for role, dB in packed.provenance["agreement"].items())
    say(f"{output}: {output.stat().st_size:,} bytes; halved against original: {near}")
    return 0


def _dated(checkpoint: Checkpoint) -> Checkpoint:
    """With the date it was trained; where it does not say, that of its file."""
    written = datetime.fromtimestamp(Path(checkpoint.where).stat().st_mtime, timezone.utc)
    provenance = {"date": written.date().isoformat(), **checkpoint.provenance}
    return replace(checkpoint, provenance=provenance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
