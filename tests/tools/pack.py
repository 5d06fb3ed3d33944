"""Pack trained networks into small checkpoints, such as those that ship with blurkit.

python -m tests.tools.pack enc.pt deblur.pt -o blurkit/weights/msdi.pt
python -m tests.tools.pack kernel.pt -o blurkit/weights/kernel_space.pt

From stage 1 of MSDI-Net it takes the encoder, the latents and G_r; from stage 2 the deblurring
network without its copy of the encoder. The discriminator and stage 1's own G_d are left out. All
networks of a kernel space are kept. Weights are stored in half precision.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.data.sources import read_records
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, halved, load_checkpoint, save_checkpoint
from blurkit.io.records import Record, central_crop, to_float
from blurkit.io.writing import refuse_existing
from blurkit.metrics.psnr import psnr
from blurkit.nn.blocks import blueprints
from blurkit.options import Placement
from blurkit.reports.progress import say
from blurkit.systems.kernel_space.networks import BlurCodes, EncodedBlur, LightKernelSpace
from blurkit.systems.msdi.inference import steering
from blurkit.systems.msdi.networks import STEERING, STEERING_KEYS, MSDINet
from blurkit.systems.registry import describe_networks, load_networks
from blurkit.systems.system import Use
from blurkit.systems.uses import network_for, trained_tile
from blurkit.version import __version__
from tests.tools.program import program

AGREEMENT = 60.0
"""The minimum PSNR in dB between outputs of packed and original weights: they then differ less than
by rounding to 8 bits, which gives 59 dB."""


def pack(
    trained: Sequence[Checkpoint], about: Mapping[str, Any], pairs: Iterable[Record] = ()
) -> Checkpoint:
    """Return the checkpoints of a system's training stages as one checkpoint in half precision.

    `SELECTIONS` chooses the networks, and defines what the `pairs` are for. `about` is added to the
    provenance, and so is `agreement`, the PSNR in dB between the outputs of packed and original
    networks, by role. Raises BlurkitError if networks of the system cannot be packed, if the
    checkpoints lack one, or if an agreement is below `AGREEMENT`.
    """
    select = SELECTIONS.get(trained[0].system)
    if select is None:
        raise BlurkitError(f"{trained[0].where}: networks of its system cannot be packed")
    selected = select(*trained, pairs=pairs)
    whole = selected.checkpoint
    networks = {role: halved(state) for role, state in whole.networks.items()}
    packed = replace(whole, networks=networks, where="packed weights")
    agreements = {
        role: agreement(use, packed, *originals)
        for role, (use, originals) in selected.compared.items()
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
        engine = torch_engine(network, Placement("cpu", "fp32", trained_tile(packed, network)))
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


# ---- What each system ships ----------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The selected networks in full precision, and the comparisons to make in half precision.

    `compared` maps each role to a use of the checkpoint and the original checkpoints for that use.
    """

    checkpoint: Checkpoint
    compared: dict[str, tuple[Use, tuple[Checkpoint, ...]]]


