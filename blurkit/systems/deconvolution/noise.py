"""How much noise a photo has."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def measured_noise(photos: Tensor) -> Tensor:
    """Return the standard deviation of white noise in photos (N, C, H, W), as (N,).

    The median response to a filter that smooth content does not pass (Immerkaer, "Fast noise
    variance estimation", 1996), which blurry photos hold nothing against.
    """
    taps = photos.new_tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])
    response = F.conv2d(photos.flatten(0, 1)[:, None], taps[None, None]).abs()
    return response.reshape(len(photos), -1)[:, ::7].median(1).values / (0.6745 * 6)
