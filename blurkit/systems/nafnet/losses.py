"""The loss of NAFNet's training."""

from __future__ import annotations

from torch import Tensor

from blurkit.systems.msdi.losses import psnr_loss

LUMA = (65.481, 128.553, 24.966)
"""The weights of R, G and B in BT.601's luma, which begins at 16 of 255."""


def image_psnr_loss(restored: Tensor, sharp: Tensor, luma: bool = False) -> Tensor:
    """Return minus the mean PSNR in dB of a batch (N, 3, H, W), peak 1; with `luma`, of that."""
    if luma:
        weights = restored.new_tensor(LUMA)[:, None, None]
        restored, sharp = (
            ((image * weights).sum(1, keepdim=True) + 16) / 255 for image in (restored, sharp)
        )
    return psnr_loss(restored, sharp)
