"""Random exposures (camera motion, moving objects, optics, sensor), drawn for records."""

import zlib
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from blurkit.errors import UsageError
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.synthesis import BLUR_KINDS, BlurKind
from blurkit.synthesis.exposure import HARMONICS, Exposure, MovingObject
from blurkit.synthesis.kernels import (
    CARRIED,
    SHAKEN,
    UNHINDERED,
    Kernel,
    Movement,
    random_trajectory,
    random_trajectory_kernel,
)

MIXTURE = {"camera": 0.55, "objects": 0.25, "shake": 0.15, "defocus": 0.05}
"""The probability of each other kind in the realistic one."""

MOMENTS = 256
"""The number of moments of an exposure at which motion is drawn before the poses are chosen."""


@dataclass(frozen=True)
class Synthesis:
    """Options of synthetic blur, the same for all records; `None` stands for the kind's default.

    The kind `shake` is a uniform blur, one of `kernels` or a random hand shake; `camera` is a
    camera that moves and rotates, `linear` one whose velocity hardly changes; `objects` adds moving
    objects to `camera`; `defocus` is a lens out of focus; `realistic` is a mixture of all but
    `linear`, and by default the only kind with highlights, noise and JPEG. `extent` holds the
    smallest and largest blur in pixels. `highlights`, `noise`, `shot`, `gamma` and `response` are
    as in `Exposure`; `jpeg` holds the lowest and highest quality. `scale` holds the smallest and
    largest factor by which a photo is resized before blurring.

    Raises UsageError if the kind is unknown or a value is out of range.
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
            raise UsageError(f"unknown blur {self.kind!r}; use {', '.join(BLUR_KINDS)}")
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
        """The smallest and largest blur, in pixels."""
        return self.extent or ((1, 60) if self.kind == "realistic" else (9, 41))


def draw_exposure(
    rng: np.random.Generator,
    synthesis: Synthesis,
    size: tuple[int, int],
    photo: tuple[int, int] | None = None,
    corner: tuple[int, int] = (0, 0),
) -> Exposure:
    """Draw an exposure of an image of `size` (height, width) from `rng`.

    If the image is part of a larger photo, `photo` is the size of that photo and `corner` the
    part's (top, left) in it, because a camera rotates about the centre of the whole photo.
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
        field = max(height, width, 256)  # what is smaller counts as a part of a photo
        focal = field * rng.uniform(0.7, 1.6)
        still = replace(still, x=width / 2 - corner[1], y=height / 2 - corner[0], focal=focal)
        still = _moved(rng, still, extent, size, max(height, width) / 2)
    return replace(still, defocus=soft)


def _extent(rng: np.random.Generator, synthesis: Synthesis) -> float:
    low, high = synthesis.extents
    if synthesis.kind == "realistic":
        # The range of GoPro's pairs; one in ten has hardly any blur.
        fraction = rng.uniform(0, 0.1) if rng.random() < 0.1 else rng.beta(2.2, 2.2)
        return low + (high - low) * fraction
    return float(rng.integers(low, high + 1))


def _sensor(rng: np.random.Generator, synthesis: Synthesis) -> dict[str, Any]:
    """Return highlights, noise and JPEG: those requested, drawn for realistic blur, or none."""
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


# ---- movement ------------------------------------------------------------------------------------


def _moved(
    rng: np.random.Generator, still: Exposure, extent: float, size: tuple[int, int], reach: float
) -> Exposure:
    """Return `still` with motion of the camera and of objects.

    All motion is drawn at an arbitrary scale, then scaled together to a blur of `extent` pixels.
    `reach` is the distance from the optical axis to the far edge, in pixels.
    """
    movement = CARRIED if rng.random() < 0.7 else SHAKEN
    movement = UNHINDERED if still.kind == "linear" else movement
    exposure = replace(still, poses=_way(rng, reach, movement))
    if still.kind == "objects":
        objects = tuple(_object(rng, size) for _ in range(int(rng.integers(1, 4))))
        exposure = replace(exposure, poses=exposure.poses * rng.uniform(0.3, 1.5), objects=objects)
    for _ in range(3):  # repeated, because large rotations do not scale linearly
        factor = (extent - 1) / (exposure.extent(*size) - 1)
        objects = tuple(replace(m, poses=m.poses * factor) for m in exposure.objects)
        exposure = replace(exposure, poses=exposure.poses * factor, objects=objects)
    return _posed(exposure, size)


def _way(rng: np.random.Generator, reach: float, movement: Movement) -> np.ndarray:
    """Return poses (MOMENTS, 4) of something that shifts by about a pixel, rotates and scales.

    Rotation and scaling mostly move a point at a distance of `reach` pixels by less than a pixel.
    """
    shift, rotation, growth = (random_trajectory(rng, MOMENTS, movement) for _ in range(3))
    columns = np.stack([shift.real, shift.imag, rotation.real, growth.real], axis=1)
    sizes = np.ptp(columns, axis=0)
    sizes[:2] = sizes[:2].max()
    targets = [1, 1, rng.normal(0, 0.5) / reach, rng.normal(0, 0.2) / reach]
    poses = columns * targets / sizes
    return poses - poses.mean(axis=0)


