"""Deblurring: by a network that restores any blur, by estimating a photo's blur, or by a search.

Imports torch only where a network of torch is used, so that one in an ONNX file does without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blurkit.data.sources import result_name
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, Say, UsageError
from blurkit.io.formats import IMAGE_SUFFIXES
from blurkit.io.images import read_image
from blurkit.io.paths import composed, walk
from blurkit.io.records import Image, Record, from_float, safe_name, to_float
from blurkit.io.writing import refuse_existing, refuse_output
from blurkit.metrics.sharpness import sharpness
from blurkit.options import Placement, check_strength
from blurkit.reports.pictures import RESTORED, before_after
from blurkit.reports.progress import say
from blurkit.synthesis.kernels import KernelSheet, read_kernels, read_sheet
from blurkit.systems.system import inference, load_shipped, providers

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.systems.blind_search import TiledSearch


def deblur(record: Record, engine: Engine, strength: float = 1.0) -> Record:
    """Return `record` with `restored`, made from its `blur` at the same size and depth.

    `strength` is how much of the network's change is kept, from 0 (none) to 1 (all). Raises
    BlurkitError if there is no `blur` or the network fails, UsageError for another `strength`.
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
    about = {
        "restored_by": engine.name,
        "restored_with": engine.summary(),
        "restored_strength": float(strength),
        "restored_seconds": round(time.perf_counter() - started, 4),
    }
    images = record.images | {"restored": from_float(restored, blur.dtype)}
    return Record(record.name, images, record.attrs | about)


def window_deblurring(checkpoint: Checkpoint, placement: Placement, **options: Any) -> Any:
    """Return a function that deblurs records by the blur of each part, estimated or known.

    `checkpoint` holds a deconvolution network. `options` are a known `kernel` (h, w) with its
    `gamma`; `otherwise`, an engine for what no estimate explains; `strength`, `keep_kernel` and
    `watch`; see docs/deconvolution.md. Its `estimated` returns the attributes `kernel` (h, w),
    `blur_length`, `blur_angle`, `blur_trust` and `blur_gamma` of an image (H, W, C), or {} where no
    estimate is believed. Raises BlurkitError if the checkpoint has no such network.
    """
    from blurkit.systems.registry import assemble  # imports torch
    from blurkit.systems.uses import network_for

    check_strength(options.get("strength", 1.0))
    own = assemble(checkpoint)
    network = network_for("deconvolving", checkpoint, networks=own)
    about = {"estimator": own.get("estimator"), "checkpoint": checkpoint.name}
    hardware = placement.device, placement.precision
    return inversion().photo_restorer(network, *hardware, **about, **options)


def inversion() -> Any:
    """Return the module of the system that inverts estimated blurs."""
    (folder,) = providers("deconvolving")
    return inference(folder)


def masked(record: Record, mask: Image) -> Record:
    """Return a restored record with its `blur` where a mask (H, W, 1 or 3) is black.

    White leaves what is `restored`, grey blends; `restored_masked` is the part that is black, 0 to
    1. Raises BlurkitError if the mask has another size or colours.
    """
    before, after = record.image("blur"), record.image("restored")
    (h, w), (rows, columns) = before.shape[:2], mask.shape[:2]
    if (h, w) != (rows, columns):
        raise BlurkitError(f"{record.name}: has {w}x{h} pixels, and its mask {columns}x{rows}")
    if np.any(mask != mask[:, :, :1]):
        raise BlurkitError(f"{record.name}: its mask has colours; a mask is grey")
    weight, own = to_float(mask[:, :, :1]), to_float(before)
    mixed = from_float(own + weight * (to_float(after) - own), before.dtype)
    mixed = np.where(weight == 1, after, np.where(weight == 0, before, mixed))
    about = {"restored_masked": round(float((weight == 0).mean()), 4)}
    return Record(record.name, record.images | {"restored": mixed}, record.attrs | about)


def preview_part(record: Record) -> Record:
    """Return the middle of a record's images, to be restored as in the whole photo but sooner."""
    if "film" in record.attrs:
        raise BlurkitError("--preview is for photos; --clip A:B restores a part of a film")
    middle: Record = inversion().window_in_the_middle(record)
    return middle


def with_preview(record: Record) -> Record:
    """Return a restored part of a photo with the picture `preview`: before and after.

    Of its attributes, those that describe a file are left out, but for its name and colours.
    """
    own = ("restored_", "blur_", "sharpness_", "part_of", "source", "suffix", "icc_profile")
    described = {key: value for key, value in record.attrs.items() if key.startswith(own)}
    picture = before_after(record, RESTORED)
    return Record(record.name, {**record.images, "preview": picture}, described)


def film_summary(lengths: Sequence[float]) -> str:
    """Return a line on the blur undone in a film, at ten moments; a length of 0 pixels is none."""
    count, undone = len(lengths), sum(length > 0 for length in lengths)
    if not undone:
        return f"no uniform blur found in any of {count} frames"
    parts = [part.max() for part in np.array_split(lengths, min(10, count))]
    over_time = " ".join(f"{length:.0f}" for length in parts)
    return f"blur undone in {undone} of {count} frames, over time up to {over_time} pixels"


# ---- Files beside the photos ---------------------------------------------------------------------


