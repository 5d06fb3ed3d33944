"""Frames of films: pictures with a time, which the attributes of their records keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.images import Picture, upright_picture


@dataclass(frozen=True)
class FrameTime:
    """When a frame appears and for how long it is shown, in ticks of `time_base` seconds."""

    pts: int
    ticks: int
    time_base: Fraction

    @property
    def start(self) -> Fraction:
        """The start in seconds."""
        return self.pts * self.time_base

    @property
    def duration(self) -> Fraction:
        """The duration in seconds."""
        return self.ticks * self.time_base

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> FrameTime:
        """Return the time in a record's attributes. Raises BlurkitError if they hold none."""
        try:
            return cls(int(attrs["pts"]), int(attrs["duration"]), Fraction(attrs["time_base"]))
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise BlurkitError("has no time, as frames of videos and animations do") from error


def frame_picture(path: Path, raw: np.ndarray, time: FrameTime) -> Picture:
    """Return a frame of the film `path`; a frame that is written alone becomes a PNG file."""
    picture = upright_picture(path, raw, {})
    times = {"pts": time.pts, "duration": time.ticks, "time_base": str(time.time_base)}
    return Picture(picture.pixels, picture.alpha, picture.attrs | {"suffix": ".png"} | times)
