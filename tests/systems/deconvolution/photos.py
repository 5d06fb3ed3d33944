"""Photos and blurs that deconvolution is tried on, and how close its results are."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import skimage.data
import torch
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor
from torch.nn import functional

from blurkit.synthesis.kernels import random_trajectory_kernel
from blurkit.systems.deconvolution.nonblind import Watch, placed, undone, unwatched
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import Window

GAMMA = 2.2


def photo(name: str, height: int = 256, width: int = 256) -> np.ndarray:
    """The middle of a photo that comes with scikit-image, (H, W, 3) or (H, W), from 0 to 1."""
    whole = getattr(skimage.data, name)() / 255
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return whole[top : top + height, left : left + width]


def grey(name: str, height: int = 256, width: int = 256) -> np.ndarray:
    """The same as a grey photo (H, W)."""
    image = photo(name, height, width)
    return image.mean(2) if image.ndim == 3 else image


def shake(seed: int, size: int) -> np.ndarray:
    """The kernel (size, size) of a camera that was shaken."""
    return random_trajectory_kernel(np.random.default_rng(seed), size)


def noise(shape: tuple[int, ...], deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, deviation, shape)


def taken(
    sharp: np.ndarray, kernel: np.ndarray, deviation: float = 1 / 255, gamma: float = GAMMA
) -> np.ndarray:
    """The photo (H, W, 3) float32 that is taken of a scene: blurred light, then noise."""
    light = np.stack([ndimage.convolve(c, kernel) for c in np.moveaxis(sharp**gamma, 2, 0)], 2)
    noisy = light ** (1 / gamma) + noise(sharp.shape, deviation)
    return noisy.clip(0, 1).astype(np.float32)


def ellipse(height: int, width: int) -> np.ndarray:
    """Where the middle of a photo is, half as high and as wide (H, W)."""
    rows, columns = (np.linspace(-2, 2, side) for side in (height, width))
    return np.hypot(rows[:, None], columns) < 1


def followed(sharp: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`taken` by a camera that followed what is in the middle, and where that is sharp (H, W)."""
    middle = ellipse(*sharp.shape[:2])
    still = (sharp + noise(sharp.shape, 1 / 255, 1)).clip(0, 1).astype(np.float32)
    return np.where(middle[..., None], still, taken(sharp, kernel)), middle


def psnr(image: np.ndarray, sharp: np.ndarray, border: int = 0) -> float:
    """The PSNR in dB of an image in [0, 1], without its border."""
    inside = tuple(slice(border, side - border) for side in sharp.shape[:2])
    return float(peak_signal_noise_ratio(sharp[inside], image[inside].clip(0, 1), data_range=1))


def batch(*images: np.ndarray) -> Tensor:
    """Images or kernels (H, W) as (N, H, W) float32."""
    return torch.from_numpy(np.stack(images).astype(np.float32))


def engine_of(deconvolution: Deconvolution, **options: int | float) -> Deconvolution:
    """One of the same network, with other options."""
    network, others = deconvolution.undo.network, replace(deconvolution.options, **options)
    return Deconvolution(network, others, "cpu", "fp32")


def without_blur(
    deconvolution: Deconvolution,
    image: np.ndarray,
    windows: Sequence[Window],
    otherwise: np.ndarray | None = None,
    watch: Watch = unwatched,
) -> np.ndarray:
    """A photo (H, W, 3) without the blur of its windows, float32, where its kernels say."""
    options = deconvolution.options
    made = undone(deconvolution.undo, image, windows, otherwise, options, watch)
    return placed(made.picture, windows, (0, 0), options.overlap)


def grown(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image (H, W, C) in a larger size."""
    batched = torch.from_numpy(image).permute(2, 0, 1)[None]
    large = functional.interpolate(batched, (height, width), mode="bicubic")
    return large[0].permute(1, 2, 0).numpy()
