"""The checkpoint of F and G that is shipped: with standardised codes, and codes to draw from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, central_crop, to_float
from blurkit.nn.blocks import blueprints
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import EncodedBlur, stored
from blurkit.systems.packing import Packing
from blurkit.systems.registry import held, load_networks


def chosen(
    trained: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Packing:
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
        raise BlurkitError(f"{trained.where}: holds {held(networks)}, but no kernel space")
    found = [(middle_code(network, pair), pair.attrs.get("blur_extent")) for pair in pairs]
    if found and isinstance(network, LightKernelSpace):
        all_codes = torch.stack([code for code, _ in found], 1).flatten(1)
        mean, deviation = all_codes.mean(1), all_codes.std(1)
        network.standardise(mean, deviation)
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
    return Packing(checkpoint, {"kernel_space": ("reblurring", (trained,))})


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
