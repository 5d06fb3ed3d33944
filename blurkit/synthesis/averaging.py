"""Pairs of blurry and sharp images from consecutive sharp frames, as in GoPro and similar datasets.

The blurry image is the mean of a window of frames in linear light; the sharp image is the middle
frame (Nah et al., "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring",
CVPR 2017). If the frame rate is too low for that, optical flow interpolates more frames (Kroeger et
al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016), which requires OpenCV.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.opencv import gray, opencv
from blurkit.io.records import Image, from_float, to_float

DIGITS = 6
"""Levels are rounded to this many decimals before they are floored, so that identical frames do not
lose a level to floating-point error."""


@dataclass(frozen=True)
class Averaging:
    """How frames are averaged into a blurry image.

    A window has `average` frames, and a new one starts every `stride` frames (0: when the last one
    ends). Linear light is computed by `gamma`, or by `response`, a camera response file.

    With `interpolate` N of 2 or more, optical flow adds N - 1 frames between any two consecutive
    frames of a window. A window is left out if the forward and the backward flow of two consecutive
    frames agree on a smaller fraction of the pixels than `agreement`, 0 to 1.

    Raises UsageError if a value is out of range, and BlurkitError if OpenCV is needed but missing.
    """

    average: int = 7
    stride: int = 0
    gamma: float = 2.2
    response: Path | None = None
    interpolate: int = 0
    agreement: float = 0.5

    def __post_init__(self) -> None:
        if self.average < 1 or self.stride < 0 or not self.gamma > 0:
            raise UsageError(
                "averaging takes at least 1 frame, a stride of 0 or more and a gamma above 0; "
                f"got {self.average}, {self.stride} and {self.gamma:g}"
            )
        if self.interpolate < 0 or not 0 <= self.agreement <= 1:
            raise UsageError(
                "interpolation takes 0 or more steps and an agreement from 0 to 1; "
                f"got {self.interpolate} and {self.agreement:g}"
            )
        if self.interpolates:
            if self.average < 2:
                raise UsageError("--interpolate requires --average of 2 or more")
            opencv(FLOW_PURPOSE)

    @property
    def step(self) -> int:
        """The number of frames from the start of one window to the start of the next."""
        return self.stride or self.average

    @property
    def interpolates(self) -> bool:
        """Whether frames are interpolated between the frames of a window."""
        return self.interpolate > 1

    @property
    def samples(self) -> int:
        """The number of frames in a mean, including interpolated ones."""
        return (self.average - 1) * max(self.interpolate, 1) + 1


def average_frames(
    frames: Sequence[Image], gamma: float = 2.2, response: Path | None = None
) -> Image:
    """Return the mean of `frames` in linear light, with their shape (H, W, C) and type.

    It is floor(mean(v ** gamma) ** (1 / gamma)) per channel on grey levels (0..255 or 0..65535;
    the mean of float frames is not floored). If `response` is given, the curve that `read_response`
    reads from it and its inverse replace the two powers.
    Raises BlurkitError if the frames differ in shape or type.
    """
    _check_alike(frames)
    total = np.zeros(frames[0].shape)
    for frame in frames:
        total += _linear(frame, gamma, response)
    values = _levels(total / len(frames), frames[0].dtype, gamma, response)
    if response is not None:
        values = values.round(DIGITS)
    return _stored(values, frames[0].dtype)


def interpolated_average(
    frames: Sequence[Image], averaging: Averaging
) -> tuple[Image, dict[str, float]]:
    """Return the mean of `frames` and the frames interpolated between them, and its attributes.

    The mean is taken in linear light as in `average_frames`, with equal weights for all
    `averaging.samples` frames; it has the frames' shape (H, W, C) and type. The attributes are
    `interpolate`, `samples` and `flow_agreement`, the smallest `Motion.agreement`. Raises
    BlurkitError if the frames differ in shape or type, if the agreement is below
    `averaging.agreement`, and as `find_motion` does.
    """
    _check_alike(frames)
    light = _linear(frames[0], averaging.gamma, averaging.response)
    total, agreements = light.copy(), []
    for number, pair in enumerate(pairwise(frames), 1):
        motion = find_motion(*pair)
        if motion.agreement < averaging.agreement:
            raise BlurkitError(
                f"left out: from frame {number} to {number + 1} of the window the optical flow "
                f"agrees on {motion.agreement:.1%} of the pixels, less than "
                f"{averaging.agreement:.0%}: a cut, or motion too fast to track"
            )
        agreements.append(motion.agreement)
        before, light = light, _linear(pair[1], averaging.gamma, averaging.response)
        for step in range(1, averaging.interpolate):
            total += motion.between(before, light, step / averaging.interpolate)
        total += light
    dtype, mean = frames[0].dtype, total / averaging.samples
    blur = _stored(_levels(mean, dtype, averaging.gamma, averaging.response).round(DIGITS), dtype)
    attrs = {"interpolate": averaging.interpolate, "samples": averaging.samples}
    return blur, attrs | {"flow_agreement": min(agreements)}


@lru_cache(maxsize=4)
def read_response(path: Path) -> np.ndarray:
    """Return a camera response curve: 256 increasing values, the light of grey levels 0 to 255.

    The file is .npy or text, with values separated by whitespace, or by commas in .csv.
    Raises BlurkitError if the file does not hold such a curve.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files without a number, which are refused
            if path.suffix.lower() == ".npy":  # mapped, whatever size its header claims
                curve = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                curve = np.loadtxt(path, delimiter="," if path.suffix.lower() == ".csv" else None)
            curve = np.asarray(curve, np.float64).ravel()
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such response file") from error
    except Exception as error:  # of any kind: NumPy parses headers as Python
        raise BlurkitError(f"{path}: not a response curve ({one_line(error)})") from error
    if curve.shape != (256,) or not (np.isfinite(curve).all() and (curve[1:] > curve[:-1]).all()):
        raise BlurkitError(
            f"{path}: a response curve has 256 increasing values, this one has {len(curve)}"
            + (", not all increasing and finite" if len(curve) == 256 else "")
        )
    return curve


