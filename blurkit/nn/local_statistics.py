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
        missing = [x.shape[axis] - means.shape[axis] for axis in (-1, -2)]
        sides = [part for n in missing for part in (n // 2, n - n // 2)]
        return F.pad(means, sides, mode="replicate")


def with_local_statistics(network: nn.Module, crop: int) -> nn.Module:
    """Replace the global means of `network` by local ones, in place, and return it.

    `crop` is the side of its training crops in pixels. Raises UsageError if the network has no
    global average pooling.
    """
    pools = {name for name, m in network.named_modules() if _is_global(m)}
    if not pools:
        raise UsageError(
            f"--protocol local: {type(network).__name__} has no global average pooling to "
            "make local"
        )
    for name, (height, width) in _pooled_sizes(network, pools, crop).items():
        parent, _, attribute = name.rpartition(".")
        setattr(
            network.get_submodule(parent), attribute, LocalMean(3 * height // 2, 3 * width // 2)
        )
    return network


def _is_global(module: nn.Module) -> bool:
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))


def _pooled_sizes(network: nn.Module, pools: set[str], crop: int) -> dict[str, tuple[int, int]]:
    """Return the size of each pooling layer's input for a crop, from a run on the meta device."""
    sizes: dict[str, tuple[int, int]] = {}
    shadow = copy.deepcopy(network).to("meta")
    for name in pools:

        def note(module: nn.Module, inputs: Any, name: str = name) -> None:
            sizes[name] = inputs[0].shape[-2:]

        shadow.get_submodule(name).register_forward_pre_hook(note)
    shadow(torch.empty(1, 3, crop, crop, device="meta"))
    return sizes
