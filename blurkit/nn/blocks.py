"""Small parts shared by several networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.utils import spectral_norm
from torch.utils.checkpoint import checkpoint

from blurkit.nn.buffers import Buffers

SLOPE = 0.2
"""The LeakyReLU slope of all MSDI-Net networks and of most others."""


class Recomputable(nn.Module):
    """A part of a network whose activations the backward pass may compute again, to save memory.

    If it is `recomputed`, only its inputs and outputs are kept for the backward pass, which runs it
    a second time (Chen et al., "Training deep nets with sublinear memory cost", 2016). The second
    run starts from the same buffers as the first and leaves no trace in them.
    """

    recomputed = False

    def __call__(self, *inputs: Any) -> Any:
        """Run `forward`."""
        if not (self.recomputed and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        return checkpoint(
            super().__call__,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # no layer draws random numbers
            context_fn=self._contexts,
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the first run and of the second one."""
        buffers = Buffers([self])
        return nullcontext(), buffers.borrowed(buffers.values())


def recompute_blocks(network: nn.Module, recomputed: bool = True) -> None:
    """Set whether the backward pass computes the outermost blocks of `network` again."""
    for child in network.children():
        if isinstance(child, Recomputable):
            child.recomputed = recomputed
        else:
            recompute_blocks(child, recomputed)


def leaky() -> nn.LeakyReLU:
    """Return a LeakyReLU of slope 0.2."""
    return nn.LeakyReLU(SLOPE)


def conv(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Conv2d:
    """Return a zero-padded convolution with bias that keeps the image size."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def spectral_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Conv2d:
    """Return a convolution normalised by its spectral norm (Miyato et al., ICLR 2018).

    `options` are passed to `torch.nn.Conv2d`. Of torch's two implementations this is the older,
    whose state dict keys (`weight_orig`, `weight_u`, `weight_v`) are those of the published
    checkpoints.
    """
    return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, **options))


def spectral_instance_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Sequential:
    """Return a spectrally normalised convolution without bias and a non-affine InstanceNorm."""
    conv = spectral_conv(in_channels, out_channels, kernel, bias=False, **options)
    return nn.Sequential(conv, nn.InstanceNorm2d(out_channels))
