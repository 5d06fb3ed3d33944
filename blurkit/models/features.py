"""Pretrained ImageNet features for perceptual losses and contextual similarity."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError, one_line

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VARIABLE = "BLURKIT_FEATURES"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


# -- trunks ----------------------------------------------------------------------------------------


def _vgg(plan: Sequence[int | str], batch_norm: bool) -> list[nn.Module]:
    """torchvision's `vgg*.features` for a plan of channel counts and "pool"."""
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
    plan = (64, 64, "pool", 128, 128, "pool", *4 * (256,), "pool", *4 * (512,), "pool", 512)
    return _vgg(plan, batch_norm=False)


def _vgg11_bn() -> list[nn.Module]:
    return _vgg((64, "pool", 128, "pool", 256, 256), batch_norm=True)


class Fire(nn.Module):
    """SqueezeNet's block: a 1x1 convolution, then 1x1 and 3x3 ones side by side."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, 2 * expanded, H, W)."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def _squeezenet() -> list[nn.Module]:
    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return [
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
    ]


@dataclass(frozen=True)
class Trunk:
    """One line of the table: a trunk, the key that gives it away, its named layers.

    `layers` maps names to torchvision's indices in `features`; `weights` maps the layers of the
    perceptual loss to their weights; `normalise` is whether images get ImageNet's mean and standard
    deviation.
    """

    name: str
    key: str
    build: Callable[[], list[nn.Module]]
    layers: Mapping[str, int]
    weights: Mapping[str, float]
    normalise: bool


_VGG19_LAYERS = {
    **{"relu1_1": 1, "relu1_2": 3, "relu2_1": 6, "relu2_2": 8},
    **{"relu3_1": 11, "relu3_2": 13, "relu3_3": 15, "relu3_4": 17},
    **{"relu4_1": 20, "relu4_2": 22, "relu4_3": 24, "relu4_4": 26, "relu5_1": 29},
}
_SQUEEZENET_LAYERS = {
    **{"relu1": 1, "fire2": 3, "fire3": 4, "fire4": 6, "fire5": 7},
    **{"fire6": 9, "fire7": 10, "fire8": 11, "fire9": 12},
}

# VGG-19 as the official MSDI-Net code uses it: its weights, and images as they are, in [0, 1]. The
# small trunks take the same doubling weights up to 1 at the deepest layer.
TRUNKS = [
    Trunk(
        "VGG-19",
        "features.28.weight",
        _vgg19,
        _VGG19_LAYERS,
        {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1},
        normalise=False,
    ),
    Trunk(
        "VGG-11 with batch normalisation",
        "features.12.running_mean",
        _vgg11_bn,
        {"relu1_1": 2, "relu2_1": 6, "relu3_1": 10, "relu3_2": 13},
        {"relu1_1": 1 / 8, "relu2_1": 1 / 4, "relu3_1": 1 / 2, "relu3_2": 1},
        normalise=True,
    ),
    Trunk(
        "SqueezeNet 1.1",
        "features.12.squeeze.weight",
        _squeezenet,
        _SQUEEZENET_LAYERS,
        {"relu1": 1 / 8, "fire3": 1 / 4, "fire5": 1 / 2, "fire9": 1},
        normalise=True,
    ),
]


class FeatureTrunk(nn.Module):
    """A frozen trunk that gives the feature maps of some of its layers.

    `layers` are names of `trunk.layers`, in any order; none means those of the perceptual loss.
    `weights` holds one weight per map: the trunk's for the perceptual layers, else 1. `normalise`
    may be changed. It stays in eval mode whatever `train` says.

    Raises BlurkitError for a layer the trunk does not have.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: Trunk, layers: Sequence[str] = ()) -> None:
        super().__init__()
        for layer in layers:
            if layer not in trunk.layers:
                held = ", ".join(trunk.layers)
                raise BlurkitError(f"{trunk.name} has no layer {layer!r}; it has {held}")
        self.name = trunk.name
        self.normalise = trunk.normalise
        self.layers = tuple(layers) or tuple(trunk.weights)
        self.weights = [1.0 if layers else trunk.weights[layer] for layer in self.layers]
        self._indices = [trunk.layers[layer] for layer in self.layers]
        self.features = nn.Sequential(*trunk.build()[: max(self._indices) + 1])
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureTrunk:
        """Stays in eval mode, so that a loss may hold a trunk without changing it."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of `layers`, after their ReLU, for RGB `x` (N, 3, H, W) in [0, 1]."""
        if self.normalise:
            x = (x - self.mean) / self.std
        maps = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._indices:
                maps[index] = x
        return [maps[index] for index in self._indices]


