"""Whether MSDI-Net's training has collapsed: what its degradation maps tell, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from blurkit.training.recipe import Patience

LIMITS = {
    "degradations": (
        0.2,
        "the encoder gives all images nearly the same degradation, so little is learned from it; "
        "use --encoder-layers official or a lower --encoder-rate",
    ),
    "exchange": (
        0.002,
        "reblurring ignores the degradation: that of another image changes nothing; "
        "--identity-start and several blurs of each scene help",
    ),
    "restored": (
        0.02,
        "the deblurring network returns its input; try another --learning-rate or fewer "
        "--sharp-pairs",
    ),
}
"""By measure, the value below which the training has collapsed, and what that means."""

WATCHED = 4
"""The crops of a step that are measured."""

GRAY_LEVEL = 1 / 255


def apart(maps: Tensor) -> Tensor:
    """Return the mean distance of the degradation maps (N, C, h, w) of different images.

    It is relative to their mean size: 0 if all are the same, about 1 if they share nothing.
    """
    return (maps - exchanged(maps)).abs().mean() / maps.abs().mean()


def exchanged(maps: Tensor) -> Tensor:
    """Return `maps` (N, ...) with each image's given to the next one."""
    return maps.roll(1, 0)


def change(images: Tensor, others: Tensor, blur: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean distance of two versions of images, relative to that of `blur` and `sharp`.

    All are (N, 3, H, W) in [0, 1]. Pairs closer than one gray level count as that far apart.
    """
    blurring = (blur - sharp).abs().mean().clamp(min=GRAY_LEVEL)
    return (images - others).abs().mean() / blurring


class CollapseWatch:
    """Chooses the crops that are measured, and says once what has collapsed.

    `grace` is the number of steps before which nothing counts as collapsed.
    """

    def __init__(self, grace: int) -> None:
        self.grace = grace
        self._patience = {name: Patience() for name in LIMITS}
        self._before: Tensor | None = None

    def crops(self, blur: Tensor, sharp: Tensor) -> Tensor:
        """Return some crops of a batch, (2, N, 3, H, W), blurry and sharp ones.

        A single one comes together with that of the call before, if there was one.
        """
        crops = torch.stack([blur[:WATCHED], sharp[:WATCHED]])
        if crops.shape[1] > 1:
            return crops
        before, self._before = self._before, crops
        return crops if before is None else torch.cat([before, crops], 1)

    def collapsed(self, step: int, measures: Mapping[str, float]) -> str:
        """Return a warning if a measure has been below its limit for several calls, else ""."""
        warnings: Sequence[str] = [
            f"{why} ({name} {measures[name]:.2g}, below {limit})"
            for name, (limit, why) in LIMITS.items()
            if self._patience[name].ends(step > self.grace and measures.get(name, limit) < limit)
        ]
        return "; ".join(warnings)
