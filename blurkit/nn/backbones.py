"""Torchvision's ImageNet networks whose features are used in losses and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Backbone:
    """A network, the keys that identify its files, and its named layers.

    Only this network's files contain all `keys`. `build` makes the layers, the last of which is a
    ReLU; `layers` maps names to torchvision's indices in `features`; `weights` maps the layers of
    the perceptual loss to their weights; `contextual` is the layer of the contextual similarity;
    `normalise` is whether the perceptual loss normalises images by ImageNet's mean and standard
    deviation.
    """

    name: str
    keys: tuple[str, ...]
    build: Callable[[], list[nn.Module]]
    layers: Mapping[str, int]
    weights: Mapping[str, float]
    contextual: str
    normalise: bool = True


# -- VGG and AlexNet -------------------------------------------------------------------------------


def _vgg(plan: Sequence[int | str], batch_norm: bool = False) -> list[nn.Module]:
    """Return torchvision's `vgg*.features` for a plan of channel counts and "pool"."""
    layers: list[nn.Module] = []
    in_channels = 3
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(in_channels, step, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(step))
        layers.append(nn.ReLU())
        in_channels = step
    return layers


def _vgg19() -> list[nn.Module]:
    blocks = (*4 * (256,), "pool", *4 * (512,), "pool", *4 * (512,))
    return _vgg((64, 64, "pool", 128, 128, "pool", *blocks))


def _vgg16() -> list[nn.Module]:
    blocks = (*3 * (256,), "pool", *3 * (512,), "pool", *3 * (512,))
    return _vgg((64, 64, "pool", 128, 128, "pool", *blocks))


def _vgg11_bn() -> list[nn.Module]:
    return _vgg((64, "pool", 128, "pool", 256, 256), batch_norm=True)


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


# -- SqueezeNet ------------------------------------------------------------------------------------


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 convolution, then a 1x1 and a 3x3 convolution in parallel.

    Without `relu`, their concatenated output gets no ReLU.
    """

    def __init__(self, in_channels: int, squeezed: int, expanded: int, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 2 * expanded, H, W)."""
        x = self.squeeze(x).relu()
        x = torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)
        return x.relu() if self.relu else x


def _squeezenet() -> list[nn.Module]:
    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256)),
        # torchvision combines both at index 12; separating them exposes the values before the ReLU.
        *(Fire(512, 64, 256, relu=False), nn.ReLU()),
    ]


# -- the table -------------------------------------------------------------------------------------

_VGG19_LAYERS = {
    **{"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8},
    **{"relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "relu3_4": 17},
    **{"relu4_1": 20, "relu4_2": 22, "relu4_3": 24, "relu4_4": 26, "relu5_1": 29},
    **{"relu5_2": 31, "relu5_3": 33, "relu5_4": 35},
}
_VGG16_LAYERS = {
    **{"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8},
    **{"relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "relu4_1": 18, "relu4_2": 20, "relu4_3": 22},
    **{"relu5_1": 25, "relu5_2": 27, "relu5_3": 29},
}
_SQUEEZENET_LAYERS = {
    **{"relu1": 1, "fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7},
    **{"fire6": 9, "fire7": 10, "fire8": 11, "fire9": 13},
}


def _doubling(*layers: str) -> dict[str, float]:
    """Return weights that double from layer to layer, up to 1 at the deepest."""
    return {layer: 2.0 ** (1 + i - len(layers)) for i, layer in enumerate(layers)}


# VGG-19 as the official MSDI-Net code uses it: its weights, and unnormalised images in [0, 1]. The
# others use doubling weights.
BACKBONES = [
    Backbone(
        "VGG-19",
        ("features.16.weight", "features.28.weight"),
        _vgg19,
        _VGG19_LAYERS,
        {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1},
        contextual="relu3_4",
        normalise=False,
    ),
    Backbone(
        "VGG-11 with batch normalisation",
        ("features.12.running_mean",),
        _vgg11_bn,
        {"relu1_1": 2, "relu2_1": 6, "relu3_1": 10, "relu3_2": 13},
        _doubling("relu1_1", "relu2_1", "relu3_1", "relu3_2"),
        contextual="relu3_2",
    ),
    Backbone(
        "SqueezeNet 1.1",
        ("features.12.squeeze.weight",),
        _squeezenet,
        _SQUEEZENET_LAYERS,
        _doubling("relu1", "fire3", "fire5", "fire9"),
        contextual="fire3",
    ),
    Backbone(
        "VGG-16",
        ("features.17.weight", "features.26.weight"),
        _vgg16,
        _VGG16_LAYERS,
        _doubling("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        contextual="relu3_3",
    ),
    Backbone(
        "AlexNet",
        ("features.6.weight", "features.10.weight"),
        _alexnet,
        {"relu1": 1, "relu2": 4, "relu3": 7, "relu4": 9, "relu5": 11},
        _doubling("relu1", "relu2", "relu3", "relu4", "relu5"),
        contextual="relu2",
    ),
]
