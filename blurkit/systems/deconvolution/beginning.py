"""The estimated blur of a photo as the start of a blind search."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.systems.deconvolution.kernel_batches import trimmed
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.kernel_space.search_start import Estimate


def search_start(deconvolution: Deconvolution, photo: np.ndarray) -> Estimate:
    """Return the blur of a photo (H, W, 3) in [0, 1], and the deblurred photo.

    The kernel is that of the most trusted window, in the smallest odd square that contains it; in
    the picture each window is restored with its own kernel. If the photo is too small to estimate a
    kernel, the estimate is not believed.
    """
    windows = deconvolution.windows(photo)
    # A window may use the kernel of its neighbours, to which its own trust does not apply.
    own = [window for window in windows if window.trust >= deconvolution.options.trust]
    picture = deconvolution.restore(photo, windows).clip(0, 1) if own else photo
    best = max(own or windows, key=lambda window: window.trust, default=None)
    return Estimate(
        torch.ones(1, 1) if best is None else trimmed(best.kernel[None])[0].clone(),
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None])),
        0.0 if best is None else best.trust,
        bool(own),
    )