def _check_alike(frames: Sequence[Image]) -> None:
    first = frames[0]
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        kinds = sorted({f"{f.shape[1]}x{f.shape[0]}x{f.shape[2]} {f.dtype}" for f in frames})
        raise BlurkitError(f"frames of one window differ: {', '.join(kinds)}")


def _levels(mean: np.ndarray, dtype: np.dtype, gamma: float, response: Path | None) -> np.ndarray:
    """Return linear light as levels of frames of type `dtype`, neither rounded nor cast."""
    if response is None:
        return mean ** (1 / gamma)
    curve = read_response(response)
    scale = np.iinfo(dtype).max if dtype.kind == "u" else 1
    return np.interp(mean, curve, np.linspace(0, scale, len(curve)))


def _stored(levels: np.ndarray, dtype: np.dtype) -> Image:
    return (levels if dtype.kind == "f" else np.floor(levels)).astype(dtype)


def _linear(frame: Image, gamma: float, response: Path | None) -> np.ndarray:
    if frame.dtype.kind == "u":
        return _table(np.iinfo(frame.dtype).max, gamma, response)[frame]
    return _light(frame.astype(np.float64), 1, gamma, response)


@lru_cache(maxsize=4)
def _table(top: int, gamma: float, response: Path | None) -> np.ndarray:
    """Return the linear light of every grey level from 0 to `top`."""
    return _light(np.arange(top + 1, dtype=np.float64), top, gamma, response)


def _light(levels: np.ndarray, top: int, gamma: float, response: Path | None) -> np.ndarray:
    if response is None:
        return levels**gamma
    curve = read_response(response)
    return np.interp(levels, np.linspace(0, top, len(curve)), curve)


# ---- Optical flow --------------------------------------------------------------------------------

SMALLEST = 12
"""The shortest side of a frame, in pixels, for which the flow can be computed."""

