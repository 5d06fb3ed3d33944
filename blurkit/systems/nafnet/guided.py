"""NAFNet conditioned by a degradation map, as MSDI-Net is: its idea with another backbone.

Skip connections and the middle are modulated by latents of the map (Eq. 9 of MSDI-Net).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blurkit.systems.msdi.encoder import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.injection import PaperModulation
from blurkit.systems.nafnet.networks import NAFNet, options_from_shapes
from blurkit.systems.system import Shapes


class GuidedNAFNet(NAFNet):
    """A NAFNet whose features are modulated by latents of its input's degradation map.

    `encoder` and `prior_upsampling` are those of MSDI-Net's stage 1, frozen. There is a latent for
    five levels, so the network may have up to four besides the middle.
    """

    def __init__(
        self,
        encoder: DegradationEncoder,
        prior_upsampling: PriorUpsampling,
        hidden: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.own_options = {**self.options, "hidden": hidden}
        self.options = {**encoder.options, **self.own_options}
        self.net_prior = encoder.requires_grad_(False)
        self.prior_upsampling = prior_upsampling.requires_grad_(False)
        wide, own = int(prior_upsampling.options["width"]), self.intro.out_channels
        self.modulations = nn.ModuleList(
            PaperModulation(own << level, hidden, wide << level)
            for level in range(len(self.downs) + 1)
        )
        for modulation in self.modulations:  # starts as the identity, like the blocks
            assert isinstance(modulation, PaperModulation)
            nn.init.zeros_(modulation.mlp_gamma.weight)
            for parameter in modulation.mlp_beta.parameters():
                nn.init.zeros_(parameter)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> GuidedNAFNet:
        """Return the network whose state dict has these shapes."""
        return cls(
            DegradationEncoder.from_shapes(shapes.under("net_prior.")),
            PriorUpsampling.from_shapes(shapes.under("prior_upsampling.")),
            hidden=shapes["modulations.0.mlp_gamma.weight"][1],
            **options_from_shapes(shapes),
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that build the same architecture."""
        parts = {"encoder": self.net_prior, "prior_upsampling": self.prior_upsampling}
        return {**parts, **self.own_options}

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored image, both (N, 3, H, W)."""
        with torch.no_grad():
            z = self.net_prior.eval()(image)
            latents = self.prior_upsampling.eval()(z, bottleneck=True)
        return self.restored(image, latents[: len(self.modulations)])

    def conditioned(self, level: int, x: Tensor, latent: Tensor | None) -> Tensor:
        """Return the modulated features of a level."""
        modulated: Tensor = self.modulations[level](x, latent)
        return modulated
