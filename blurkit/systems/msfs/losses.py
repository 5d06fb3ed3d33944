"""What MSFS-Net's training minimises, as pure functions without weights.

Equation numbers are those of its paper; two distances are in its released code alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.nn.losses import charbonnier
from blurkit.training.distributed import gathered


def contrastive_loss(
    anchors: Sequence[Tensor], positives: Sequence[Tensor], negatives: Sequence[Tensor]
) -> Tensor:
    """Eq. 5: the sum over the scales of L1(anchor, positive) / L1(anchor, negative).

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
    """Eq. 6: the sum over the scales of the mean absolute difference.

    Low-frequency features of the blurry and of the restored image, each scale's of one shape.
    """
    return torch.stack([F.l1_loss(a, b) for a, b in zip(features, others, strict=True)]).sum()


def charbonnier_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6) over all values: in the released code, not in the paper."""
    return charbonnier(image, target).mean() / image[0].numel()


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """The Charbonnier loss of what `laplacian` leaves: in the released code alone."""
    return charbonnier_loss(laplacian(image), laplacian(target))


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
