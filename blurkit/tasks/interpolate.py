"""Interpolation of degradations: images between sharp and blurry (Section 4.3, Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.sharpness import gradient_energy
from blurkit.tasks.reblur import reproduction


def amounts(steps: int, first: float = 0.0, last: float = 1.0) -> list[float]:
    """Return `steps` evenly spaced amounts of blur from `first` to `last`; one step gives `last`.

    0 means E(sharp), 1 means E(blur); other numbers continue on the same path.
    Raises UsageError if `steps` is below 1 or an end is not finite.
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
    """Yield the frames of a record with `sharp` and `blur`, each with a function to compute it.

    Frame k is named RECORD/k and gets `reblurred`, the sharp image with that amount of its blur, or
    with `deblur`, `restored` from the blurry one; its attributes include `amount` and
    `gradient_energy`. A reblurred frame of amount 1 gets the PSNRs of `reproduction`, which say
    whether it has the blur of the blurry image. `engine` runs a network for interpolation of that
    kind; `spherical` mixes along a circle. Images are (H, W, C), with the size and depth of their
    source. Raises BlurkitError if an image is missing.
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
    reached = frame.attrs["amount"] == 1 and not deblur
    attrs = {
        **frame.attrs,
        **(reproduction(image, sharp, blur) if reached else {}),
        "gradient_energy": gradient_energy(image),
        f"{key}_by": checkpoint,
        f"{key}_with": engine.summary(),
    }
    return Record(frame.name, {**frame.images, key: image}, attrs)
