"""Rendering exposures: sharp images blurred on any device, averaged in linear light."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn.functional import grid_sample

from blurkit.data.convolution import convolve_each, disk, mirrored
from blurkit.data.exposure import HARMONICS, Exposure, MovingObject, way
from blurkit.data.kernels import Kernel
from blurkit.data.sampler import Unblurred
from blurkit.io.records import Image, to_float

SATURATED = 0.96
"""The pixel value from which on a pixel counts as saturated, the more the nearer it is to 1."""

BRIGHTEST = 0.05
"""How much light the highlights may add, on average over the image: a camera that has measured the
light shows lamps and glints far too dark, but not a whole sky."""


Points = tuple[Tensor, Tensor]
"""x (w,) and y (h, 1) of pixels."""


@torch.no_grad()
def render(sharp: Tensor, exposures: Sequence[Exposure]) -> tuple[Tensor, Tensor]:
    """The blurry image of each exposure, and the sharp one with the objects put into it.

    `sharp` (N, C, H, W) float32 in [0, 1], C = 1 or 3; so are the results, on its device. Beyond
    its borders an image is mirrored, the border pixels doubled.
    """
    light = torch.stack([brightened(s, e) for s, e in zip(sharp, exposures, strict=True)])
    blur = sensed(average_poses(light, exposures), exposures)
    return blur, torch.stack([_seen(s, e) for s, e in zip(sharp, exposures, strict=True)])


def render_crops(unblurred: Sequence[Unblurred], crop: int, device: torch.device) -> list[Tensor]:
    """The blurry crops and the sharp ones (N, 3, crop, crop) of a sampler, float32 on `device`.

    Rounded to 8 bits, as real pairs are.
    """
    sharp = torch.stack([_on_device(u.sharp, device).expand(3, -1, -1) for u in unblurred])
    margin = (sharp.shape[2] - crop) // 2
    inside = slice(margin, margin + crop)
    rendered = render(sharp, [u.exposure for u in unblurred])
    return [(255 * image[:, :, inside, inside]).round() / 255 for image in rendered]


def _on_device(image: Image, device: torch.device) -> Tensor:
    """An image (H, W, C) as (C, H, W) float32 in [0, 1]; 8 bits travel as they are."""
    bytes_or_floats = image if image.dtype == np.uint8 else to_float(image)
    values = torch.from_numpy(bytes_or_floats).to(device).permute(2, 0, 1)
    return values.float() / 255 if values.dtype == torch.uint8 else values


# ---- light --------------------------------------------------------------------------------------


def to_light(values: Tensor, exposure: Exposure) -> Tensor:
    """Pixel values in [0, 1] as linear light in [0, 1], by the exposure's response or gamma."""
    if exposure.response is None:
        return values**exposure.gamma
    return _interpolated(values, *reversed(_response(exposure.response, values)))


def to_values(light: Tensor, exposure: Exposure) -> Tensor:
    """The inverse of `to_light`; light beyond [0, 1] is clipped."""
    light = light.clamp(0, 1)
    if exposure.response is None:
        return light ** (1 / exposure.gamma)
    return _interpolated(light, *_response(exposure.response, light))


def brightened(sharp: Tensor, exposure: Exposure) -> Tensor:
    """An image (C, H, W) as linear light, its saturated pixels as bright as they really were."""
    light = to_light(sharp, exposure)
    if exposure.highlights == 1:
        return light
    saturated = ((sharp.amax(0) - SATURATED) / (1 - SATURATED)).clamp(0, 1)
    more = light * (exposure.highlights**saturated - 1)
    return light + more * (BRIGHTEST / more.mean().clamp_min(1e-9)).clamp_max(1)


