"""The objective of the blind search: the terms of the kernel space's paper.

"Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021, Eq. 5-7, and the released
code's other objective. Every term returns one value per image of a batch, so images that are
searched together have the same objectives as alone. Images (N, C, H, W) may leave [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.torch_runner import autocast, choose_device, choose_precision
from blurkit.errors import UsageError
from blurkit.nn.blocks import EPSILON, charbonnier
from blurkit.nn.features import FeatureNetwork, map_distance
from blurkit.options import Precision
from blurkit.systems.kernel_space import operators
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.kernel_space.priors import StylePrior
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.uses import Estimator

PERCEPTUAL_WEIGHTS = {"VGG-19": (0.2, 0.4, 0.8, 1.0, 3.0)}
"""The released code's weights of relu1_1, relu2_1, ..., relu5_1; other feature networks use their
own weights."""


def structural_similarity(image: Tensor, target: Tensor) -> Tensor:
    """Return Wang et al.'s SSIM with an 11x11 Gaussian (sigma 1.5) and zero padding, (N,).

    It is differentiable, computed per channel and averaged over the whole map, with peak 1; equal
    images give 1. The metric, which leaves out the border, is `metrics.ssim`.
    """
    moments = torch.cat([image, target, image.square() + target.square(), image * target], 1)
    # Rounded to float32 before normalising, as in the released code: if the window sums to
    # 1 + 1e-7, a smooth image's variance changes by a relative 1e-5.
    taps = image.new_tensor([math.exp(-0.5 * (i / 1.5) ** 2) for i in range(-5, 6)])
    taps = taps / taps.sum()
    # One 2-D filter is no slower on CPUs than two 1-D filters, and one plane per group is much
    # faster than one plane per image.
    window = torch.outer(taps, taps).expand(moments.shape[1], 1, -1, -1)
    means = F.conv2d(moments, window, padding=5, groups=moments.shape[1])
    mean_x, mean_y, squares, product = means.chunk(4, 1)
    c1, c2 = 0.01**2, 0.03**2
    crossed, both_squared = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * crossed + c1) / (both_squared + c1)
    structure = (2 * (product - crossed) + c2) / (squares - both_squared + c2)
    return (luminance * structure).flatten(1).mean(1)


def hyper_laplacian_prior(image: Tensor, power: float = 0.66) -> Tensor:
    """Return the prior on gradients (Eq. 5): the mean of |gradient|^power over the pixels, (N,).

    Gradients are Sobel's with zero padding, summed over the channels. |gradient| is sqrt(gx^2 +
    gy^2 + 1e-6). `power` is the paper's alpha, below 1 for sparse gradients.
    """
    across = image.new_tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    sobel = torch.stack([across, across.T]).unsqueeze(1).expand(2, image.shape[1], 3, 3)
    gradients = F.conv2d(image, sobel, padding=1)
    return (gradients.square().sum(1) + EPSILON).pow(power / 2).flatten(1).mean(1)


def code_norm(code: Tensor) -> Tensor:
    """Return the prior on blurs (Eq. 5): the norm, not squared, of codes or kernels, (N,)."""
    return torch.linalg.vector_norm(code.flatten(1), dim=1)


class AutocastFeatures(nn.Module):
    """A frozen feature network that runs in `dtype` on `device` and returns float32 maps.

    It is moved, not copied. Other terms, of differences of squares and gradients, need float32.
    """

    def __init__(self, network: FeatureNetwork, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.to(device)
        self.name, self.weights = network.name, network.weights
        self._device, self._dtype = device, dtype

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of RGB `image` (N, 3, H, W) in [0, 1]."""
        with autocast(self._device, self._dtype):
            maps = self.network(image.contiguous(memory_format=torch.channels_last))
        return [feature_map.float() for feature_map in maps]


Weights = tuple[float, float]
"""Weights of a term in the first half of the search and in the second."""


