"""The description of a synthetic exposure: plain numbers that say how a blurry photo was taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from blurkit.io.records import Attributes, Image
from blurkit.synthesis.kernels import Kernel

HARMONICS = 3
"""The number of waves on the outline of a moving object, with two to four periods around it."""


@dataclass(frozen=True)
class MovingObject:
    """A soft-edged layer that moves across the picture; its outline is a circle with waves on it.

    `x`, `y`, `radius` and `feather`, the width of the soft edge, are in pixels. The texture is
    copied from the photo, `shift_x`, `shift_y` pixels away; without a shift the object is the part
    of the photo at its place. `outline` holds the amplitudes of the waves as fractions of the
    radius, then their phases. `poses` (T, 4) is the object's motion about its centre, in addition
    to the camera's.
    """

    x: float
    y: float
    radius: float
    feather: float
    shift_x: float
    shift_y: float
    outline: tuple[float, ...]
    poses: np.ndarray

    @property
    def reach(self) -> float:
        """The largest distance of a visible point from the centre, in pixels."""
        return self.radius * (1 + sum(self.outline[:HARMONICS])) + self.feather


@dataclass(frozen=True)
class Exposure:
    """How a sharp photo becomes a blurry one; `rendering.render` renders it.

    The shutter is open for the fractions `weights` (T,), which sum to 1, at the camera's `poses`
    (T, 4): the shift of the picture to the right and down in pixels, its clockwise rotation in
    radians, and the logarithm of its scale. The picture rotates and scales about (`x`, `y`),
    pixels; it shifts as if a camera with a focal length of `focal` pixels rotated. The mean of the
    poses is 0, so that the blurry image is aligned with the sharp one. `objects` move in addition.
    `kernel` is a uniform blur, `defocus` the radius of a disk in pixels.

    Everything is averaged in linear light, which `gamma` or `response` (256,) relates to pixel
    values. In linear light, saturated pixels are `highlights` times as bright as they look, and the
    variance of the noise, drawn from `seed`, is noise ** 2 + shot * light. `jpeg` is the quality of
    the compression, 0 for none.
    """

    kind: str
    seed: int
    x: float = 0.0
    y: float = 0.0
    focal: float = 1.0
    poses: np.ndarray = field(default_factory=lambda: np.zeros((1, 4)))
    weights: np.ndarray = field(default_factory=lambda: np.ones(1))
    objects: tuple[MovingObject, ...] = ()
    kernel: Kernel | None = None
    kernel_name: str = ""
    defocus: float = 0.0
    gamma: float = 2.2
    response: np.ndarray | None = None
    highlights: float = 1.0
    noise: float = 0.0
    shot: float = 0.0
    jpeg: int = 0

    @property
    def adds_objects(self) -> bool:
        """Whether some objects are added to the scene, rather than moving parts of it."""
        return any(moving.shift_x or moving.shift_y for moving in self.objects)

    def camera_matrices(self) -> np.ndarray:
        """Return the homographies (T, 3, 3) of the poses, for points (x, y, 1) of the image."""
        return _about(self.x, self.y, self.focal, self.poses)

    def object_matrices(self, moving: MovingObject) -> np.ndarray:
        """Return an object's homographies (T, 3, 3): its motion in the scene, then the camera's."""
        return self.camera_matrices() @ _about(moving.x, moving.y, self.focal, moving.poses)

    def paths(self, height: int, width: int) -> list[np.ndarray]:
        """Return the paths (T, 2, N) of nine points over an image and of each object's centre."""
        x, y = np.meshgrid(np.linspace(0, width, 3), np.linspace(0, height, 3))
        paths = [way(self.camera_matrices(), x.ravel(), y.ravel())]
        centres = [(m, np.array([m.x]), np.array([m.y])) for m in self.objects]
        return paths + [way(self.object_matrices(m), x, y) for m, x, y in centres]

    def extent(self, height: int, width: int) -> float:
        """Return the largest extent of a point's blur in pixels, in an image of this size.

        For motion it is the longer side of the bounding box of the point's path, for nine points
        on a grid over the image and the centre of each object; for a uniform kernel and a disk it
        is their size. Without blur it is 1.
        """
        spreads = [np.ptp(path, axis=0).max() for path in self.paths(height, width)]
        still = [2 * self.defocus, max(self.kernel.shape) - 1 if self.kernel is not None else 0]
        return float(1 + max(*spreads, *still))

    def attributes(self, height: int, width: int) -> Attributes:
        """Return the exposure as attributes of a record of this size, leaving out defaults."""
        extent, plain = round(self.extent(height, width), 2), Exposure("", -1)
        attrs: Attributes = {"blur_extent": extent, "gamma": self.gamma}
        for name, value in vars(self).items():
            if name != "objects" and not np.array_equal(value, vars(plain)[name]):
                attrs[_attribute(name)] = value
        if self.objects:
            rows = ((m.x, m.y, m.radius, m.feather, m.shift_x, m.shift_y) for m in self.objects)
            outlines = [m.outline for m in self.objects]
            attrs["blur_objects"] = np.hstack([[*rows], outlines])
            attrs["blur_object_poses"] = np.stack([moving.poses for moving in self.objects])
        return attrs

    @classmethod
    def from_attributes(cls, attrs: Mapping[str, Any]) -> Exposure:
        """Return the exposure that a record's `attributes` describe, or raise KeyError."""
        names = {key.name: _attribute(key.name) for key in fields(cls) if key.name != "objects"}
        values = {key: attrs[name] for key, name in names.items() if name in attrs}
        if "kind" not in values:
            raise KeyError("blur_kind")
        rows = zip(attrs.get("blur_objects", ()), attrs.get("blur_object_poses", ()), strict=True)
        known = ((*row[:6].tolist(), tuple(row[6:].tolist()), motion) for row, motion in rows)
        return cls(**values, objects=tuple(MovingObject(*each) for each in known))


