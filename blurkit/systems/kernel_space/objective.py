"""What the search for a sharp image and its blur minimises: the terms of the kernel space's paper.

"Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021, Eq. 5-7, and the other
objective that the released code searches with. Every term gives one value per image of a batch, so
that images searched together have each the objective that it would have alone. Images are
(N, C, H, W) in [0, 1]; they may leave the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.device import autocast
from blurkit.errors import UsageError
from blurkit.nn.features import FeatureNetwork, map_distance

ROOT_EPSILON = 1e-6
"""Added to squares under a root, to be smooth at 0."""

SIMILARITY_RADIUS = 5
SIMILARITY_SIGMA = 1.5

PERCEPTUAL_WEIGHTS = {"VGG-19": (0.2, 0.4, 0.8, 1.0, 3.0)}
"""The released code's weights of relu1_1, relu2_1, ..., relu5_1; other feature networks have their
own."""


# -- terms -----------------------------------------------------------------------------------------


def charbonnier(image: Tensor, target: Tensor, epsilon: float = ROOT_EPSILON) -> Tensor:
    """The paper's rho (Eq. 4): sum of sqrt(d^2 + epsilon) over all values of an image, (N,)."""
    return ((image - target).square() + epsilon).sqrt().flatten(1).sum(1)


def structural_similarity(image: Tensor, target: Tensor) -> Tensor:
    """Wang et al.'s SSIM with an 11x11 Gaussian (sigma 1.5) and zeros around the images, (N,).

    Differentiable, per channel, the mean of the whole map, peak 1; 1 for equal images. The metric,
    which leaves the border out, is `metrics.ssim`.
    """
    moments = torch.cat([image, target, image.square() + target.square(), image * target], 1)
    # Rounded to float32 before they are normalised, as the released code has them: where the window
    # sums to 1 + 1e-7, a smooth image's variance changes by 1e-5 of itself.
    taps = image.new_tensor(
        [
            math.exp(-0.5 * (i / SIMILARITY_SIGMA) ** 2)
            for i in range(-SIMILARITY_RADIUS, SIMILARITY_RADIUS + 1)
        ]
    )
    taps = taps / taps.sum()
    # One filter of two dimensions: on CPUs no slower than two, and a plane per group much faster
    # than a plane per image.
    window = torch.outer(taps, taps).expand(moments.shape[1], 1, -1, -1)
    means = F.conv2d(moments, window, padding=SIMILARITY_RADIUS, groups=moments.shape[1])
    mean_x, mean_y, squares, product = means.chunk(4, 1)
    c1, c2 = 0.01**2, 0.03**2
    crossed, both_squared = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * crossed + c1) / (both_squared + c1)
    structure = (2 * (product - crossed) + c2) / (squares - both_squared + c2)
    return (luminance * structure).flatten(1).mean(1)


def hyper_laplacian_prior(image: Tensor, power: float = 0.66) -> Tensor:
    """The prior on gradients (Eq. 5): the mean of |gradient|^power over an image's pixels, (N,).

    Sobel gradients, summed over the channels, zeros around the image. |gradient| is
    sqrt(gx^2 + gy^2 + 1e-6). `power` is the paper's alpha, below 1 for sparse gradients.
    """
    across = image.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    sobel = torch.stack([across, across.T]).unsqueeze(1).expand(2, image.shape[1], 3, 3)
    gradients = F.conv2d(image, sobel, padding=1)
    return (gradients.square().sum(1) + ROOT_EPSILON).pow(power / 2).flatten(1).mean(1)


def code_norm(code: Tensor) -> Tensor:
    """The prior on blurs (Eq. 5): the norm, not squared, of a code or kernel (N, ...), (N,)."""
    return torch.linalg.vector_norm(code.flatten(1), dim=1)


# -- features --------------------------------------------------------------------------------------


