"""A learned estimator of the blur: turns between a picture and a kernel, both by networks.

docs/deconvolution.md describes the parts of a turn. Every part works at every scale, so turns go
from coarse to fine, from any kernel. Designs that were compared are options of `BlurEstimator`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import zero
from blurkit.systems.deconvolution.config import FULL
from blurkit.systems.deconvolution.estimation import FADE, projected, two_toned
from blurkit.systems.deconvolution.fourier import (
    around_origin,
    centred_transfer,
    fast_length,
    framed,
    gradient_power,
    irfft2,
    kernels_at,
    measured_noise,
    moved,
    offsets,
    recentred,
    reduced,
    rfft2,
    transfer_function,
)
from blurkit.systems.deconvolution.networks import (
    NOISE_SCALE,
    DeconvolutionResidualBlock,
    Deconvolver,
    UNet,
    unshuffled,
)
from blurkit.systems.system import Shapes

RIDGES = (0.0, 3.0, 6.0)
"""Logarithms of the factors by which the ridges of the plain kernels exceed that of the turn."""

START = 5
"""Side of the dot from which kernels are estimated."""


@dataclass
class Turn:
    """What a turn finds for photos (N, 3, H, W).

    `kernels` (N, s, s) were cleaned of what `evidence` (N, 7, s, s) holds: the kernels of least
    squares, those before the turn, plain solutions for all `RIDGES`, in units of 1 / s; the
    cross-correlation of edges and photo, and the photo's autocorrelation, up to 1. `edges` (N, 2,
    H, W) are the gradients that explain the photo, `agreement` (N,) is the one expected between
    `kernels` and the true ones; `picture` (N, 3, H, W) was restored with the kernels before.
    """

    kernels: Tensor
    evidence: Tensor
    edges: Tensor
    agreement: Tensor
    picture: Tensor


@dataclass
class View:
    """Photos at one scale, and what every turn there needs of them.

    `photos` (N, 3, h, w); `light` (N, h, w) their grey light; `spectra` those of its gradients, in
    a frame with the sides `sides`; `own` (N, s, s) the autocorrelation of the gradients.
    """

    photos: Tensor
    gammas: Tensor
    noise: Tensor
    light: Tensor
    spectra: tuple[Tensor, Tensor]
    sides: tuple[int, int]
    own: Tensor
    noisy: Tensor


def view(photos: Tensor, gammas: Tensor, size: int) -> View:
    """Return photos (N, 3, H, W) in [0, 1] as turns with kernels of side `size` take them."""
    light = (photos.clamp(0, 1) ** gammas.view(-1, 1, 1, 1)).mean(1)
    photo = framed(light, size // 2 + FADE)
    sides = (photo.shape[-2], photo.shape[-1])
    spectra = [rfft2(g) for g in forward_differences(photo)]
    power = spectra[0].abs().square() + spectra[1].abs().square()
    own = around_origin(power + 0j, size, sides)
    own = own / own.amax((-2, -1), keepdim=True).clamp_min(1e-9)
    noise, noisy = measured_noise(photos), measured_noise(light[:, None])
    return View(photos, gammas, noise, light, (spectra[0], spectra[1]), sides, own, noisy)


class BlurEstimator(nn.Module):
    """Finds the kernels of photos in turns, with the help of a deconvolution network.

    `edges` is how a turn finds the edges of its picture: "soft" keeps the strong ones, "head"
    selects and repairs them by a small network that also sees the first step's features, and
    "unet" by a U-Net; either has `width` channels. `kernel_width` is that of the network on the
    kernels' grid; with 0, least squares has the last word. The deconvolution network is given to
    every call, not owned.
    """

    def __init__(self, edges: str = "head", width: int = 40, kernel_width: int = 32) -> None:
        super().__init__()
        about = {"edges": edges, "width": width, "kernel_width": kernel_width}
        self.options: dict[str, Any] = about
        self.threshold = nn.Parameter(torch.tensor([-3.0, -4.6]))
        self.ridge = nn.Parameter(torch.tensor([-10.6, 3.0]))
        self.edges: nn.Module | None = None
        if edges != "soft":
            self.edges = EdgeHead(width) if edges == "head" else EdgeUNet(width)
        self.cleaner = KernelNetwork(kernel_width) if kernel_width else None

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> BlurEstimator:
        """Return the network whose state dict has these shapes."""
        kernel_width = shapes["cleaner.network.first.bias"][0] if shapes.has("cleaner.") else 0
        if shapes.has("edges.network."):
            return cls("unet", shapes["edges.network.first.bias"][0], kernel_width)
        if shapes.has("edges."):
            return cls("head", shapes["edges.first.bias"][0], kernel_width)
        return cls("soft", kernel_width=kernel_width)

    def forward(
        self, network: Deconvolver, seen: View, kernels: Tensor, toned: bool = False
    ) -> Turn:
        """Make one turn from `kernels` (N, s, s), whose first step's picture `network` makes.

        One kernel for several photos, (1, s, s), is that which explains all of them. If they are
        `toned`, like print, the edges are those between two tones.
        """
        h, w = seen.photos.shape[-2:]
        with torch.no_grad():
            missing = (0, -w % network.multiple, 0, -h % network.multiple)
            photos = F.pad(seen.photos, missing, mode="replicate")
            each = kernels.expand(len(photos), -1, -1)
            _, picture, features = network.first_step(photos, each, seen.noise, seen.gammas)
            picture = picture[..., :h, :w].float()
            values = picture.clamp(1e-4, 1)
            if toned:
                values = two_toned(values.mean(1), kernels.shape[-1]).clamp_min(1e-4)[:, None]
            light = (values ** seen.gammas.view(-1, 1, 1, 1)).mean(1)
            gradients = torch.stack(forward_differences(light), 1)
        if toned:
            return self.turn(seen, kernels, picture, gradients)
        kept = self.kept(gradients)
        if self.edges is None:
            edges = gradients * kept
        else:
            edges = self.edges(seen, light, features.float(), gradients, kept)
        return self.turn(seen, kernels, picture, edges)

    def kept(self, gradients: Tensor) -> Tensor:
        """Return the weights (N, 1, H, W), 0 to 1, by which gradients (N, 2, H, W) are strong."""
        size = gradients.square().sum(1, keepdim=True).add(1e-8).sqrt()
        return torch.sigmoid((size - self.threshold[0].exp()) / self.threshold[1].exp())

    def turn(self, seen: View, kernels: Tensor, picture: Tensor, edges: Tensor) -> Turn:
        """Return the turn whose picture has these edges (N, 2, H, W)."""
        size = kernels.shape[-1]
        ridge = self.ridge[0].exp() + self.ridge[1].exp() * seen.noisy.square()
        explained, plain, crossed = least_squares(seen, edges, size, ridge, len(kernels))
        found = recentred(torch.cat([explained, kernels, *plain])).chunk(2 + len(plain))
        own, noise = pooled(seen.own, len(kernels)), pooled(seen.noise, len(kernels))
        evidence = torch.stack([*(size * k for k in found), crossed, own], 1)
        if self.cleaner is None:
            kernels, agreement = found[0], found[0].new_ones(len(kernels))
        else:
            kernels, agreement = self.cleaner(evidence, noise)
            kernels = recentred(kernels)
        kernels = kernels / kernels.sum((-2, -1), keepdim=True)  # what leaves it is lost
        return Turn(kernels, evidence, edges, agreement, picture)


class EdgeHead(nn.Module):
    """Selects and repairs a picture's gradients, at half size, seeing the first step's features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(32 + 4 * 4 + 1, width, 3, padding=1)
        self.blocks = nn.Sequential(*(DeconvolutionResidualBlock(width) for _ in range(2)))
        self.last = nn.Conv2d(width, 4 * 4, 3, padding=1)
        zero(self.last)

    def forward(
        self, seen: View, light: Tensor, features: Tensor, gradients: Tensor, kept: Tensor
    ) -> Tensor:
        """Return the edges (N, 2, H, W) from the picture's light, gradients and their weights."""
        x = torch.cat([seen.light[:, None], light[:, None], 4 * gradients], 1)
        h, w = light.shape[-2:]
        x = unshuffled(F.pad(x, (0, w % 2, 0, h % 2), mode="replicate"))
        features = features[..., : x.shape[-2], : x.shape[-1]]
        noisy = (NOISE_SCALE * seen.noise).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[-2:])
        x = self.blocks(self.first(torch.cat([x, features, noisy], 1)))
        out = F.pixel_shuffle(self.last(F.leaky_relu(x, 0.1)), 2)[..., :h, :w]
        weight = torch.sigmoid(torch.logit(kept, 1e-4) + 4 * out[:, :2])
        return gradients * weight + 0.1 * out[:, 2:]


