"""What a blind search may start from: the blur of a photo as another method estimates it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """The blur of a photo (H, W, 3) and the photo without it, both found by another method.

    `kernel` (side, side) is that of a true convolution: values from 0, sum 1, its origin in the
    middle; `picture` (1, 3, H, W) has values in [0, 1]. `trust` is how far it can be relied on,
    from 0 to 1, and `believed` whether that is enough to start from.
    """

    kernel: Tensor
    picture: Tensor
    trust: float
    believed: bool

    def doubt(self) -> str:
        """Return in words why a search cannot start from it."""
        if not self.believed:
            return f"no estimated blur is believed (trust {self.trust:.2f})"
        return f"the estimated blur needs --kernel-size {self.kernel.shape[-1]}"


Estimator = Callable[[np.ndarray], Estimate]
"""Gives the estimate for a photo (H, W, 3), float32 in [0, 1]."""
