"""Blur made from sharp images: drawn, rendered, and told in the record's attributes."""

from __future__ import annotations

import zlib

import numpy as np

from blurkit.errors import UsageError
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Exposure


def synthesize(record: Record, synthesis: Synthesis, seed: int = 0, copy: int = 0) -> Record:
    """`record` with a new image `blur`: its `sharp` as it might have been taken.

    The random numbers depend on `seed`, the record's name and `copy` only, so neither order nor
    number of processes matters. `copy` counts the versions of one record; all but version 0 have
    it in their names. Objects that are put into the scene are put into `sharp` too. Adds the
    attributes of the exposure, from which `expose` makes both images again, `seed` and, of photos
    that were resized, `scale`.

    Raises UsageError for a seed below 0, BlurkitError when the record has no sharp image.
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
    """What a generator is made from that draws for one version of the record of that name."""
    return [seed, zlib.crc32(name.encode(errors="surrogateescape")), copy]


def name_of_copy(name: str, copy: int) -> str:
    """The name of a version of a record; version 0 has the record's own."""
    return f"{name}-copy{copy}" if copy else name


def expose(sharp: Image, exposure: Exposure) -> tuple[Image, Image]:
    """The blurry image of an exposure, and the sharp one with its objects, as deep as `sharp`."""
    import torch  # takes seconds to import, which commands that make no blur save

    from blurkit.synthesis.rendering import render

    values = torch.from_numpy(to_float(sharp)).permute(2, 0, 1)[None]
    blur, seen = (image[0].permute(1, 2, 0).numpy() for image in render(values, [exposure]))
    added = exposure.adds_objects
    return from_float(blur, sharp.dtype), from_float(seen, sharp.dtype) if added else sharp


def rescaled(image: Image, scale: float) -> Image:
    """An image (H, W, C) resized by a factor, bicubic, antialiased where it shrinks."""
    if scale == 1:
        return image
    import torch

    values = torch.from_numpy(to_float(image)).permute(2, 0, 1)[None]
    size = [max(1, round(side * scale)) for side in image.shape[:2]]
    resized = torch.nn.functional.interpolate(values, size, mode="bicubic", antialias=True)
    return from_float(resized[0].permute(1, 2, 0).contiguous().numpy(), image.dtype)
