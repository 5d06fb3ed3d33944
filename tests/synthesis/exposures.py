"""Photos to blur, exposures written out by hand, and frames averaged."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

from blurkit.data.films import clip_records, find_clips
from blurkit.errors import OnError, raise_error
from blurkit.io.records import Record
from blurkit.synthesis.averaging import Averaging
from blurkit.synthesis.exposure import Exposure, MovingObject

FAR = 1e7
"""A focal length at which a turning camera shifts the whole image alike."""


def photo(height: int, width: int, grey: bool = False) -> np.ndarray:
    """A part of a photograph, float64 in [0, 1]."""
    image = skimage.data.camera()[:, :, None] if grey else skimage.data.astronaut()
    return image[100 : 100 + height, 200 : 200 + width] / 255.0


def exposure(size: tuple[int, int], poses: Any = ((0, 0, 0, 0),), **options: Any) -> Exposure:
    """An exposure of an image of this size by equally long poses."""
    height, width = size
    options = {"weights": np.full(len(poses), 1 / len(poses)), "focal": FAR} | options
    return Exposure("camera", 0, width / 2, height / 2, poses=np.array(poses, float), **options)


def circle(x: float, y: float, radius: float, poses: Any = ((0, 0, 0, 0),), **more: Any) -> Any:
    options = {"feather": 1.0, "shift_x": 0, "shift_y": 0, "outline": (0.0,) * 6} | more
    return MovingObject(x, y, radius, poses=np.array(poses, float), **options)


def averaged_records(
    inputs: Sequence[str | Path], averaging: Averaging, on_error: OnError = raise_error
) -> Iterator[Record]:
    """The records of every window of every clip in `inputs`, as of `clip_records`."""
    found = find_clips(inputs, averaging.average)
    found.report(on_error)
    for clip in found.items:
        yield from clip_records(clip, averaging, on_error)
