"""The blur operators of a blind search: F of a kernel space, convolution, and downsampling."""

import math
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.engine import SizeRequirement
from blurkit.engine.torch_runner import autocast, channels_last
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors
from blurkit.synthesis.rendering import convolve
from blurkit.systems.kernel_space import priors
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.uses import Estimate

MAX_SHIFT, COARSE_SIGMA = 12, 6
"""The largest shift between an image and its blurred photo that is searched for, and the standard
deviation of the Gaussian that smooths both before they are compared, in pixels."""

DOT_SPACING, DOT_HEIGHT, GRAY = 64, 0.25, 0.5
"""In pictures of codes: the distance between dots in pixels, the height of a dot above the
background, and the value of the background."""

ENLARGEMENT = 8
"""In pictures of kernels: the side of a kernel's pixel."""


class Operator(ABC):
    """Blurs each image with its own blur, to `margin` pixels less; photos are padded to `size`."""

    size = SizeRequirement()
    margin = 0

    @abstractmethod
    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """Blur (N, 3, H, W) by N codes or kernels to (N, 3, H - margin, W - margin) float32."""

    @abstractmethod
    def make_prior(self, height: int, width: int, source: priors.RandomSource) -> priors.BlurPrior:
        """Return the network that generates the blur in the search for a photo of this size."""

    def convert_estimate(self, estimate: Estimate, photo: Tensor) -> Tensor | None:
        """Return the blur of a photo (1, 3, H, W) from an estimate, or None if it is too large."""
        return None

    def starting_blur(self, photo: Tensor) -> Tensor | None:
        """Return the starting blur for a photo (1, 3, H, W), or None for a random one."""
        return None

    def crop_to_photo(self, image: Tensor, blur: Tensor, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part of an image (1, 3, H, W) that a photo shows, and the blur that fits it.

        The part has the size of the photo; what the image lacks of it repeats its border.
        """
        return image, blur

    def align(self, picture: Tensor, photo: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the picture that was found (1, 3, H, W), aligned with the photo, and its move.

        The picture moved back, by as many pixels up and left, and then blurred, is the photo.
        """
        return picture, (0, 0)

    @abstractmethod
    def draw_blur(self, blur: Tensor) -> np.ndarray:
        """Return a picture of a blur (1, ...), (H, W, 1) uint8."""

    def observe(self, photo: Tensor) -> Tensor:
        """Return what blurred images are compared with, for a photo, still with its border."""
        return photo


class EncodedOperator(Operator):
    """F of a kernel space, frozen, in `dtype` on `device`; its blurs are codes."""

    def __init__(
        self, network: EncodedBlur, options: SearchOptions, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.network = network.requires_grad_(False).eval().to(device)
        channels_last(self.network)
        self.size = network.size
        self.options, self.device, self.dtype = options, device, dtype
        self.values: int = network.options["code"]
        file = options.start_code_file
        self._start = _read_code(file, self.values) if file else None

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """Return F(x, k) for codes (N, values, H / 128, W / 128)."""
        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.dtype):
            return self.network.blur(images, blurs).float()

    def make_prior(self, height: int, width: int, source: priors.RandomSource) -> priors.BlurPrior:
        places = height // CODE_STRIDE, width // CODE_STRIDE
        return priors.DeepCode(self.values, *places, self.dtype, source)

    @torch.no_grad()
    def convert_estimate(self, estimate: Estimate, photo: Tensor) -> Tensor:
        """Return G's code for the photo and the estimate's picture of it."""
        return self.network.encode(estimate.picture.to(photo), photo)[0]

    def align(self, picture: Tensor, photo: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the picture, aligned with the photo, and its move: a code may shift its image."""
        if not self.options.align_picture:
            return picture, (0, 0)
        down, right = find_shift(picture, photo)
        return _window(picture, -down, -right, *picture.shape[-2:]), (down, right)

    @torch.no_grad()
    def draw_blur(self, blur: Tensor) -> np.ndarray:
        """Return what F with the code makes of bright dots on gray, without the gray."""
        gray = torch.full((1, 3, *(CODE_STRIDE * n for n in blur.shape[-2:])), GRAY).to(blur)
        points = torch.zeros_like(gray[:, :1])
        points[..., DOT_SPACING // 2 :: DOT_SPACING, DOT_SPACING // 2 :: DOT_SPACING] = DOT_HEIGHT
        # Dots of 3x3 pixels: F, which adds to its input, leaves a single pixel nearly as it is.
        dots = gray + F.max_pool2d(points, 3, 1, 1)
        spread = self.blur(dots, blur) - self.blur(gray, blur)
        return _to_picture(spread.mean(1))

    @torch.no_grad()
    def starting_blur(self, photo: Tensor) -> Tensor | None:
        """Return the code of `start_code_file`, or G's for a Gaussian blur, or None for neither."""
        places = [side // CODE_STRIDE for side in photo.shape[-2:]]
        if self._start is not None:
            return F.interpolate(self._start.to(photo), places, mode="bilinear")
        deviation = self.options.start_gaussian
        if not deviation:
            return None
        reach = math.ceil(3 * deviation)
        taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
        taps /= taps.sum()
        return self.network.encode(photo, convolve(photo[0], np.outer(taps, taps))[None])[0]


class Convolution(Operator):
    """Convolution with one kernel, only where it stays within the image, as in SelfDeblur."""

    def __init__(self, side: int, centre: bool = True) -> None:
        self.side, self.margin, self.centre = side, side - 1, centre

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """Return true convolutions with kernels (N, 1, side, side)."""
        size = images.shape[-2:]
        spectrum = torch.fft.rfft2(images) * torch.fft.rfft2(blurs, s=size)
        return torch.fft.irfft2(spectrum, s=size)[..., self.margin :, self.margin :]

    def make_prior(self, height: int, width: int, source: priors.RandomSource) -> priors.BlurPrior:
        return priors.DeepKernel(self.side, source)

    def convert_estimate(self, estimate: Estimate, photo: Tensor) -> Tensor | None:
        """Return the estimate's kernel, padded to (1, 1, side, side), or None if it is larger."""
        missing = self.side - estimate.kernel.shape[-1]
        if missing < 0:
            return None
        return F.pad(estimate.kernel, (missing // 2,) * 4).to(photo)[None, None]

    def crop_to_photo(self, image: Tensor, blur: Tensor, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Return the part of the image that the photo shows on average, and the centred kernel.

        An image shifted one way, under a kernel shifted the other way, blurs to the same photo.
        Without `centre`, both stay as they are, with the origin of the kernel in its middle.
        """
        half = self.margin // 2
        centre = self._centre(blur) if self.centre else [half, half]
        # The photo is as large as the blurred image, or larger by a border on which nothing says
        # how it is blurred: a StyleGAN makes no pixels outside the photo.
        sides = zip(centre, photo.shape[-2:], image.shape[-2:], strict=True)
        top, left = (
            self.margin - place - (side - (length - self.margin)) // 2
            for place, side, length in sides
        )
        moved = [half - place for place in centre]
        picture = _window(image, top, left, *photo.shape[-2:])
        wide = F.pad(blur, (half,) * 4).roll(moved, (2, 3))
        inside = wide[..., half : half + self.side, half : half + self.side]
        # Where the kernel would lose more than a hundredth of itself, it gets larger instead.
        return picture, wide if blur.sum() - inside.sum() > 1e-2 else blur.roll(moved, (2, 3))

    def _centre(self, kernel: Tensor) -> list[int]:
        """Return the row and column of the centroid of a kernel (1, 1, side, side)."""
        places = torch.arange(self.side, device=kernel.device, dtype=kernel.dtype)
        means = torch.stack([(kernel[0, 0].sum(axis) * places).sum() for axis in (1, 0)])
        # A diverging search yields NaN; any place will do, as the result is discarded.
        return [round(mean) for mean in means.nan_to_num(0).clamp(0, self.margin).tolist()]

    def draw_blur(self, blur: Tensor) -> np.ndarray:
        """Return the kernel, its pixels enlarged."""
        return _to_picture(blur[0]).repeat(ENLARGEMENT, 0).repeat(ENLARGEMENT, 1)


class Downsampling(Operator):
    """Bicubic downsampling of both image and photo: PULSE's operator, which has no blur.

    "PULSE: Self-Supervised Photo Upsampling via Latent Space Exploration of Generative Models",
    CVPR 2020; the second of the three operators in Fig. 6 of the kernel space's paper.
    """

    def __init__(self, factor: int) -> None:
        self.factor, self.size = factor, SizeRequirement(2 * factor, factor)

    def blur(self, images: Tensor, blurs: Tensor) -> Tensor:
        """Return (N, 3, H / factor, W / factor); the blurs are zeros."""
        # Adding the zeros gives every step something to differentiate.
        return self.observe(images) + blurs[:, :, None, None]

    def make_prior(self, height: int, width: int, source: priors.RandomSource) -> priors.BlurPrior:
        return priors.NoBlur().to(source.device)

    def observe(self, photo: Tensor) -> Tensor:
        return priors.bicubic_downsample(photo, self.factor)

    def draw_blur(self, blur: Tensor) -> np.ndarray:
        """Raise BlurkitError: there is no blur."""
        raise BlurkitError("downsampling has no blur to show")


def _window(image: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """Return a rectangle of an image (1, 3, H, W) that may reach beyond it by repeated borders."""
    sides = image.shape[-2:]
    above, before = max(0, -top), max(0, -left)
    below, after = max(0, top + height - sides[0]), max(0, left + width - sides[1])
    wide = F.pad(image, (before, after, above, below), mode="replicate")
    top, left = top + above, left + before
    return wide[..., top : top + height, left : left + width]


def _to_picture(values: Tensor) -> np.ndarray:
    """Return values (1, H, W) as a picture (H, W, 1) uint8, white where they are greatest."""
    positive = values.nan_to_num(0).clamp(min=0)
    white = positive.amax().clamp(min=1e-12)
    return (255 * positive / white).round().byte().permute(1, 2, 0).cpu().numpy()


def find_shift(image: Tensor, photo: Tensor) -> tuple[int, int]:
    """Return the shift, pixels down and right, that aligns an image (1, 3, H, W) with the photo.

    It is the shift of at most `MAX_SHIFT` pixels that minimises the difference of the two under a
    Gaussian of `COARSE_SIGMA` pixels, which hides how either is blurred.
    """
    reach = 3 * COARSE_SIGMA
    taps = torch.arange(-reach, reach + 1, device=photo.device)
    taps = torch.exp(-0.5 * (taps / COARSE_SIGMA) ** 2)
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    gray = torch.cat([image, photo]).mean(1, keepdim=True)
    coarse, target = F.conv2d(F.conv2d(gray, taps), taps.transpose(2, 3))[:, 0]
    border = min(MAX_SHIFT, min(target.shape) // 4)
    target = target[border : target.shape[0] - border, border : target.shape[1] - border]
    windows = coarse.unfold(0, target.shape[0], 1).unfold(1, target.shape[1], 1)
    distances = torch.stack([(row - target).square().mean((1, 2)) for row in windows])
    down, right = divmod(int(distances.nan_to_num(torch.inf).argmin()), distances.shape[1])
    return border - down, border - right


def _read_code(path: str, values: int) -> Tensor:
    if not Path(path).is_file():
        raise BlurkitError(f"{path}: no such file (start_code_file)")
    with Path(path).open("rb") as file:
        code = load_tensors(file, path)
    if not isinstance(code, Tensor) or code.dim() != 4 or len(code) != 1:
        raise BlurkitError(f"{path}: is not a blur code, a tensor (1, values, rows, columns)")
    if code.shape[1] != values:
        held = f"a blur code of {code.shape[1]} values"
        raise BlurkitError(f"{path}: {held}; this kernel space needs {values}")
    return code