def _object(rng: np.random.Generator, size: tuple[int, int]) -> MovingObject:
    """Draw an object anywhere in the image that moves by about a pixel.

    Half of the objects are parts of the scene and have wide soft edges; the others are copied from
    elsewhere in the photo and have clear edges.
    """
    height, width = size
    radius = min(size) * rng.uniform(0.1, 0.3)
    part = rng.random() < 0.5
    shift = [0, 0] if part else [round(rng.uniform(-0.5, 0.5) * side) for side in (width, height)]
    amplitudes, phases = (rng.uniform(0, most, HARMONICS).tolist() for most in (0.2, 2 * np.pi))
    return MovingObject(
        x=width * rng.uniform(0.1, 0.9),
        y=height * rng.uniform(0.1, 0.9),
        radius=radius,
        feather=max(1.0, radius * rng.uniform(0.3, 0.8)) if part else rng.uniform(1, 3),
        shift_x=shift[0],
        shift_y=shift[1],
        outline=(*amplitudes, *phases),
        poses=_way(rng, radius, CARRIED),
    )


def _posed(drawn: Exposure, size: tuple[int, int]) -> Exposure:
    """Reduce an exposure drawn at MOMENTS moments to as many poses as it needs.

    Between consecutive poses no point moves by more than a pixel, unless that takes more than 96.
    """
    paths = np.concatenate(drawn.paths(*size), axis=2)
    steps = np.hypot(*np.diff(paths, axis=0).swapaxes(0, 1)).max(axis=1)
    travelled = np.concatenate([[0], np.cumsum(steps)])
    most = min(2 * drawn.extent(*size), 96)  # a path that is longer retraces itself
    count = int(np.clip(np.ceil(travelled[-1]), 2, most))
    ends = np.linspace(0, travelled[-1], count + 1)
    moments = np.arange(MOMENTS)
    weights = np.diff(np.interp(ends, travelled, moments)) / (MOMENTS - 1)
    middles = np.interp((ends[1:] + ends[:-1]) / 2, travelled, moments)

    def chosen(poses: np.ndarray) -> np.ndarray:
        selected = np.stack([np.interp(middles, moments, column) for column in poses.T], axis=1)
        return selected - weights @ selected

    objects = tuple(replace(moving, poses=chosen(moving.poses)) for moving in drawn.objects)
    return replace(drawn, poses=chosen(drawn.poses), weights=weights, objects=objects)


# ---- Blurred records -----------------------------------------------------------------------------


def synthesize(record: Record, synthesis: Synthesis, seed: int = 0, copy: int = 0) -> Record:
    """Return `record` with a new image `blur`, a blurry version of its `sharp`.

    The random numbers depend only on `seed`, the record's name and `copy`, not on the order of the
    records or the number of processes. `copy` is the number of this version of the record; it is
    appended to the name of every version but 0. Objects that are added to the scene appear in
    `sharp` too. The record gets the attributes of the exposure, from which `expose` renders both
    images again, `seed` and, if it was resized, `scale`.

    Raises UsageError if the seed is below 0, and BlurkitError if the record has no sharp image.
    """
    if seed < 0:
        raise UsageError(f"a seed is 0 or more, got {seed}")
    record.image("sharp")
    drawn = seeds(seed, record.name, copy)
    scale = float(np.random.default_rng([*drawn, 1]).uniform(*synthesis.scale))
    images = {key: rescaled(image, scale) for key, image in record.images.items()}
    sharp = images["sharp"]
    size = sharp.shape[0], sharp.shape[1]
    exposure = draw_exposure(np.random.default_rng(drawn), synthesis, size)
    blur, sharp = expose(sharp, exposure)
    attrs = record.attrs | {"seed": seed} | exposure.attributes(*size)
    if scale != 1:
        attrs["scale"] = scale
    return Record(name_of_copy(record.name, copy), images | {"blur": blur, "sharp": sharp}, attrs)


def seeds(seed: int, name: str, copy: int = 0) -> list[int]:
    """Return the seeds of the random generator for version `copy` of the record `name`."""
    return [seed, zlib.crc32(name.encode(errors="surrogateescape")), copy]


def name_of_copy(name: str, copy: int) -> str:
    """Return the name of version `copy` of a record; version 0 keeps the record's name."""
    return f"{name}-copy{copy}" if copy else name


def expose(sharp: Image, exposure: Exposure) -> tuple[Image, Image]:
    """Return the blurry image, and the sharp one with the objects, both as deep as `sharp`."""
    import torch  # slow to import; commands that synthesise no blur do not need it

    from blurkit.synthesis.rendering import render

    values = torch.from_numpy(to_float(sharp)).permute(2, 0, 1)[None]
    blur, seen = (image[0].permute(1, 2, 0).numpy() for image in render(values, [exposure]))
    added = exposure.adds_objects
    return from_float(blur, sharp.dtype), from_float(seen, sharp.dtype) if added else sharp


def rescaled(image: Image, scale: float) -> Image:
    """Return an image (H, W, C) resized by a factor, with antialiased bicubic interpolation."""
    if scale == 1:
        return image
    import torch

    values = torch.from_numpy(to_float(image)).permute(2, 0, 1)[None]
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    resized = torch.nn.functional.interpolate(values, size, mode="bicubic", antialias=True)
    return from_float(resized[0].permute(1, 2, 0).contiguous().numpy(), image.dtype)
