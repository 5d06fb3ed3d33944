"""Drawing exposures at random: how the camera, what it sees and its sensor might have been."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from blurkit.errors import UsageError
from blurkit.synthesis.exposure import HARMONICS, Exposure, MovingObject, grid, way
from blurkit.synthesis.kernels import Kernel, random_trajectory, random_trajectory_kernel
from blurkit.synthesis.kinds import BLUR_KINDS, BlurKind

MIXTURE = {"camera": 0.55, "objects": 0.25, "shake": 0.15, "defocus": 0.05}
"""How often each other kind comes in the realistic one."""

PLAIN_EXTENT = 9, 41
REALISTIC_EXTENT = 1, 60
"""The smallest and largest blur, pixels, when none is named."""

MOMENTS = 256
"""In how many moments of an exposure its ways are drawn before the poses are chosen."""

MOST_POSES = 96

SMALLEST_FIELD = 256
"""Pixels that a camera sees at least: a smaller image is part of a photo."""


@dataclass(frozen=True)
class Synthesis:
    """What blur is made: options that hold for all records, `None` for what the kind has.

    `shake` is a uniform blur, one of `kernels` or a random hand shake; `camera` a camera that moves
    and turns; `objects` things that move besides; `defocus` a lens out of focus; `realistic` a
    mixture of all, with highlights, noise and JPEG, which the other kinds leave out. `extent` are
    the smallest and largest blur, pixels. `highlights`, `noise`, `shot`, `gamma` and `response`
    are as in `Exposure`; `jpeg` are the lowest and highest quality. `scale` are the smallest and
    largest factor by which a photo is resized before.

    Raises UsageError for an unknown kind or values out of range.
    """

    kind: BlurKind = "shake"
    kernels: tuple[tuple[str, Kernel], ...] = ()
    extent: tuple[int, int] | None = None
    gamma: float = 2.2
    response: np.ndarray | None = None
    highlights: float | None = None
    noise: float | None = None
    shot: float | None = None
    jpeg: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if self.kind not in BLUR_KINDS:
            raise UsageError(f"no blur is called {self.kind!r}; there is {', '.join(BLUR_KINDS)}")
        low, high = self.extents
        if not (1 <= low <= high and self.gamma > 0):
            raise UsageError(
                "blur takes sizes of 1 pixel or more, the smaller first, and a gamma above 0; "
                f"got {low} to {high} and {self.gamma:g}"
            )
        least = ((self.noise, 0), (self.shot, 0), (self.highlights, 1))
        if any(value is not None and value < bound for value, bound in least):
            raise UsageError("noise and shot noise are 0 or more, highlights 1 or more")
        if self.jpeg and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise UsageError(f"JPEG qualities are 1 to 100, the lower first; got {self.jpeg}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UsageError(f"scales are above 0, the smaller first; got {self.scale}")
        if self.kernels and self.kind != "shake":
            raise UsageError(f"kernels are for the blur 'shake', not {self.kind!r}")

    @property
    def extents(self) -> tuple[int, int]:
        """The smallest and largest blur, pixels."""
        return self.extent or (REALISTIC_EXTENT if self.kind == "realistic" else PLAIN_EXTENT)


def draw_exposure(
    rng: np.random.Generator,
    synthesis: Synthesis,
    size: tuple[int, int],
    photo: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Exposure:
    """One exposure of an image of `size` (height, width), all of it drawn from `rng`.

    When the image is a part of a larger one, `photo` is the size of that and `corner` (top, left)
    where the part lies in it: a camera turns about the middle of the whole.
    """
    kind = synthesis.kind
    if kind == "realistic":
        kind = cast(BlurKind, str(rng.choice(list(MIXTURE), p=list(MIXTURE.values()))))
    extent, kernel, name = 1.0, None, ""
    if synthesis.kernels:
        name, kernel = synthesis.kernels[int(rng.integers(len(synthesis.kernels)))]
    else:
        extent = _extent(rng, synthesis)
        if kind == "shake":
            kernel = random_trajectory_kernel(rng, round(extent) // 2 * 2 + 1)
    still = Exposure(
        kind=kind,
        seed=int(rng.integers(2**31)),
        kernel=kernel,
        kernel_name=name,
        gamma=synthesis.gamma,
        response=synthesis.response,
        **_sensor(rng, synthesis),
    )
    if kind == "defocus":
        return replace(still, defocus=(extent - 1) / 2)
    soft = rng.uniform(0.4, 1.5) if synthesis.kind == "realistic" and rng.random() < 0.3 else 0.0
    if kind != "shake" and extent >= 1.5:
        height, width = photo or size
        focal = max(height, width, SMALLEST_FIELD) * rng.uniform(0.7, 1.6)
        still = replace(still, x=width / 2 - corner[1], y=height / 2 - corner[0], focal=focal)
        still = _moved(rng, still, extent, size, max(height, width) / 2)
    return replace(still, defocus=soft)


def _extent(rng: np.random.Generator, synthesis: Synthesis) -> float:
    low, high = synthesis.extents
    if synthesis.kind == "realistic":
        # As far as GoPro's pairs go, and now and then next to nothing.
        share = rng.uniform(0, 0.1) if rng.random() < 0.1 else rng.beta(2.2, 2.2)
        return low + (high - low) * share
    return float(rng.integers(low, high + 1))


def _sensor(rng: np.random.Generator, synthesis: Synthesis) -> dict[str, Any]:
    """Highlights, noise and JPEG: as asked for, drawn for realistic blur, or none."""
    real, s = synthesis.kind == "realistic", synthesis
    bright, noisy, packed = rng.random(3) < (0.25, 0.6, 0.4)
    highlights = 10 ** rng.uniform(0.1, 0.7) if real and bright else 1.0
    shot = 10 ** rng.uniform(-5, -3) if real and noisy else 0.0
    noise = 10 ** rng.uniform(-4.5, -3) if real and noisy else 0.0
    low, high = s.jpeg or (60, 96)
    return {
        "highlights": highlights if s.highlights is None else s.highlights,
        "noise": noise if s.noise is None else s.noise,
        "shot": shot if s.shot is None else s.shot,
        "jpeg": int(rng.integers(low, high + 1)) if s.jpeg or (real and packed) else 0,
    }


# ---- movement -----------------------------------------------------------------------------------


def _moved(
    rng: np.random.Generator,
    still: Exposure,
    extent: float,
    size: tuple[int, int],
    reach: float,
) -> Exposure:
    """`still` with the way of the camera and of objects; `reach`: from the axis to the far edge.

    All ways are drawn on no particular scale, then made as large as `extent` together.
    """
    exposure = replace(still, poses=_way(rng, reach, steady=bool(rng.random() < 0.7)))
    if still.kind == "objects":
        objects = tuple(_object(rng, size) for _ in range(int(rng.integers(1, 4))))
        exposure = replace(exposure, poses=exposure.poses * rng.uniform(0.3, 1.5), objects=objects)
    for _ in range(3):  # once would do if large turns moved things in proportion
        larger = (extent - 1) / (exposure.extent(*size) - 1)
        objects = tuple(replace(m, poses=m.poses * larger) for m in exposure.objects)
        exposure = replace(exposure, poses=exposure.poses * larger, objects=objects)
    return _posed(exposure, size)


def _way(rng: np.random.Generator, reach: float, steady: bool) -> np.ndarray:
    """(MOMENTS, 4) poses of something that moves by about a pixel, turning and growing as well.

    Turning and growing move what is `reach` pixels away by less than that, mostly.
    """
    place, turn, growth = (random_trajectory(rng, MOMENTS, steady) for _ in range(3))
    columns = [place.real, place.imag, turn.real, growth.real]
    sizes = [_range(place), _range(place), _range(turn.real), _range(growth.real)]
    shares = [1, 1, rng.normal(0, 0.5) / reach, rng.normal(0, 0.2) / reach]
    way = np.stack(columns, axis=1) * shares / sizes
    return way - way.mean(axis=0)


def _range(values: np.ndarray) -> float:
    return float(max(np.ptp(values.real), np.ptp(values.imag)))


def _object(rng: np.random.Generator, size: tuple[int, int]) -> MovingObject:
    """An object somewhere in the image that moves by about a pixel.

    Half of them are parts of the scene, which has no clear edges there; the others are put into it
    and have them.
    """
    height, width = size
    radius = min(size) * rng.uniform(0.1, 0.3)
    part = rng.random() < 0.5
    shift = [0, 0] if part else [round(rng.uniform(-0.5, 0.5) * side) for side in (width, height)]
    amplitudes = rng.uniform(0, 0.2, HARMONICS)
    phases = rng.uniform(0, 2 * np.pi, HARMONICS)
    return MovingObject(
        x=width * rng.uniform(0.1, 0.9),
        y=height * rng.uniform(0.1, 0.9),
        radius=radius,
        feather=max(1.0, radius * rng.uniform(0.3, 0.8)) if part else rng.uniform(1, 3),
        shift_x=shift[0],
        shift_y=shift[1],
        outline=(*amplitudes.tolist(), *phases.tolist()),
        poses=_way(rng, radius, steady=True),
    )


def _posed(drawn: Exposure, size: tuple[int, int]) -> Exposure:
    """An exposure drawn in MOMENTS moments with as many poses as needed.

    From one to the next nothing moves further than a pixel, unless there were too many then.
    """
    ways = [way(drawn.camera_matrices(), *grid(*size))]
    for moving in drawn.objects:
        ways.append(way(drawn.object_matrices(moving), np.array([moving.x]), np.array([moving.y])))
    steps = np.hypot(*np.diff(np.concatenate(ways, axis=2), axis=0).swapaxes(0, 1)).max(axis=1)
    gone = np.concatenate([[0], np.cumsum(steps)])
    most = min(2 * drawn.extent(*size), MOST_POSES)  # a way that is longer goes to and fro
    count = int(np.clip(np.ceil(gone[-1]), 2, most))
    ends = np.linspace(0, gone[-1], count + 1)
    moments = np.arange(MOMENTS)
    weights = np.diff(np.interp(ends, gone, moments)) / (MOMENTS - 1)
    middles = np.interp((ends[1:] + ends[:-1]) / 2, gone, moments)

    def chosen(poses: np.ndarray) -> np.ndarray:
        found = np.stack([np.interp(middles, moments, column) for column in poses.T], axis=1)
        return found - weights @ found

    objects = tuple(replace(moving, poses=chosen(moving.poses)) for moving in drawn.objects)
    return replace(drawn, poses=chosen(drawn.poses), weights=weights, objects=objects)
