"""Local statistics at test time: means over windows about as large as the training crops.

A network with global pooling has learned the statistics of training crops; the means of a whole
image differ from these. Therefore, every pooling layer computes means over a window around each
pixel, 1.5 times as large as its input in training ("Revisiting Global Statistics Aggregation", Chu
et al. 2021). MSFS-Net's released code does the same in MSFS-Net-Local.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import UsageError


class LocalMean(nn.Module):
    """Means over a window around each pixel; maps (N, C, H, W) to the same size.

    The window is limited to the size of the image. Near the borders, where it would extend beyond
    the image, the nearest mean of a complete window is used. Images no larger than the window have
    the same mean everywhere.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.window = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Return the local means, one axis at a time, which is much cheaper than both at once."""
        height, width = (min(n, side) for n, side in zip(self.window, x.shape[-2:], strict=True))
        means = F.avg_pool2d(F.avg_pool2d(x, (height, 1), stride=1), (1, width), stride=1)
        return _widened(means, x)


class FastLocalMean(LocalMean):
    """Means of every so manieth value of a window around each pixel, NAFNet's `fast_imp`.

    A stride is the largest of 5 to 1 that divides a side, but at most that in `strides`. Windows
    begin at the second value, and their means are repeated. They differ from those of `LocalMean`.
    """

    def __init__(self, height: int, width: int, strides: tuple[int, int]) -> None:
        super().__init__(height, width)
        self.strides = strides

    def forward(self, x: Tensor) -> Tensor:
        """Return the local means."""
        if all(n >= side for n, side in zip(self.window, x.shape[-2:], strict=True)):
            return super().forward(x)
        down, across = (
            min(most, next(r for r in range(5, 0, -1) if side % r == 0))
            for most, side in zip(self.strides, x.shape[-2:], strict=True)
        )
        thin = x[..., ::down, ::across][..., 1:, 1:]
        height, width = (
            min(side, n // r)
            for side, n, r in zip(thin.shape[-2:], self.window, (down, across), strict=True)
        )
        means = F.avg_pool2d(F.avg_pool2d(thin, (height, 1), stride=1), (1, width), stride=1)
        return _widened(means.repeat_interleave(down, -2).repeat_interleave(across, -1), x)


def _widened(means: Tensor, x: Tensor) -> Tensor:
    """Return means at the size of `x`, the outermost ones repeated."""
    missing = [x.shape[axis] - means.shape[axis] for axis in (-1, -2)]
    sides = [part for n in missing for part in (n // 2, n - n // 2)]
    return F.pad(means, sides, mode="replicate")


def with_local_statistics(
    network: nn.Module, crop: int | tuple[int, int], fast: bool = False
) -> nn.Module:
    """Replace the global means of `network` by local ones, in place, and return it.

    `crop` is the side of its training crops in pixels, or their height and width. With `fast`, the
    means are those of `FastLocalMean`. Raises UsageError if the network has no global average
    pooling.
    """
    trained = (crop, crop) if isinstance(crop, int) else crop
    pools = {name for name, m in network.named_modules() if _is_global(m)}
    if not pools:
        raise UsageError(
            f"--protocol local: {type(network).__name__} has no global average pooling to "
            "make local"
        )
    for name, sides in _pooled_sizes(network, pools, trained).items():
        parent, _, attribute = name.rpartition(".")
        window = 3 * sides[0] // 2, 3 * sides[1] // 2
        strides = max(1, 5 * sides[0] // trained[0]), max(1, 5 * sides[1] // trained[1])
        local = FastLocalMean(*window, strides) if fast else LocalMean(*window)
        setattr(network.get_submodule(parent), attribute, local)
    return network


def _is_global(module: nn.Module) -> bool:
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))


def _pooled_sizes(
    network: nn.Module, pools: set[str], crop: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Return the size of each pooling layer's input for a crop, from a run on the meta device."""
    sizes: dict[str, tuple[int, int]] = {}
    shadow = copy.deepcopy(network).to("meta")
    for name in pools:

        def note(module: nn.Module, inputs: Any, name: str = name) -> None:
            sizes[name] = inputs[0].shape[-2:]

        shadow.get_submodule(name).register_forward_pre_hook(note)
    shadow(torch.empty(1, 3, *crop, device="meta"))
    return sizes