class EdgeUNet(nn.Module):
    """The same by a U-Net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.multiple = 8
        self.network = UNet(4 * 5 + 32, 4 * 4, (width, 2 * width, 3 * width))

    def forward(
        self, seen: View, light: Tensor, features: Tensor, gradients: Tensor, kept: Tensor
    ) -> Tensor:
        """Return the edges (N, 2, H, W) from the picture's light, gradients and their weights."""
        noisy = (NOISE_SCALE * seen.noise).view(-1, 1, 1, 1).expand(-1, 1, *light.shape[-2:])
        x = torch.cat([seen.light[:, None], light[:, None], 4 * gradients, noisy], 1)
        h, w = light.shape[-2:]
        missing = (0, -w % self.multiple, 0, -h % self.multiple)
        x = unshuffled(F.pad(x, missing, mode="replicate"))
        missing = (0, x.shape[-1] - features.shape[-1], 0, x.shape[-2] - features.shape[-2])
        features = F.pad(features, missing) if max(missing) > 0 else features
        features = features[..., : x.shape[-2], : x.shape[-1]]
        out, _ = self.network(torch.cat([x, features], 1))
        out = F.pixel_shuffle(out, 2)[..., :h, :w]
        weight = torch.sigmoid(torch.logit(kept, 1e-4) + 4 * out[:, :2])
        return gradients * weight + 0.1 * out[:, 2:]


