"""Deblurring: by a network that restores any blur, or by estimating a photo's blur.

Imports torch only where a network of torch is used, so that one in an ONNX file does without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blurkit.engine.engine import Engine
from blurkit.io.records import Attributes, Image, Record, from_float, to_float
from blurkit.options import check_strength
from blurkit.systems.system import inference, providers

if TYPE_CHECKING:
    from blurkit.engine.device import Precision
    from blurkit.io.checkpoints import Checkpoint


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


def deblur_by_kernel(
    checkpoint: Checkpoint, device: str = "auto", precision: Precision = "auto", **options: Any
) -> Callable[[Record], Record]:
    """Return a function that deblurs records by the blur of each part, estimated or known.

    `checkpoint` holds a deconvolution network. `options` are a known `kernel` (h, w) with its
    `gamma`; `otherwise`, an engine for what no estimate explains; `strength`, `keep_kernel` and
    `watch`; see docs/deconvolution.md. Raises BlurkitError if the checkpoint has no such network.
    """
    check_strength(options.get("strength", 1.0))
    restorer: Callable[[Record], Record] = _restorer(checkpoint, device, precision, **options)
    return restorer


def blur_estimator(
    checkpoint: Checkpoint, device: str = "auto", precision: Precision = "auto", **options: Any
) -> Callable[[Image], Attributes]:
    """Return a function that estimates the blur of images (H, W, C).

    `checkpoint` holds a deconvolution network; of `options` there is `watch`. The function returns
    `kernel` (h, w) with `blur_length`, `blur_angle`, `blur_trust` and `blur_gamma`, those that
    `deblur_by_kernel` stores, or {} where no estimate is believed. Raises BlurkitError if the
    checkpoint has no such network.
    """
    estimate: Callable[[Image], Attributes]
    estimate = _restorer(checkpoint, device, precision, **options).estimated
    return estimate


def _restorer(checkpoint: Checkpoint, device: str, precision: Precision, **options: Any) -> Any:
    from blurkit.systems.uses import network_for  # imports torch

    (folder,) = providers("deconvolving")
    network = network_for("deconvolving", checkpoint)
    return inference(folder).photo_restorer(
        network, device, precision, checkpoint=checkpoint.name, **options
    )


def kernel_summary(record: Record, otherwise: bool = False) -> str:
    """Return one line that says which blur of a record was found and inverted.

    `otherwise` says that a network restored the rest.
    """
    (folder,) = providers("deconvolving")
    line: str = inference(folder).windows_summary(record, otherwise)
    return line


def blur_too_long(record: Record) -> bool:
    """Return whether the blur that was estimated in a record is longer than can be undone well."""
    if "blur_trust" not in record.attrs:  # no blur was estimated
        return False
    (folder,) = providers("deconvolving")
    too_long: bool = inference(folder).too_long(record)
    return too_long