def sensed(light: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """Light on the sensor (N, C, H, W) as each file's pixel values in [0, 1].

    Optics, noise, clipping and JPEG, of one exposure for each image.
    """
    light = _through(light, [e.kernel for e in exposures])
    light = _through(light, [disk(e.defocus) if e.defocus else None for e in exposures])
    pairs = zip(light, exposures, strict=True)
    values = torch.stack([to_values(_noisy(one, e), e) for one, e in pairs])
    return _compressed(values, [e.jpeg for e in exposures])


def _through(light: Tensor, kernels: Sequence[Kernel | None]) -> Tensor:
    """Light (N, C, H, W) convolved with its kernels; an image without one stays as it is."""
    chosen = {place: kernel for place, kernel in enumerate(kernels) if kernel is not None}
    if not chosen:
        return light
    places, result = [*chosen], light.clone()
    result[places] = convolve_each(light[places], [*chosen.values()])
    return result


def _noisy(light: Tensor, exposure: Exposure) -> Tensor:
    """Light (C, H, W) with noise: before saturation, which clips so bright a pixel all the same."""
    if not (exposure.noise or exposure.shot):
        return light
    generator = torch.Generator(light.device).manual_seed(exposure.seed)
    draw = torch.randn(light.shape, generator=generator, device=light.device)
    return light + draw * (exposure.noise**2 + exposure.shot * light.clamp(0, 1)).sqrt()


def _response(curve: np.ndarray, like: Tensor) -> tuple[Tensor, Tensor]:
    """The light of 256 grey levels, scaled to [0, 1], and the levels."""
    light = torch.as_tensor((curve - curve[0]) / (curve[-1] - curve[0])).to(like)
    return light, torch.linspace(0, 1, len(curve)).to(like)


def _interpolated(values: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """numpy.interp of tensors."""
    right = torch.searchsorted(x, values.contiguous()).clamp(1, len(x) - 1)
    share = (values - x[right - 1]) / (x[right] - x[right - 1])
    return y[right - 1] + share * (y[right] - y[right - 1])


def _compressed(values: Tensor, qualities: Sequence[int]) -> Tensor:
    """Pixel values (N, C, H, W) as JPEG of these qualities gives them back; 0: as they are."""
    places = [place for place, quality in enumerate(qualities) if quality]
    if not places:
        return values
    levels = (255 * values[places]).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    with ThreadPoolExecutor() as threads:  # Pillow lets other threads run while it codes
        decoded = [*threads.map(_jpeg, levels, [qualities[place] for place in places])]
    result = values.clone()
    result[places] = torch.from_numpy(np.stack(decoded)).to(values.device).permute(0, 3, 1, 2) / 255
    return result


def _jpeg(levels: np.ndarray, quality: int) -> np.ndarray:
    """An 8-bit image (H, W, C) coded as JPEG and decoded."""
    file = io.BytesIO()
    Pillow.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels).save(
        file, "JPEG", quality=quality
    )
    return np.array(Pillow.open(file)).reshape(levels.shape)


# ---- movement -----------------------------------------------------------------------------------


def average_poses(light: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """The mean over each exposure's poses of light (N, C, H, W), objects in front, bilinear.

    A single pose stands still.
    """
    order = sorted(range(len(exposures)), key=lambda i: -len(exposures[i].poses))
    moving = [i for i in order if len(exposures[i].poses) > 1]
    result = light.clone()
    if not moving:
        return result
    light, chosen = light[moving], [exposures[i] for i in moving]
    total = torch.zeros_like(light)
    camera = _inverted([e.camera_matrices() for e in chosen], light)
    most = len(chosen[0].poses)
    padded = [np.pad(e.weights, (0, most - len(e.weights))) for e in chosen]
    weights = torch.from_numpy(np.stack(padded, axis=1)).to(light)[:, :, None, None, None]
    layers, points = _Layers(light, chosen), _points(light)
    for pose in range(most):
        count = sum(len(e.poses) > pose for e in chosen)
        frame = _warped(light[:count], camera[:count, pose], "reflection", points)
        layers.cover(frame, pose)
        total[:count] += weights[pose, :count] * frame
    result[moving] = total
    return result


class _Level(NamedTuple):
    """One object each of some images: which, where seen, their textures and ways."""

    places: list[int]
    window: tuple[slice, slice]
    there: Tensor
    points: Points
    layers: Tensor
    matrices: Tensor


class _Layers:
    """The objects of a batch of exposures, each a premultiplied texture with its mask."""

    def __init__(self, light: Tensor, exposures: Sequence[Exposure]) -> None:
        self._counts = [len(e.poses) for e in exposures]
        self._levels: list[_Level] = []
        for level in range(max(len(e.objects) for e in exposures)):
            places = [i for i, e in enumerate(exposures) if len(e.objects) > level]
            chosen = [(exposures[i], exposures[i].objects[level]) for i in places]
            layers = [_layer(light[i], m) for i, (_, m) in zip(places, chosen, strict=True)]
            ways = [e.object_matrices(m) for e, m in chosen]
            window = _window([_box(w, m) for w, (_, m) in zip(ways, chosen, strict=True)], light)
            # An index that is on the device is not waited for.
            where = torch.tensor(places, device=light.device), _points(light, window)
            seen = torch.stack(layers), _inverted(ways, light)
            self._levels.append(_Level(places, window, *where, *seen))

    def cover(self, frame: Tensor, pose: int) -> None:
        """Put the objects at a pose in front of frames (N', C, H, W), the first so many."""
        for level in self._levels:
            count = sum(self._counts[place] > pose for place in level.places)
            if count:
                there = level.there[:count]
                seen = _warped(
                    level.layers[:count], level.matrices[:count, pose], "zeros", level.points
                )
                behind = frame[:, :, level.window[0], level.window[1]]
                behind[there] = behind[there].mul_(1 - seen[:, -1:]).add_(seen[:, :-1])


def _box(matrices: np.ndarray, moving: MovingObject) -> np.ndarray:
    """(left, top, right, bottom): where an object is seen, whatever the pose."""
    angles = np.linspace(0, 2 * np.pi, 32)
    ways = way(
        matrices,
        moving.x + moving.reach * np.cos(angles),
        moving.y + moving.reach * np.sin(angles),
    )
    return np.concatenate([ways.min(axis=(0, 2)) - 2, ways.max(axis=(0, 2)) + 2])


def _window(boxes: Sequence[np.ndarray], like: Tensor) -> tuple[slice, slice]:
    """The rows and columns that hold all boxes, as far as they lie in the images."""
    left, top = np.min(boxes, axis=0)[:2]
    right, bottom = np.max(boxes, axis=0)[2:]
    spans = ((top, bottom, like.shape[2]), (left, right, like.shape[3]))
    rows, columns = (
        slice(*np.clip([math.floor(start), math.ceil(stop)], 0, length).tolist())
        for start, stop, length in spans
    )
    return rows, columns


def _seen(sharp: Tensor, exposure: Exposure) -> Tensor:
    """The sharp image (C, H, W) with the objects that were put into it."""
    if not exposure.adds_objects:
        return sharp
    light = scene = to_light(sharp, exposure)
    for moving in exposure.objects:
        layer = _layer(scene, moving)
        light = layer[:-1] + (1 - layer[-1:]) * light
    return to_values(light, exposure)


def _layer(light: Tensor, moving: MovingObject) -> Tensor:
    """(C + 1, H, W): an object's texture times its mask, and the mask."""
    _, height, width = light.shape
    rows, columns = (
        torch.from_numpy(mirrored(n, abs(shift), abs(shift))[abs(shift) + shift :][:n])
        for n, shift in ((height, round(moving.shift_y)), (width, round(moving.shift_x)))
    )
    texture = light[:, rows][:, :, columns]
    mask = torch.as_tensor(outline_mask(moving, height, width)).to(light)[None]
    return torch.cat([texture * mask, mask])


def outline_mask(moving: MovingObject, height: int, width: int) -> np.ndarray:
    """(H, W) in [0, 1]: how much of each pixel an object covers where the sharp image shows it."""
    down, right = np.mgrid[:height, :width].astype(np.float32) + 0.5
    down, right = down - moving.y, right - moving.x
    angle = np.arctan2(down, right)
    radius = np.ones_like(angle)
    amplitudes, phases = moving.outline[:HARMONICS], moving.outline[HARMONICS:]
    for wave, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), 2):
        radius += amplitude * np.cos(wave * angle + phase)
    inside = (radius * moving.radius - np.hypot(down, right)) / moving.feather + 0.5
    inside = np.clip(inside, 0, 1)
    mask: np.ndarray = inside * inside * (3 - 2 * inside)
    return mask