class KernelNetwork(nn.Module):
    """Cleans kernels on their own grid: a U-Net that knows the paths of cameras.

    Values are in units of 1 / side, so that paths look the same at every scale.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.multiple = 4
        evidence = 2 + len(RIDGES) + 2
        self.network = UNet(evidence + 3, 2, (width, 2 * width, 4 * width))
        self.expects = nn.Sequential(
            nn.Conv2d(width + 2, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 1),
        )

    def forward(self, evidence: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cleaned kernels (N, s, s) and their expected agreement (N,).

        `evidence` is that of `Turn`, `noise` (N,) the standard deviation of the photos' noise.
        """
        size = evidence.shape[-1]
        base = (evidence[:, 0] + 1e-3).log()  # in units of 1 / side; faint pixels may come back
        reach = torch.linspace(-1, 1, size, device=base.device)
        radius = torch.hypot(reach[:, None], reach[None]).expand_as(base)
        noisy = (NOISE_SCALE * noise).view(-1, 1, 1).expand_as(base)
        x = torch.cat([torch.stack([base / 4, radius, noisy], 1), evidence], 1)
        pad = -size % self.multiple
        out, features = self.network(F.pad(x, (0, pad, 0, pad)))
        out, features = (y[..., :size, :size] for y in (out, features))
        logits = base * (1 + out[:, 0]) + 4 * out[:, 1]
        kernels = logits.flatten(1).softmax(1).view_as(base)
        seen = torch.stack([size * kernels, evidence[:, 0]], 1)
        expected = self.expects(torch.cat([features, seen], 1).detach())[:, 0]
        return kernels, torch.sigmoid(expected)


def turns(
    estimator: BlurEstimator,
    network: Deconvolver,
    photos: Tensor,
    gammas: Tensor,
    kernels: Tensor,
    sizes: Sequence[int],
    full: int = FULL,
    toned: bool = False,
) -> Iterator[tuple[int, View, Turn]]:
    """Yield the turns of photos (N, 3, H, W), one for each kernel side in `sizes`, from coarse on.

    The first starts from `kernels` (N, s, s), or (1, s, s) for one that all photos share; any other
    from those before it. Kernels in the photos themselves have the side `full`. `toned`
    photos are print.
    """
    views: dict[int, View] = {}
    for size in sizes:
        if size not in views:
            views[size] = view(reduced(photos, size / full), gammas, size)
        start = kernels_at(recentred(kernels.detach()), size)
        turn = estimator(network, views[size], start, toned)
        kernels = turn.kernels
        yield size, views[size], turn


