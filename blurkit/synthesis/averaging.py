"""Pairs of blurry and sharp images from consecutive sharp frames, as in GoPro and similar datasets.

The blurry image is the mean of a window of frames in linear light; the sharp image is the middle
frame (Nah et al., "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring",
CVPR 2017). If the frame rate is too low for that, optical flow interpolates more frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.opencv import opencv
from blurkit.io.records import Image
from blurkit.synthesis.flow import FLOW_PURPOSE, Motion, find_motion

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
        if self.interpolates and self.average < 2:
            raise UsageError("--interpolate requires --average of 2 or more")
        if self.interpolates:
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
    `interpolate`, `samples` and `flow_agreement`, the fraction of pixels, 0 to 1, on which the
    forward and the backward flow agree, for the two consecutive frames where it is smallest.
    Raises BlurkitError if the frames differ in shape or type, if the agreement is below
    `averaging.agreement`, and as `find_motion` does.
    """
    _check_alike(frames)
    light = _linear(frames[0], averaging.gamma, averaging.response)
    total, agreements = light.copy(), []
    for number, pair in enumerate(pairwise(frames), 1):
        motion = find_motion(*pair)
        _check_agreement(motion, averaging.agreement, number)
        agreements.append(motion.agreement)
        before, light = light, _linear(pair[1], averaging.gamma, averaging.response)
        for step in range(1, averaging.interpolate):
            total += motion.between(before, light, step / averaging.interpolate)
        total += light
    dtype, mean = frames[0].dtype, total / averaging.samples
    blur = _stored(_levels(mean, dtype, averaging.gamma, averaging.response).round(DIGITS), dtype)
    attrs = {"interpolate": averaging.interpolate, "samples": averaging.samples}
    return blur, attrs | {"flow_agreement": min(agreements)}


def window_mean(frames: Sequence[Image], averaging: Averaging) -> tuple[Image, dict[str, float]]:
    """Return the mean of a window, and the attributes of the interpolation if there is one.

    Raises BlurkitError as `average_frames` and `interpolated_average` do.
    """
    if averaging.interpolates:
        return interpolated_average(frames, averaging)
    return average_frames(frames, averaging.gamma, averaging.response), {}


@lru_cache(maxsize=4)
def read_response(path: Path) -> np.ndarray:
    """Return a camera response curve: 256 increasing values, the light of grey levels 0 to 255.

    The file is .npy or text, with values separated by whitespace, or by commas in .csv.
    Raises BlurkitError if the file does not hold such a curve.
    """
    try:
        if path.suffix.lower() == ".npy":
            curve = np.load(path, allow_pickle=False)
        else:
            curve = np.loadtxt(path, delimiter="," if path.suffix.lower() == ".csv" else None)
        curve = np.asarray(curve, np.float64).ravel()
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such response file") from error
    except (OSError, ValueError) as error:
        raise BlurkitError(f"{path}: not a response curve ({one_line(error)})") from error
    if curve.shape != (256,) or not np.all(np.diff(curve) > 0):
        raise BlurkitError(
            f"{path}: a response curve has 256 increasing values, this one has {len(curve)}"
            + (", not all increasing" if len(curve) == 256 else "")
        )
    return curve


def _check_alike(frames: Sequence[Image]) -> None:
    first = frames[0]
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        kinds = sorted({f"{f.shape[1]}x{f.shape[0]}x{f.shape[2]} {f.dtype}" for f in frames})
        raise BlurkitError(f"frames of one window differ: {', '.join(kinds)}")


def _check_agreement(motion: Motion, least: float, number: int) -> None:
    """Raise BlurkitError if frame `number` of a window and the next agree on less than `least`."""
    if motion.agreement < least:
        raise BlurkitError(
            f"left out: from frame {number} to {number + 1} of the window the optical flow agrees "
            f"on {motion.agreement:.1%} of the pixels, less than {least:.0%}: a cut, or motion "
            "too fast to track"
        )


def _levels(mean: np.ndarray, dtype: np.dtype, gamma: float, response: Path | None) -> np.ndarray:
    """Return linear light as levels of frames of type `dtype`, neither rounded nor cast."""
    if response is None:
        levels: np.ndarray = mean ** (1 / gamma)
        return levels
    curve = read_response(response)
    scale = np.iinfo(dtype).max if dtype.kind == "u" else 1
    return np.interp(mean, curve, np.linspace(0, scale, len(curve)))


def _stored(levels: np.ndarray, dtype: np.dtype) -> Image:
    return (levels if dtype.kind == "f" else np.floor(levels)).astype(dtype)


def _linear(frame: Image, gamma: float, response: Path | None) -> np.ndarray:
    if frame.dtype.kind == "u":
        return _table(np.iinfo(frame.dtype).max, gamma, response)[frame]
    if response is None:
        return frame.astype(np.float64) ** gamma
    curve = read_response(response)
    return np.interp(frame, np.linspace(0, 1, len(curve)), curve)


@lru_cache(maxsize=4)
def _table(top: int, gamma: float, response: Path | None) -> np.ndarray:
    """Return the linear light of every grey level from 0 to `top`."""
    levels = np.arange(top + 1, dtype=np.float64)
    if response is None:
        return levels**gamma
    curve = read_response(response)
    return np.interp(levels, np.linspace(0, top, len(curve)), curve)
