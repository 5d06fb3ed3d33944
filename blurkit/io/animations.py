"""Animations: GIF, APNG, animated WebP and AVIF, read and written by Pillow."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.AvifImagePlugin  # Pillow would import all of its plugins, which takes longer
import PIL.Image
import PIL.WebPImagePlugin

from blurkit.errors import BlurkitError, one_line
from blurkit.io.frames import FrameTime, frame_picture
from blurkit.io.images import Picture
from blurkit.io.limits import check_pixels
from blurkit.io.records import Image, from_float, to_float

ANIMATION_KINDS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF"}
"""Pillow's names of the formats that hold animations, by suffix."""

ANIMATION_SUFFIXES = frozenset(ANIMATION_KINDS)
PILLOW_KINDS = tuple(ANIMATION_KINDS.values())

TICKS = 1000
"""Ticks a second of the times of frames, which all these formats round to milliseconds or more."""

LOSSY_QUALITY = 95
"""The quality of WebP and AVIF on writing."""

KEPT = ("loop", "default_image", "icc_profile", "exif")
"""Pillow's names of what is kept of an animation; without `loop`, a GIF is shown once."""


def is_animation(path: Path) -> bool:
    """Return whether a file holds several frames; False if it cannot be read."""
    try:
        with PIL.Image.open(path, formats=PILLOW_KINDS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow raises errors of any kind on damaged data
        return False


def animation_length(path: Path) -> int | None:
    """Return the number of frames in an animation, None if it is damaged."""
    try:
        with PIL.Image.open(path, formats=PILLOW_KINDS) as image:
            return int(getattr(image, "n_frames", 1))  # for a GIF, all frames are looked at
    except Exception:  # of any kind
        return None


def read_animation(path: Path) -> Generator[Picture, None, None]:
    """Yield the frames of an animation as they are shown: whole pictures of 8 bits.

    They are RGB, with alpha where a frame is transparent. Raises BlurkitError where the file is
    damaged, and if all its frames together have more than `--max-pixels`, since writing keeps them
    in memory.
    """
    clock, decoded = 0, 0
    with PIL.Image.open(path, formats=PILLOW_KINDS) as image:
        check_pixels(image.height * image.n_frames, image.width, str(path))
        for number in range(image.n_frames):
            try:
                image.seek(number)
                pixels = np.asarray(image.convert("RGBA"))
                duration = round(image.info.get("duration", 0))
            except Exception as error:  # of any kind
                reason = f"damaged after frame {decoded} ({one_line(error)})"
                raise BlurkitError(f"{path}: {reason}") from error
            decoded += 1
            opaque = bool((pixels[:, :, 3] == 255).all())
            time = FrameTime(clock, duration, Fraction(1, TICKS))
            yield frame_picture(path, pixels[:, :, :3] if opaque else pixels, time)
            clock += duration


class AnimationWriter:
    """Writes an animation to a file; until `close`, all its frames are kept in memory.

    It is repeated as often as the animation `source` is, or forever if that is a video.
    """

    def __init__(self, path: Path, suffix: str, source: Path) -> None:
        self._path, self._source, self._kind = path, source, ANIMATION_KINDS[suffix]
        self._frames: list[PIL.Image.Image] = []
        self._durations: list[int] = []

    def write(self, image: Image, alpha: Image | None, attrs: Mapping[str, Any]) -> None:
        """Add a frame. Raises BlurkitError if its size differs from that of the first."""
        pixels = from_float(to_float(image), np.uint8)
        if alpha is not None:
            colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            pixels = np.concatenate([colour, from_float(to_float(alpha), np.uint8)], axis=2)
        frame = PIL.Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)
        if self._frames and frame.size != self._frames[0].size:
            raise BlurkitError(f"a frame of {frame.size} pixels does not fit the film's others")
        self._frames.append(frame)
        self._durations.append(round(TICKS * FrameTime.of(attrs).duration))

    def close(self) -> None:
        """Write the file. Raises BlurkitError if the format cannot hold it."""
        transparent = any(frame.mode == "RGBA" for frame in self._frames)
        mode = "RGBA" if transparent else "RGB"
        first, *others = (frame.convert(mode) for frame in self._frames)
        options = _options(self._source) | {"quality": LOSSY_QUALITY, "duration": self._durations}
        if self._kind == "GIF":
            options["disposal"] = 2 if transparent else 1  # else old pixels show through
        try:
            first.save(
                self._path, format=self._kind, save_all=True, append_images=others, **options
            )
        except ValueError as error:  # larger than the format allows
            raise BlurkitError(f"{self._path}: cannot be written ({one_line(error)})") from error

    def release(self) -> None:
        """Forget the frames."""
        self._frames.clear()


def _options(source: Path) -> dict[str, Any]:
    """Return Pillow's options for what holds for an animation as a whole."""
    if source.suffix.lower() not in ANIMATION_KINDS:
        return {"loop": 0}
    with PIL.Image.open(source, formats=PILLOW_KINDS) as image:
        return {key: image.info[key] for key in KEPT if key in image.info}