def read_known_blur(path: Path) -> np.ndarray | KernelSheet:
    """Return the kernel (h, w) in a file, or the sheet that `--keep-kernel` wrote.

    Raises UsageError if another file holds several kernels, or values below 0.
    """
    if sheet := read_sheet(path):
        return sheet
    kernels = read_kernels(path)
    if len(kernels) > 1:
        names = ", ".join(name for name, _ in kernels[:3])
        raise UsageError(
            f"--kernel {path}: holds {len(kernels)} kernels ({names}, ...); name a file with one"
        )
    kernel = kernels[0][1]
    if (kernel < 0).any():
        raise UsageError(f"--kernel {path}: holds values below 0, which is not a blur kernel")
    return kernel


def read_masks(path: Path | None) -> Callable[[Record], Image | None]:
    """Return the function that returns a record's mask (H, W, C), white where it is restored.

    A file is the mask of every photo; a folder has one for each, of its name, or that of its film.
    What is transparent in a mask is black. Raises BlurkitError for a file that is no picture, and
    the function for a record without a mask; without a `path`, it returns None.
    """
    if path is None:
        return lambda record: None

    def read(file: Path) -> Image:
        picture = read_image(file)
        pixels = to_float(picture.pixels)
        return pixels if picture.alpha is None else pixels * to_float(picture.alpha)

    if not path.is_dir():
        only = read(path)
        return lambda record: only
    files = {
        composed(file.relative_to(path).with_suffix("").as_posix()): file
        for file in walk(path, IMAGE_SUFFIXES)
    }

    def mask_of(record: Record) -> Image:
        if file := files.get(record.name) or files.get(result_name(record)):
            return read(file)
        raise BlurkitError(f"--mask {path}: holds no picture named {record.name}")

    return mask_of


class KernelPictures:
    """Writes the kernels that were found in photos to a picture, or to folder/NAME.png for each.

    Raises UsageError if the `total` number of photos is more than one and `output` is a file, and
    BlurkitError if that exists and `force` is off.
    """

    def __init__(self, output: Path, force: bool, total: int | None) -> None:
        self._output, self._force = output, force
        self._is_file = output.suffix.lower() == ".png"
        self._claimed: set[str] = set()
        self._refuse_several(total or 1)
        if self._is_file:
            refuse_output(output, force)

    def _refuse_several(self, photos: int) -> None:
        if self._is_file and photos > 1:
            raise UsageError(
                f"--keep-kernel {self._output} is one picture, but there are several photos; "
                "name a folder/"
            )

    def _path(self, record: Record) -> Path:
        return self._output if self._is_file else self._output / f"{safe_name(record.name)}.png"

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second photo in a file, BlurkitError for an existing picture."""
        self._claimed.add(record.name)
        self._refuse_several(len(self._claimed))
        refuse_existing(self._path(record), self._force)

    def write(self, record: Record, quiet: bool) -> None:
        """Write the picture of a restored record, or say that there is none."""
        if sheet := KernelSheet.of(record.attrs):
            sheet.write(self._path(record), self._force)
            say(f"wrote {self._path(record)}", quiet)
        else:
            say(f"{record.name}: no kernel was found, and none is written")


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
    search diverged, the photo stays as it is. `blind_kernel_reproduced` is the PSNR in dB between
    the region and its picture blurred by the kernel; `warn` is called with a message if it is low.

    `by` names what restored the record, `strength`, 0 to 1, is the part of the change that is kept,
    and `keep_kernel` stores the blur as attribute `kernel`. Raises as `TiledSearch.result` does.
    """
    if search.region is None:
        return search.result(by, strength, keep_kernel)
    record = search.record
    about = search.result(by, 1.0, keep_kernel).attrs
    about |= {"blind_region": np.array(search.region), "restored_strength": float(strength)}
    if search.searches[0].diverged:
        return Record(record.name, record.images | {"restored": record.image("blur")}, about)
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
    `restored_change`, the RMS change in 8-bit levels. Raises BlurkitError if an image is missing.
    """
    before, after = record.image(source), record.image(made)
    attrs = {"sharpness_before": rounded_sharpness(before)}
    attrs["sharpness_after"] = rounded_sharpness(after)
    if made == "restored":
        change = to_float(after) - to_float(before)
        attrs["restored_change"] = round(255 * float(np.sqrt(np.mean(np.square(change)))), 3)
    return Record(record.name, record.images, record.attrs | attrs)


def is_left(record: Record) -> bool:
    """Return whether all windows of a record were left as they are, by its neighbours as well."""
    windows = record.attrs.get("restored_windows", 0)
    left = bool(windows) and record.attrs["restored_left"] == windows
    return left and not inversion().visible_share(record, "restored_guided")


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


def result_line(record: Record, found: str, whole: Sequence[int] | None) -> str:
    """Return a line on a restored and appraised record; `found` says what blur it had.

    `whole` is the height and width of the photo of which it is a part, None if it is whole.
    """
    before, after = (record.attrs[f"sharpness_{when}"] for when in ("before", "after"))
    part = ""
    if whole is not None:
        rows, columns = record.image("restored").shape[:2]
        part = f"the middle {columns}x{rows} pixels of {whole[1]}x{whole[0]}: "
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
