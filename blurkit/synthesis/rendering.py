"""Rendering of exposures: sharp images are blurred in linear light, on any device."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from blurkit.io.records import Image, to_float
from blurkit.synthesis.convolution import convolve_each, disk
from blurkit.synthesis.exposure import Exposure, Unblurred
from blurkit.synthesis.kernels import Kernel
from blurkit.synthesis.movement import average_poses, object_layer

SATURATED = 0.96
"""Pixels above this value count as saturated, more so the closer they are to 1."""

BRIGHTEST = 0.05
"""The most light that highlights may add, averaged over the image: automatic exposure clips lamps
and reflections, but not a whole sky."""


@torch.no_grad()
def render(sharp: Tensor, exposures: Sequence[Exposure]) -> tuple[Tensor, Tensor]:
    """Return the blurry image of each exposure, and the sharp one with its objects added.

    `sharp` is float32 (N, C, H, W) in [0, 1], with C = 1 or 3; the results have its shape, range
    and device. Beyond its borders an image is mirrored, with the border pixels repeated.
    """
    light = torch.stack([brightened(s, e) for s, e in zip(sharp, exposures, strict=True)])
    blur = sensed(average_poses(light, exposures), exposures)
    return blur, torch.stack([_seen(s, e) for s, e in zip(sharp, exposures, strict=True)])


def _seen(sharp: Tensor, exposure: Exposure) -> Tensor:
    """Return the sharp image (C, H, W) with the objects of the exposure added."""
    if not exposure.adds_objects:
        return sharp
    light = scene = to_light(sharp, exposure)
    for moving in exposure.objects:
        layer = object_layer(scene, moving)
        light = layer[:-1] + (1 - layer[-1:]) * light
    return to_values(light, exposure)


def render_crops(unblurred: Sequence[Unblurred], crop: int, device: torch.device) -> list[Tensor]:
    """Return the blurry and the sharp crops (N, 3, crop, crop) of a sampler, float32 on `device`.

    They are rounded to 8 bits like real pairs.
    """
    sharp = torch.stack([_on_device(u.sharp, device).expand(3, -1, -1) for u in unblurred])
    margin = (sharp.shape[2] - crop) // 2
    inside = slice(margin, margin + crop)
    rendered = render(sharp, [u.exposure for u in unblurred])
    return [(255 * image[:, :, inside, inside]).round() / 255 for image in rendered]


def _on_device(image: Image, device: torch.device) -> Tensor:
    """Return an image (H, W, C) as float32 (C, H, W) in [0, 1]; 8 bits are sent as bytes."""
    bytes_or_floats = image if image.dtype == np.uint8 else to_float(image)
    values = torch.from_numpy(bytes_or_floats).to(device).permute(2, 0, 1)
    return values.float() / 255 if values.dtype == torch.uint8 else values


# ---- light --------------------------------------------------------------------------------------


def to_light(values: Tensor, exposure: Exposure) -> Tensor:
    """Convert pixel values in [0, 1] to linear light in [0, 1] by the response or gamma."""
    if exposure.response is None:
        return values**exposure.gamma
    return _interpolated(values, *reversed(_response(exposure.response, values)))


def to_values(light: Tensor, exposure: Exposure) -> Tensor:
    """Convert linear light to pixel values, the inverse of `to_light`; clips light to [0, 1]."""
    light = light.clamp(0, 1)
    if exposure.response is None:
        return light ** (1 / exposure.gamma)
    return _interpolated(light, *_response(exposure.response, light))


def brightened(sharp: Tensor, exposure: Exposure) -> Tensor:
    """Convert an image (C, H, W) to linear light, with the true brightness of saturated pixels."""
    light = to_light(sharp, exposure)
    if exposure.highlights == 1:
        return light
    saturated = ((sharp.amax(0) - SATURATED) / (1 - SATURATED)).clamp(0, 1)
    more = light * (exposure.highlights**saturated - 1)
    return light + more * (BRIGHTEST / more.mean().clamp_min(1e-9)).clamp_max(1)


def sensed(light: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """Convert light (N, C, H, W) to the pixel values in [0, 1] of a photo of it.

    Applies the kernel, defocus, noise, clipping and JPEG of each image's exposure.
    """
    light = _through(light, [e.kernel for e in exposures])
    light = _through(light, [disk(e.defocus) if e.defocus else None for e in exposures])
    pairs = zip(light, exposures, strict=True)
    values = torch.stack([to_values(_noisy(image, e), e) for image, e in pairs])
    return _compressed(values, [e.jpeg for e in exposures])


def _through(light: Tensor, kernels: Sequence[Kernel | None]) -> Tensor:
    """Convolve light (N, C, H, W) with its kernels; images without a kernel are unchanged."""
    chosen = {place: kernel for place, kernel in enumerate(kernels) if kernel is not None}
    if not chosen:
        return light
    places, result = [*chosen], light.clone()
    result[places] = convolve_each(light[places], [*chosen.values()])
    return result


def _noisy(light: Tensor, exposure: Exposure) -> Tensor:
    """Add noise to light (C, H, W), before saturation clips it."""
    if not (exposure.noise or exposure.shot):
        return light
    generator = torch.Generator(light.device).manual_seed(exposure.seed)
    draw = torch.randn(light.shape, generator=generator, device=light.device)
    return light + draw * (exposure.noise**2 + exposure.shot * light.clamp(0, 1)).sqrt()


def _response(curve: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the light of 256 grey levels, scaled to [0, 1], and the levels."""
    light = torch.as_tensor((curve - curve[0]) / (curve[-1] - curve[0])).to(like)
    return light, torch.linspace(0, 1, len(curve)).to(like)


def _interpolated(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Interpolate linearly, like numpy.interp."""
    right = torch.searchsorted(x, values.contiguous()).clamp(1, len(x) - 1)
    fraction = (values - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + fraction * (y[right] - y[right - 1])


def _compressed(values: Tensor, qualities: Sequence[int]) -> Tensor:
    """Compress and decode pixel values (N, C, H, W) as JPEG; a quality of 0 skips an image."""
    places = [place for place, quality in enumerate(qualities) if quality]
    if not places:
        return values
    levels = (255 * values[places]).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor() as threads:  # Pillow releases the GIL while it codes
        decoded = [*threads.map(_jpeg, levels, [qualities[place] for place in places])]
    result = values.clone()
    result[places] = torch.from_numpy(np.stack(decoded)).to(values.device).permute(0, 3, 1, 2) / 255
    return result


def _jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """Encode an 8-bit image (H, W, C) as JPEG and decode it."""
    file = io.BytesIO()
    Pillow.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels).save(
        file, "JPEG", quality=quality
    )
    return np.array(Pillow.open(file)).reshape(levels.shape)
