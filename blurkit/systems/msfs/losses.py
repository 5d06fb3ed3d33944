"""The losses of MSFS-Net's training, as pure functions without weights.

Equation numbers are those of its paper; two distances are in its released code only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.nn.blocks import charbonnier
from blurkit.training.steps import gathered


def contrastive_loss(
    anchors: Sequence[Tensor], positives: Sequence[Tensor], negatives: Sequence[Tensor]
) -> Tensor:
    """Return the sum over the scales of L1(anchor, positive) / L1(anchor, negative) (Eq. 5).

    The arguments are high-frequency features of the decoder, the restored image and the blurry
    image, of the same shape at each scale. L1 is the mean absolute difference over the batch of all
    processes together, which the paper leaves open. Gradients flow into all features that require
    them.
    """

    def distance(first: Tensor, second: Tensor) -> Tensor:
        distances = F.l1_loss(first, second, reduction="none").flatten(1).mean(1)
        return gathered(distances).mean()

    scales = zip(anchors, positives, negatives, strict=True)
    return torch.stack([distance(a, p) / (distance(a, n) + 1e-7) for a, p, n in scales]).sum()


def consistency_loss(features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Return the sum over the scales of the mean absolute difference (Eq. 6).

    The arguments are low-frequency features of the blurry and the restored image, of the same shape
    at each scale.
    """
    return torch.stack([F.l1_loss(a, b) for a, b in zip(features, others, strict=True)]).sum()


def charbonnier_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(d^2 + 1e-6) over all values; in the released code only."""
    return charbonnier(image, target).mean() / image[0].numel()


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return the Charbonnier loss of the images' `laplacian`; in the released code only."""
    return charbonnier_loss(laplacian(image), laplacian(target))


def laplacian(image: Tensor) -> Tensor:
    """Return `image` (N, C, H, W) minus what one step of a Gaussian pyramid keeps of it.

    The image is blurred by (0.05, 0.25, 0.4, 0.25, 0.05) along both axes. Every second row and
    column of the result, times four and with zeros in between, is blurred again and subtracted.
    Edges are replicated.
    """
    kept = torch.zeros_like(image)
    kept[..., ::2, ::2] = 4 * _pyramid_blur(image)[..., ::2, ::2]
    return image - _pyramid_blur(kept)


def _pyramid_blur(image: Tensor) -> Tensor:
    taps = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    channels = image.shape[1]
    window = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), window, groups=channels)
