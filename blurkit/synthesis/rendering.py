"""Rendering of exposures: sharp images are blurred in linear light, on any device."""

import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import scipy.fft
import torch
from PIL import Image as Pillow
from torch import Tensor
from torch.nn.functional import grid_sample

from blurkit.io.records import to_float
from blurkit.synthesis.exposure import HARMONICS, Exposure, MovingObject, Unblurred, way
from blurkit.synthesis.kernels import Kernel

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
    """Return blurry and sharp crops (N, 3, crop, crop) on `device`, in 8-bit steps like pairs."""
    sharp = torch.stack([on_device(u.sharp, device).expand(3, -1, -1) for u in unblurred])
    margin = (sharp.shape[2] - crop) // 2
    inside = slice(margin, margin + crop)
    rendered = render(sharp, [u.exposure for u in unblurred])
    return [(255 * image[:, :, inside, inside]).round() / 255 for image in rendered]


def on_device(images: np.ndarray, device: torch.device) -> Tensor:
    """Return images (..., H, W, C) as float32 (..., C, H, W) in [0, 1]; bytes are sent as such."""
    values = torch.from_numpy(images if images.dtype == np.uint8 else to_float(images))
    if device.type == "cuda" and len(images):
        values = values.pin_memory().to(device, non_blocking=True)
    values = values.to(device).movedim(-1, -3)
    return values.float() / 255 if values.dtype == torch.uint8 else values


# ---- light ---------------------------------------------------------------------------------------


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
    """Convert light (N, C, H, W) to values in [0, 1]: kernel, defocus, noise, clipping and JPEG."""
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
    image = Pillow.fromarray(levels.squeeze(2) if levels.shape[2] == 1 else levels)
    image.save(file, "JPEG", quality=quality)
    return np.array(Pillow.open(file)).reshape(levels.shape)


# ---- Movement ------------------------------------------------------------------------------------

Points = tuple[Tensor, Tensor]
"""The coordinates x (w,) and y (h, 1) of pixels."""