# -- files -----------------------------------------------------------------------------------------


def load_features(path: str | Path, layers: Sequence[str] = ()) -> FeatureTrunk:
    """The trunk in `path`, a PyTorch or safetensors file of a known network, in float32.

    Known are torchvision's VGG-19 (with or without its classifier, also saved as `slice1`...), the
    first part of its VGG-11 with batch normalisation, and SqueezeNet 1.1. `layers`: see
    `FeatureTrunk`. Raises BlurkitError for a file that cannot be read or holds none of them.
    """
    path = Path(path)
    return features_from_state_dict(_read(path), layers, str(path))


def features_from_state_dict(
    state_dict: Mapping[str, Tensor], layers: Sequence[str] = (), where: str = "state dict"
) -> FeatureTrunk:
    """`load_features` for a state dict at hand; its tensors are copied."""
    state_dict = {re.sub(r"^slice\d+\.", "features.", k): v for k, v in state_dict.items()}
    trunk = next((trunk for trunk in TRUNKS if trunk.key in state_dict), None)
    if trunk is None:
        known = ", ".join(trunk.name for trunk in TRUNKS)
        raise BlurkitError(f"{where} holds none of the known feature networks: {known}")
    module = FeatureTrunk(trunk, layers)
    own = module.state_dict()
    for key, tensor in own.items():
        # torch counts batches for training only; the small files leave the counter out.
        if key.endswith("num_batches_tracked"):
            continue
        if key not in state_dict or state_dict[key].shape != tensor.shape:
            raise BlurkitError(f"{where} is not a whole {trunk.name}: {key} is missing or differs")
        tensor.copy_(state_dict[key])
    return module


def find_features(path: str | Path | None = None, download: bool = False) -> Path:
    """The file of the feature network for the perceptual loss.

    `path`, else the one that the environment variable BLURKIT_FEATURES names, else torchvision's
    VGG-19 in torch's download cache, else, with `download`, fetched into it (548 MB, its hash
    checked). Raises BlurkitError, saying what to do, when there is none.
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
    remedy = (
        f"give a feature network with --features FILE or {VARIABLE}, or do without: "
        "--perceptual none"
    )
    if not download:
        raise BlurkitError(f"{cached} is not there; {remedy}")
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(VGG19_URL, str(cached), hash_prefix="dcbb9e9d")
    except (OSError, RuntimeError) as error:
        raise BlurkitError(f"{VGG19_URL}: {one_line(error)}; {remedy}") from error
    return cached


def find_trunk(
    want: str, path: str | Path | None = None, say: Callable[[str], None] = lambda text: None
) -> FeatureTrunk | None:
    """The trunk for a perceptual loss, or None when it goes without.

    `want` is `features` (needed, downloaded if it must be), `auto` (if one is at hand, and `say` is
    told when none is) or `none`. `path` is as for `find_features`, whose errors it raises.
    """
    if want == "none":
        return None
    try:
        file = find_features(path, download=want == "features")
    except BlurkitError:
        if want == "features" or path or os.environ.get(VARIABLE):
            raise
        say("no feature network at hand: training without the perceptual loss (see --features)")
        return None
    return load_features(file)


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state_dict = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BlurkitError(f"{path}: cannot be read as weights: {one_line(error)}") from error
    if not isinstance(state_dict, Mapping):
        raise BlurkitError(f"{path}: holds a {type(state_dict).__name__}, not a state dict")
    return state_dict
