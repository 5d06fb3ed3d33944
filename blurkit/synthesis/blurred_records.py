"""Synthetic blur for records: drawn, rendered and described in the record's attributes."""

from __future__ import annotations

import zlib

import numpy as np

from blurkit.errors import UsageError
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Exposure


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
    """Return the blurry image of an exposure, and the sharp one with the objects added.

    Both are (H, W, C) and have the depth of `sharp`.
    """
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