def msdi_networks(
    first: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Selection:
    """Return the networks of stage 1 (`first`) and stage 2 (`second`) that ship.

    Configuration and provenance hold those of both stages under the role of the stage's generator,
    `reblur` or `deblur`. Raises BlurkitError if a stage lacks a network or the stages do not share
    one encoder.
    """
    if second is None:
        raise BlurkitError(f"{first.where}: MSDI-Net ships with both stages; name the second too")
    networks, restoring = load_networks(first), load_networks(second)
    missing = [role for role in (*STEERING, "reblur") if role not in networks]
    if missing:
        names = ", ".join(missing)
        raise BlurkitError(f"{first.where}: holds {describe_networks(networks)}, but no {names}")
    if "deblur" not in restoring:
        found = describe_networks(restoring)
        raise BlurkitError(f"{second.where}: holds {found}, but no deblurring network")
    deblur = restoring["deblur"]
    for role, network in steering(restoring, "deblur").items():
        if not _same(network, networks[role]):
            raise BlurkitError(
                f"{second.where} and {first.where} differ in their {role}; "
                "both stages must share the one encoder of the file"
            )
    shipped = {role: networks[role] for role in (*STEERING, "reblur")}
    states = {role: network.state_dict() for role, network in shipped.items()}
    inside = STEERING_KEYS if isinstance(deblur, MSDINet) else ()
    restoring_state = deblur.state_dict().items()
    states["deblur"] = {k: tensor for k, tensor in restoring_state if not k.startswith(inside)}
    built = blueprints({**shipped, "deblur": deblur})
    if isinstance(deblur, MSDINet):  # it ships without its own copy of the encoder
        built["deblur"] = {"class": "StackedGenerator", "options": deblur.own_options}
    checkpoint = Checkpoint(
        states,
        second.system or first.system,
        {"reblur": first.configuration, "deblur": second.configuration},
        {"reblur": first.provenance, "deblur": second.provenance},
        blueprints=built,
    )
    compared = {"reblur": ("reblurring", (first,)), "deblur": ("deblurring", (second, first))}
    return Selection(checkpoint, compared)  # type: ignore[arg-type]


def _same(network: nn.Module, other: nn.Module) -> bool:
    first, second = network.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def kernel_space_networks(
    trained: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Selection:
    """Return the packed F and G, with codes to draw random blur from.

    These are the codes of the central crops of `pairs`, records with sharp and blur, if there are
    any; those whose `blur_extent` is known, as that of synthetic blur is. The codes of a light
    network get mean 0 and deviation 1 on all of them. Raises BlurkitError if `trained` has no
    kernel space, or if `second` is given.
    """
    if second is not None:
        raise BlurkitError(f"{second.where}: a blur kernel space is trained in one stage")
    networks = load_networks(trained)
    network = networks.get("kernel_space")
    if not isinstance(network, EncodedBlur):
        held = describe_networks(networks)
        raise BlurkitError(f"{trained.where}: holds {held}, but no kernel space")
    found = [(middle_code(network, pair), pair.attrs.get("blur_extent")) for pair in pairs]
    if found and isinstance(network, LightKernelSpace):
        all_codes = torch.stack([code for code, _ in found], 1).flatten(1)
        mean, deviation = all_codes.mean(1), all_codes.std(1)
        standardise(network, mean, deviation)
        mean, deviation = mean.view(-1, 1, 1), deviation.view(-1, 1, 1)
        found = [((code - mean) / deviation, extent) for code, extent in found]
    drawn = [(code, extent) for code, extent in found if extent is not None]
    kept: dict[str, nn.Module] = {"kernel_space": network}
    if drawn:
        kept["codes"] = stored(*zip(*drawn, strict=True))
    checkpoint = Checkpoint(
        {role: module.state_dict() for role, module in kept.items()},
        trained.system,
        trained.configuration,
        {"kernel_space": trained.provenance},
        blueprints=blueprints(kept),
    )
    return Selection(checkpoint, {"kernel_space": ("reblurring", (trained,))})


def stored(codes: Sequence[Tensor], lengths: Sequence[float]) -> BlurCodes:
    """Return codes, each (code, 2, 2), with the lengths of their blur in pixels."""
    kept = BlurCodes(len(codes), len(codes[0]))
    kept.codes.copy_(torch.stack(list(codes)))
    kept.lengths.copy_(torch.tensor(lengths))
    return kept


@torch.no_grad()
def standardise(network: LightKernelSpace, mean: Tensor, deviation: Tensor) -> None:
    """Rescale codes with this mean and deviation, both (code,), to mean 0 and deviation 1.

    This changes G's last layer and the layers of F that read the code, but not F(x, G(x, y)).
    Standard normal noise is then a typical code (`reblur --random`).
    """
    last = network.spectral_encoder.look[-1]
    weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
    bias[: len(mean)] -= mean
    repeated = deviation.repeat(len(bias) // len(mean))
    weight.div_(repeated[:, None])
    bias.div_(repeated)
    for block in network.scaled:
        scale = block.get_submodule("scale")
        entering = scale.get_parameter("weight")
        scale.get_parameter("bias").add_(entering[:, :, 0, 0] @ mean)
        entering.mul_(deviation[:, None, None])


@torch.no_grad()
def middle_code(network: EncodedBlur, pair: Record) -> Tensor:
    """Return G's code (code, 2, 2) for the central 256x256 pixels of a pair.

    Raises BlurkitError if the record lacks sharp or blur, or is smaller.
    """
    side = EncodedBlur.size.minimum
    images = []
    for role in ("sharp", "blur"):
        cut = central_crop(pair.image(role), side, side)
        images.append(torch.from_numpy(to_float(cut)).permute(2, 0, 1)[None])
    code, _ = network.encode(*images)
    return code[0]


SELECTIONS: dict[str, Callable[..., Selection]] = {
    "msdi": msdi_networks,
    "kernel-space": kernel_space_networks,
}
"""The function that selects the networks that ship, by the name of their system."""


# ---- The command ---------------------------------------------------------------------------------


@program
def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.tools.pack", description=__doc__)
    parser.add_argument("reblur", help="checkpoint of train-reblur, of either system")
    stage_2 = "checkpoint of train-deblur with the encoder of the first (MSDI)"
    parser.add_argument("deblur", nargs="?", help=stage_2)
    parser.add_argument("-o", "--output", required=True, help="file to write")
    codes = "pairs whose codes are scaled to mean 0, deviation 1; those of synthetic blur are kept "
    codes += "for reblur --random"
    parser.add_argument("--codes", default=[], nargs="+", help=codes)
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    refuse_existing(output, options.force)
    stages = [_dated(load_checkpoint(o)) for o in (options.reblur, options.deblur) if o]
    about = {"date": stages[-1].provenance["date"], "blurkit": __version__, "precision": "float16"}
    packed = pack(stages, about, read_records(options.codes))
    save_checkpoint(packed, output)
    psnrs = ", ".join(f"{role} {dB:.1f} dB" for role, dB in packed.provenance["agreement"].items())
    say(f"{output}: {output.stat().st_size:,} bytes; halved against original: {psnrs}")


def _dated(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the date of its training, by default that of its file."""
    written = datetime.fromtimestamp(Path(checkpoint.where).stat().st_mtime, UTC)
    provenance = {"date": written.date().isoformat(), **checkpoint.provenance}
    return replace(checkpoint, provenance=provenance)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
