"""The estimated blur of a photo as a start for the blind search, `blind-deblur`."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.engine.device import Precision
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.deblurring import deconvolution_network
from blurkit.systems.deconvolution.inference import Deconvolution
from blurkit.systems.deconvolution.kernels import trimmed
from blurkit.systems.kernel_space.search_start import Estimate, Estimator
from blurkit.weights.shipped import load_shipped


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


def shipped_deconvolution(device: str = "auto", precision: Precision = "auto") -> Deconvolution:
    """Return what undoes blur by the deconvolution network that comes with blurkit.

    Raises BlurkitError if the package lacks it.
    """
    network = deconvolution_network(load_shipped("deconvolution"))
    return Deconvolution(network, Shake(), device, precision)


def shipped_estimator(device: str = "auto", precision: Precision = "auto") -> Estimator:
    """Return what estimates starts, by `shipped_deconvolution`."""
    deconvolution = shipped_deconvolution(device, precision)
    return lambda photo: search_start(deconvolution, photo)
