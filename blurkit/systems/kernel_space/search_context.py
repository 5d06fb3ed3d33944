"""What the blind searches of a run share, and the objective that they minimise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from blurkit.engine.device import Precision, choose_device, choose_precision
from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.nn.features import FeatureNetwork, find_features, load_features
from blurkit.systems.kernel_space.inference import encoded_blur
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
"""The released code's objective for a StyleGAN2, beside the two terms below."""

SQUARED, GEOCROSS = (100.0, 100.0), (0.1, 0.1)


@dataclass(frozen=True)
class Criterion:
    """The weights of all terms, in the first half of a search and in the second.

    Beside those of `objective` the squared distance and a StyleGAN's `geocross`.
    """

    objective: Objective
    squared: tuple[float, float] = (0, 0)
    geocross: tuple[float, float] = (0, 0)

    @classmethod
    def of(cls, options: BlindOptions) -> Criterion:
        """That of `--objective`, with the weights that are options of their own."""
        names = ("charbonnier", "perceptual", "similarity", "code_norm", "gradient")
        given = {name: getattr(options, name) for name in names if getattr(options, name)}
        released = options.prior == "stylegan" and options.objective == "official"
        objective = STYLEGAN if released else OBJECTIVES[options.objective]
        return cls(
            replace(objective, **given, power=options.power),
            options.squared or (SQUARED if released else (0, 0)),
            options.geocross or (GEOCROSS if released else (0, 0)),
        )

    @property
    def perceptual(self) -> bool:
        """Whether it takes a feature network."""
        return any(self.objective.perceptual)

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
        """The weighted terms by name, (N,) each; `apart` is what `geocross` gives, (N,).

        The others are those of `Objective.terms`, as is the UsageError.
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
    perceptual term, `estimator` gives what a search starts from.
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


# -- making one ------------------------------------------------------------------------------------


def make_context(
    options: BlindOptions,
    checkpoint: Checkpoint | None = None,
    style: StylePrior | None = None,
    features: FeatureNetwork | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    estimator: Estimator | None = None,
) -> SearchContext:
    """What the searches with these options share.

    `checkpoint` holds F and G, without which `operator` is to be `convolution`; `style` goes with
    the prior `stylegan`, `features` with an objective that compares features, `estimator` with
    `start_estimate`. Raises UsageError for what is missing, and for fp16, where gradients vanish.
    """
    place = choose_device(device)
    dtype = choose_precision(precision, place)
    if dtype == torch.float16:
        if precision == "fp16":
            raise UsageError("--precision fp16: a blind search takes bf16 or fp32")
        dtype = torch.float32
    if Criterion.of(options).perceptual and features is None:
        raise UsageError("this objective compares features: give a feature network (--features)")
    if options.start_estimate and estimator is None:
        raise UsageError("--start-estimate needs an estimator")
    operator: Operator = Convolution(options.kernel_size)
    if options.operator == "downsampling":
        operator = Downsampling(options.downsampling)
    if options.operator == "kernel-space":
        if checkpoint is None:
            raise UsageError("--operator kernel-space needs a checkpoint with F and G")
        remedy = "blind deblurring needs a kernel space, F and G, or --operator convolution"
        operator = EncodedOperator(encoded_blur(checkpoint, remedy), options, place, dtype)
    fitted = None
    if options.prior == "stylegan":
        if style is None:
            raise UsageError("--prior stylegan needs --generator FILE")
        style = style.to(place)
        mean, std = style.fit_gaussian(options.gaussian_samples)
        fitted = style, mean.to(place), std.to(place)
    start = estimator if options.start_estimate else None
    cast = None if features is None else AutocastFeatures(features, place, dtype)
    return SearchContext(options, operator, place, dtype, cast, fitted, start)


def load_context(
    options: BlindOptions,
    checkpoint: Checkpoint | None = None,
    generators: Sequence[str | Path] = (),
    features: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    estimator: Estimator | None = None,
) -> SearchContext:
    """`make_context` with the files of a StyleGAN and of a feature network, as far as needed.

    Without `features` it is that of `find_features`. Raises BlurkitError for bad or missing files.
    """
    network = None
    if Criterion.of(options).perceptual:
        network = load_features(find_features(features, otherwise=", or take --objective paper"))
    style = load_style_prior(*generators) if generators else None
    return make_context(options, checkpoint, style, network, device, precision, estimator)
