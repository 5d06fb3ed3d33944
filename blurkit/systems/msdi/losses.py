"""The losses of MSDI-Net's training, as pure functions without weights.

Equation numbers are its paper's (ECCV 2022). Where the released code differs, they follow it and
say so. `Scales` are a discriminator's: per scale, feature maps, of which the last is the scores.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder, FeatureLayers
from blurkit.training.recipe import Patience

Scales = list[list[Tensor]]


def hinge_generator_loss(fake: Scales) -> Tensor:
    """Return the first term of L_G (Eq. 4): minus the mean score of fakes, averaged over scales."""
    return torch.stack([-features[-1].mean() for features in fake]).mean()


def hinge_discriminator_loss(fake: Scales, real: Scales) -> tuple[Tensor, Tensor]:
    """Return L_D (Eq. 4) as its (fake, real) terms, each averaged over scales; L_D is their sum."""
    on_fake = torch.stack([F.relu(1 + features[-1]).mean() for features in fake])
    on_real = torch.stack([F.relu(1 - features[-1]).mean() for features in real])
    return on_fake.mean(), on_real.mean()


def feature_matching_loss(fake: Scales, real: Scales) -> Tensor:
    """Return the L1 distance of discriminator features, summed over layers, averaged over scales.

    It is in the released code (weight 10), not in the paper. No gradient flows into `real`.
    """
    distances = [_distances(f[:-1], r[:-1]).sum() for f, r in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()


def blur_aware_loss(
    encoder: BlurEncoder | DegradationEncoder,
    restored: Tensor,
    sharp: Tensor,
    layers: FeatureLayers = "official",
) -> Tensor:
    """Return the L1 distance of degradation encoder features, summed over layers (Eq. 7).

    `layers="official"` uses the five layers of the released code, "all" the whole encoder. Images
    are (N, 3, H, W) in [0, 1] and not resized; no gradient flows into `sharp`.
    """
    with torch.no_grad():
        target = encoder.features(sharp, layers)
    return _distances(encoder.features(restored, layers), target).sum()


def frequency_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean L1 distance of the real and imaginary parts of two images' spectra.

    Images are (N, C, H, W), spectra not normalised. It is MIMO-UNet's loss at one scale: Cho et
    al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring", ICCV 2021.
    """
    spectrum = torch.fft.rfft2(image.float() - target.float())
    return torch.view_as_real(spectrum).abs().mean()


def _distances(features: list[Tensor], target: list[Tensor]) -> Tensor:
    return torch.stack([F.l1_loss(a, b.detach()) for a, b in zip(features, target, strict=True)])


# ---- Collapse ------------------------------------------------------------------------------------

LIMITS = {
    "degradations": (
        0.2,
        "the encoder gives all images nearly the same degradation, so little is learned from it; "
        "use --encoder-layers official or a lower --encoder-rate",
    ),
    "exchange": (
        0.002,
        "reblurring ignores the degradation: that of another image changes nothing; "
        "--identity-start and several blurs of each scene help",
    ),
    "restored": (
        0.02,
        "the deblurring network returns its input; try another --learning-rate or fewer "
        "--sharp-pairs",
    ),
}
"""By measure, the value below which the training has collapsed, and what that means."""


def apart(maps: Tensor) -> Tensor:
    """Return the mean distance of the degradation maps (N, C, h, w) of different images.

    It is relative to their mean size: 0 if all are the same, about 1 if they share nothing.
    """
    return (maps - maps.roll(1, 0)).abs().mean() / maps.abs().mean()


def change(images: Tensor, others: Tensor, blur: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean distance of two versions of images, relative to that of `blur` and `sharp`.

    All are (N, 3, H, W) in [0, 1]. Pairs closer than one gray level count as that far apart.
    """
    blurring = (blur - sharp).abs().mean().clamp(min=1 / 255)
    return (images - others).abs().mean() / blurring


class CollapseWatch:
    """Chooses what is measured, and says once what has collapsed after the first `grace` steps."""

    def __init__(self, grace: int) -> None:
        self.grace = grace
        self._patience = {name: Patience() for name in LIMITS}
        self._before: Tensor | None = None

    def crops(self, blur: Tensor, sharp: Tensor) -> Tensor:
        """Return up to four crops of a batch, (2, N, 3, H, W), blurry and sharp ones.

        A single one comes together with that of the call before, if there was one.
        """
        crops = torch.stack([blur[:4], sharp[:4]])
        if crops.shape[1] > 1:
            return crops
        before, self._before = self._before, crops
        return crops if before is None else torch.cat([before, crops], 1)

    def collapsed(self, step: int, measures: Mapping[str, float]) -> str:
        """Return a warning if a measure has been below its limit for several calls, else ""."""
        return "; ".join(
            f"{why} ({name} {measures[name]:.2g}, below {limit})"
            for name, (limit, why) in LIMITS.items()
            if self._patience[name].ends(step > self.grace and measures.get(name, limit) < limit)
        )
