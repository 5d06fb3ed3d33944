"""The losses of training, as pure functions without weights.

Equation numbers are those of MSDI-Net's paper (ECCV 2022) unless another is named; where the
released code differs, the code is followed and the difference said. `Scales` are a multi-scale
discriminator's outputs: per scale a list of feature maps whose last is the patch scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.kernel_space.objective import charbonnier
from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder, FeatureLayers
from blurkit.training.distributed import gathered

Scales = list[list[Tensor]]


def hinge_generator_loss(fake: Scales) -> Tensor:
    """Eq. 4, first term of L_G: minus the mean score of fakes, averaged over the scales."""
    return _mean([-features[-1].mean() for features in fake])


def hinge_discriminator_loss(fake: Scales, real: Scales) -> tuple[Tensor, Tensor]:
    """Eq. 4, L_D, as its (fake, real) terms, each averaged over the scales; their sum is L_D."""
    on_fake = _mean([F.relu(1 + features[-1]).mean() for features in fake])
    on_real = _mean([F.relu(1 - features[-1]).mean() for features in real])
    return on_fake, on_real


def feature_matching_loss(fake: Scales, real: Scales) -> Tensor:
    """L1 distance of discriminator features, summed over layers and averaged over the scales.

    In the released code (weight 10), not in the paper. No gradient flows into `real`.
    """
    distances = [_distances(f[:-1], r[:-1]) for f, r in zip(fake, real, strict=True)]
    return _mean([distance.sum() for distance in distances])


def psnr_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """Eq. 8, first term: minus the mean PSNR in dB of a batch (N, C, H, W), peak 1.

    The released code gives it weight 0.5 and adds it for both stages.
    """
    error = (restored - sharp).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * torch.log(error + 1e-8).mean()


def blur_aware_loss(
    encoder: BlurEncoder | DegradationEncoder,
    restored: Tensor,
    sharp: Tensor,
    layers: FeatureLayers = "blur",
) -> Tensor:
    """Eq. 7: the L1 distance of degradation encoder features, summed over layers.

    `layers="blur"` takes the five layers of the released code, "all" the whole encoder. The images
    are (N, 3, H, W) in [0, 1] and not resized; no gradient flows into `sharp`.
    """
    with torch.no_grad():
        wanted = encoder.features(sharp, layers)
    return _distances(encoder.features(restored, layers), wanted).sum()


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """The kernel space's term of the VAE: how far its codes are from N(0, 1), summed over all.

    mean^2 + deviation^2 - log(deviation^2 + 1e-8) - 1, twice the divergence. `deviation` is of
    either sign. In the released code (weight 10), not in the paper.
    """
    variance = deviation.square()
    return (mean.square() + variance - (variance + 1e-8).log() - 1).sum()


def contrastive_loss(
    anchors: Sequence[Tensor], positives: Sequence[Tensor], negatives: Sequence[Tensor]
) -> Tensor:
    """MSFS-Net's Eq. 5: the sum over the scales of L1(anchor, positive) / L1(anchor, negative).

    High-frequency features of the decoder, the restored image and the blurry image, each scale's of
    one shape. L1 is the mean absolute difference over the batch, that of all processes together,
    which the paper leaves open. Gradients flow wherever the features have any.
    """

    def distance(first: Tensor, second: Tensor) -> Tensor:
        each = F.l1_loss(first, second, reduction="none").flatten(1).mean(1)
        return gathered(each).mean()

    scales = zip(anchors, positives, negatives, strict=True)
    return torch.stack([distance(a, p) / (distance(a, n) + 1e-7) for a, p, n in scales]).sum()


def consistency_loss(features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """MSFS-Net's Eq. 6: the sum over the scales of the mean absolute difference.

    Low-frequency features of the blurry and of the restored image, each scale's of one shape.
    """
    return torch.stack([F.l1_loss(a, b) for a, b in zip(features, others, strict=True)]).sum()


def charbonnier_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6) over all values: in MSFS-Net's released code, not in its paper."""
    return charbonnier(image, target).mean() / image[0].numel()


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """The Charbonnier loss of what `laplacian` leaves: in MSFS-Net's released code alone."""
    return charbonnier_loss(laplacian(image), laplacian(target))


def frequency_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean L1 distance of the real and imaginary parts of two images' spectra.

    Images (N, C, H, W); their Fourier transforms are not normalised. The multi-scale frequency
    reconstruction loss of MIMO-UNet at one scale: Cho et al., "Rethinking Coarse-to-Fine Approach
    in Single Image Deblurring", ICCV 2021.
    """
    spectrum = torch.fft.rfft2(image.float() - target.float())
    return torch.view_as_real(spectrum).abs().mean()


def laplacian(image: Tensor) -> Tensor:
    """`image` (N, C, H, W) without what a step of a Gaussian pyramid keeps of it.

    Blurred by (0.05, 0.25, 0.4, 0.25, 0.05) along both axes, every second row and column of that
    put at four times its value between zeros, blurred again, and taken off. Edges are replicated.
    """
    kept = torch.zeros_like(image)
    kept[..., ::2, ::2] = 4 * _pyramid_blur(image)[..., ::2, ::2]
    return image - _pyramid_blur(kept)


def _pyramid_blur(image: Tensor) -> Tensor:
    taps = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    channels = image.shape[1]
    window = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), window, groups=channels)


def _mean(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()


def _distances(features: list[Tensor], wanted: list[Tensor]) -> Tensor:
    pairs = zip(features, wanted, strict=True)
    return torch.stack([F.l1_loss(a, b.detach()) for a, b in pairs])
