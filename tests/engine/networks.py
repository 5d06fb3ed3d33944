"""Small networks with known answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from blurkit.engine.engine import SizeRequirement
from blurkit.io.checkpoints import Checkpoint, StateDict, save_checkpoint
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    JointModel,
    PriorUpsampling,
)


class Identity(nn.Module):
    """Returns its input and notes the shapes it saw."""

    def __init__(self, size: SizeRequirement | None = None) -> None:
        super().__init__()
        self.size = size or SizeRequirement()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        self.shapes.append(tuple(image.shape))
        return image * 1


class Pooling(Identity):
    """Takes off the mean of each channel, over the whole image."""

    def __init__(self, size: SizeRequirement | None = None) -> None:
        super().__init__(size)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) - self.pool(image)


class Smooth(nn.Module):
    """Two random 5x5 convolutions that reflect at borders: 4 pixels around each are seen."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 5), nn.Conv2d(8, 3, 5)

    def forward(self, image: Tensor) -> list[Tensor]:
        """A list, as networks of several stages return; the last is meant."""
        wide = functional.pad(image, (4, 4, 4, 4), mode="reflect")
        return [image * 0, image + self.second(torch.relu(self.first(wide)))]


class Hungry(Smooth):
    """Runs out of memory for more than `most` pixels at once, as a small GPU does."""

    def __init__(self, most: int, kind: type[Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.most, self.kind = most, kind
        self.asked: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> list[Tensor]:
        self.asked.append(tuple(image.shape))
        if len(image) * image.shape[2] * image.shape[3] > self.most:
            raise self.kind("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(image)


class Overflowing(nn.Module):
    """NaN where low precision is on and the image is bright, as half precision does to black."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.always = always

    def forward(self, image: Tensor) -> Tensor:
        bright = image.mean(dim=(1, 2, 3), keepdim=True) > 0.5
        low = self.always or torch.is_autocast_enabled(image.device.type)
        return torch.where(bright & torch.tensor(low), torch.nan, image)


class Guide(nn.Module):
    """Returns the last guide of an image, as it came with the image's tile."""

    def forward(self, image: Tensor, *guides: Tensor) -> Tensor:
        return guides[-1]


def states(networks: Mapping[str, nn.Module]) -> dict[str, StateDict]:
    return {role: {k: v.clone() for k, v in n.state_dict().items()} for role, n in networks.items()}


def stored(
    path: Path, networks: Mapping[str, nn.Module], system: str = "msdi", **configuration: Any
) -> Path:
    """A checkpoint of networks by role."""
    save_checkpoint(Checkpoint(states(networks), system, configuration), path)
    return path


def steered(seed: int = 0, version: Literal[1, 2] = 1, width: int = 8) -> JointModel:
    """Small networks of the joint stage, both generators steered visibly by what is encoded.

    As they come, the modulation hardly changes anything: its weights are amplified.
    """
    torch.manual_seed(seed)
    encoder, latents = DegradationEncoder(version, width), PriorUpsampling(version, width)
    model = JointModel(encoder, latents, JointGenerator(width, 8), JointGenerator(width, 8))
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        model.train()(images, images)  # settles the spectral norms
        for generator in (model.inverse_generator, model.generator):
            assert generator is not None
            for key, weights in generator.named_parameters():
                if key.startswith("ad1_list") and key.endswith("weight"):
                    weights.mul_(16)
            generator.last.weight.mul_(0.3)
            generator.last.bias.zero_()
    return model.eval()
