"""The trainings of the deconvolution network and of the blur estimator that works with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.deconvolution.config import (
    DeconvolutionConfiguration,
    DeconvolutionInputs,
    EstimatorConfiguration,
    EstimatorInputs,
)
from blurkit.systems.deconvolution.estimator import (
    FULL,
    SIDES,
    BlurEstimator,
    Turn,
    distance,
    dots,
    expected_gap,
    forward_differences,
    recentred,
    reduced,
    turns,
)
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    kernels_at,
    measured_noise,
    rfft2,
)
from blurkit.systems.deconvolution.networks import Deconvolver, Restored, joining
from blurkit.systems.deconvolution.samples import (
    KERNEL,
    DeconvolutionSamples,
    EstimationSamples,
    drawn_path,
)
from blurkit.systems.registry import load_networks
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from blurkit.training.configuration import Configuration, Run, TrainingInputs
from blurkit.training.distributed import Processes
from blurkit.training.recipe import Batch, Losses, Plan, Recipe, States, Validate, trainable

WARM_UP = 300
"""Steps over which the learning rate rises."""

EXPECTED_BLOCK = 8
"""Side of the blocks whose errors the network predicts."""


def losses(made: Restored, photos: Tensor, sharp: Tensor) -> dict[str, Tensor]:
    """Return the terms of the loss: the images, their spectra, and the predicted errors.

    `photos` are the images that the result has to improve on.
    """
    spectra = [rfft2(image.float(), norm="ortho") for image in (made.image, sharp)]
    errors = [
        F.avg_pool2d((image.detach().float() - sharp).abs().mean(1, keepdim=True), EXPECTED_BLOCK)
        for image in (photos, made.image)
    ]
    true = torch.cat(errors, 1).clamp_min(1e-3).log()
    return {
        "l1": (made.image - sharp).abs().mean(),
        "first": 0.4 * (made.first - sharp).abs().mean(),
        "spectrum": 0.02 * (spectra[0] - spectra[1]).abs().mean(),
        "judge": 0.02 * (made.errors - true).abs().mean(),
    }


class DecayingRecipe(Recipe):
    """A recipe whose learning rate rises at first, is constant, and falls by half a cosine."""

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the learning rate at `step`."""
        c = self.configuration
        assert isinstance(c, (DeconvolutionConfiguration, EstimatorConfiguration))
        part = step / (c.schedule_iterations or c.iterations)
        fraction = min(1.0, max(0.0, part - c.constant) / (1 - c.constant))
        rate = c.learning_rate * min(1, (step + 1) / WARM_UP)
        return max(rate * (1 + math.cos(math.pi * fraction)) / 2, c.final_learning_rate)

    def adamw(self, network: nn.Module) -> torch.optim.AdamW:
        """Return the configured AdamW over the trainable parameters of a network."""
        c = self.configuration
        assert isinstance(c, (DeconvolutionConfiguration, EstimatorConfiguration))
        betas = c.beta1, c.beta2
        return torch.optim.AdamW(
            trainable(network), c.learning_rate, betas, weight_decay=c.weight_decay
        )


