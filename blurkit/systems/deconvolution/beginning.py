"""The estimated blur of a photo as a start for the blind search, `blind-deblur`."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.systems.deconvolution.kernel_batches import trimmed
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.kernel_space.search_start import Estimate


def search_start(deconvolution: Deconvolution, photo: np.ndarray) -> Estimate:
    """Return the blur of a photo (H, W, 3) in [0, 1] and the photo without it.

    The kernel is that of the window whose estimate is trusted most, in the smallest odd square that
    holds it; in the picture each window is restored by its own. Nothing is believed of a photo that
    is too small to estimate a kernel.
    """
    windows = deconvolution.windows(photo) if min(photo.shape[:2]) >= deconvolution.smallest else []
    # A window may have its kernel from its neighbours; then its trust is not that of the kernel.
    own = [window for window in windows if window.trust >= deconvolution.options.trust]
    picture = deconvolution.restore(photo, windows).clip(0, 1) if own else photo
    best = max(own or windows, key=lambda window: window.trust, default=None)
    return Estimate(
        torch.ones(1, 1) if best is None else trimmed(best.kernel[None])[0].clone(),
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None])),
        0.0 if best is None else best.trust,
        bool(own),
    )
