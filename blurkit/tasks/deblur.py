"""Deblurring: by a network that restores any blur, by estimating a photo's blur, or by a search.

Notes say what the result is worth. Imports torch only where a network of torch is used, so that one
in an ONNX file does without.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, Say
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.sharpness import sharpness
from blurkit.options import Placement, check_strength
from blurkit.reports.pictures import RESTORED, before_after
from blurkit.systems.system import inference, load_shipped, providers

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.systems.blind_search import TiledSearch


def deblur(record: Record, engine: Engine, checkpoint: str, strength: float = 1.0) -> Record:
    """Return `record` with `restored`, made from its `blur` at the same size and depth.

    `strength` is how much of the network's change is kept, from 0 (none) to 1 (all). The attributes
    `restored_by`, `restored_with`, `restored_strength` and `restored_seconds` describe the result.
    Raises BlurkitError if there is no `blur` or the network fails, UsageError if `strength` is not
    between 0 and 1.
    """
    check_strength(strength)
    blur = record.image("blur")
    started = time.perf_counter()
    image = to_float(blur)
    restored = engine(image)
    if strength < 1:
        restored -= image
        restored *= strength
        restored += image
    images = {**record.images, "restored": from_float(restored, blur.dtype)}
    attrs = {
        **record.attrs,
        "restored_by": checkpoint,
        "restored_with": engine.summary(),
        "restored_strength": float(strength),
        "restored_seconds": round(time.perf_counter() - started, 4),
    }
    return Record(record.name, images, attrs)


def window_deblurring(checkpoint: Checkpoint, placement: Placement, **options: Any) -> Any:
    """Return a function that deblurs records by the blur of each part, estimated or known.

    `checkpoint` holds a deconvolution network. `options` are a known `kernel` (h, w) with its
    `gamma`; `otherwise`, an engine for what no estimate explains; `strength`, `keep_kernel` and
    `watch`; see docs/deconvolution.md. Its `estimated` returns the attributes `kernel` (h, w),
    `blur_length`, `blur_angle`, `blur_trust` and `blur_gamma` of an image (H, W, C), or {} where no
    estimate is believed. Raises BlurkitError if the checkpoint has no such network.
    """
    from blurkit.systems.registry import load_networks  # imports torch
    from blurkit.systems.uses import network_for

    check_strength(options.get("strength", 1.0))
    network, own = network_for("deconvolving", checkpoint), load_networks(checkpoint)
    about = {"estimator": own.get("estimator"), "checkpoint": checkpoint.name}
    hardware = placement.device, placement.precision
    return _inversion().photo_restorer(network, *hardware, **about, **options)


def _inversion() -> Any:
    """Return how the system that inverts estimated blurs runs on images."""
    (folder,) = providers("deconvolving")
    return inference(folder)


def kernel_summary(record: Record, otherwise: bool = False) -> str:
    """Return which blur of a record was inverted; `otherwise`, a network restored the rest."""
    return str(_inversion().windows_summary(record, otherwise))


def masked(record: Record, mask: Image) -> Record:
    """Return a restored record with its `blur` where a mask (H, W, 1 or 3) is black.

    White leaves what is `restored`, grey blends; `restored_masked` is the part that is black, 0 to
    1. Raises BlurkitError if the mask has another size or colours.
    """
    before, after = record.image("blur"), record.image("restored")
    if mask.shape[:2] != before.shape[:2]:
        (height, width), (rows, columns) = before.shape[:2], mask.shape[:2]
        raise BlurkitError(
            f"{record.name}: has {width}x{height} pixels, and its mask {columns}x{rows}"
        )
    if np.any(mask != mask[:, :, :1]):
        raise BlurkitError(f"{record.name}: its mask has colours; a mask is grey")
    weight, own = to_float(mask[:, :, :1]), to_float(before)
    mixed = from_float(own + weight * (to_float(after) - own), before.dtype)
    mixed = np.where(weight == 1, after, np.where(weight == 0, before, mixed))
    about = {**record.attrs, "restored_masked": round(float((weight == 0).mean()), 4)}
    return Record(record.name, {**record.images, "restored": mixed}, about)


def preview_part(record: Record) -> Record:
    """Return the middle of a record's images, to be restored as in the whole photo but sooner."""
    if "film" in record.attrs:
        raise BlurkitError("--preview is for photos; --clip A:B restores a part of a film")
    part: Record = _inversion().window_in_the_middle(record)
    return part


