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
"""Names the layer of a backbone that the contextual similarity uses by default."""
PRE_ACTIVATION = "pre-activation"
"""Names a backbone's last layer before its activation, such as conv5_4 of VGG-19."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)
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

    def distance(
        self, image: Tensor, target_maps: Sequence[Tensor], weights: Sequence[float] = ()
    ) -> Tensor:
        """Return the perceptual loss (N,), a weighted sum of the maps' mean absolute differences.

        `image` is as for `forward`; `target_maps` are what `forward` returns for the target. They
        may be reused, and no gradient flows into them. `weights`, one per map, replace the
        backbone's.
        """
        return map_distance(self(image), target_maps, weights or self.weights)


def map_distance(
    maps: Sequence[Tensor], target_maps: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Return the weighted sum (N,) of the mean absolute differences of maps (N, C, H, W).

    No gradient flows into `target_maps`.
    """
    terms = [
        weight * F.l1_loss(ours, wanted.detach(), reduction="none").flatten(1).mean(1)
        for ours, wanted, weight in zip(maps, target_maps, weights, strict=True)
    ]
    return torch.stack(terms).sum(0)


# -- files -----------------------------------------------------------------------------------------


def load_features(path: str | Path, layers: Sequence[str] = ()) -> FeatureNetwork:
    """Load a backbone in float32 from `path`, a PyTorch or safetensors file of a known network.

    The known networks are torchvision's VGG-19 (also saved as `slice1`...), VGG-16, AlexNet,
    SqueezeNet 1.1, and the first part of its VGG-11 with batch normalisation. The file may hold the
    rest of the network too. `layers` is as for `FeatureNetwork`. Raises BlurkitError if the file
    cannot be read or holds none of them.
    """
    path = Path(path)
    return features_from_state_dict(_read(path), layers, str(path))


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


def find_feature_network(
    want: str,
    path: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    layers: Sequence[str] = (),
) -> FeatureNetwork | None:
    """Return the backbone for a perceptual loss, or None for training without it.

    `want` is `features` (required, and downloaded if necessary), `auto` (used if available;
    otherwise `say` is called with a message) or `none`. `path` is as for `find_features`, whose
    errors are raised, and `layers` as for `FeatureNetwork`.
    """
    if want == "none":
        return None
    try:
        file = find_features(path, want == "features", ", or train without it: --perceptual none")
    except BlurkitError:
        if want == "features" or path or os.environ.get(VARIABLE):
            raise
        say("no feature network found: training without the perceptual loss (see --features)")
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
