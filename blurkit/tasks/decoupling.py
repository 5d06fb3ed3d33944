"""Whether degradation and content are decoupled: MSDI-Net, Section 4.3 and Fig. 6.

Sharp image A is reblurred with the degradation of another blurry image B. If that degradation
carries no content, the result is as near to A as the blurry A is, and as far from B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError
from blurkit.io.records import Record, central_crop
from blurkit.metrics.contextual import ContextualSimilarity
from blurkit.tasks.reblur import reblur

Pairing = Literal["halves", "neighbours", "shuffled"]

CROP = 256
"""Side in pixels of the compared crops, as in the networks' training; the paper gives none."""

PAPER = {
    "blurred_same": 2.72,
    "reblurred_same": 2.65,
    "blurred_other": 5.43,
    "reblurred_other": 5.39,
}
"""Section 4.3's averages over 555 pairs of GoPro: CX(blur(A), A), CX(ReBlur(A, deg_B), A),
CX(blur(A), B), CX(ReBlur(A, deg_B), B)."""


def pair_up(count: int, pairing: Pairing = "halves", seed: int = 0) -> list[tuple[int, int]]:
    """Return the pairs (A, B) into which `count` records are divided; an odd one is left out.

    `halves` pairs each record of the first half with the one at the same place in the second, which
    shows another scene if the dataset is ordered by scene; `neighbours` pairs each with the next;
    `shuffled` pairs at random. Raises BlurkitError for fewer than two records.
    """
    half, order = count // 2, list(range(count))
    if not half:
        raise BlurkitError(f"decoupling takes pairs of two records; {count} found")
    if pairing == "halves":
        return list(zip(order[:half], order[half : 2 * half], strict=True))
    if pairing == "shuffled":
        order = np.random.default_rng(seed).permutation(count).tolist()
    return list(zip(order[0 : 2 * half : 2], order[1::2], strict=True))


SHOWN = ("sharp", "blur", "blur_like", "reblurred")
"""A, blur(A), blur(B) and ReBlur(A, deg_B) in the pictures of a pair, in the order of Fig. 6."""


@dataclass(frozen=True)
class Decoupled:
    """The result for one pair: distances by the keys of `PAPER`, and the `SHOWN` crops of A."""

    distances: dict[str, float]
    positions: int
    pictures: Record


def decouple(
    a: Record, b: Record, engine: Engine, contextual: ContextualSimilarity, crop: int = CROP
) -> Decoupled:
    """Return the four distances of a pair of records, each with `blur` and `sharp`.

    `engine` runs a reblurring network. All images are cropped at the centre to `crop` pixels a side
    (0: no limit), or to the size common to all if that is smaller. Raises BlurkitError if an image
    is missing or a network fails.
    """
    images = [record.image(role) for record in (a, b) for role in ("sharp", "blur")]
    limit = [crop] if crop else []
    height, width = (min([*limit, *(i.shape[axis] for i in images)]) for axis in (0, 1))
    sharp_a, blur_a, sharp_b, blur_b = (central_crop(image, height, width) for image in images)
    like = Record(b.name, {"sharp": sharp_b, "blur": blur_b})
    reblurred = reblur(Record(a.name, {"sharp": sharp_a}), like, engine).images["reblurred"]
    content = {"same": contextual.features(sharp_a), "other": contextual.features(sharp_b)}
    results = {}
    for kind, image in (("blurred", blur_a), ("reblurred", reblurred)):
        features = contextual.features(image)
        for which, reference in content.items():
            results[f"{kind}_{which}"] = contextual.compare(features, reference)
    return Decoupled(
        {key: results[key].distance for key in PAPER},
        results["blurred_same"].positions[1],
        Record(a.name, dict(zip(SHOWN, (sharp_a, blur_a, blur_b, reblurred), strict=True))),
    )


def summary(distances: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return averages over the pairs, and what they say about decoupling.

    For each key of `PAPER`, there are its mean and `KEY_std`, the standard deviation over pairs
    (None for a single pair), and the `indicators` of the means.
    """
    columns = {key: np.array([row[key] for row in distances]) for key in PAPER}
    mean = {key: float(values.mean()) for key, values in columns.items()}
    several = len(distances) > 1
    std = {f"{k}_std": float(v.std(ddof=1)) if several else None for k, v in columns.items()}
    return {"pairs": len(distances), **mean, **std, **indicators(mean)}


def indicators(mean: Mapping[str, float]) -> dict[str, float]:
    """Return what four averages, such as the paper's, say about decoupling.

    `ratio_blurred` and `ratio_reblurred` are the mean distance to the other content divided by that
    to the same; `deviation_same` and `deviation_other` the relative excess of the reblurred mean.
    """
    blurred_same, reblurred_same, blurred_other, reblurred_other = (mean[key] for key in PAPER)
    return {
        "ratio_blurred": _over(blurred_other, blurred_same),
        "ratio_reblurred": _over(reblurred_other, reblurred_same),
        "deviation_same": _over(reblurred_same, blurred_same) - 1,
        "deviation_other": _over(reblurred_other, blurred_other) - 1,
    }


def _over(numerator: float, denominator: float) -> float:
    """Return the quotient, or NaN for a zero distance: -log(CX + 1e-5) of equal images is -1e-5."""
    return numerator / denominator if denominator > 1e-4 else float("nan")