def with_preview(record: Record) -> Record:
    """Return a restored part of a photo with the picture `preview`: before and after.

    Of its attributes, those that describe a file are left out, but for its name and colours.
    """
    own = ("restored_", "blur_", "sharpness_", "part_of", "source", "suffix", "icc_profile")
    described = {key: value for key, value in record.attrs.items() if key.startswith(own)}
    picture = before_after(record, RESTORED)
    return Record(record.name, {**record.images, "preview": picture}, described)


OVER_TIME = 10
"""The number of moments of a film for which its blur is stated."""


def film_summary(lengths: Sequence[float]) -> str:
    """Return a line on the blur undone in a film's frames over time; their lengths are in pixels.

    A length of 0 means that no blur was undone.
    """
    count, undone = len(lengths), sum(length > 0 for length in lengths)
    if not undone:
        return f"no uniform blur found in any of {count} frames"
    parts = [part.max() for part in np.array_split(lengths, min(OVER_TIME, count))]
    over_time = " ".join(f"{length:.0f}" for length in parts)
    return f"blur undone in {undone} of {count} frames, over time up to {over_time} pixels"


# ---- The result of a blind search ---------------------------------------------------------------


def deblur_by_search(
    search: TiledSearch,
    by: str,
    strength: float = 1.0,
    keep_kernel: bool = False,
    placement: Placement = Placement(),
    warn: Say = lambda text: None,
) -> Record:
    """Return the record of a finished search with `restored`, and attributes that describe it.

    After the search of a region, the whole photo is restored by the deconvolution that comes with
    blurkit, with the kernel that was found, or the one nearest to the code that was found. If the
    search diverged, the photo stays as it is. `blind_region` and `blind_kernel_reproduced` are then
    stored, too: the PSNR in dB between the region and its picture blurred by the kernel. `warn` is
    called with a message if that is low.

    `by` is stored as the name of what restored the record, `strength`, 0 to 1, is the fraction of
    the change that is kept, and `keep_kernel` stores the blur as the attribute `kernel`. Raises as
    `TiledSearch.result` does.
    """
    if search.region is None:
        return search.result(by, strength, keep_kernel)
    record = search.record
    about = search.result(by, 1.0, keep_kernel).attrs
    about |= {"blind_region": np.array(search.region), "restored_strength": float(strength)}
    if search.searches[0].diverged:
        return Record(record.name, {**record.images, "restored": record.image("blur")}, about)
    started = time.perf_counter()
    kernel, reproduced = search.nearest_kernel()
    least = search.context.options.warn_below
    if reproduced < least:
        warn(
            f"{record.name}: one kernel explains the region with only {reproduced:.1f} dB "
            f"(warn_below {least:g}); the photo deblurred by it may be wrong"
        )
    # The search blurs pixel values, not linear light.
    known = {"kernel": kernel, "gamma": 1.0, "strength": strength}
    whole = window_deblurring(load_shipped(use="deconvolving"), placement, **known)(record)
    region = ",".join(map(str, search.region))
    about |= {
        "restored_with": f"{about['restored_with']} region={region}; by its kernel: "
        f"{whole.attrs['restored_with']}",
        "restored_seconds": round(about["restored_seconds"] + time.perf_counter() - started, 4),
        "blind_kernel_reproduced": round(reproduced, 2),
    }
    return Record(record.name, whole.images, about)


# ---- Quality notes -------------------------------------------------------------------------------

WORTH = ("sharpness_before", "sharpness_after", "sharpness_like", "restored_change")
"""Attributes that describe what a result is worth; `--json` prints those that a record has."""

