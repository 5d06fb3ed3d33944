"""MSDI-Net on whole images: a generator, G_r or G_d, with the encoder that conditions it."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.systems.msdi.encoder import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.networks import STEERING, Generator, MSDINet, steering_latents
from blurkit.systems.uses import Reblurrer


class GuidedGenerator(Reblurrer):
    """G_r or G_d of MSDI-Net with E and its upsampling: image + G(image, E(guide)).

    Without a guide, the image guides itself (Eq. 5); with one, it is reblurred like the guide
    (Eq. 3); with two, their degradations are mixed (Section 4.3). `stage` is `reblur` or `deblur`.
    """

    def __init__(
        self,
        encoder: DegradationEncoder,
        upsampling: PriorUpsampling,
        generator: Generator,
        stage: str,
    ) -> None:
        super().__init__()
        self.size, self.stage = generator.size, stage
        self.protocol = generator.protocol
        self.encoder, self.upsampling, self.generator = encoder, upsampling, generator

    def forward(
        self, image: Tensor, *guides: Tensor, amount: float = 0.0, spherical: bool = False
    ) -> Tensor | list[Tensor]:
        """Return (N, 3, H, W), or a list of one per stage, from images (N, 3, H, W) in [0, 1].

        Two guides are mixed by `amount`, 0 to 1, on a line or, with `spherical`, on a circle.
        """
        z = self.encoder(guides[0] if guides else image)
        if len(guides) == 2:
            mix = slerp if spherical else torch.lerp
            z = mix(z, self.encoder(guides[1]), amount)
        return self.generator(image, steering_latents(self.upsampling, z, self.generator))


def deblurring(networks: Mapping[str, nn.Module]) -> nn.Module | None:
    """Return a whole MSDI-Net, a generator that needs no latents, or G_d with its encoder."""
    generator = networks.get("deblur")
    alone = isinstance(generator, MSDINet) or not connected(generator)
    return generator if alone else guided(networks, "deblur")


def connected(part: nn.Module | None) -> bool:
    """Whether latents connect a part with others; not in a training without them (Table 4)."""
    return not isinstance(part, Generator) or part.options["injection"] != "none"


def reblurring(networks: Mapping[str, nn.Module]) -> GuidedGenerator | None:
    """Return G_r with its encoder: (sharp, blur) to sharp + G_r(sharp, E(blur)) (Eq. 3)."""
    return guided(networks, "reblur")


def interpolation(networks: Mapping[str, nn.Module], deblur: bool) -> GuidedGenerator | None:
    """Return G_r, or G_d with `deblur`, to run with two guides and an amount (Section 4.3)."""
    return guided(networks, "deblur" if deblur else "reblur")


def guided(networks: Mapping[str, nn.Module], stage: str) -> GuidedGenerator | None:
    """Return the generator of a stage, if it takes latents, with encoder and latents."""
    generator, conditioning = networks.get(stage), steering(networks, stage)
    encoder, latents = (conditioning.get(role) for role in STEERING)
    if not isinstance(encoder, DegradationEncoder) or not isinstance(latents, PriorUpsampling):
        return None
    if not isinstance(generator, Generator) or not connected(generator):
        return None
    return GuidedGenerator(encoder, latents, generator, stage).eval()


def steering(networks: Mapping[str, nn.Module], role: str) -> dict[str, nn.Module]:
    """Return, by role, the encoder and latents for a generator; a whole MSDI-Net has its own."""
    whole = networks.get(role)
    if isinstance(whole, MSDINet):
        return {"encoder": whole.net_prior, "latents": whole.prior_upsampling}
    return {part: networks[part] for part in STEERING if part in networks}


def accompany(
    networks: Mapping[str, nn.Module], given: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """Return networks with the `given` companions. Raises BlurkitError if they do not fit."""
    joined = {**networks, **given}
    whole = joined.get("deblur")
    if isinstance(whole, MSDINet):
        if given:
            own = {"encoder": "net_prior", "latents": "prior_upsampling"}
            for role in own.keys() & joined.keys():
                setattr(whole, own[role], joined[role])
        _check_fit(whole.net_prior, whole.prior_upsampling, whole)
    else:
        _check_fit(*(joined.get(role) for role in (*STEERING, "reblur", "deblur")))
    return joined


def _check_fit(*parts: nn.Module | None) -> None:
    kinds = (DegradationEncoder, PriorUpsampling, Generator)
    known = [part for part in parts if isinstance(part, kinds) and connected(part)]
    for option in ("width", "version"):
        values = [
            (type(part).__name__, part.options.get(f"latent_{option}", part.options[option]))
            for part in known
            if option in part.options
        ]
        if len({value for _, value in values}) > 1:
            differing = ", ".join(f"{name} {option} {value}" for name, value in values)
            raise BlurkitError(f"these networks do not fit together: {differing}")


def slerp(first: Tensor, second: Tensor, amount: float) -> Tensor:
    """Return degradation maps (N, C, H, W), as vectors, interpolated spherically (Shoemake, 1985).

    `amount` 0 gives `first`, 1 gives `second`; other numbers continue on the circle through both.
    Maps between ones of equal length have that length; those of one direction are mixed linearly.
    """
    a, b = first.flatten(1).float(), second.flatten(1).float()
    cosine = nn.functional.cosine_similarity(a, b).clamp(-1, 1)
    angle = torch.acos(cosine).unsqueeze(1)
    sine = torch.sin(angle)
    apart = sine > 1e-3  # as sure as float32 is of the cosine
    safe = torch.where(apart, sine, 1)
    arc = (torch.sin((1 - amount) * angle) * a + torch.sin(amount * angle) * b) / safe
    mixed = torch.where(apart, arc, torch.lerp(a, b, amount))
    return mixed.view_as(first).to(first.dtype)
