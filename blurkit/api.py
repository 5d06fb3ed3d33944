"""The commands as Python calls on arrays and records.

An image is an array (H, W, 3), (H, W, 1) or (H, W): uint8, uint16, or floats in [0, 1]. The result
for an array has its shape and depth; floats become float32. The result for a record is the record
that the command would write: it also holds the new image and attributes that describe it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from blurkit.data import sources
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.records import Record
from blurkit.metrics import sharpness as sharpness_metric
from blurkit.model import Model, as_image
from blurkit.options import Placement, Precision, Protocol, ValueRange
from blurkit.reports.page import RestorationReport
from blurkit.tasks.addresses import local_file, refuse_unused

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.metrics.contextual import Contextual, ContextualSimilarity

WRITTEN_IMAGES = ("restored", "reblurred", "blur", "sharp")
"""The roles of the image that image files and folders receive; the first present one is used."""

# ---- files ---------------------------------------------------------------------------------------


def read_records(
    *inputs: str | Path, image: str = "blur", blur: str = "blur", on_error: OnError = raise_error
) -> Iterator[Record]:
    """Yield the records of images, folders, datasets and shards, with one in memory at a time.

    A single image gets the role `image`; `blur` is a dataset's blur folder, such as `blur_gamma`.
    The first bad item raises BlurkitError, unless `on_error(where, error)` handles it.
    """
    return sources.read_records(inputs, image=image, blur=blur, on_error=on_error)


def write_records(records: Iterable[Record], output: str | Path, force: bool = False) -> int:
    """Write records to an image, a folder, a shard (.h5) or `-`, as `-o` does; return their number.

    A folder must exist or end in `/`. Image files receive the restored image, else the reblurred,
    else the blurry, else the sharp one. Raises BlurkitError if the output exists, unless `force` is
    given, and UsageError if it is of another kind.
    """
    count = 0
    with open_sink(str(output), WRITTEN_IMAGES, "written", FileOptions(force)) as sink:
        for record in records:
            sink.write(record)
            count += 1
    return count


# ---- models --------------------------------------------------------------------------------------


def load(
    source: str | Path | Checkpoint | None = None,
    encoder: str | Path | Sequence[str | Path] = (),
    *,
    sha256: str | Sequence[str] = (),
    system: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    protocol: Protocol = "tiles",
    value_range: ValueRange | None = None,
) -> Model:
    """Return the networks in a file of blurkit or of the official code; `-` is standard input.

    A file whose name ends in `.onnx` deblurs by ONNX Runtime. If another program wrote it,
    `value_range` names the values of black and white in it (None: found by trying a photo).

    Without a `source`, each call uses the weights that come with blurkit for its task, or those of
    `system`. `encoder` is one or more files whose encoder or latents replace the checkpoint's.
    `tile` is the side in pixels at which networks run (None: the size they were trained on),
    `overlap` the width in pixels that tiles share (None: 32 or half a tile). `device` is auto, cpu,
    cuda, cuda:N or mps, `precision` is auto, fp32, bf16 or fp16. The `protocol`
    "slices", "whole" or "local" deblurs as papers measured. A file may be an address (https://...),
    which is fetched once into the user's cache; `sha256` is the digest that it must have, or those
    of several files. Raises BlurkitError if a file is missing or cannot be fetched; one that is
    damaged or no checkpoint is reported by the first call that needs it.
    """
    files = [encoder] if isinstance(encoder, (str, Path)) else encoder
    digests = [sha256] if isinstance(sha256, str) else sha256
    refuse_unused(digests, [source, *files])
    source, files = local_file(source, digests), [local_file(file, digests) for file in files]
    for file in (source, *files):
        if isinstance(file, (str, Path)) and file != "-" and not os.path.lexists(file):
            raise BlurkitError(f"{file}: no such checkpoint")
    if source == "-":
        from blurkit.io.checkpoints import load_checkpoint

        source = load_checkpoint("-")  # which can be read only once
    if value_range and not str(source).endswith(".onnx"):
        raise UsageError("value_range requires an ONNX file")
    placement = Placement(device, precision, tile, overlap, protocol)
    return Model(source, files, system, placement, value_range)


def contextual_similarity(
    x: np.ndarray,
    y: np.ndarray,
    *,
    features: str | Path | None = None,
    layers: Sequence[str] = (),
    bandwidth: float = 1.0,
    distance: str = "cosine",
    device: str = "auto",
) -> Contextual:
    """Return how similar image `x` is to image `y`, aligned or not, of any sizes.

    The result's `distance` is what papers print, -log CX: 0 for equal images, smaller is more
    similar. `features` is the file of a feature network (None: the one in BLURKIT_FEATURES, or
    VGG-19 in torch's cache), `layers` are some of its layers; `bandwidth` and `distance` (cosine,
    l1, l2) are those of Mechrez et al. 2018. Raises BlurkitError without a network and for an image
    that is too small.
    """
    compare = contextual_measure(features, tuple(layers), bandwidth, distance, device)
    return compare(as_image(x, "x"), as_image(y, "y"))


@lru_cache(maxsize=2)
def contextual_measure(
    features: str | Path | None = None,
    layers: tuple[str, ...] = (),
    bandwidth: float = 1.0,
    distance: str = "cosine",
    device: str = "auto",
    download: bool = False,
    hint: str = "",
) -> ContextualSimilarity:
    """Return the measure that `contextual_similarity` uses, for many pairs of images.

    Without a feature network, VGG-19 is fetched with `download`; else BlurkitError is raised, with
    `hint` as its last words.
    """
    from blurkit.engine.device import choose_device
    from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
    from blurkit.nn.features import find_features

    network = find_features(features, download, hint)
    backbone = contextual_network(network, layers, choose_device(device))
    return ContextualSimilarity(backbone, bandwidth, distance)


# ---- what results are worth ----------------------------------------------------------------------


def sharpness(image: np.ndarray) -> float:
    """Return how sharp an image looks, from 0 (blurry) to 1 (sharp), without a reference.

    It is 1 minus the perceptual blur metric of Crete et al. 2007. Raises BlurkitError if the image
    is invalid.
    """
    return sharpness_metric.sharpness(as_image(image, "image"))


def html_report(records: Iterable[Record], folder: str | Path, force: bool = False) -> Path:
    """Write the report of `deblur --html` on restored records to a folder; return its page.

    Records with `sharp` get PSNR and SSIM, too. One record is in memory at a time. Raises
    BlurkitError if the folder holds a report, unless `force` is given, or other files; if a record
    lacks `blur` or `restored`; or if there is no record.
    """
    report = RestorationReport(Path(folder), force)
    for record in records:
        report.add(record)
    page = report.write()
    if page is None:
        raise BlurkitError(f"{folder}: there is no record to report")
    return page