def least_squares(
    seen: View, edges: Tensor, size: int, ridge: Tensor, count: int, steps: int = 12
) -> tuple[Tensor, list[Tensor], Tensor]:
    """Return kernels (count, size, size) that explain photos' gradients by edges (N, 2, H, W).

    `count` is N or 1: one kernel for each photo, or for all. They are those of `projected`; then
    come the plain solutions, that may be below 0, for all `RIDGES`; then the cross-correlation, up
    to 1. Differentiable with respect to edges and `ridge` (N,).
    """
    h, w = edges.shape[-2:]
    top, left = offsets(edges, list(seen.sides))
    pads = (left, seen.sides[1] - w - left, top, seen.sides[0] - h - top)
    window = taper(h, w, size // 2, edges.device)
    half, whole = (rfft2(F.pad(edges * part, pads)) for part in (window.sqrt(), window))
    crossed = (whole.conj() * torch.stack(seen.spectra, 1)).sum(1)
    power = half.abs().square().sum(1)
    crossed, power, ridge = (pooled(x, count) for x in (crossed, power, ridge))
    r = ridge.view(-1, 1, 1) * h * w
    plain = []
    for factor in RIDGES:
        kernel = around_origin(crossed / (power + math.exp(factor) * r), size, seen.sides)
        plain.append(kernel / kernel.clamp_min(0).sum((-2, -1), keepdim=True).clamp_min(1e-6))
    wanted = around_origin(crossed, size, seen.sides)
    reach = min(2 * size - 1, min(seen.sides) // 2 * 2 - 1)
    correlation = around_origin(power + 0j, reach, seen.sides)
    around = fast_length(3 * size)
    response = transfer_function(correlation, around, around).real
    kernel = projected(plain[0].clamp_min(0), response, wanted, r, steps)
    kernel = F.relu(kernel - 0.03 * kernel.amax((-2, -1), keepdim=True))
    kernel = (kernel + 1e-8) / (kernel + 1e-8).sum((-2, -1), keepdim=True)
    return kernel, plain, wanted / wanted.abs().amax((-2, -1), keepdim=True).clamp_min(1e-9)


def pooled(values: Tensor, count: int) -> Tensor:
    """Return values (N, ...) as they are if `count` is N, else their mean (1, ...)."""
    return values if len(values) == count else values.mean(0, keepdim=True)


def forward_differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `gradients` of `x`, differentiable."""
    return torch.roll(x, -1, -1) - x, torch.roll(x, -1, -2) - x


def taper(height: int, width: int, margin: int, device: torch.device) -> Tensor:
    """Return weights (height, width) that rise from 0 at the border to 1 at half of `margin`."""
    ramps = []
    for side in (height, width):
        place = torch.arange(side, device=device) + 0.5
        ramps.append((torch.minimum(place, side - place) / max(1, margin / 2)).clamp_max(1))
    return ramps[0][:, None] * ramps[1][None]


def dots(count: int) -> Tensor:
    """Return kernels (count, 5, 5) of a small dot, which say nothing about the blur."""
    kernels = torch.zeros(count, START, START)
    kernels[:, START // 2, START // 2] = 1
    return smeared(kernels, 0.6)


def smeared(kernels: Tensor, deviation: float) -> Tensor:
    """Return kernels (N, s, s) under a Gaussian, as an estimate half way."""
    reach = math.ceil(3 * deviation)
    place = torch.arange(-reach, reach + 1)
    bell = torch.exp(-place.square() / (2 * deviation**2))
    bell = bell / bell.sum()
    across = F.conv2d(kernels[:, None], bell.view(1, 1, 1, -1), padding=(0, reach))
    return F.conv2d(across, bell.view(1, 1, -1, 1), padding=(reach, 0))[:, 0]


# ---- losses --------------------------------------------------------------------------------------


def expected_gap(found: Tensor, true: Tensor, noise: Tensor) -> Tensor:
    """Return the log ratio (N,) of the errors of pictures restored by kernels (N, s, s).

    It is that of Wiener deconvolution with the found and with the true kernel, for pictures with
    the usual power spectrum 1 / f^2 and noise (N,), each kernel's origin its centroid: 0 if they
    are equal, 1 if the error's variance is e times as large.
    """
    side = fast_length(2 * found.shape[-1] + 14)
    wrong, right = (centred_transfer(k, side, side) for k in (found, true))
    power = gradient_power(side, side, found.device)
    signal = 0.006 / (power + 0.01)
    variance = (noise.view(-1, 1, 1).square() + 2e-3**2) * 2
    twice = torch.full_like(power, 2)
    twice[:, 0] = twice[:, -1] = 1  # the other half of the spectrum

    def error(transfer: Tensor) -> Tensor:
        inverse = transfer.conj() / (transfer.abs().square() + variance / signal)
        off = (1 - inverse * right).abs().square() * signal
        return ((off + inverse.abs().square() * variance) * twice).sum((-2, -1))

    return (error(wrong) / error(right)).log()


def distance(found: Tensor, true: Tensor) -> Tensor:
    """Return the absolute differences (N,) of kernels and of the same smoothed by 3x3 pixels.

    The true kernels are moved by the whole pixels at which they agree best.
    """
    true = aligned(true, found.detach())
    smooth = [F.avg_pool2d(k[:, None], 3, 1, 1)[:, 0] for k in (found, true)]
    fine = (found - true).abs().sum((-2, -1))
    return fine + (smooth[0] - smooth[1]).abs().sum((-2, -1))


def aligned(kernels: Tensor, others: Tensor) -> Tensor:
    """Return kernels (N, s, s), each moved by up to 3 whole pixels to agree best with another."""
    size = kernels.shape[-1]
    side = fast_length(size + 6)
    spectra = [rfft2(k, s=(side, side)) for k in (kernels, others)]
    correlation = irfft2(spectra[0].conj() * spectra[1], s=(side, side))
    near = torch.roll(correlation, (3, 3), (-2, -1))[..., :7, :7].flatten(1).argmax(1)
    return moved(kernels, near // 7 - 3, near % 7 - 3)
