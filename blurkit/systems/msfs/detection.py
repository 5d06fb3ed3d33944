"""Build MSFS-Net from the keys and shapes of a state dict."""

from __future__ import annotations

from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.system import Shapes


def msfs_net(shapes: Shapes) -> MSFSNet:
    """Return an MSFSNet whose state dict has these shapes."""
    return MSFSNet(
        width=shapes["conv.main.0.weight"][0],
        encoder_blocks=len(shapes.numbers(r"Encoder\.2\.layers\.(\d+)\.main\.0\.main\.0\.weight")),
        latent_blocks=len(shapes.numbers(r"latent\.(\d+)\.body\.0\.weight")),
        decoder_blocks=len(shapes.numbers(r"Decoder\.0\.layers\.(\d+)\.body\.0\.weight")),
        layers="official" if shapes["tail_.weight"][2] == 1 else "paper",
        frequency_separation=shapes.has("changeChannel_."),
        cross_scale=shapes.has("mix1."),
    )
