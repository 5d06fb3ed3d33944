"""Pretrained ImageNet features for perceptual losses and contextual similarity."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, one_line
from blurkit.io.checkpoints import load_checkpoint

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VARIABLE = "BLURKIT_FEATURES"

CONTEXTUAL = "contextual"
"""Names the layer of a backbone that the contextual similarity uses by default."""
PRE_ACTIVATION = "pre-activation"
"""Names a backbone's last layer before its activation, such as conv5_4 of VGG-19."""


class FeatureNetwork(nn.Module):
    """A frozen backbone that returns the feature maps of some of its layers.

    `layers` are names from `backbone.layers`, in any order; an empty sequence selects those of the
    perceptual loss, `contextual` the default layer of the contextual similarity, and
    `pre-activation` the last layer before its activation. `weights` holds one weight per map: the
    backbone's for the perceptual layers, otherwise 1. `normalise` may be changed. The network
    always stays in eval mode, even after a call of `train`.

    Raises BlurkitError if the backbone does not have one of `layers`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: Backbone, layers: Sequence[str] = ()) -> None:
        super().__init__()
        whole = backbone.build()
        indices = {**backbone.layers, PRE_ACTIVATION: len(whole) - 2}
        layers = [backbone.contextual if layer == CONTEXTUAL else layer for layer in layers]
        for layer in layers:
            if layer not in indices:
                held = ", ".join(backbone.layers)
                raise BlurkitError(f"{backbone.name} has no layer {layer!r}; it has {held}")
        self.name = backbone.name
        self.normalise = backbone.normalise
        self.layers = tuple(layers) or tuple(backbone.weights)
        self.weights = [1.0 if layers else backbone.weights[layer] for layer in self.layers]
        self._indices = [indices[layer] for layer in self.layers]
        self.features = nn.Sequential(*whole[: max(self._indices) + 1])
        imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
        for name, values in imagenet.items():
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stay in eval mode, so that a loss may hold a backbone without changing it."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of `layers` for RGB `x` (N, 3, H, W) in [0, 1].

        They are taken after the ReLU, except for `pre-activation`.
        """
        if self.normalise:
            x = (x - self.mean) / self.std
        maps = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._indices:
                maps[index] = x
        return [maps[index] for index in self._indices]

    def distance(self, image: Tensor, target_maps: Sequence[Tensor]) -> Tensor:
        """Return the perceptual loss (N,), a weighted sum of the maps' mean absolute differences.

        `image` is as for `forward`; `target_maps`, `forward`'s of the target, get no gradient.
        """
        return map_distance(self(image), target_maps, self.weights)


def map_distance(
    maps: Sequence[Tensor], target_maps: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum (N,) of mean absolute differences; `target_maps` get no gradient."""
    terms = [
        weight * F.l1_loss(ours, wanted.detach(), reduction="none").flatten(1).mean(1)
        for ours, wanted, weight in zip(maps, target_maps, weights, strict=True)
    ]
    return torch.stack(terms).sum(0)


def load_features(path: str | Path, layers: Sequence[str] = ()) -> FeatureNetwork:
    """Load a backbone in float32 from `path`, a PyTorch or safetensors file of a known network.

    The known networks are torchvision's VGG-19 (also saved as `slice1`...), VGG-16, AlexNet,
    SqueezeNet 1.1, and the first part of its VGG-11 with batch normalisation. The file may hold the
    rest of the network too. `layers` is as for `FeatureNetwork`. Raises BlurkitError if the file
    cannot be read or holds none of them.
    """
    weights = load_checkpoint(path).networks.get("network", {})
    return features_from_state_dict(weights, layers, str(path))


def features_from_state_dict(
    state_dict: Mapping[str, Tensor], layers: Sequence[str] = (), where: str = "state dict"
) -> FeatureNetwork:
    """Build a backbone from a state dict as `load_features` does, copying its tensors."""
    state_dict = {re.sub(r"^slice\d+\.", "features.", k): v for k, v in state_dict.items()}
    backbone = next((t for t in BACKBONES if all(key in state_dict for key in t.keys)), None)
    if backbone is None:
        known = ", ".join(backbone.name for backbone in BACKBONES)
        raise BlurkitError(f"{where} holds none of the known feature networks: {known}")
    module = FeatureNetwork(backbone, layers)
    own = module.state_dict()
    for key, tensor in own.items():
        # torch needs the batch counter for training only, and the small files omit it.
        if key.endswith("num_batches_tracked"):
            continue
        if key not in state_dict or state_dict[key].shape != tensor.shape:
            raise BlurkitError(
                f"{where} is not a whole {backbone.name}: {key} is missing or differs"
            )
        tensor.copy_(state_dict[key])
    return module


def find_features(
    path: str | Path | None = None, download: bool = False, otherwise: str = ""
) -> Path:
    """Return the file of the feature network for losses and metrics.

    This is `path` if given, otherwise the file named by the environment variable BLURKIT_FEATURES,
    otherwise torchvision's VGG-19 in torch's download cache. With `download`, a missing VGG-19 is
    downloaded (548 MB, its hash checked). Raises BlurkitError if there is no file; the message
    suggests what to do and ends with `otherwise`, another suggestion.
    """
    named = path or os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_file():
            source = "--features" if path else VARIABLE
            raise BlurkitError(f"{named}: no such file (from {source})")
        return Path(named)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / VGG19_URL.rsplit("/", 1)[-1]
    if cached.is_file():
        return cached
    remedy = f"give a feature network with --features FILE or {VARIABLE}{otherwise}"
    if not download:
        raise BlurkitError(f"{cached} does not exist; {remedy}")
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(VGG19_URL, str(cached), hash_prefix="dcbb9e9d")
    except (OSError, RuntimeError) as error:
        raise BlurkitError(f"{VGG19_URL}: {one_line(error)}; {remedy}") from error
    return cached


@dataclass(frozen=True)
class Backbone:
    """A network, the keys that identify its files, and its named layers.

    Only this network's files contain all `keys`. `build` makes the layers, the last of which is a
    ReLU; `layers` maps names to torchvision's indices in `features`; `weights` maps the layers of
    the perceptual loss to their weights; `contextual` is the layer of the contextual similarity;
    `normalise` is whether the perceptual loss normalises images by ImageNet's mean and deviation.
    """

    name: str
    keys: tuple[str, ...]
    build: Callable[[], list[nn.Module]]
    layers: Mapping[str, int]
    weights: Mapping[str, float]
    contextual: str
    normalise: bool = True


VGGPlan = tuple[int | str, ...]
VGG_START: VGGPlan = (64, 64, "pool", 128, 128, "pool")
VGG16: VGGPlan = (*VGG_START, *3 * (256,), "pool", *3 * (512,), "pool", *3 * (512,))
VGG19: VGGPlan = (*VGG_START, *4 * (256,), "pool", *4 * (512,), "pool", *4 * (512,))
VGG11: VGGPlan = (64, "pool", 128, "pool", 256, 256)
"""The channels of convolutions, up to the last layer that a loss or a metric uses, and "pool"."""


def _vgg(plan: VGGPlan, batch_norm: bool = False) -> list[nn.Module]:
    """Return torchvision's `vgg*.features` for a plan."""
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


def _alexnet() -> list[nn.Module]:
    return [
        *(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


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
        partial(_vgg, VGG19),
        _VGG19_LAYERS,
        {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1},
        contextual="relu3_4",
        normalise=False,
    ),
    Backbone(
        "VGG-11 with batch normalisation",
        ("features.12.running_mean",),
        partial(_vgg, VGG11, batch_norm=True),
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
        partial(_vgg, VGG16),
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
