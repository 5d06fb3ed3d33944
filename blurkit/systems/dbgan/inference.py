"""BGAN on whole images: a new blur for every noise vector.

"Deblurring by Realistic Blurring" (CVPR 2020), Section 3.2.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record
from blurkit.systems.dbgan.networks import BGAN
from blurkit.systems.kernel_space.inference import CodedBlur, coded_network
from blurkit.systems.roles import held, load_networks
from blurkit.tasks.reblur import with_drawn


class NoisyBlur(nn.Module):
    """BGAN(photo, `noise`): a photo with the blur of a noise vector that is given, (noise,).

    The vector is the whole photo's: all its tiles get the same, so that no seams show.
    """

    noise: Tensor

    def __init__(self, network: BGAN) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, photo: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 3, H, W)."""
        noise = self.noise.to(photo.device).expand(len(photo), -1)
        blurred: Tensor = self.network(photo, noise)
        return blurred


def bgan_network(checkpoint: Checkpoint) -> NoisyBlur:
    """The BGAN of a checkpoint, in eval mode.

    Raises BlurkitError naming what the checkpoint holds when there is none.
    """
    networks = load_networks(checkpoint)
    network = networks.get("bgan")
    if not isinstance(network, BGAN):
        raise BlurkitError(
            f"{checkpoint.where}: holds {held(networks)}; blur is drawn from noise by a BGAN, as "
            "train-reblur --system bgan writes it"
        )
    return NoisyBlur(network).eval()


def drawing_network(checkpoint: Checkpoint) -> NoisyBlur | CodedBlur:
    """What draws new blurs: the BGAN of a checkpoint, else F of its variational kernel space.

    Raises BlurkitError or UsageError as `coded_network` does when it holds neither.
    """
    network = load_networks(checkpoint).get("bgan")
    if isinstance(network, BGAN):
        return NoisyBlur(network).eval()
    return coded_network(checkpoint, variational=True)


def noisy_blur(
    record: Record, engine: Engine, checkpoint: str, seed: int = 0, scale: float = 1.0
) -> Record:
    """`record` with `reblurred`: its `sharp` with a new blur, BGAN(sharp, z), z ~ N(0, scale^2).

    `engine` runs a `NoisyBlur`; the paper's scale is 1. What is drawn and told is as in
    `with_drawn`, and `reblurred_noise` is z.
    """
    network = engine.network
    assert isinstance(network, NoisyBlur)

    def blur(sharp: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        drawn = generator.standard_normal(network.network.options["noise"], np.float32)
        network.noise = torch.from_numpy(scale * drawn)
        return engine(sharp)

    finished = with_drawn(record, blur, "noise", engine, checkpoint, seed, scale)
    finished.attrs["reblurred_noise"] = network.noise.numpy()
    return finished
