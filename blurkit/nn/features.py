"""Pretrained ImageNet features for perceptual losses and contextual similarity."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, one_line
from blurkit.nn.backbones import BACKBONES, Backbone

VGG19_URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
VARIABLE = "BLURKIT_FEATURES"

CONTEXTUAL = "contextual"
"""Stands for the layer of a backbone that the contextual similarity takes by default."""
PRE_ACTIVATION = "pre-activation"
"""Stands for a backbone's last layer before its activation, such as conv5_4 of VGG-19."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """A frozen backbone that gives the feature maps of some of its layers.

    `layers` are names of `backbone.layers`, in any order; none means those of the perceptual loss,
    `contextual` the one that the contextual similarity takes by default, `pre-activation` the last
    before its activation. `weights` holds one weight per map: the backbone's for the perceptual
    layers, else 1. `normalise` may be changed. It stays in eval mode whatever `train` says.

    Raises BlurkitError for a layer the backbone does not have.
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
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureNetwork:
        """Stays in eval mode, so that a loss may hold a backbone without changing it."""
        return super().train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of `layers` for RGB `x` (N, 3, H, W) in [0, 1].

        After their ReLU, but for `pre-activation`.
        """
        if self.normalise:
            x = (x - self.mean) / self.std
        maps = {}
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self._indices:
                maps[index] = x
        return [maps[index] for index in self._indices]

    def distance(
        self, image: Tensor, target_maps: Sequence[Tensor], weights: Sequence[float] = ()
    ) -> Tensor:
        """The perceptual loss: the weighted sum of the maps' mean absolute differences, (N,).

        `image` is as for `forward`, which gives `target_maps` of what it is to be like; those may
        be kept, and no gradient flows into them. `weights`, one per map, stand in for the
        backbone's.
        """
        return map_distance(self(image), target_maps, weights or self.weights)


def map_distance(
    maps: Sequence[Tensor], target_maps: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum of the mean absolute differences of maps (N, C, H, W), (N,).

    No gradient flows into `target_maps`.
    """
    terms = [
        weight * F.l1_loss(ours, wanted.detach(), reduction="none").flatten(1).mean(1)
        for ours, wanted, weight in zip(maps, target_maps, weights, strict=True)
    ]
    return torch.stack(terms).sum(0)


# -- files -----------------------------------------------------------------------------------------


def load_features(path: str | Path, layers: Sequence[str] = ()) -> FeatureNetwork:
    """The backbone in `path`, a PyTorch or safetensors file of a known network, in float32.

    Known are torchvision's VGG-19 (also saved as `slice1`...), VGG-16, AlexNet, the first part of
    its VGG-11 with batch normalisation, and SqueezeNet 1.1, each with or without the rest of the
    network. `layers`: see `FeatureNetwork`. Raises BlurkitError for a file that cannot be read or
    holds none of them.
    """
    path = Path(path)
    return features_from_state_dict(_read(path), layers, str(path))


def features_from_state_dict(
    state_dict: Mapping[str, Tensor], layers: Sequence[str] = (), where: str = "state dict"
) -> FeatureNetwork:
    """`load_features` for a state dict at hand; its tensors are copied."""
    state_dict = {re.sub(r"^slice\d+\.", "features.", k): v for k, v in state_dict.items()}
    backbone = next((t for t in BACKBONES if all(key in state_dict for key in t.keys)), None)
    if backbone is None:
        known = ", ".join(backbone.name for backbone in BACKBONES)
        raise BlurkitError(f"{where} holds none of the known feature networks: {known}")
    module = FeatureNetwork(backbone, layers)
    own = module.state_dict()
    for key, tensor in own.items():
        # torch counts batches for training only; the small files leave the counter out.
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
    """The file of the feature network for losses and metrics.

    `path`, else the one that the environment variable BLURKIT_FEATURES names, else torchvision's
    VGG-19 in torch's download cache, else, with `download`, fetched into it (548 MB, its hash
    checked). Raises BlurkitError, saying what to do, when there is none; `otherwise` ends it with
    what else could be done.
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
        raise BlurkitError(f"{cached} is not there; {remedy}")
    cached.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(VGG19_URL, str(cached), hash_prefix="dcbb9e9d")
    except (OSError, RuntimeError) as error:
        raise BlurkitError(f"{VGG19_URL}: {one_line(error)}; {remedy}") from error
    return cached


def find_feature_network(
    want: str,
    path: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    layers: Sequence[str] = (),
) -> FeatureNetwork | None:
    """The backbone for a perceptual loss, or None when it goes without.

    `want` is `features` (needed, downloaded if it must be), `auto` (if one is at hand, and `say` is
    told when none is) or `none`. `path` is as for `find_features`, whose errors it raises, `layers`
    as for `FeatureNetwork`.
    """
    if want == "none":
        return None
    try:
        file = find_features(path, want == "features", ", or do without: --perceptual none")
    except BlurkitError:
        if want == "features" or path or os.environ.get(VARIABLE):
            raise
        say("no feature network at hand: training without the perceptual loss (see --features)")
        return None
    return load_features(file, layers)


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
