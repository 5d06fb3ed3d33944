"""Small networks with known answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from blurkit.models.size import SizeRequirement


class Identity(nn.Module):
    """Returns its input and notes the shapes it saw."""

    def __init__(self, size: SizeRequirement | None = None) -> None:
        super().__init__()
        self.size = size or SizeRequirement()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Tensor:
        """`image` itself."""
        self.shapes.append(tuple(image.shape))
        return image * 1


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
        """As Smooth, where there is room."""
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
        """Bright images times NaN, unless in float32."""
        bright = image.mean(dim=(1, 2, 3), keepdim=True) > 0.5
        low = self.always or torch.is_autocast_enabled(image.device.type)
        return torch.where(bright & torch.tensor(low), torch.nan, image)
