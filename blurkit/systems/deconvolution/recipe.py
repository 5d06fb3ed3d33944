"""The training of the deconvolution network and of the blur estimator that works with it."""

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

from blurkit.engine.torch_runner import full_precision
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.deconvolution.config import DeconvolutionConfiguration, DeconvolutionInputs
from blurkit.systems.deconvolution.estimator import (
    FULL,
    BlurEstimator,
    Turn,
    distance,
    dots,
    expected_gap,
    forward_differences,
    turns,
)
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    kernels_at,
    measured_noise,
    recentred,
    reduced,
    rfft2,
    with_residual,
)
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.samples import DeconvolutionSamples, drawn_path
from blurkit.systems.registry import load_networks
from blurkit.systems.uses import network_for
from blurkit.training.configuration import Configuration, Run, TrainingInputs
from blurkit.training.distributed import Processes
from blurkit.training.recipe import Batch, Losses, Plan, Recipe, States, Validate, trainable

DECONVOLUTION_SCORES = ("agreement", "gain", "confidence_error")
"""What is validated: kernels from a dot, the restored picture (dB), and the expected agreement."""


class DeconvolutionRecipe(Recipe):
    """The blur estimator and the deconvolution network, each on what the other one makes.

    The estimator learns from the kernels of drawn blur; then the network restores the photos by the
    kernels that were found, or by those that the samples give. With `drafting`, a network that
    deblurs without a kernel, it also learns to join its results; `provenance` is that of the
    drafts. A network whose learning rate is 0 stays as it is.
    """

    best = "gain"

    def __init__(
        self,
        configuration: DeconvolutionConfiguration,
        drafting: nn.Module | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(configuration)
        c = self.c = configuration
        self.provenance = dict(provenance or {})
        self.drafting = drafting
        self.helpers = [] if drafting is None else [drafting]
        self.network = Deconvolver(drafts=drafting is not None)
        self.estimator = BlurEstimator(c.edges, c.width, c.kernel_width)
        self.networks = {"estimator": self.estimator, "deconvolution": self.network}
        self.rates = {"estimator": c.estimator_rate, "deconvolution": c.learning_rate}
        if c.judges_only:
            self.network.requires_grad_(False)
            for judge in self.network.judges():
                judge.requires_grad_(True)
        betas, decay = (c.beta1, c.beta2), c.weight_decay
        self.optimizers = {
            role: torch.optim.AdamW(trainable(network), self.rates[role], betas, weight_decay=decay)
            for role, network in self.networks.items()
            if self.rates[role]
        }

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the rate at `step`: it rises for 5 %, is constant, and falls by half a cosine."""
        c = self.c
        part = step / (c.schedule_iterations or c.iterations)
        fraction = min(1.0, max(0.0, part - c.constant) / (1 - c.constant))
        rate = self.rates[optimizer] * min(1, (part + 1 / c.iterations) / 0.05)
        return max(rate * (1 + math.cos(math.pi * fraction)) / 2, c.final_learning_rate)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one sample, by name."""
        kernels = dict.fromkeys(("kernel", "given", "start"), (FULL, FULL))
        return super().shapes() | kernels | dict.fromkeys(("gamma", "drawn", "found"), ())

    def may_differ(self, own: States, given: States) -> set[str]:
        """Return the weights that join drafts, unless both networks have them."""
        return {key for key in own.keys() ^ given.keys() if key.startswith(("three.", "draft_"))}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return what the named network minimises, and its terms."""
        return self.estimation(batch) if optimizer == "estimator" else self.restoration(batch)

    # ---- the blur estimator ----------------------------------------------------------------------

    def estimation(self, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the mean over some turns of what their kernels and edges are wrong by.

        Kernels of drawn blur are compared with the true ones, and by what they do to a picture;
        their expected agreement with the actual one. The sides of the turns' kernels are drawn for
        each step. The last kernels are left in the batch.
        """
        step, _ = self.drawing
        _, sizes = drawn_path(self.c.seed, step)
        rng = np.random.default_rng([self.c.seed, step, 3])
        gammas, drawn = batch["gamma"], batch["drawn"]
        known = self.estimator, self.network, batch["blur"], gammas
        sums: Losses = {}
        for size, seen, turn in turns(*known, batch["start"], sizes):
            true = batch["kernel"]
            true = true if size == FULL else recentred(kernels_at(true, size))
            light = reduced(batch["sharp"], size / FULL) ** gammas.view(-1, 1, 1, 1)
            errors = edge_errors(turn.edges, light.mean(1), size // 2)
            terms = {"edges": 0.3 * (drawn * errors).mean()}
            agreement = (drawn * kernel_agreement(true, turn.kernels.detach())).mean()
            terms |= kernel_errors(*self.oriented(rng, turn, true, seen.noise, drawn))
            for name, value in terms.items():
                sums[name] = sums.get(name, 0) + value / len(sizes)
            batch["estimate"] = kernels_at(turn.kernels.detach(), FULL)
        total = torch.stack(list(sums.values())).sum()
        return total, sums | {"agreement": agreement}

    def oriented(
        self, rng: np.random.Generator, turn: Turn, true: Tensor, noise: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return a turn as `kernel_errors` takes it, also cleaned in three other orientations."""
        if self.estimator.cleaner is None:
            return turn.kernels, turn.agreement, true, noise, drawn
        numbers = (1 + rng.permutation(7)[:3]).tolist()
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
            drawn.repeat(1 + len(numbers)),
        )

    # ---- the deconvolution network ---------------------------------------------------------------

    def restoration(self, batch: Batch) -> tuple[Tensor, Losses]:
        """Return what the network's pictures, and the errors that it expects, are wrong by.

        A picture counts with the detail that `with_residual` puts back, as it is used. Without
        drafts, it has to improve on the photo, with drafts on the draft.
        """
        photos, sharp, gammas = batch["blur"], batch["sharp"], batch["gamma"]
        noise = measured_noise(photos)
        if "estimate" not in batch:  # the estimator stays as it is
            _, sizes = drawn_path(self.c.seed, self.drawing[0])
            with torch.no_grad():
                known = self.estimator, self.network, photos, gammas, batch["start"]
                *_, (_, _, turn) = turns(*known, sizes)
            torch.clear_autocast_cache()  # of torch 2.6: its copies of weights have no gradients
            batch["estimate"] = kernels_at(turn.kernels, FULL)
        found = batch["found"].view(-1, 1, 1) > 0
        kernels = torch.where(found, batch["estimate"], batch["given"])
        drafts = self.drafts(photos)
        made = self.network(photos, kernels, noise, gammas, drafts)
        terms = {"first": 0.4 * (made.first - sharp).abs().mean()}
        results = [(photos, made)]
        if drafts is not None:
            assert made.second is not None
            results = [(photos, made.second), (drafts, made)]
        for before, result in results:
            with full_precision(photos.device):
                image = with_residual(result.image.float(), photos, kernels, gammas, noise)
            for name, value in picture_errors(image, result.errors, before, sharp).items():
                terms[name] = terms.get(name, 0) + value
        return torch.stack(list(terms.values())).sum(), terms

    @torch.no_grad()
    def drafts(self, photos: Tensor) -> Tensor | None:
        """Return what the drafting network makes of photos (N, 3, H, W); None without one."""
        if self.drafting is None:
            return None
        made = self.drafting(photos)
        return (made[-1] if isinstance(made, list) else made).float()


def kernel_errors(
    found: Tensor, expected: Tensor, true: Tensor, noise: Tensor, drawn: Tensor
) -> Losses:
    """Return what kernels (N, s, s) with an expected agreement (N,) are wrong by.

    `drawn` (N,) are the weights of the photos.
    """
    agreement = kernel_agreement(true, found.detach())
    return {
        "gap": (drawn * expected_gap(found, true, noise)).mean(),
        "distance": 0.5 * (drawn * distance(found, true)).mean(),
        "confidence": (drawn * (expected - agreement).abs()).mean(),
    }


def oriented_squares(squares: Tensor, number: int) -> Tensor:
    """Return squares (..., s, s) in one of eight orientations, 0 to 7; 0 is as they are."""
    squares = torch.rot90(squares, number % 4, (-2, -1))
    return (squares.flip(-1) if number >= 4 else squares).contiguous()


def edge_errors(edges: Tensor, sharp: Tensor, margin: int) -> Tensor:
    """Return the errors (N,) of edges (N, 2, H, W) against the gradients of `sharp` (N, H, W)."""
    middle = (..., slice(margin, -margin), slice(margin, -margin))
    true = torch.stack(forward_differences(sharp), 1)[middle]
    error = (edges[middle] - true).abs().sum((1, 2, 3))
    return error / true.abs().sum((1, 2, 3)).clamp_min(1)


def picture_errors(image: Tensor, expected: Tensor, before: Tensor, sharp: Tensor) -> Losses:
    """Return the errors of an image and its spectrum, and of the errors that are `expected`.

    The latter are those of `Restored`, of `before` and of `image`; images are (N, 3, H, W).
    """
    spectra = [rfft2(picture.float(), norm="ortho") for picture in (image, sharp)]
    errors = [
        F.avg_pool2d((made.detach().float() - sharp).abs().mean(1, keepdim=True), 8)
        for made in (before, image)
    ]
    true = torch.cat(errors, 1).clamp_min(1e-3).log()
    return {
        "l1": (image - sharp).abs().mean(),
        "spectrum": 0.02 * (spectra[0] - spectra[1]).abs().mean(),
        "judge": 0.02 * (expected - true).abs().mean(),
    }


# ---- the plan ------------------------------------------------------------------------------------


def plan(
    inputs: TrainingInputs, preset: str, overrides: dict[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training both networks; see `tasks.train.plan_training`."""
    assert isinstance(inputs, DeconvolutionInputs)
    c = DeconvolutionConfiguration.resolve(preset, **overrides)
    drafting, about = None, {}
    if inputs.draft:
        draft = load_checkpoint(inputs.draft)
        drafting, about = network_for("deblurring", draft), {"draft": draft.provenance}
    return Plan(
        c,
        partial(DeconvolutionRecipe, c, drafting, about),
        samples=partial(DeconvolutionSamples, configuration=c),
        validate=partial(held_out, c, run.validate_on),
    )


def held_out(configuration: Configuration, count: int, shards: Sequence[Path]) -> Validate:
    """Return the validation on `count` samples drawn from held-out photos, always the same."""
    drawing = replace(configuration, batch=count, seed=0, crop=320)
    samples = DeconvolutionSamples(shards, drawing, pairs=False)

    @torch.inference_mode()
    def validate(
        checkpoint: Checkpoint, processes: Processes, pictures: Path | None, step: int
    ) -> dict[str, float]:
        device = processes.device
        networks = load_networks(checkpoint)
        estimator, network = networks["estimator"].to(device), networks["deconvolution"].to(device)
        assert isinstance(estimator, BlurEstimator) and isinstance(network, Deconvolver)
        table = torch.zeros(count, len(DECONVOLUTION_SCORES), dtype=torch.float64)
        for number in range(processes.rank, count, processes.count):
            loaded = samples.load(0, slice(number, number + 1)) | {"start": dots(1).numpy()}
            batch = samples.to_device(loaded, device)
            photo, sharp, gamma = batch["blur"], batch["sharp"], batch["gamma"]
            known = estimator, network, photo, gamma, batch["start"]
            *_, (_, seen, turn) = turns(*known, (7, 11, 15, 21, 29, FULL))
            agreement = kernel_agreement(batch["kernel"], turn.kernels)
            made = network(photo, turn.kernels, seen.noise, gamma).image
            restored = with_residual(made, photo, turn.kernels, gamma, seen.noise)
            errors = [
                (image.clamp(0, 1) - sharp)[..., 24:-24, 24:-24].square().mean()
                for image in (photo, restored)
            ]
            gain = 10 * torch.log10(errors[0] / errors[1])
            off = (turn.agreement - agreement).abs()
            table[number] = torch.stack([agreement[0], gain, off[0]]).double().cpu()
        return dict(zip(DECONVOLUTION_SCORES, processes.sum(table).mean(0).tolist(), strict=True))

    return validate
