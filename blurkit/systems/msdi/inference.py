"""A generator with the encoder that steers it: the joint stage's G_r and G_d on whole images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    Generator,
    PriorUpsampling,
    steering_latents,
)
from blurkit.systems.roles import STEERING, steering


class GuidedGenerator(nn.Module):
    """G_r or G_d of MSDI-Net with E and its upsampling: image + G(image, E(guide)).

    The image and its guides come as one tensor, three channels each, so that an `Engine` cuts them
    alike. Without a guide the image is its own (Eq. 5); with one it is reblurred like it (Eq. 3);
    between two guides the degradation is mixed (Section 4.3), `amount` of the second in it, along a
    straight line or, with `spherical`, along a circle. `restores` tells G_d from G_r.
    """

    guides: tuple[str, ...] = ("blur",)
    """The images of another record whose blur is wanted that go behind the image, by role."""
    amount = 0.0
    spherical = False

    def __init__(
        self,
        encoder: DegradationEncoder,
        upsampling: PriorUpsampling,
        generator: Generator,
        restores: bool,
    ) -> None:
        super().__init__()
        self.size, self.restores = generator.size, restores
        self.encoder, self.upsampling, self.generator = encoder, upsampling, generator

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """(N, 3 x (1 + guides), H, W) in [0, 1] to (N, 3, H, W), or to one per stage."""
        image, *guides = images.split(3, dim=1)
        z = self.encoder(guides[0] if guides else image)
        if len(guides) == 2:
            mix = slerp if self.spherical else torch.lerp
            z = mix(z, self.encoder(guides[1]), self.amount)
        latents = steering_latents(self.upsampling, z, self.generator)
        result: Tensor | list[Tensor] = self.generator(image, latents)
        return result


def guided(networks: Mapping[str, nn.Module], role: str) -> GuidedGenerator | None:
    """The generator in `role` (`reblur` or `deblur`) with what steers it, or None if a part lacks.

    A whole MSDI-Net brings its own encoder and latents.
    """
    generator, found = networks.get(role), steering(networks, role)
    encoder, latents = (found.get(part) for part in STEERING)
    if (
        isinstance(encoder, DegradationEncoder)
        and isinstance(latents, PriorUpsampling)
        and isinstance(generator, Generator)
    ):
        return GuidedGenerator(encoder, latents, generator, role == "deblur").eval()
    return None


def slerp(first: Tensor, second: Tensor, amount: float) -> Tensor:
    """Spherical interpolation of degradation maps (N, C, H, W), each taken as one vector.

    `amount` 0 gives `first`, 1 `second`, and any number goes on along the circle through both;
    between maps of one length every map on the way has that length. Maps that point the same way
    are mixed linearly. (Shoemake, 1985.)
    """
    a, b = first.flatten(1).float(), second.flatten(1).float()
    cosine = nn.functional.cosine_similarity(a, b).clamp(-1, 1)
    angle = torch.acos(cosine).unsqueeze(1)
    sine = torch.sin(angle)
    safe = torch.where(sine > 1e-4, sine, 1)
    arc = (torch.sin((1 - amount) * angle) * a + torch.sin(amount * angle) * b) / safe
    mixed = torch.where(sine > 1e-4, arc, torch.lerp(a, b, amount))
    return mixed.view_as(first).to(first.dtype)