def _inverted(matrices: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """(N, T, 3, 3) in float32: from the pixels of each pose back to those of the sharp image.

    The sharp image's are on grid_sample's scale. Exposures with fewer poses are filled with zeros.
    """
    height, width = like.shape[2:]
    scale = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    filled = np.zeros((len(matrices), max(map(len, matrices)), 3, 3), np.float32)
    for place, one in zip(filled, matrices, strict=True):
        place[: len(one)] = scale @ np.linalg.inv(one)
    return torch.from_numpy(filled).to(like.device)


def _points(like: Tensor, window: tuple[slice, slice] = (slice(None), slice(None))) -> Points:
    """x (w,) and y (h, 1): the middles of the pixels in the rows and columns of `window`."""
    height, width = like.shape[2:]
    x = torch.arange(width, device=like.device)[window[1]] + 0.5
    y = torch.arange(height, device=like.device)[window[0], None] + 0.5
    return x, y


def _warped(images: Tensor, matrices: Tensor, padding: str, points: Points) -> Tensor:
    """Images (N, C, H, W) looked at through matrices (N, 3, 3) of `_inverted`, bilinear.

    Only at the pixels of `points`.
    """
    x, y = points
    m = matrices[:, :, :, None, None]
    seen = m[:, :, 0] * x + (m[:, :, 1] * y + m[:, :, 2])
    grid = seen.new_empty(*seen[:, 2].shape, 2)
    for axis in (0, 1):
        torch.div(seen[:, axis], seen[:, 2], out=grid[..., axis])
    return grid_sample(images, grid, "bilinear", padding, align_corners=False)