ESTIMATED = ("length", "angle", "trust")
"""What records tell of an estimated blur: `reblurred_length` in pixels, `reblurred_angle` in
degrees and `reblurred_trust` from 0 to 1."""

SCORES = ("reblurred_psnr", "reblurred_psnr_sharp")
"""Attributes of a record that was reblurred like itself: the PSNR of the reblurred image and of the
sharp image against its blurry image."""

LEAST_CHANGE = 1.0
"""RMS change in 8-bit levels below which a restoration did next to nothing. The least that helped
on 14 real pairs was 1.6; photos of which nothing was recognised have 0."""

BLURRY = 0.42
"""Sharpness below which a result still looks blurry. Three photos with straight blurs of up to 24
pixels were restored to 0.44 and more; blurs of 64 and 96 that gained nothing ended at 0.28 to 0.36.
Of 200 photos of BSDS500, 1 is below."""


def with_sharpness(record: Record, made: str = "restored", source: str = "blur") -> Record:
    """Return `record` with the `sharpness` of the images `source` and `made` as attributes.

    They are `sharpness_before` and `sharpness_after`, from 0 to 1; a restored record also gets
    `restored_change`, the root mean square of the change in 8-bit levels. Raises BlurkitError if
    an image is missing.
    """
    before, after = record.image(source), record.image(made)
    attrs = {
        "sharpness_before": rounded_sharpness(before),
        "sharpness_after": rounded_sharpness(after),
    }
    if made == "restored":
        change = to_float(after) - to_float(before)
        attrs["restored_change"] = round(255 * float(np.sqrt(np.mean(np.square(change)))), 3)
    return Record(record.name, record.images, record.attrs | attrs)


def is_left(record: Record) -> bool:
    """Return whether all windows of a record were left as they are."""
    windows = record.attrs.get("restored_windows", 0)
    return bool(windows) and record.attrs["restored_left"] == windows


def restoration_warnings(record: Record) -> list[str]:
    """Return what to be wary of in a restored and appraised record."""
    attrs, strength = record.attrs, record.attrs["restored_strength"]
    if not strength:
        return []
    if attrs["restored_change"] < LEAST_CHANGE * strength:
        return [
            "next to nothing was changed: the photo is sharp, or its blur is of a kind that the "
            "weights do not know"
        ]
    if attrs["sharpness_after"] < BLURRY:
        return ["still looks blurry: the blur may be longer than the weights know, or defocus"]
    return []


def result_line(record: Record, found: str, whole: Sequence[int] | None = None) -> str:
    """Return a line on a restored and appraised record; `found` says what blur it had.

    `whole` is the height and width of the photo of which it is a part.
    """
    before, after = (record.attrs[f"sharpness_{when}"] for when in ("before", "after"))
    part = ""
    if whole is not None:
        height, width = whole
        rows, columns = record.image("restored").shape[:2]
        part = f"the middle {columns}x{rows} pixels of {width}x{height}: "
    return f"{record.name}: {part}{found}sharpness {before:.2f} -> {after:.2f}"


def reblurring_warnings(attrs: Mapping[str, Any]) -> list[str]:
    """Return a warning if a reblurred record came no nearer to the blur that it was to get.

    PSNRs against the real blurry image decide if they are known, else the sharpness.
    """
    if SCORES[0] in attrs:
        made, sharp = (attrs[key] for key in SCORES)
        if made > sharp:
            return []
        return [
            f"the blur was not reproduced: {made:.2f} dB against the real blurry image, where the "
            f"sharp image has {sharp:.2f} dB"
        ]
    if "sharpness_like" not in attrs:
        return []
    before, after, like = (attrs[f"sharpness_{which}"] for which in ("before", "after", "like"))
    if abs(after - like) < abs(before - like):
        return []
    return [
        f"came no nearer to the blur of {attrs['reblurred_like']}: sharpness {before:.2f} became "
        f"{after:.2f}, and that picture has {like:.2f}"
    ]


def rounded_sharpness(image: Image) -> float:
    """Return the sharpness of an image as records state it."""
    return round(sharpness(image), 4)