RETURN_FIXED, RETURN_RELATIVE = 0.5, 0.01
"""Forward and backward flow agree if the square of their sum, in pixels, is below the first value
plus the second times the sum of their squares (Sundaram et al., ECCV 2010)."""

FLOW_PURPOSE = "--interpolate"


@dataclass(frozen=True)
class Motion:
    """The optical flow between two frames.

    `forward` is the displacement (x, y) in pixels of each pixel of the first frame to the second,
    float32 (H, W, 2); `backward` is the reverse. `agreement` is the fraction, 0 to 1, of the pixels
    of both frames that have a counterpart in the other frame, on which both flows agree.
    """

    forward: np.ndarray
    backward: np.ndarray
    agreement: float

    def between(self, first: np.ndarray, second: np.ndarray, time: float) -> np.ndarray:
        """Return the frame at `time`, from 0 (the first frame) to 1 (the second).

        `first` and `second` are the frames (H, W, C) on any linear scale, float32 or float64; the
        result has their shape and type. Both are warped and blended by time; points outside one
        frame are taken from the other.
        """
        before = _sources(self.forward, time)
        after = _sources(self.backward, 1 - time)
        near = (1 - time) * _inside(before)
        near /= near + time * _inside(after)
        warped = _sample(first, before).reshape(first.shape)
        other = _sample(second, after).reshape(second.shape)
        return other + near[:, :, None].astype(first.dtype) * (warped - other)


def find_motion(first: Image, second: Image) -> Motion:
    """Return the motion between two frames (H, W, C) of the same shape, of any depth.

    The result does not depend on the number of processors. Raises BlurkitError if a side of the
    frames has fewer than 12 pixels or OpenCV is missing.
    """
    cv2 = opencv(FLOW_PURPOSE)
    if min(first.shape[:2]) < SMALLEST:
        raise BlurkitError(f"optical flow needs frames of {SMALLEST} or more pixels a side")
    grays = [gray(cv2, from_float(to_float(frame), np.uint8)) for frame in (first, second)]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward, backward = search.calc(*grays, None), search.calc(*grays[::-1], None)
    flows = forward, backward
    matched = _matched(*flows, *grays), _matched(*flows[::-1], *grays[::-1])
    return Motion(forward, backward, float(np.mean(matched)))


def _matched(
    there: np.ndarray, back: np.ndarray, here: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Return where the flow `there` leads to a similar point whose flow `back` returns."""
    target = _grid(*here.shape) + there
    back = _sample(back, target)
    gap = ((there + back) ** 2).sum(axis=2)
    size = (there**2).sum(axis=2) + (back**2).sum(axis=2)
    similar = opencv(FLOW_PURPOSE).absdiff(_sample(other, target), here) <= 32  # of 255 levels
    return similar & (gap < RETURN_RELATIVE * size + RETURN_FIXED)


def _sources(flow: np.ndarray, time: float) -> np.ndarray:
    """Return the source in its frame of each point that `time` times `flow` brings to the grid."""
    source = grid = _grid(*flow.shape[:2])
    for _ in range(3):  # a fixed-point iteration
        source = grid - np.float32(time) * _sample(flow, source)
    return source


def _inside(source: np.ndarray) -> np.ndarray:
    """Return the weight (H, W) of a frame at the points `source`: 1 inside its borders, or tiny."""
    bottom, right = source.shape[0] - 1, source.shape[1] - 1
    x, y = source[:, :, 0], source[:, :, 1]
    inside = (x >= 0) & (x <= right) & (y >= 0) & (y <= bottom)
    return inside + 1e-3  # which matters if both frames miss a point


def _sample(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Sample `image` at `places` (H, W, 2), bilinearly and with replicated borders."""
    cv2 = opencv(FLOW_PURPOSE)
    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=1)
def _grid(height: int, width: int) -> np.ndarray:
    """Return the position (x, y) of each pixel, float32 (H, W, 2)."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1)
