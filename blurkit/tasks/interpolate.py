"""Interpolation of degradations: pictures between sharp and blurry (Section 4.3, Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.gradients import gradient_energy


def amounts(steps: int, first: float = 0.0, last: float = 1.0) -> list[float]:
    """`steps` evenly spread amounts of blur from `first` to `last`; one step is the last alone.

    0 stands for E(sharp), 1 for E(blur); numbers beyond go further on the same path.
    Raises UsageError for less than one step, and for ends that are not finite.
    """
    if steps < 1:
        raise UsageError(f"--steps {steps}: at least 1")
    if not np.isfinite([first, last]).all():
        raise UsageError(f"--from {first} --to {last}: --from and --to are finite numbers")
    return [float(amount) for amount in np.linspace(last, first, steps)[::-1]]


def frames(
    record: Record,
    engine: Engine,
    path: Sequence[float],
    checkpoint: str,
    deblur: bool = False,
    spherical: bool = False,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the frames of a record that holds `sharp` and `blur`, each with the work that makes it.

    Frame k is named RECORD/k and gets `reblurred`, the sharp image with so much of its blur, or, to
    `deblur`, `restored` from the blurry one; `amount` and `gradient_energy` are among its
    attributes. `engine` runs a network for interpolation of that kind; `spherical` mixes along a
    circle. Images are (H, W, C), the size and depth of what they are made from. Raises BlurkitError
    if an image is missing.
    """
    record.image("sharp"), record.image("blur")
    digits = len(str(len(path) - 1))
    for number, amount in enumerate(path):
        name = f"{record.name}/{number:0{digits}d}"
        attrs = {**record.attrs, "frame": number, "amount": amount}
        frame = Record(name, record.images, attrs)
        yield frame, partial(_frame, frame, engine, checkpoint, deblur, spherical)


def _frame(frame: Record, engine: Engine, checkpoint: str, deblur: bool, spherical: bool) -> Record:
    sharp, blur = frame.images["sharp"], frame.images["blur"]
    source, key = (blur, "restored") if deblur else (sharp, "reblurred")
    images = map(to_float, (source, sharp, blur))
    made = engine(*images, amount=frame.attrs["amount"], spherical=spherical)
    image = from_float(made, source.dtype)
    attrs = {
        **frame.attrs,
        "gradient_energy": gradient_energy(image),
        f"{key}_by": checkpoint,
        f"{key}_with": engine.told(),
    }
    return Record(frame.name, {**frame.images, key: image}, attrs)
