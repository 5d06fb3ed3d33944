"""Blurred and sharp pairs from consecutive sharp frames, as GoPro and its kind were made.

A window of frames, turned to linear light, averaged and turned back, is the blurred image; its
middle frame is the sharp one (Nah et al., "Deep Multi-scale Convolutional Neural Network for
Dynamic Scene Deblurring", CVPR 2017). Where a camera took too few frames for that, more are made
between them by optical flow.
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
"""Decimals of a level that are kept before it is floored: still frames must not lose a level to the
last digit of a float."""


@dataclass(frozen=True)
class Averaging:
    """How frames become a blurred image: windows of `average` frames, one every `stride` frames
    (0: one after another), in linear light by `gamma`, or by `response`, a camera response file.

    With `interpolate` N of 2 or more, the optical flow gives N - 1 more frames between each two
    frames of a window, which is left out if the flow of any two agrees, forward and backward, for
    a smaller fraction of the pixels than `agreement`, 0 to 1.

    Raises UsageError for values out of range, and BlurkitError where OpenCV is needed and missing.
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
            raise UsageError("--interpolate goes with --average of 2 or more")
        if self.interpolates:
            opencv(FLOW_PURPOSE)

    @property
    def step(self) -> int:
        """Frames from the start of one window to the next."""
        return self.stride or self.average

    @property
    def interpolates(self) -> bool:
        """Whether frames are made between the frames of a window."""
        return self.interpolate > 1

    @property
    def samples(self) -> int:
        """The number of frames in a mean, with those made in between."""
        return (self.average - 1) * max(self.interpolate, 1) + 1


def average_frames(
    frames: Sequence[Image], gamma: float = 2.2, response: Path | None = None
) -> Image:
    """The mean of `frames` in linear light, of their shape (H, W, C) and type.

    floor(mean(v ** gamma) ** (1 / gamma)) per channel on grey levels (0..255 or 0..65535; float
    frames are not floored). With `response`, a file as for `read_response`, its curve and the
    inverse of it take the place of the two powers.
    Raises BlurkitError for frames of different shapes or types.
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
    """Return the mean of `frames` and of those interpolated between them, and its attributes.

    The mean is in linear light, as by `average_frames`, of the frames' shape (H, W, C) and type;
    all `averaging.samples` frames count the same. The attributes are `interpolate`, `samples`, and
    `flow_agreement`, the fraction of pixels, 0 to 1, where the forward and the backward flow agree
    between the two frames where they do so least.
    Raises BlurkitError for frames of different shapes or types, for an agreement below
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
    told = {"interpolate": averaging.interpolate, "samples": averaging.samples}
    return blur, told | {"flow_agreement": min(agreements)}


def window_mean(frames: Sequence[Image], averaging: Averaging) -> tuple[Image, dict[str, float]]:
    """Return the mean of a window, and the attributes of frames interpolated for it.

    Raises BlurkitError as `average_frames` and `interpolated_average` do.
    """
    if averaging.interpolates:
        return interpolated_average(frames, averaging)
    return average_frames(frames, averaging.gamma, averaging.response), {}


@lru_cache(maxsize=4)
def read_response(path: Path) -> np.ndarray:
    """A camera response curve: 256 increasing values, the linear light of grey levels 0 to 255.

    From .npy, or text (.txt by blanks or lines, .csv by commas or lines).
    Raises BlurkitError for anything else.
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
            f"{path}: a response curve is 256 increasing values, this has {len(curve)}"
            + (", not all increasing" if len(curve) == 256 else "")
        )
    return curve


def _check_alike(frames: Sequence[Image]) -> None:
    first = frames[0]
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        told = sorted({f"{f.shape[1]}x{f.shape[0]}x{f.shape[2]} {f.dtype}" for f in frames})
        raise BlurkitError(f"frames of one window differ: {', '.join(told)}")


def _check_agreement(motion: Motion, least: float, number: int) -> None:
    """Raise BlurkitError if frame `number` of a window and the next one agree on less."""
    if motion.agreement < least:
        raise BlurkitError(
            f"left out: from frame {number} to {number + 1} of the window the optical flow agrees "
            f"for {motion.agreement:.1%} of the pixels, fewer than {least:.0%}: a cut, or motion "
            "too fast to follow"
        )


def _levels(mean: np.ndarray, dtype: np.dtype, gamma: float, response: Path | None) -> np.ndarray:
    """Linear light as levels of frames of type `dtype`, neither rounded nor cast."""
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
    """The linear light of every grey level from 0 to `top`."""
    levels = np.arange(top + 1, dtype=np.float64)
    if response is None:
        return levels**gamma
    curve = read_response(response)
    return np.interp(levels, np.linspace(0, top, len(curve)), curve)
