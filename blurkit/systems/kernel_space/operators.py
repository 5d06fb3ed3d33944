"""What blurs in a blind search: F of a kernel space, a plain convolution, or downsampling."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.device import autocast, channels_last
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors
from blurkit.nn.size import SizeRequirement
from blurkit.synthesis.convolution import convolve
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur
from blurkit.systems.kernel_space.priors import BlurPrior, DeepCode, DeepKernel, Draw, NoBlur
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.systems.kernel_space.search_start import Estimate
from blurkit.systems.kernel_space.style_latents import bicubic_downsample

WANDER, COARSE = 12, 6
"""How far an image may have moved under its blur, and how coarsely that is looked at, pixels."""


class Operator(ABC):
    """Blurs images (N, 3, H, W), each with a blur of its own.

    What comes out is `margin` pixels smaller along each side. `size` is what photos are padded to.
    """

    size = SizeRequirement()
    margin = 0

    @abstractmethod
    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """(N, 3, H - margin, W - margin) float32 of the images and N codes or kernels."""

    @abstractmethod
    def prior(self, height: int, width: int, draw: Draw) -> BlurPrior:
        """The network that a blur for a photo of this size is searched with."""

    def estimated(self, estimate: Estimate, photo: Tensor) -> Tensor | None:
        """The blur of a photo (1, 3, H, W) as an estimate has it, None for one too large."""
        return None

    def start(self, photo: Tensor) -> Tensor | None:
        """The blur that the search of a photo (1, 3, H, W) begins with, None for any."""
        return None

    def picture(self, image: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
        """Of an image (1, 3, H, W) and its blur what is the photo's: (1, 3, H - margin,
        W - margin), and the blur that makes the photo of it.
        """
        return image, blur

    def placed(self, picture: Tensor, photo: Tensor) -> Tensor:
        """The picture that was found (1, 3, H, W), moved to where the photo is."""
        return picture

    def seen(self, photo: Tensor) -> Tensor:
        """What of a photo (1, 3, H, W) blurred images are held to, but for its border."""
        return photo


class EncodedOperator(Operator):
    """F of a kernel space, frozen, in `dtype` on `device`; its blurs are codes."""

    def __init__(
        self, network: EncodedBlur, options: BlindOptions, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.network = network.requires_grad_(False).eval().to(device)
        channels_last(self.network)
        self.size = network.size
        self.options, self.device, self.dtype = options, device, dtype
        self._start = _read_code(options.start_code, self) if options.start_code else None

    @property
    def values(self) -> int:
        """How many values a code has at each place."""
        return int(self.network.options["code"])

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """F(x, k), where codes are (N, values, H / 128, W / 128)."""
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.dtype):
            return self.network.blur(images, blurs).float()

    def prior(self, height: int, width: int, draw: Draw) -> BlurPrior:
        """A network with as many outputs as the code has values."""
        places = height // CODE_STRIDE, width // CODE_STRIDE
        return DeepCode(self.values, *places, self.dtype, draw)

    @torch.no_grad()
    def estimated(self, estimate: Estimate, photo: Tensor) -> Tensor:
        """G's code for the photo and the estimate's picture of it."""
        return self.network.encode(estimate.picture.to(photo), photo)[0]

    def placed(self, picture: Tensor, photo: Tensor) -> Tensor:
        """The picture moved to where the photo is: a code may move what it blurs."""
        down, right = moved_off(picture, photo)
        wide = F.pad(picture, (WANDER,) * 4, mode="replicate")
        top, left, (height, width) = WANDER - down, WANDER - right, picture.shape[-2:]
        return wide[..., top : top + height, left : left + width]

    @torch.no_grad()
    def start(self, photo: Tensor) -> Tensor | None:
        """The code of `--start-code`, or G's for the photo as a Gaussian would blur it further."""
        places = [side // CODE_STRIDE for side in photo.shape[-2:]]
        if self._start is not None:
            return F.interpolate(self._start.to(photo), places, mode="bilinear")
        deviation = self.options.start_blur
        if not deviation:
            return None
        reach = math.ceil(3 * deviation)
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
        taps /= taps.sum()
        blurred = convolve(photo[0], np.outer(taps, taps))[None]
        return self.network.encode(photo, blurred)[0]


class Convolution(Operator):
    """One kernel for the whole picture: the operator of classical methods, and of SelfDeblur.

    Only what a kernel reaches without leaving the image comes out.
    """

    def __init__(self, side: int) -> None:
        self.side, self.margin = side, side - 1

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """True convolutions with kernels (N, 1, side, side)."""
        size = images.shape[-2:]
        spectrum = torch.fft.rfft2(images) * torch.fft.rfft2(blurs, s=size)
        return torch.fft.irfft2(spectrum, s=size)[..., self.margin :, self.margin :]

    def prior(self, height: int, width: int, draw: Draw) -> BlurPrior:
        """A network with as many outputs as the kernel has pixels."""
        return DeepKernel(self.side, draw)

    def estimated(self, estimate: Estimate, photo: Tensor) -> Tensor | None:
        """The estimate's kernel with zeros around it, (1, 1, side, side); None where it is cut."""
        missing = self.side - estimate.kernel.shape[-1]
        if missing < 0:
            return None
        return F.pad(estimate.kernel, (missing // 2,) * 4).to(photo)[None, None]

    def picture(self, image: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
        """The part of the image from where light falls onto the photo on average, and the kernel
        moved to its middle: an image that is moved one way, under a kernel moved the other, blurs
        to the same.
        """
        places = torch.arange(self.side, device=blur.device, dtype=blur.dtype)
        means = torch.stack([(blur[0, 0].sum(axis) * places).sum() for axis in (1, 0)])
        # A search that diverges has no number there; any place will do for what is not kept.
        centre = [round(mean) for mean in means.nan_to_num(0).clamp(0, self.margin).tolist()]
        top, left = (self.margin - place for place in centre)
        height, width = (side - self.margin for side in image.shape[-2:])
        moved = [self.margin // 2 - place for place in centre]
        return image[..., top : top + height, left : left + width], blur.roll(moved, (2, 3))


class Downsampling(Operator):
    """Bicubic downsampling of image and photo alike, PULSE's operator, which knows of no blur.

    "PULSE: Self-Supervised Photo Upsampling via Latent Space Exploration of Generative Models",
    CVPR 2020; the second of the three operators of the kernel space's Fig. 6.
    """

    def __init__(self, factor: int) -> None:
        self.factor, self.size = factor, SizeRequirement(2 * factor, factor)

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """(N, 3, H / factor, W / factor); the blurs are zeros."""
        # They are added so that every step has something to differentiate.
        return self.seen(images) + blurs[:, :, None, None]

    def prior(self, height: int, width: int, draw: Draw) -> BlurPrior:
        """A zero that stays one."""
        return NoBlur().to(draw.device)

    def seen(self, photo: Tensor) -> Tensor:
        """The photo, downsampled."""
        return bicubic_downsample(photo, self.factor)


def moved_off(image: Tensor, photo: Tensor) -> tuple[int, int]:
    """By how many pixels down and right an image (1, 3, H, W) has to move to lie as the photo does.

    Where their coarse forms differ least, at most `WANDER` pixels away: what is left of both after
    a Gaussian of `COARSE` pixels does not show how either is blurred.
    """
    reach = 3 * COARSE
    taps = torch.arange(-reach, reach + 1, device=photo.device)
    taps = torch.exp(-0.5 * (taps / COARSE) ** 2)
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    gray = torch.cat([image, photo]).mean(1, keepdim=True)
    coarse, target = F.conv2d(F.conv2d(gray, taps), taps.transpose(2, 3))[:, 0]
    border = min(WANDER, min(target.shape) // 4)
    target = target[border : target.shape[0] - border, border : target.shape[1] - border]
    windows = coarse.unfold(0, target.shape[0], 1).unfold(1, target.shape[1], 1)
    apart = torch.stack([(row - target).square().mean((1, 2)) for row in windows])
    down, right = divmod(int(apart.nan_to_num(torch.inf).argmin()), apart.shape[1])
    return border - down, border - right


def _read_code(path: str, operator: EncodedOperator) -> Tensor:
    """A file's code. Raises BlurkitError for another kind of file, or a code of another length."""
    if not Path(path).is_file():
        raise BlurkitError(f"{path}: no such file (from --start-code)")
    with Path(path).open("rb") as file:
        code = load_tensors(file, path)
    if not isinstance(code, Tensor) or code.dim() != 4 or len(code) != 1:
        raise BlurkitError(f"{path}: is no blur code, which is a tensor (1, values, rows, columns)")
    if code.shape[1] != operator.values:
        raise BlurkitError(
            f"{path}: a blur code of {code.shape[1]} values; this kernel space's have "
            f"{operator.values}"
        )
    return code
