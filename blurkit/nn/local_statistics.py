"""Local statistics at test time: means over as much of an image as a network saw in training.

A network with global pooling has learned what the means of a training crop are; those of a whole
image are others. So every pooling takes means over windows around each pixel, 1.5 times as large as
what it saw in training ("Revisiting Global Statistics Aggregation", Chu et al. 2021). MSFS-Net's
released code does so as MSFS-Net-Local.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import UsageError


class LocalMean(nn.Module):
    """Means over a window around each pixel, (N, C, H, W) to the same size.

    The window is cut to the image; at the borders, where it would leave the image, stands the
    nearest mean of a whole one. Images no larger than the window get one mean everywhere.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.window = height, width

    def forward(self, x: Tensor) -> Tensor:
        """One axis after the other, which is many times less work than a window at once."""
        height, width = (min(n, side) for n, side in zip(self.window, x.shape[-2:], strict=True))
        means = F.avg_pool2d(F.avg_pool2d(x, (height, 1), stride=1), (1, width), stride=1)
        missing = [x.shape[axis] - means.shape[axis] for axis in (-1, -2)]
        sides = [part for n in missing for part in (n // 2, n - n // 2)]
        return F.pad(means, sides, mode="replicate")


def with_local_statistics(network: nn.Module, crop: int) -> nn.Module:
    """`network`, changed in place, whose global means are local as for training crops of `crop`.

    Raises UsageError for a network without global average pooling.
    """
    pools = {name for name, m in network.named_modules() if _is_global(m)}
    if not pools:
        raise UsageError(
            f"--protocol local: {type(network).__name__} has no global average pooling that could "
            "be local"
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
    """The height and width that each pooling gets of a crop, from a run without numbers."""
    sizes: dict[str, tuple[int, int]] = {}
    shadow = copy.deepcopy(network).to("meta")
    for name in pools:

        def note(module: nn.Module, inputs: Any, name: str = name) -> None:
            sizes[name] = inputs[0].shape[-2:]

        shadow.get_submodule(name).register_forward_pre_hook(note)
    shadow(torch.empty(1, 3, crop, crop, device="meta"))
    return sizes
