"""Contextual similarity CX of two images, not necessarily aligned or of one size (Mechrez 2018).

The images are similar if every feature of Y, the sharp image, is much nearer to some feature of X,
the image in question, than to all others. Values are comparable only if network, layers, bandwidth,
distance and image size are the same.
"""

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
"""Added to the smallest distance and to CX, as in the usual PyTorch code."""

ELEMENTS = 1 << 22
"""The number of distances in memory at a time, 16 MiB in float32, for images of any size."""

BANDWIDTH = 1.0
"""Gives values of the magnitude that the MSDI-Net paper reports; the paper does not name its
bandwidth. The authors of CX use 0.5."""


@torch.inference_mode()
def feature_similarity(
    x: Tensor, y: Tensor, bandwidth: float = BANDWIDTH, distance: str = "cosine"
) -> float:
    """Return CX(x, y) in (0, 1] of two feature maps (C, ...), each with any number of positions.

    Mechrez et al. 2018, Eq. 2 to 5: the distances d_ij of positions i in x and j in y are divided
    by min_j d_ij + 1e-5; the weights exp((1 - d_ij) / bandwidth) are divided by their sum over j;
    CX is the mean over j of the largest weight over i. `distance` is `cosine` (1 - cos, after the
    mean of y is subtracted from both), `l1` (sum of absolute differences) or `l2` (sum of squares,
    as in the authors' code). CX is computed in the precision of the maps. Raises UsageError if the
    bandwidth is not positive or the distance is unknown.
    """
    _check_options(bandwidth, distance)
    xs, ys = x.flatten(1).t(), y.flatten(1).t()
    if distance == "cosine":
        mean = ys.mean(0)
        # A zero vector stays zero: its distance from all others is 1.
        xs, ys = normalize(xs - mean, dim=1), normalize(ys - mean, dim=1)
    best = ys.new_zeros(len(ys))
    for rows in xs.split(max(1, ELEMENTS // len(ys))):
        distances = DISTANCES[distance](rows, ys)
        distances /= distances.amin(1, keepdim=True) + DISTANCE_EPSILON
        # softmax divides the weights by their sum, and does not overflow at small bandwidths.
        best = torch.maximum(best, distances.div_(-bandwidth).softmax(1).amax(0))
    return float(best.mean())


EXACT = "donot_use_mm_for_euclid_dist"
"""With a matrix product, equal features would get squared distances above 1e-5."""

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": lambda xs, ys: (1 - xs @ ys.t()).clamp_(min=0),
    "l1": lambda xs, ys: torch.cdist(xs, ys, p=1),
    "l2": lambda xs, ys: torch.cdist(xs, ys, compute_mode=EXACT).square_(),
}
"""By name, the functions from rows (I, C) and (J, C) to their distances (I, J)."""


def _check_options(bandwidth: float, distance: str) -> None:
    """Raise UsageError if the bandwidth is not positive and finite or the distance is unknown."""
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise UsageError(f"--bandwidth {bandwidth}: give a number above 0, such as 0.5")
    if distance not in DISTANCES:
        raise UsageError(f"--distance {distance}: use {', '.join(DISTANCES)}")


@dataclass(frozen=True)
class Contextual:
    """The contextual similarity of two images.

    `similarity` is the mean of CX over the layers; `distance` the sum over the layers of
    -log(CX + 1e-5); `positions` the number of positions in X and in Y, over all layers.
    """

    similarity: float
    distance: float
    positions: tuple[int, int]


def contextual_network(
    path: str | Path, layers: Sequence[str] = (), device: str | torch.device = "cpu"
) -> FeatureNetwork:
    """Return the feature network in `path` for `ContextualSimilarity`, ImageNet-normalised.

    `layers` are names from its row in nn/features.py, which also has the default.
    Raises BlurkitError if the file cannot be read, or if the network or a layer is unknown.
    """
    network = load_features(path, layers or (CONTEXTUAL,)).to(device)
    network.normalise = True
    return network


@dataclass(frozen=True)
class ContextualSimilarity:
    """Computes CX(x, y) of two images of any depth and size, in layers of a `contextual_network`.

    The distances of several layers are summed, as in the authors' style loss; `bandwidth` and
    `distance` are those of `feature_similarity`. Raises UsageError if they are invalid.
    """

    network: FeatureNetwork
    bandwidth: float = BANDWIDTH
    distance: str = "cosine"

    def __post_init__(self) -> None:
        _check_options(self.bandwidth, self.distance)

    def __call__(self, x: Image, y: Image) -> Contextual:
        """Compare image `x` with the reference `y`, both (H, W, C); raises as `features` does."""
        return self.compare(self.features(x), self.features(y))

    @torch.inference_mode()
    def features(self, image: Image) -> list[Tensor]:
        """Return the maps (C, H, W) of the layers; a grayscale image is repeated to RGB.

        Raises BlurkitError if the image is too small for the network.
        """
        height, width = image.shape[:2]
        rgb = np.broadcast_to(to_float(image), (height, width, 3)).transpose(2, 0, 1)
        batch = torch.from_numpy(np.ascontiguousarray(rgb))[None].to(self.network.mean.device)
        try:
            return [maps[0] for maps in self.network(batch)]
        except RuntimeError as error:
            what = f"{self.network.name} cannot process an image of {width}x{height} pixels"
            raise BlurkitError(f"{what}: {one_line(error)}") from error

    def compare(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Contextual:
        """Compare two images by their `features`."""
        how = self.bandwidth, self.distance
        similarities = [feature_similarity(a, b, *how) for a, b in zip(x, y, strict=True)]
        return Contextual(
            similarity=sum(similarities) / len(similarities),
            distance=sum(-math.log(value + DISTANCE_EPSILON) for value in similarities),
            positions=(sum(m[0].numel() for m in x), sum(m[0].numel() for m in y)),
        )

    def protocol(self, crop: int, x: str, y: str) -> dict[str, str]:
        """Return the lines that document the values; `x` and `y` name the two images."""
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
