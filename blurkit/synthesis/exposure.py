"""What one synthetic exposure is: plain numbers that say how a blurry photo was taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np

from blurkit.io.records import Attributes, Image
from blurkit.synthesis.kernels import Kernel

HARMONICS = 3
"""Waves on the outline of a moving object: twice to four times round it."""


@dataclass(frozen=True)
class MovingObject:
    """A soft-edged layer that moves over the picture, its outline a circle with waves on it.

    `x`, `y`, `radius` and `feather`, the width of its soft edge, are pixels. Its texture is the
    photo's own, from `shift_x`, `shift_y` pixels away; without a shift it is the part of the photo
    that lies there. `outline` are the amplitudes of the waves, shares of the radius, then their
    phases. `poses` (T, 4) is its own motion, about its centre, under the camera's.
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
        """How far from its centre it may be seen, pixels."""
        return self.radius * (1 + sum(self.outline[:HARMONICS])) + self.feather


@dataclass(frozen=True)
class Exposure:
    """How one blurry photo comes from a sharp one; what `rendering.render` reads.

    The shutter is open for `weights` (T,), which sum to 1, at the camera's `poses` (T, 4): how far
    the picture has moved to the right and down, pixels, turned clockwise, radians, and grown, the
    logarithm of its scale. It turns and grows about (`x`, `y`), pixels; the movement is a rotation
    of a camera with a focal length of `focal` pixels. The poses' mean is 0, so the blur is where
    the sharp image is. `objects` move besides. `kernel` is a uniform blur, `defocus` the radius of
    a disk, pixels.

    All of it is averaged in linear light, `gamma` or `response` (256,) away from pixel values.
    There, saturated pixels are `highlights` times as bright as they look, and the variance of the
    noise is noise ** 2 + shot * light; `seed` draws it. `jpeg` is a quality, 0 for none.
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
        """Whether some objects are put into the scene, and not parts of it that move."""
        return any(moving.shift_x or moving.shift_y for moving in self.objects)

    def camera_matrices(self) -> np.ndarray:
        """(T, 3, 3): where each pose takes the points (x, y, 1) of the sharp image."""
        return _about(self.x, self.y, self.focal, self.poses)

    def object_matrices(self, moving: MovingObject) -> np.ndarray:
        """(T, 3, 3): the same for the points of an object, whose own motion the camera sees."""
        own = _about(moving.x, moving.y, self.focal, moving.poses)
        matrices: np.ndarray = self.camera_matrices() @ own
        return matrices

    def extent(self, height: int, width: int) -> float:
        """Pixels over which a point is spread, at most, in an image of this size; 1 when still.

        The longer side of the box round its way, looked at in a grid of nine points over the image
        and at the middle of each object; for a uniform kernel and a disk, their size.
        """
        spreads = [_spread(way(self.camera_matrices(), *grid(height, width)))]
        for m in self.objects:
            spreads.append(_spread(way(self.object_matrices(m), np.array([m.x]), np.array([m.y]))))
        still = [2 * self.defocus, max(self.kernel.shape) - 1 if self.kernel is not None else 0]
        return float(1 + max(*spreads, *still))

    def attributes(self, height: int, width: int) -> Attributes:
        """The exposure as attributes of a record of that size: `from_attributes` turns it back.

        What stands at its default is left out.
        """
        attrs: Attributes = {
            "blur_extent": round(self.extent(height, width), 2),
            "gamma": self.gamma,
        }
        for key in fields(self):
            value = getattr(self, key.name)
            default: Any = key.default
            if key.default_factory is not MISSING:
                default = key.default_factory()
            if key.name != "objects" and not np.array_equal(value, default):
                attrs[_attribute(key.name)] = value
        if self.objects:
            attrs["blur_objects"] = np.array([_row(moving) for moving in self.objects])
            attrs["blur_object_poses"] = np.stack([moving.poses for moving in self.objects])
        return attrs

    @classmethod
    def from_attributes(cls, attrs: Mapping[str, Any]) -> Exposure:
        """The exposure that a record's attributes tell. Raises KeyError where they tell of none."""
        names = {key.name: _attribute(key.name) for key in fields(cls) if key.name != "objects"}
        given = {key: attrs[name] for key, name in names.items() if name in attrs}
        if "kind" not in given:
            raise KeyError("blur_kind")
        rows = zip(attrs.get("blur_objects", ()), attrs.get("blur_object_poses", ()), strict=True)
        objects = (_moving(row.tolist(), poses) for row, poses in rows)
        return cls(**given, objects=tuple(objects))


def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of nine points over an image, its corners among them."""
    x, y = np.meshgrid(np.linspace(0, width, 3), np.linspace(0, height, 3))
    return x.ravel(), y.ravel()


def way(matrices: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(T, 2, N): where the points at x, y (N,) are seen in each of T poses (T, 3, 3)."""
    points = matrices @ np.stack([x, y, np.ones_like(x)])
    return points[:, :2] / points[:, 2:]


def _spread(ways: np.ndarray) -> float:
    return float(np.ptp(ways, axis=0).max())


def _about(x: float, y: float, focal: float, poses: np.ndarray) -> np.ndarray:
    """Homographies K Rz(roll) R(yaw, pitch) K^-1 of a camera whose axis meets the image at x, y."""
    right, down, roll, growth = poses.T
    rolls = _rotations(roll, 0, 1)
    rolls[:, :2, :2] *= np.exp(growth)[:, None, None]
    yaws = _rotations(-np.arctan(right / focal), 0, 2)
    pitches = _rotations(-np.arctan(down / focal), 1, 2)
    camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
    homographies: np.ndarray = camera @ rolls @ pitches @ yaws @ np.linalg.inv(camera)
    return homographies


def _rotations(angles: np.ndarray, first: int, second: int) -> np.ndarray:
    """(T, 3, 3): rotations by angles (T,) that turn one axis towards another."""
    matrices = np.tile(np.eye(3), (len(angles), 1, 1))
    matrices[:, first, first] = matrices[:, second, second] = np.cos(angles)
    matrices[:, second, first] = np.sin(angles)
    matrices[:, first, second] = -matrices[:, second, first]
    return matrices


def _row(moving: MovingObject) -> list[float]:
    """The numbers of an object but for its way."""
    m = moving
    return [m.x, m.y, m.radius, m.feather, m.shift_x, m.shift_y, *m.outline]


def _moving(row: list[float], poses: np.ndarray) -> MovingObject:
    x, y, radius, feather, shift_x, shift_y, *outline = row
    return MovingObject(x, y, radius, feather, shift_x, shift_y, tuple(outline), poses)


def _attribute(key: str) -> str:
    """The name of an exposure's number among the attributes of a record."""
    return key if key in ("gamma", "kernel", "kernel_name", "noise") else f"blur_{key}"


@dataclass(frozen=True)
class Unblurred:
    """A crop of a batch whose blur is still to be made: its place, what is seen, and how.

    `sharp` (H, W, C) reaches further than the crop, by the sampler's `margin` on each side, so that
    what moves into the picture is there.
    """

    place: int
    sharp: Image
    exposure: Exposure
