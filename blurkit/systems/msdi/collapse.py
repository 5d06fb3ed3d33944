"""Whether MSDI-Net's training has collapsed: what its degradation maps tell, and to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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

COLLAPSED_LINES = 3
"""Consecutive log lines that count as a collapse."""

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
    """Keeps the crops of a step until they are measured, and says once what has collapsed.

    `grace` is the number of steps before which nothing counts as collapsed.
    """

    def __init__(self, grace: int) -> None:
        self.grace = grace
        self.crops = torch.empty(2, 0)
        """Blurry and sharp crops of the last step, (2, N, 3, H, W)."""
        self._suspicious = dict.fromkeys(LIMITS, 0)

    def keep(self, blur: Tensor, sharp: Tensor) -> None:
        """Keep some crops of a batch; a single one together with the one before it."""
        crops = torch.stack([blur[:WATCHED], sharp[:WATCHED]])
        if crops.shape[1] == 1 and self.crops.shape[1]:
            crops = torch.cat([self.crops[:, -1:], crops], 1)
        self.crops = crops

    def collapsed(self, step: int, measures: Mapping[str, float]) -> str:
        """Return a warning if a measure has been below its limit for several calls, else ""."""
        warnings: Sequence[str] = [
            f"{why} ({name} {measures[name]:.2g}, below {limit})"
            for name, (limit, why) in LIMITS.items()
            if self._is_suspicious(name, step > self.grace and measures.get(name, limit) < limit)
        ]
        return "; ".join(warnings)

    def _is_suspicious(self, name: str, low: bool) -> bool:
        """Return whether a measure is low for the third time in a row; only once for each."""
        self._suspicious[name] = self._suspicious[name] + 1 if low else 0
        return self._suspicious[name] == COLLAPSED_LINES