class DeconvolutionRecipe(DecayingRecipe):
    """The deconvolution network, from the start or on from the network of a checkpoint `initial`.

    With `drafting`, a network that deblurs without a kernel, only the step that joins its results
    is trained; `provenance` is that of the drafts.
    """

    images = ("blur", "sharp")

    def __init__(
        self,
        configuration: DeconvolutionConfiguration,
        initial: Deconvolver | None = None,
        drafting: nn.Module | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configuration)
        self.c = configuration
        self.provenance = dict(provenance or {})
        self.network = Deconvolver() if initial is None else initial
        self.initial = dict(self.network.state_dict()) if configuration.keep else {}
        self.initial = {key: value.clone() for key, value in self.initial.items()}
        self.drafting = drafting
        if drafting is not None:
            self.network = joining(self.network)
            self.helpers = [drafting]
        self.networks = {"deconvolution": self.network}
        self.optimizers = {"deconvolution": self.adamw(self.network)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one sample, by name."""
        return super().shapes() | {"kernel": (KERNEL, KERNEL), "gamma": ()}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the sum of `losses`, by the draft or the photo that the result improves on."""
        photos = batch["blur"]
        drafts = self.drafts(photos)
        noise = measured_noise(photos)
        made = self.network(photos, batch["kernel"], noise, batch["gamma"], drafts)
        terms = losses(made, photos if drafts is None else drafts, batch["sharp"])
        return torch.stack(list(terms.values())).sum(), terms

    @torch.no_grad()
    def drafts(self, photos: Tensor) -> Tensor | None:
        """Return what the drafting network makes of photos (N, 3, H, W); None without one."""
        if self.drafting is None:
            return None
        made = self.drafting(photos)
        image: Tensor = made[-1] if isinstance(made, list) else made
        return image.float()

    def in_common(self, own: States, given: States) -> tuple[States, States]:
        """Return the tensors that both have: a step that joins drafts is added to the network."""
        both = own.keys() & given.keys()
        return {key: own[key] for key in own if key in both}, given

    def finished(self, role: str, states: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights with the share `keep` of the initial ones.

        WiSE-FT: Wortsman et al., CVPR 2022.
        """
        return {
            key: torch.lerp(value, self.initial[key].to(value), self.c.keep)
            if key in self.initial and value.is_floating_point()
            else value
            for key, value in states.items()
        }


def plan(
    inputs: TrainingInputs, preset: str, overrides: dict[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training the network; see `tasks.train.plan_training`."""
    assert isinstance(inputs, DeconvolutionInputs)
    c = DeconvolutionConfiguration.resolve(preset, **overrides)
    initial = deconvolver(load_checkpoint(run.start)) if run.start else None
    drafting, about = None, {}
    if inputs.draft:
        draft = load_checkpoint(inputs.draft)
        drafting, about = network_for("deblurring", draft), {"draft": draft.provenance}
    build = partial(DeconvolutionRecipe, c, initial, drafting, about)
    return Plan(c, build, samples=partial(DeconvolutionSamples, configuration=c))


def deconvolver(checkpoint: Checkpoint) -> Deconvolver:
    """Return the deconvolution network of a checkpoint."""
    network = network_for("deconvolving", checkpoint)
    assert isinstance(network, Deconvolver)
    return network.float()


# ---- the blur estimator --------------------------------------------------------------------------

ESTIMATOR_SCORES = ("agreement", "gain", "confidence_error")
"""What the estimator is validated for; the gain is that of the deconvolution network, in dB."""

CLEANED_ORIENTATIONS = 3
"""More orientations of a square in which the kernels of a turn are cleaned in training."""


class EstimatorRecipe(DecayingRecipe):
    """The blur estimator, beside a deconvolution network that stays as it is.

    Both are in the checkpoint, so that it restores photos by itself.
    """

    best = "gain"

    def __init__(self, configuration: EstimatorConfiguration, network: Deconvolver) -> None:
        super().__init__(configuration)
        c = self.c = configuration
        self.network = network.eval().requires_grad_(False)
        self.estimator = BlurEstimator(c.edges, c.width, c.kernel_width)
        self.networks = {"estimator": self.estimator, "deconvolution": self.network}
        self.optimizers = {"estimator": self.adamw(self.estimator)}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one sample, by name."""
        return super().shapes() | {"kernel": (FULL, FULL), "start": (FULL, FULL), "gamma": ()}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the mean over some turns of what their kernels and edges are wrong by.

        Kernels are compared with the true ones, and by what they do to a picture; their expected
        agreement with the actual one. The sides of the turns' kernels are drawn for each step.
        """
        step, _ = self.drawing
        _, sizes = drawn_path(self.c.seed, step)
        rng = np.random.default_rng([self.c.seed, step, 3])
        gammas = batch["gamma"]
        sums: Losses = {}
        known = self.estimator, self.network, batch["blur"], gammas
        for size, seen, turn in turns(*known, batch["start"], sizes):
            true = batch["kernel"]
            true = true if size == FULL else recentred(kernels_at(true, size))
            light = reduced(batch["sharp"], size / FULL) ** gammas.view(-1, 1, 1, 1)
            terms = {"edges": 0.3 * edge_error(turn.edges, light.mean(1), size // 2)}
            agreement = kernel_agreement(true, turn.kernels.detach()).mean()
            terms |= kernel_errors(*self.oriented(rng, turn, true, seen.noise))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value / len(sizes)
        total = torch.stack(list(sums.values())).sum()
        return total, sums | {"agreement": agreement}

    def oriented(
        self, rng: np.random.Generator, turn: Turn, true: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a turn as `kernel_errors` takes it, with what is cleaned in other orientations."""
        if self.estimator.cleaner is None:
            return turn.kernels, turn.agreement, true, noise
        numbers = [int(number) for number in 1 + rng.permutation(7)[:CLEANED_ORIENTATIONS]]
        evidence, kernels = (
            torch.cat([oriented_squares(x, number) for number in numbers])
            for x in (turn.evidence.detach(), true)
        )
        cleaned, agreement = self.estimator.cleaner(evidence, noise.repeat(len(numbers)))
        return (
            torch.cat([turn.kernels, recentred(cleaned)]),
            torch.cat([turn.agreement, agreement]),
            torch.cat([true, recentred(kernels)]),
            noise.repeat(1 + len(numbers)),
        )


def kernel_errors(found: Tensor, expected: Tensor, true: Tensor, noise: Tensor) -> Losses:
    """Return what kernels (N, s, s) with an expected agreement (N,) are wrong by."""
    agreement = kernel_agreement(true, found.detach())
    return {
        "gap": expected_gap(found, true, noise).mean(),
        "distance": 0.5 * distance(found, true).mean(),
        "confidence": (expected - agreement).abs().mean(),
    }


def oriented_squares(squares: Tensor, number: int) -> Tensor:
    """Return squares (..., s, s) in one of eight orientations, 0 to 7; 0 is as they are."""
    squares = torch.rot90(squares, number % 4, (-2, -1))
    return (squares.flip(-1) if number >= 4 else squares).contiguous()


def edge_error(edges: Tensor, sharp: Tensor, margin: int) -> Tensor:
    """Return the error of edges (N, 2, H, W) relative to the gradients of `sharp` (N, H, W)."""
    middle = (..., slice(margin, -margin), slice(margin, -margin))
    true = torch.stack(forward_differences(sharp), 1)[middle]
    error = (edges[middle] - true).abs().sum((1, 2, 3))
    return (error / true.abs().sum((1, 2, 3)).clamp_min(1)).mean()


def estimator_plan(
    inputs: TrainingInputs, preset: str, overrides: dict[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training the estimator; see `tasks.train.plan_training`."""
    assert isinstance(inputs, EstimatorInputs)
    c = EstimatorConfiguration.resolve(preset, **overrides)
    file = inputs.deconvolution
    checkpoint = load_checkpoint(file) if file else load_shipped("deconvolution", "deconvolving")
    network = deconvolver(checkpoint)
    return Plan(
        c,
        partial(EstimatorRecipe, c, network),
        samples=partial(EstimationSamples, configuration=c),
        validate=partial(held_out, c, network, run.validate_on),
    )


def held_out(
    configuration: Configuration, network: Deconvolver, count: int, shards: Sequence[Path]
) -> Validate:
    """Return the validation on `count` samples drawn from held-out shards, always the same."""
    drawing = replace(configuration, batch=count, seed=0, crop=320)
    samples = EstimationSamples(shards, drawing)

    @torch.inference_mode()
    def validate(
        checkpoint: Checkpoint, processes: Processes, pictures: Path | None, step: int
    ) -> dict[str, float]:
        device = processes.device
        estimator = load_networks(checkpoint)["estimator"].to(device)
        assert isinstance(estimator, BlurEstimator)
        table = torch.zeros(count, len(ESTIMATOR_SCORES), dtype=torch.float64)
        for number in range(processes.rank, count, processes.count):
            loaded = samples.load(0, slice(number, number + 1)) | {"start": dots(1).numpy()}
            batch = samples.to_device(loaded, device)
            known = estimator, network.to(device), batch["blur"], batch["gamma"]
            *_, (_, seen, turn) = turns(*known, batch["start"], (*SIDES, FULL))
            agreement = kernel_agreement(batch["kernel"], turn.kernels)
            restored = network(batch["blur"], turn.kernels, seen.noise, batch["gamma"]).image
            errors = [
                (image.clamp(0, 1) - batch["sharp"])[..., 24:-24, 24:-24].square().mean()
                for image in (batch["blur"], restored)
            ]
            gain = 10 * torch.log10(errors[0] / errors[1])
            off = (turn.agreement - agreement).abs()
            table[number] = torch.stack([agreement[0], gain, off[0]]).double().cpu()
        return dict(zip(ESTIMATOR_SCORES, processes.sum(table).mean(0).tolist(), strict=True))

    return validate
