"""Frame interpolation by optical flow: the frames that a faster camera would have recorded.

Dense inverse search (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016)
estimates the motion in both directions. Requires OpenCV: `pip install 'blurkit[align]'`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.opencv import gray, opencv
from blurkit.io.records import Image, from_float, to_float

SMALLEST = 12
"""The shortest side of a frame, in pixels, for which the flow can be computed."""

RETURN_FIXED, RETURN_RELATIVE = 0.5, 0.01
"""Forward and backward flow agree if the square of their sum, in pixels, is below the first value
plus the second times the sum of their squares (Sundaram et al., ECCV 2010)."""

ALIKE = 32
"""The largest difference, in gray levels of 255, of two points that the flow matches."""

FLOW_ITERATIONS = 3
"""Steps of the fixed-point iteration that finds the source of a point of an interpolated frame."""

NEGLIGIBLE = 1e-3
"""The weight of a frame for points outside its borders: it matters if both frames miss a point."""

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
        cv2 = opencv(FLOW_PURPOSE)
        before = _sources(cv2, self.forward, time)
        after = _sources(cv2, self.backward, 1 - time)
        near = (1 - time) * _inside(before)
        near /= near + time * _inside(after)
        warped = _sample(cv2, first, before).reshape(first.shape)
        other = _sample(cv2, second, after).reshape(second.shape)
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
    matched = (
        _matched(cv2, forward, backward, grays[0], grays[1]),
        _matched(cv2, backward, forward, grays[1], grays[0]),
    )
    return Motion(forward, backward, float(np.mean(matched)))


def _matched(
    cv2: ModuleType, there: np.ndarray, back: np.ndarray, here: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """Return where the flow `there` leads to a similar point whose flow `back` returns."""
    target = _grid(*here.shape) + there
    back = _sample(cv2, back, target)
    gap = ((there + back) ** 2).sum(axis=2)
    size = (there**2).sum(axis=2) + (back**2).sum(axis=2)
    similar = cv2.absdiff(_sample(cv2, other, target), here) <= ALIKE
    matched: np.ndarray = similar & (gap < RETURN_RELATIVE * size + RETURN_FIXED)
    return matched


def _sources(cv2: ModuleType, flow: np.ndarray, time: float) -> np.ndarray:
    """Return the source in its frame of each point that `time` times `flow` brings to the grid."""
    grid = _grid(*flow.shape[:2])
    source = grid
    for _ in range(FLOW_ITERATIONS):
        source = grid - np.float32(time) * _sample(cv2, flow, source)
    return source


def _inside(source: np.ndarray) -> np.ndarray:
    """Return the weight (H, W) of a frame at the points `source`: 1 inside its borders, or tiny."""
    bottom, right = source.shape[0] - 1, source.shape[1] - 1
    x, y = source[:, :, 0], source[:, :, 1]
    inside = (x >= 0) & (x <= right) & (y >= 0) & (y <= bottom)
    return inside + NEGLIGIBLE


def _sample(cv2: ModuleType, image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Sample `image` at `places` (H, W, 2), bilinearly and with replicated borders."""
    sampled: np.ndarray = cv2.remap(
        image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return sampled


@lru_cache(maxsize=1)
def _grid(height: int, width: int) -> np.ndarray:
    """Return the position (x, y) of each pixel, float32 (H, W, 2)."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    return np.stack(np.meshgrid(x, y), axis=-1)