def way(matrices: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the paths (T, 2, N) of the points at x, y (N,) under homographies (T, 3, 3)."""
    points = matrices @ np.stack([x, y, np.ones_like(x)])
    return points[:, :2] / points[:, 2:]


def _about(x: float, y: float, focal: float, poses: np.ndarray) -> np.ndarray:
    """Return the homographies K Rz(roll) R(yaw, pitch) K^-1 of a camera that looks at x, y."""
    right, down, roll, growth = poses.T
    rolls = _rotations(roll, 0, 1)
    rolls[:, :2, :2] *= np.exp(growth)[:, None, None]
    yaws = _rotations(-np.arctan(right / focal), 0, 2)
    pitches = _rotations(-np.arctan(down / focal), 1, 2)
    camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
    return camera @ rolls @ pitches @ yaws @ np.linalg.inv(camera)


def _rotations(angles: np.ndarray, first: int, second: int) -> np.ndarray:
    """Return rotations (T, 3, 3) by angles (T,) from the axis `first` towards `second`."""
    matrices = np.tile(np.eye(3), (len(angles), 1, 1))
    matrices[:, first, first] = matrices[:, second, second] = np.cos(angles)
    matrices[:, second, first] = np.sin(angles)
    matrices[:, first, second] = -matrices[:, second, first]
    return matrices


def _attribute(key: str) -> str:
    """Return the name of a record's attribute for a field of `Exposure`."""
    return key if key in ("gamma", "kernel", "kernel_name", "noise") else f"blur_{key}"


@dataclass(frozen=True)
class Unblurred:
    """A crop of a batch that is not blurred yet: its place in the batch, its image, its exposure.

    `sharp` (H, W, C) is larger than the crop by the sampler's `margin` on each side, because motion
    brings its surroundings into the picture.
    """

    place: int
    sharp: Image
    exposure: Exposure
