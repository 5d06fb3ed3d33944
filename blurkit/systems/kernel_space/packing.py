"""The checkpoint of F and G that is shipped, with the codes of a light network standardised."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from blurkit.data.crops import central_crop
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, to_float
from blurkit.nn.blueprints import blueprints
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.packing import Packing
from blurkit.systems.roles import held, load_networks


def chosen(
    trained: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Packing:
    """Return the packed F and G.

    The codes of a light network get mean 0 and deviation 1 on the central crops of `pairs`, records
    with sharp and blur, if there are any. Raises BlurkitError if `trained` has no kernel space, or
    if `second` is given.
    """
    if second is not None:
        raise BlurkitError(f"{second.where}: a blur kernel space is trained in one stage")
    networks = load_networks(trained)
    network = networks.get("kernel_space")
    if not isinstance(network, EncodedBlur):
        raise BlurkitError(f"{trained.where}: holds {held(networks)}, but no kernel space")
    codes = [middle_code(network, pair) for pair in pairs]
    if codes and isinstance(network, LightKernelSpace):
        all_codes = torch.cat(codes, 1)
        network.standardise(all_codes.mean(1), all_codes.std(1))
    checkpoint = Checkpoint(
        {"kernel_space": network.state_dict()},
        trained.system,
        trained.configuration,
        {"kernel_space": trained.provenance},
        blueprints=blueprints({"kernel_space": network}),
    )
    return Packing(checkpoint, {"kernel_space": ("reblurring", (trained,))})


@torch.no_grad()
def middle_code(network: EncodedBlur, pair: Record) -> Tensor:
    """Return G's code (code, places) for the central 256x256 pixels of a pair.

    Raises BlurkitError if the record lacks sharp or blur, or is smaller.
    """
    side = EncodedBlur.size.minimum
    images = []
    for role in ("sharp", "blur"):
        cut = central_crop(pair.image(role), side, side)
        images.append(torch.from_numpy(to_float(cut)).permute(2, 0, 1)[None])
    code, _ = network.encode(*images)
    return code.flatten(2)[0]
