"""Blur of a moving camera and of moving objects: averaging over poses, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from blurkit.synthesis.convolution import mirrored
from blurkit.synthesis.exposure import HARMONICS, Exposure, MovingObject, way

Points = tuple[Tensor, Tensor]
"""The coordinates x (w,) and y (h, 1) of pixels."""


def average_poses(light: Tensor, exposures: Sequence[Exposure]) -> Tensor:
    """Return the mean of linear light (N, C, H, W) over the poses of each exposure.

    Objects are in front of the scene; interpolation is bilinear. An exposure with a single pose is
    left unchanged.
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
    """One object of each of some images: their indices, window, textures and poses."""

    places: list[int]
    window: tuple[slice, slice]
    there: Tensor
    points: Points
    layers: Tensor
    matrices: Tensor


class _Layers:
    """The objects of a batch of exposures, as premultiplied textures with masks."""

    def __init__(self, light: Tensor, exposures: Sequence[Exposure]) -> None:
        self._counts = [len(e.poses) for e in exposures]
        self._levels: list[_Level] = []
        for level in range(max(len(e.objects) for e in exposures)):
            places = [i for i, e in enumerate(exposures) if len(e.objects) > level]
            chosen = [(exposures[i], exposures[i].objects[level]) for i in places]
            layers = [object_layer(light[i], m) for i, (_, m) in zip(places, chosen, strict=True)]
            poses = [e.object_matrices(m) for e, m in chosen]
            window = _window([_box(p, m) for p, (_, m) in zip(poses, chosen, strict=True)], light)
            # Indexing with a tensor on the device does not wait for the device.
            where = torch.tensor(places, device=light.device), _points(light, window)
            seen = torch.stack(layers), _inverted(poses, light)
            self._levels.append(_Level(places, window, *where, *seen))

    def cover(self, frame: Tensor, pose: int) -> None:
        """Draw the objects at `pose` over `frame` (n, C, H, W), which holds the first n images."""
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
    """Return the box (left, top, right, bottom) that contains an object in all poses."""
    angles = np.linspace(0, 2 * np.pi, 32)
    paths = way(
        matrices,
        moving.x + moving.reach * np.cos(angles),
        moving.y + moving.reach * np.sin(angles),
    )
    return np.concatenate([paths.min(axis=(0, 2)) - 2, paths.max(axis=(0, 2)) + 2])


def _window(boxes: Sequence[np.ndarray], like: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns that contain all boxes, clipped to the images."""
    left, top = np.min(boxes, axis=0)[:2]
    right, bottom = np.max(boxes, axis=0)[2:]
    spans = ((top, bottom, like.shape[2]), (left, right, like.shape[3]))
    rows, columns = (
        slice(*np.clip([math.floor(start), math.ceil(stop)], 0, length).tolist())
        for start, stop, length in spans
    )
    return rows, columns


def object_layer(light: Tensor, moving: MovingObject) -> Tensor:
    """Return an object's texture times its mask, and the mask, as (C + 1, H, W)."""
    _, height, width = light.shape
    rows, columns = (
        torch.from_numpy(mirrored(n, abs(shift), abs(shift))[abs(shift) + shift :][:n])
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
    inside = np.clip(inside, 0, 1)
    mask: np.ndarray = inside * inside * (3 - 2 * inside)
    return mask


def _inverted(matrices: Sequence[np.ndarray], like: Tensor) -> Tensor:
    """Return the inverse homographies (N, T, 3, 3) in float32, from a pose to the sharp image.

    They map pixels to the coordinates of grid_sample. Exposures with fewer poses are padded with
    zeros.
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