class AutocastFeatures(nn.Module):
    """A frozen feature network that runs in `dtype` on `device` and returns float32 maps.

    Of all terms only the perceptual one is computed so: differences of squares and gradients need
    float32. The network is moved to `device`, not copied.
    """

    def __init__(self, network: FeatureNetwork, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).to(device)
        self.name = network.name
        self._device, self._dtype = device, dtype

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of RGB `image` (N, 3, H, W) in [0, 1]."""
        with autocast(self._device, self._dtype):
            maps = self.network(image.contiguous(memory_format=torch.channels_last))
        return [each.float() for each in maps]

    def distance(
        self, image: Tensor, target_maps: Sequence[Tensor], weights: Sequence[float] = ()
    ) -> Tensor:
        """Return the perceptual loss as `FeatureNetwork.distance` does, (N,)."""
        return map_distance(self(image), target_maps, weights or self.network.weights)


# -- objectives ------------------------------------------------------------------------------------

Weights = tuple[float, float]
"""What a term counts in the first half of the search, and in the second."""


@dataclass(frozen=True)
class Objective:
    """The weights of the terms: what a reconstructed photo, the image and its blur are to be like.

    Of the reconstruction F(x, k) against the photo y: `charbonnier`, here the mean over an image's
    values, so that it counts the same at any size; `perceptual`, a feature network's distance;
    `similarity`, 1 - SSIM. Of the blur k `code_norm`, of the image x `gradient`, the
    hyper-Laplacian of `power`.
    """

    charbonnier: Weights = (0, 0)
    perceptual: Weights = (0, 0)
    similarity: Weights = (0, 0)
    code_norm: Weights = (0, 0)
    gradient: Weights = (0, 0)
    power: float = 0.66

    def terms(
        self,
        reconstructed: Tensor,
        target: Tensor,
        image: Tensor,
        code: Tensor,
        second_half: bool,
        features: FeatureNetwork | AutocastFeatures | None = None,
        target_maps: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms by the names of their fields, (N,) each; the objective is their sum.

        `reconstructed`, `target` and `image` are (N, C, H, W), `code` is (N, ...), a code or a
        kernel. Terms without weight in this half are left out. The perceptual one takes `features`,
        and `target_maps`, what `features` gives of the target, where they are kept from before.

        Raises UsageError when a half has a perceptual weight and there is no `features`.
        """
        if any(self.perceptual) and features is None:
            raise UsageError(
                "this objective compares features, and there is no feature network; give one with "
                "--features FILE or BLURKIT_FEATURES, or take --objective paper"
            )

        def perceptual() -> Tensor:
            assert features is not None
            maps = features(target) if target_maps is None else target_maps
            return features.distance(reconstructed, maps, PERCEPTUAL_WEIGHTS.get(features.name, ()))

        made: dict[str, Callable[[], Tensor]] = {
            "charbonnier": lambda: charbonnier(reconstructed, target) / target[0].numel(),
            "perceptual": perceptual,
            "similarity": lambda: 1 - structural_similarity(reconstructed, target),
            "code_norm": lambda: code_norm(code),
            "gradient": lambda: hyper_laplacian_prior(image, self.power),
        }
        weights = {name: getattr(self, name)[second_half] for name in made}
        return {name: weights[name] * make() for name, make in made.items() if weights[name]}


OBJECTIVES = {
    # As generic_deblur.py has them.
    "official": Objective(
        perceptual=(0.6, 1), similarity=(1, 0), code_norm=(5e-5, 5e-4), gradient=(2e-2, 5e-2)
    ),
    # Eq. 5. The paper gives its alpha, lambda and gamma no numbers. Against the mean Charbonnier
    # distance the released code's gamma would outweigh the data and reward blur, whose gradients
    # are the smallest; these were found on photos under Levin's kernels.
    "paper": Objective(charbonnier=(1, 1), code_norm=(1e-4, 1e-4), gradient=(1e-3, 1e-3)),
}
