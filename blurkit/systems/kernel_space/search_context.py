"""What the blind searches of a run share, and the objective that they minimise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from blurkit.engine.device import Precision, choose_device, choose_precision
from blurkit.errors import UsageError
from blurkit.nn.features import FeatureNetwork, find_features, load_features
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.kernel_space.objective import OBJECTIVES, AutocastFeatures, Objective
from blurkit.systems.kernel_space.operators import (
    Convolution,
    Downsampling,
    EncodedOperator,
    Operator,
)
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.systems.kernel_space.search_start import Estimator
from blurkit.systems.kernel_space.style_latents import StylePrior, load_style_prior

STYLEGAN = Objective(code_norm=(1e-4, 1e-4))
"""The released code's objective for a StyleGAN2, without the two terms below."""

SQUARED, GEOCROSS = (100.0, 100.0), (0.1, 0.1)


@dataclass(frozen=True)
class Criterion:
    """The weights of all terms, in the first half of a search and in the second.

    In addition to those of `objective`: the squared distance and a StyleGAN's `geocross`.
    """

    objective: Objective
    squared: tuple[float, float] = (0, 0)
    geocross: tuple[float, float] = (0, 0)

    @classmethod
    def of(cls, options: BlindOptions) -> Criterion:
        """Return the criterion of `--objective`, overridden by the weights among the options."""
        names = ("charbonnier", "perceptual", "similarity", "code_norm", "gradient")
        overrides = {name: getattr(options, name) for name in names if getattr(options, name)}
        released = options.prior == "stylegan" and options.objective == "official"
        objective = STYLEGAN if released else OBJECTIVES[options.objective]
        return cls(
            replace(objective, **overrides, power=options.power),
            options.squared or (SQUARED if released else (0, 0)),
            options.geocross or (GEOCROSS if released else (0, 0)),
        )

    @property
    def perceptual(self) -> bool:
        """Whether a feature network is required."""
        return any(self.objective.perceptual)

    @property
    def changes(self) -> bool:
        """Whether the halves of a search have other weights, so that their sums do not compare."""
        o = self.objective
        weights = (o.charbonnier, o.perceptual, o.similarity, o.code_norm, o.gradient)
        return any(first != second for first, second in (*weights, self.squared, self.geocross))

    def terms(
        self,
        blurred: Tensor,
        target: Tensor,
        image: Tensor,
        blur: Tensor,
        second_half: bool,
        features: AutocastFeatures | None,
        target_maps: Sequence[Tensor] | None,
        apart: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name, (N,) each; `apart` is the result of `geocross`, (N,).

        The other arguments are those of `Objective.terms`, which may raise UsageError.
        """
        terms = self.objective.terms(
            blurred, target, image, blur, second_half, features, target_maps
        )
        if weight := self.squared[second_half]:
            terms["squared"] = weight * (blurred - target).square().flatten(1).mean(1)
        if apart is not None and (weight := self.geocross[second_half]):
            terms["geocross"] = weight * apart
        return terms


@dataclass
class SearchContext:
    """What all searches of a run share: options, operator, number format, frozen networks.

    `style` is a StyleGAN with the mean and deviation of its latents, `features` the network of the
    perceptual term, and `estimator` returns what a search starts from.
    """

    options: BlindOptions
    operator: Operator
    device: torch.device
    dtype: torch.dtype = torch.float32
    features: AutocastFeatures | None = None
    style: tuple[StylePrior, Tensor, Tensor] | None = None
    estimator: Estimator | None = None

    def __post_init__(self) -> None:
        self.criterion = Criterion.of(self.options)


# -- construction ----------------------------------------------------------------------------------


def make_context(
    options: BlindOptions,
    space: EncodedBlur | None = None,
    style: StylePrior | None = None,
    features: FeatureNetwork | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    estimator: Estimator | None = None,
) -> SearchContext:
    """Return what the searches with these options share.

    `space`, F and G, is required by the operator `kernel-space`, `style` by the prior `stylegan`,
    `features` by an objective that compares features, and `estimator` by `start_estimate`. Raises
    UsageError if something is missing, and for fp16, in which gradients vanish.
    """
    place = choose_device(device)
    dtype = choose_precision(precision, place)
    if dtype == torch.float16:
        if precision == "fp16":
            raise UsageError("--precision fp16: a blind search requires bf16 or fp32")
        dtype = torch.float32
    if Criterion.of(options).perceptual and features is None:
        raise UsageError("this objective compares features: set a feature network (--features)")
    if options.start_estimate and estimator is None:
        raise UsageError("--start-estimate requires an estimator")
    operator: Operator = Convolution(options.kernel_size, options.align)
    if options.operator == "downsampling":
        operator = Downsampling(options.downsampling)
    if options.operator == "kernel-space":
        if space is None:
            raise UsageError("--operator kernel-space requires a checkpoint with F and G")
        operator = EncodedOperator(space, options, place, dtype)
    fitted = None
    if options.prior == "stylegan":
        if style is None:
            raise UsageError("--prior stylegan requires --generator FILE")
        style = style.to(place)
        # One z passes through the mapping itself, whose distribution then need not be known.
        samples = 2 if options.latents == "sphere" else options.gaussian_samples
        mean, std = style.fit_gaussian(samples)
        fitted = style, mean.to(place), std.to(place)
    start = estimator if options.start_estimate else None
    cast = None if features is None else AutocastFeatures(features, place, dtype)
    return SearchContext(options, operator, place, dtype, cast, fitted, start)


def load_context(
    options: BlindOptions,
    space: EncodedBlur | None = None,
    generators: Sequence[str | Path] = (),
    features: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    estimator: Estimator | None = None,
) -> SearchContext:
    """Return the result of `make_context`, with a StyleGAN and a feature network from files.

    Without `features`, `find_features` locates the feature network; it is only loaded if required.
    Raises BlurkitError if files are invalid or missing.
    """
    network = None
    if Criterion.of(options).perceptual:
        network = load_features(find_features(features, otherwise=", or use --objective paper"))
    style = load_style_prior(*generators) if generators else None
    return make_context(options, space, style, network, device, precision, estimator)
