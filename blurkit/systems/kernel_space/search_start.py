"""What a blind search may start from: a photo's blur, estimated by another method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """The blur of a photo (H, W, 3) and the deblurred photo, both found by another method.

    `kernel` (side, side) is a kernel of true convolution: values from 0, sum 1, origin in the
    middle. `picture` (1, 3, H, W) is in [0, 1]. `trust`, from 0 to 1, is how reliable the estimate
    is, and `believed` is whether that suffices to start from it.
    """

    kernel: Tensor
    picture: Tensor
    trust: float
    believed: bool

    def doubt(self) -> str:
        """Return the reason why a search cannot start from this estimate."""
        if not self.believed:
            return f"no estimated blur is believed (trust {self.trust:.2f})"
        return f"the estimated blur needs --kernel-size {self.kernel.shape[-1]}"


Estimator = Callable[[np.ndarray], Estimate]
"""A function that returns the estimate for a photo (H, W, 3), float32 in [0, 1]."""
