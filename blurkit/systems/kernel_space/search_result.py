"""What a blind search has found at an iteration."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass
class SearchResult:
    """The picture (1, 3, H, W), blur (1, ...) and weighted terms of an iteration.

    `second_half` says which weights the terms have, and `error` is the mean squared difference of
    the photo to what picture and blur make of it.
    """

    picture: Tensor
    blur: Tensor | None = None
    iteration: int = 0
    terms: dict[str, float] | None = None
    second_half: bool = False
    error: float = math.nan

    @property
    def objective(self) -> float:
        """The sum of the terms."""
        return sum((self.terms or {}).values())

    @property
    def reproduced(self) -> float:
        """The PSNR in dB with which picture and blur together reproduce the photo."""
        return -10 * math.log10(max(self.error, 1e-10))
