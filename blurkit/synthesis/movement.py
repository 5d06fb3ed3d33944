"""Blur of a moving camera and of things that move: poses averaged, on any device."""

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
"""x (w,) and y (h, 1) of pixels."""


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
            layers = [object_layer(light[i], m) for i, (_, m) in zip(places, chosen, strict=True)]
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


def object_layer(light: Tensor, moving: MovingObject) -> Tensor:
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
