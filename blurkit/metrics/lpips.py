"""LPIPS, the learned perceptual distance (Zhang et al., CVPR 2018), version 0.1."""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from blurkit.errors import BlurkitError, one_line
from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.records import Image, to_float
from blurkit.metrics.psnr import check_comparable
from blurkit.nn.features import FeatureNetwork, load_features

HEADS_VARIABLE = "BLURKIT_LPIPS_HEADS"

NETS = {
    "AlexNet": ("alex", ("relu1", "relu2", "relu3", "relu4", "relu5")),
    "VGG-16": ("vgg", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")),
    "SqueezeNet 1.1": ("squeeze", ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")),
}
"""By backbone, the name of its heads and the layers that are compared."""


class Lpips:
    """Computes the LPIPS distance of two images, 0 for identical ones."""

    def __init__(
        self, backbone: FeatureNetwork, heads: list[Tensor], protocol: str, device: torch.device
    ) -> None:
        self._features = backbone.to(device)
        self._heads = [head.to(device) for head in heads]
        self._device = device
        self.protocol = protocol

    def __call__(self, restored: Image, sharp: Image) -> float:
        """Return the LPIPS of two whole images (H, W, C) of the same depth, computed in float32.

        Feature maps are scaled to unit length over the channels; their squared differences are
        weighted by the heads, averaged over the image and summed over the layers (Eq. 1). Raises
        BlurkitError if the images differ in shape or depth, or are too small for the backbone:
        under 31 pixels a side for AlexNet, 16 for VGG-16 and 17 for SqueezeNet.
        """
        check_comparable(restored, sharp)
        images = torch.cat([self._tensor(restored), self._tensor(sharp)])
        try:
            # The error of TF32 is larger than the differences between implementations.
            with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                maps = self._features(images)
        except RuntimeError as error:  # too small for the pooling layers, or out of memory
            height, width = sharp.shape[:2]
            what = f"{self._features.name} cannot process {width}x{height} pixels"
            raise BlurkitError(f"LPIPS: {what}: {one_line(error)}") from error
        distances = []
        for m, head in zip(maps, self._heads, strict=True):
            unit = m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10)
            distances.append((head @ (unit[0] - unit[1]).square().flatten(1)).mean())
        return float(torch.stack(distances).sum())

    def _tensor(self, image: Image) -> Tensor:
        pixels = torch.from_numpy(to_float(image)).permute(2, 0, 1)[None]
        return pixels.expand(-1, 3, -1, -1).to(self._device)


def load_lpips(
    backbone: str | Path | None = None,
    heads_file: str | Path | None = None,
    device: torch.device | None = None,
) -> Lpips:
    """Return LPIPS with the backbone and the heads from two files.

    `backbone` is a file of torchvision's AlexNet, VGG-16 or SqueezeNet 1.1, recognised by its keys;
    by default the environment variable BLURKIT_LPIPS names it. `heads_file` is an official file of
    linear layers (`alex.pth`, `vgg.pth`, `squeeze.pth`), or one that holds several of them under
    `alex.`, `vgg.` and `squeeze.`; by default BLURKIT_LPIPS_HEADS names it, or it is that of the
    package `lpips`, if that is installed. Raises BlurkitError if a file is not named, does not
    exist, or does not hold the expected weights.
    """
    backbone_path = _named(backbone, "--lpips", "BLURKIT_LPIPS")
    name = load_features(backbone_path).name
    if name not in NETS:
        raise BlurkitError(f"{backbone_path}: LPIPS accepts {', '.join(NETS)}; this is {name}")
    net, layers = NETS[name]
    heads_path = _named(heads_file or _packaged_heads(net), "--lpips-heads", HEADS_VARIABLE)
    features = load_features(backbone_path, layers)
    features.normalise = True  # equivalent to the official scaling of [-1, 1]
    tensors = load_checkpoint(heads_path).networks.get("network", {})
    channels = [maps.shape[1] for maps in features(torch.zeros(1, 3, 64, 64))]
    keys = [f"lin{number}.model.1.weight" for number in range(len(layers))]
    heads = [tensors.get(key, tensors.get(f"{net}.{key}")) for key in keys]
    for key, head, count in zip(keys, heads, channels, strict=True):
        if head is None or head.numel() != count:
            raise BlurkitError(
                f"{heads_path}: not the LPIPS heads for {name}: {key} is missing or differs"
            )
    flat = [head.float().flatten() for head in heads if head is not None]
    protocol = f"version 0.1, {name} ({backbone_path.name}), whole image"
    return Lpips(features, flat, protocol, device or torch.device("cpu"))


def _packaged_heads(net: str) -> Path | None:
    """Return the heads in the package `lpips`, if it is installed and no variable names others."""
    package = None if os.environ.get(HEADS_VARIABLE) else find_spec("lpips")
    return Path(str(package.origin)).parent / f"weights/v0.1/{net}.pth" if package else None


def _named(path: str | Path | None, option: str, variable: str) -> Path:
    if not (file := path or os.environ.get(variable)):
        raise BlurkitError(f"LPIPS needs a file: give {option} FILE or set {variable}")
    if not Path(file).is_file():
        raise BlurkitError(f"{file}: no such file (from {option if path else variable})")
    return Path(file)
