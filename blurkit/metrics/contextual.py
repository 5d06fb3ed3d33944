"""Contextual similarity CX of two images, which need not be aligned nor of one size (Mechrez 2018).

Each feature of image X looks for the features of image Y that are nearer to it than all others. The
images are alike when every feature of Y is found by some feature of X. It has a direction: X is the
image in question (blurred, restored), Y the one it is held to (sharp).

The papers print distances, -log CX, and so do we: smaller is more similar, 0 is the same, and the
logarithm of the number of positions in Y is the most there can be. Values compare only where
network, layers, bandwidth, distance and image size agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.records import Image, to_float
from blurkit.nn.features import CONTEXTUAL, FeatureNetwork, load_features

DISTANCE_EPSILON = 1e-5
"""Added to the smallest distance and to CX, as the usual PyTorch code does."""

ELEMENTS = 1 << 22
"""Distances held at a time, 16 MiB in float32, whatever the size of the images."""

BANDWIDTH = 1.0
"""Gives magnitudes like the MSDI-Net paper's, which names none; the authors of CX use 0.5."""

# -- feature maps ----------------------------------------------------------------------------------


def contextual_distance(
    x: Tensor, y: Tensor, bandwidth: float = BANDWIDTH, distance: str = "cosine"
) -> float:
    """-log(CX(x, y) + 1e-5), from about 0 for the same features up; see `feature_similarity`."""
    return _as_distance(feature_similarity(x, y, bandwidth, distance))


@torch.inference_mode()
def feature_similarity(
    x: Tensor, y: Tensor, bandwidth: float = BANDWIDTH, distance: str = "cosine"
) -> float:
    """CX(x, y) in (0, 1] of two feature maps (C, ...), each with any number of positions.

    Mechrez et al. 2018, Eq. 2 to 5: distances d_ij of position i in x and j in y, divided by
    min_j d_ij + 1e-5; weights exp((1 - d_ij) / bandwidth), divided by their sum over j; the largest
    over i, the mean over j. `distance` is `cosine` (1 - cos, after the mean of y is taken off
    both), `l1` (sum of absolute differences) or `l2` (sum of squares, as in the authors' code).
    It is computed in the maps' own precision, in rows of i that take little memory.

    Raises UsageError for a bandwidth that is not positive or an unknown distance.
    """
    _check_options(bandwidth, distance)
    xs, ys = x.flatten(1).t(), y.flatten(1).t()
    if distance == "cosine":
        mean = ys.mean(0)
        # A position without features keeps a zero vector, at distance 1 from all.
        xs, ys = normalize(xs - mean, dim=1), normalize(ys - mean, dim=1)
    best = ys.new_zeros(len(ys))
    for rows in xs.split(max(1, ELEMENTS // len(ys))):
        distances = DISTANCES[distance](rows, ys)
        distances /= distances.amin(1, keepdim=True) + DISTANCE_EPSILON
        # softmax is the weights over their sum, and does not overflow at small bandwidths.
        best = torch.maximum(best, distances.div_(-bandwidth).softmax(1).amax(0))
    return float(best.mean())


def _cosine(xs: Tensor, ys: Tensor) -> Tensor:
    return (1 - xs @ ys.t()).clamp_(min=0)


def _l1(xs: Tensor, ys: Tensor) -> Tensor:
    return torch.cdist(xs, ys, p=1)


def _l2(xs: Tensor, ys: Tensor) -> Tensor:
    # By matrix product, equal features would come out further apart than 1e-5.
    return torch.cdist(xs, ys, compute_mode="donot_use_mm_for_euclid_dist").square_()


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{"cosine": _cosine, "l1": _l1, "l2": _l2}
}
"""From rows (I, C) and (J, C) to their distances (I, J)."""


def _check_options(bandwidth: float, distance: str) -> None:
    """Raises UsageError for a bandwidth that is not positive and finite, or an unknown distance."""
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise UsageError(f"--bandwidth {bandwidth}: give a number above 0, such as 0.5")
    if distance not in DISTANCES:
        raise UsageError(f"--distance {distance}: use {', '.join(DISTANCES)}")


def _as_distance(similarity: float) -> float:
    return -math.log(similarity + DISTANCE_EPSILON)


# -- images ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contextual:
    """How alike two images are: `similarity` is CX, the mean over layers; `distance` the sum over
    layers of -log(CX + 1e-5); `positions` counts the positions in X and in Y, of all layers.
    """

    similarity: float
    distance: float
    positions: tuple[int, int]


def contextual_network(
    path: str | Path, layers: Sequence[str] = (), device: str | torch.device = "cpu"
) -> FeatureNetwork:
    """The feature network in `path` as `ContextualSimilarity` takes it, ImageNet-normalised.

    `layers` are names of its table in nn/backbones.py; none means its layer for this purpose
    (VGG-19 relu3_4, VGG-16 relu3_3, VGG-11-BN relu3_2, SqueezeNet fire3, AlexNet relu2).
    Raises BlurkitError for a file that cannot be read, an unknown network or layer.
    """
    network = load_features(path, layers or (CONTEXTUAL,)).to(device)
    network.normalise = True
    return network


@dataclass(frozen=True)
class ContextualSimilarity:
    """CX(x, y) of two images of any depth and size, in the layers of a `contextual_network`.

    Several layers are summed, as the authors' style loss does; `bandwidth` and `distance` are those
    of `feature_similarity`. Raises UsageError for wrong ones.
    """

    network: FeatureNetwork
    bandwidth: float = BANDWIDTH
    distance: str = "cosine"

    def __post_init__(self) -> None:
        _check_options(self.bandwidth, self.distance)

    def __call__(self, x: Image, y: Image) -> Contextual:
        """Compare image `x` with the one it is held to, `y`, both (H, W, C).

        Raises BlurkitError for an image that is too small for the network.
        """
        return self.compare(self.features(x), self.features(y))

    @torch.inference_mode()
    def features(self, image: Image) -> list[Tensor]:
        """The maps (C, H, W) of the layers; grayscale is repeated to RGB. Raises as a call does."""
        height, width = image.shape[:2]
        rgb = np.broadcast_to(to_float(image), (height, width, 3)).transpose(2, 0, 1)
        batch = torch.from_numpy(np.ascontiguousarray(rgb))[None].to(self.network.mean.device)
        try:
            return [maps[0] for maps in self.network(batch)]
        except RuntimeError as error:
            raise BlurkitError(
                f"{self.network.name} cannot take an image of {width}x{height} pixels: "
                f"{one_line(error)}"
            ) from error

    def compare(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Contextual:
        """A call on images whose `features` are at hand."""
        similarities = [
            feature_similarity(a, b, self.bandwidth, self.distance)
            for a, b in zip(x, y, strict=True)
        ]
        return Contextual(
            similarity=sum(similarities) / len(similarities),
            distance=sum(map(_as_distance, similarities)),
            positions=(_positions(x), _positions(y)),
        )

    def protocol(self, crop: int, x: str, y: str) -> dict[str, str]:
        """How the numbers are made, to print and store with them; `x` and `y` name the images."""
        return {
            "values": "-log(CX + 1e-5), Mechrez et al. 2018; smaller is more similar",
            "features": f"{self.network.name}, {' + '.join(self.network.layers)}, "
            "ImageNet normalised",
            "bandwidth": f"{self.bandwidth:g}",
            "distance": self.distance,
            "pixels": f"central {crop}x{crop}" if crop else "whole image",
            "X": x,
            "Y": y,
        }


def _positions(maps: Sequence[Tensor]) -> int:
    return sum(features[0].numel() for features in maps)