def average_poses(light: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """Return the mean of linear light (N, C, H, W) over the poses of each exposure.

    Objects are in front; interpolation is bilinear. An image with a single pose is unchanged.
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
    levels, points = [*_levels(light, chosen)], _points(light)
    for pose in range(most):
        count = sum(len(e.poses) > pose for e in chosen)
        frame = _warped(light[:count], camera[:count, pose], "reflection", points)
        for level in levels:
            level.cover(frame, pose)
        total[:count] += weights[pose, :count] * frame
    result[moving] = total
    return result


class _Level(NamedTuple):
    """One object of each of some images, as premultiplied textures with masks.

    `counts` are the numbers of poses in these images, `there` their indices.
    """

    counts: list[int]
    window: tuple[slice, slice]
    there: Tensor
    points: Points
    layers: Tensor
    matrices: Tensor

    def cover(self, frame: Tensor, pose: int) -> None:
        """Draw the objects at `pose` over `frame` (n, C, H, W), which holds the first n images."""
        if count := sum(number > pose for number in self.counts):
            there = self.there[:count]
            seen = _warped(self.layers[:count], self.matrices[:count, pose], "zeros", self.points)
            behind = frame[:, :, self.window[0], self.window[1]]
            behind[there] = behind[there].mul_(1 - seen[:, -1:]).add_(seen[:, :-1])


def _levels(light: Tensor, exposures: Sequence[Exposure]) -> Iterator[_Level]:
    """Yield the objects of exposures of light (N, C, H, W): first each one's first object."""
    for level in range(max(len(e.objects) for e in exposures)):
        places = [i for i, e in enumerate(exposures) if len(e.objects) > level]
        chosen = [(exposures[i], exposures[i].objects[level]) for i in places]
        layers = [object_layer(light[i], m) for i, (_, m) in zip(places, chosen, strict=True)]
        poses = [e.object_matrices(m) for e, m in chosen]
        window = _window([_box(p, m) for p, (_, m) in zip(poses, chosen, strict=True)], light)
        # Indexing with a tensor on the device does not wait for the device.
        where = torch.tensor(places, device=light.device), _points(light, window)
        counts = [len(e.poses) for e, _ in chosen]
        yield _Level(counts, window, *where, torch.stack(layers), _inverted(poses, light))


def _box(matrices: np.ndarray, moving: MovingObject) -> np.ndarray:
    """Return the box (left, top, right, bottom) that contains an object in all poses."""
    angles = np.linspace(0, 2 * np.pi, 32)
    right, down = moving.reach * np.cos(angles), moving.reach * np.sin(angles)
    paths = way(matrices, moving.x + right, moving.y + down)
    return np.concatenate([paths.min(axis=(0, 2)) - 2, paths.max(axis=(0, 2)) + 2])


def _window(boxes: Sequence[np.ndarray], like: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns that contain all boxes, clipped to the images."""
    left, top = np.min(boxes, axis=0)[:2]
    right, bottom = np.max(boxes, axis=0)[2:]
    rows, columns = (
        slice(*np.clip([math.floor(start), math.ceil(stop)], 0, length).tolist())
        for start, stop, length in ((top, bottom, like.shape[2]), (left, right, like.shape[3]))
    )
    return rows, columns


def object_layer(light: Tensor, moving: MovingObject) -> Tensor:
    """Return an object's texture times its mask, and the mask, as (C + 1, H, W)."""
    _, height, width = light.shape
    rows, columns = (
        torch.from_numpy(mirrored(n, abs(shift))[abs(shift) + shift :][:n])
        for n, shift in ((height, round(moving.shift_y)), (width, round(moving.shift_x)))
    )
    texture = light[:, rows][:, :, columns]
    mask = torch.as_tensor(outline_mask(moving, height, width)).to(light)[None]
    return torch.cat([texture * mask, mask])


def outline_mask(moving: MovingObject, height: int, width: int) -> np.ndarray:
    """Return an object's mask (H, W) in the sharp image: the covered fraction of each pixel."""
    down, right = np.mgrid[:height, :width].astype(np.float32) + 0.5
    down, right = down - moving.y, right - moving.x
    angle = np.arctan2(down, right)
    radius = np.ones_like(angle)
    amplitudes, phases = moving.outline[:HARMONICS], moving.outline[HARMONICS:]
    for wave, (amplitude, phase) in enumerate(zip(amplitudes, phases, strict=True), 2):
        radius += amplitude * np.cos(wave * angle + phase)
    inside = (radius * moving.radius - np.hypot(down, right)) / moving.feather + 0.5
    inside = inside.clip(0, 1)
    return inside * inside * (3 - 2 * inside)


def _inverted(matrices: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """Return the inverse homographies (N, T, 3, 3) in float32, from a pose to the sharp image.

    They map pixels to the coordinates of grid_sample; fewer poses are padded with zeros.
    """
    height, width = like.shape[2:]
    scale = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    inverses = np.zeros((len(matrices), max(map(len, matrices)), 3, 3), np.float32)
    for inverse, poses in zip(inverses, matrices, strict=True):
        inverse[: len(poses)] = scale @ np.linalg.inv(poses)
    return torch.from_numpy(inverses).to(like.device)


def _points(like: Tensor, window: tuple[slice, slice] = (slice(None), slice(None))) -> Points:
    """Return x (w,) and y (h, 1) of the centres of the pixels in `window`, rows and columns."""
    height, width = like.shape[2:]
    x = torch.arange(width, device=like.device)[window[1]] + 0.5
    y = torch.arange(height, device=like.device)[window[0], None] + 0.5
    return x, y


def _warped(images: Tensor, matrices: Tensor, padding: str, points: Points) -> Tensor:
    """Warp images (N, C, H, W) by matrices (N, 3, 3) of `_inverted`, bilinearly, at `points`."""
    x, y = points
    m = matrices[:, :, :, None, None]
    seen = m[:, :, 0] * x + (m[:, :, 1] * y + m[:, :, 2])
    grid = seen.new_empty(*seen[:, 2].shape, 2)
    for axis in (0, 1):
        torch.div(seen[:, axis], seen[:, 2], out=grid[..., axis])
    return grid_sample(images, grid, "bilinear", padding, align_corners=False)


# ---- Convolution ---------------------------------------------------------------------------------


def convolve(image: Tensor, kernel: Kernel) -> Tensor:
    """Return an image (C, H, W) convolved with a kernel (true convolution: the kernel is flipped).

    The image is mirrored beyond its borders as often as needed; float64 is used if possible.
    """
    return convolve_each(image[None], [kernel])[0]


def convolve_each(images: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Return images (N, C, H, W), each convolved with its own kernel as in `convolve`."""
    sides = np.max([kernel.shape for kernel in kernels], axis=0) // 2 * 2 + 1
    stacked = np.zeros((len(kernels), *sides))
    for wide, kernel in zip(stacked, kernels, strict=True):  # its middle stays the middle
        top, left = (side // 2 - n // 2 for side, n in zip(sides, kernel.shape, strict=True))
        wide[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    down, right = (length // 2 for length in stacked.shape[1:])
    rows, columns = (
        torch.from_numpy(mirrored(n, reach)).to(images.device)
        for n, reach in zip(images.shape[2:], (down, right), strict=True)
    )
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    padded = images.to(exact)[:, :, rows][:, :, :, columns]
    size = [scipy.fft.next_fast_len(length, real=True) for length in padded.shape[2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(torch.from_numpy(stacked).to(padded)[:, None], s=size)
    whole = torch.fft.irfft2(spectrum, s=size)
    whole = whole[:, :, 2 * down : padded.shape[2], 2 * right : padded.shape[3]]
    return whole.clamp_min(0).to(images.dtype)


def disk(radius: float) -> Kernel:
    """Return the kernel of defocus: a disk of `radius` pixels with an edge one pixel soft."""
    reach = int(np.ceil(radius))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel: Kernel = np.clip(radius + 0.5 - np.hypot(down, right), 0, 1)
    return kernel / kernel.sum()


def mirrored(length: int, reach: int) -> np.ndarray:
    """Return the indices that extend a row of pixels by `reach` at both ends, by mirroring."""
    return np.pad(np.arange(length), reach, mode="symmetric")