@dataclass(frozen=True)
class Objective:
    """The weights of the terms that rate the reconstructed photo, the image and its blur.

    The reconstruction F(x, k) is compared with the photo y by `charbonnier`, here the mean over an
    image's values, so that it counts the same at any size; by `perceptual`, a feature network's
    distance; by `similarity`, 1 - SSIM; and by `squared`. `code_norm` rates the blur k, `gradient`,
    the hyper-Laplacian of `power`, the image x, and `geocross` a StyleGAN's latents of it.
    """

    charbonnier: Weights = (0, 0)
    perceptual: Weights = (0, 0)
    similarity: Weights = (0, 0)
    code_norm: Weights = (0, 0)
    gradient: Weights = (0, 0)
    squared: Weights = (0, 0)
    geocross: Weights = (0, 0)
    power: float = 0.66

    @classmethod
    def from_options(cls, options: SearchOptions) -> Objective:
        """Return the objective of `--objective`, overridden by the weights among the options."""
        released = options.prior == "stylegan" and options.objective == "official"
        chosen = STYLEGAN if released else OBJECTIVES[options.objective]
        given = {name: getattr(options, name) for name in WEIGHTED if getattr(options, name)}
        return replace(chosen, **given, power=options.gradient_power)

    @property
    def changes(self) -> bool:
        """Whether the halves of a search have other weights, so that their sums do not compare."""
        return any(first != second for first, second in (getattr(self, n) for n in WEIGHTED))

    def terms(
        self,
        reconstructed: Tensor,
        target: Tensor,
        image: Tensor,
        code: Tensor,
        second_half: bool,
        features: FeatureNetwork | AutocastFeatures | None = None,
        target_maps: Sequence[Tensor] | None = None,
        latent_distance: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by field name, (N,) each; the objective is their sum.

        `reconstructed`, `target` and `image` are (N, C, H, W), `code` is (N, ...), a code or a
        kernel. Terms with weight 0 in this half are left out. The perceptual term requires
        `features`; `target_maps` are the maps of the target, if they are already known.
        `latent_distance`, (N,), is the result of `geocross` for an image of a StyleGAN.
        """

        def perceptual() -> Tensor:
            assert features is not None
            maps = features(target) if target_maps is None else target_maps
            weights = PERCEPTUAL_WEIGHTS.get(features.name, features.weights)
            return map_distance(features(reconstructed), maps, weights)

        functions: dict[str, Callable[[], Tensor]] = {
            "charbonnier": lambda: charbonnier(reconstructed, target) / target[0].numel(),
            "perceptual": perceptual,
            "similarity": lambda: 1 - structural_similarity(reconstructed, target),
            "code_norm": lambda: code_norm(code),
            "gradient": lambda: hyper_laplacian_prior(image, self.power),
            "squared": lambda: (reconstructed - target).square().flatten(1).mean(1),
        }
        weights = {name: getattr(self, name)[second_half] for name in WEIGHTED}
        terms = {name: weights[name] * term() for name, term in functions.items() if weights[name]}
        if latent_distance is not None and weights["geocross"]:
            terms["geocross"] = weights["geocross"] * latent_distance
        return terms


WEIGHTED = [field.name for field in fields(Objective) if field.name != "power"]
"""The names of the terms, which are also those of the options that set their weights."""

OBJECTIVES = {
    # The weights in generic_deblur.py.
    "official": Objective(
        perceptual=(0.6, 1), similarity=(1, 0), code_norm=(5e-5, 5e-4), gradient=(2e-2, 5e-2)
    ),
    # Eq. 5. The paper gives no values for alpha, lambda and gamma. With the mean Charbonnier
    # distance, the released code's gamma would outweigh the data term and reward blur, whose
    # gradients are the smallest; these values were found on photos blurred by Levin's kernels.
    "paper": Objective(charbonnier=(1, 1), code_norm=(1e-4, 1e-4), gradient=(1e-3, 1e-3)),
}

STYLEGAN = Objective(code_norm=(1e-4, 1e-4), squared=(100.0, 100.0), geocross=(0.1, 0.1))
"""The released code's objective for a StyleGAN2."""


# ---- Context -------------------------------------------------------------------------------------


class SearchContext:
    """What all searches with the same options share: operator, number format, frozen networks.

    `space`, F and G, is required by the operator `kernel-space`, `generator` by the prior
    `stylegan`, `features` by an objective that compares features, and `estimator`, which returns
    what a search starts from, by `start_estimate`; UsageError is raised without them, and for fp16,
    in which gradients vanish. `style` is the generator with mean and deviation of its latents.
    """

    def __init__(
        self,
        options: SearchOptions,
        space: EncodedBlur | None = None,
        generator: StylePrior | None = None,
        features: FeatureNetwork | None = None,
        device: str = "auto",
        precision: Precision = "auto",
        estimator: Estimator | None = None,
    ) -> None:
        self.options, self.objective = options, Objective.from_options(options)
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        if self.dtype == torch.float16:
            if precision == "fp16":
                raise UsageError("--precision fp16: a blind search requires bf16 or fp32")
            self.dtype = torch.float32
        if any(self.objective.perceptual) and features is None:
            raise UsageError("this objective compares features: set a feature network (--features)")
        if options.start_estimate and estimator is None:
            raise UsageError("--start-estimate requires an estimator")
        self.estimator = estimator if options.start_estimate else None
        self.operator = self._operator(space)
        self.features = features and AutocastFeatures(features, self.device, self.dtype)
        self.style: tuple[StylePrior, Tensor, Tensor] | None = None
        if options.prior == "stylegan":
            if generator is None:
                raise UsageError("--prior stylegan requires --generator FILE")
            # One z passes through the mapping itself, whose distribution need not be known.
            samples = 2 if options.latents == "sphere" else options.gaussian_samples
            self.style = generator, *generator.to(self.device).fit_gaussian(samples)

    def _operator(self, space: EncodedBlur | None) -> operators.Operator:
        options = self.options
        if options.operator == "downsampling":
            return operators.Downsampling(options.downsampling)
        if options.operator == "convolution":
            return operators.Convolution(options.kernel_size, options.align_picture)
        if space is None:
            raise UsageError("--operator kernel-space requires a checkpoint with F and G")
        return operators.EncodedOperator(space, options, self.device, self.dtype)
