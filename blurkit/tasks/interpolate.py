"""Interpolation of degradations: pictures between sharp and blurry (Section 4.3, Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.gradients import gradient_energy
from blurkit.systems.kernel_space.inference import Transfer
from blurkit.systems.msdi.inference import GuidedGenerator, guided
from blurkit.systems.roles import assemble, held
from blurkit.tasks.reblur import reblurring_network


def interpolation_network(
    checkpoint: Checkpoint, *encoders: Checkpoint, deblur: bool = False, spherical: bool = False
) -> GuidedGenerator:
    """G_r, or G_d with `deblur`, steered by a mixture of two degradation maps.

    `spherical` mixes along a circle instead of a line. Encoder and latents come from `encoders`
    where they are given. Raises BlurkitError naming what the checkpoint holds when that is not
    enough.
    """
    if not deblur:
        network = reblurring_network(checkpoint, *encoders)
        if isinstance(network, Transfer):
            raise BlurkitError(
                f"{checkpoint.where}: holds a blur kernel space; interpolate needs MSDI-Net's "
                "encoder, latents and reblurring generator"
            )
    else:
        networks = assemble(checkpoint, *encoders)
        found = guided(networks, "deblur")
        if found is None:
            raise BlurkitError(
                f"{checkpoint.where}: holds {held(networks)}; interpolate --deblur needs an "
                "encoder, latents and a deblurring generator, or a whole MSDI-Net"
            )
        network = found
    network.spherical = spherical
    return network


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
    record: Record, engine: Engine, path: Sequence[float], checkpoint: str
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """The frames of a record that holds `sharp` and `blur`, each with the work that makes it.

    Frame k is named RECORD/k and gets `reblurred`, the sharp image with so much of its blur, or
    `restored` where `engine` runs a deblurring network; `amount` and `gradient_energy` are among
    its attributes. Images are (H, W, C), the size and depth of what they are made from.
    Raises BlurkitError when an image is missing.
    """
    record.image("sharp"), record.image("blur")
    digits = len(str(len(path) - 1))
    for number, amount in enumerate(path):
        name = f"{record.name}/{number:0{digits}d}"
        attrs = {**record.attrs, "frame": number, "amount": amount}
        frame = Record(name, record.images, attrs)
        yield frame, partial(_frame, frame, engine, amount, checkpoint)


def _frame(frame: Record, engine: Engine, amount: float, checkpoint: str) -> Record:
    network = engine.network
    assert isinstance(network, GuidedGenerator)
    network.amount = amount
    sharp, blur = frame.images["sharp"], frame.images["blur"]
    source, key = (blur, "restored") if network.restores else (sharp, "reblurred")
    made = from_float(engine(to_float(source), to_float(sharp), to_float(blur)), source.dtype)
    attrs = {
        **frame.attrs,
        "gradient_energy": gradient_energy(made),
        f"{key}_by": checkpoint,
        f"{key}_with": engine.told(),
    }
    return Record(frame.name, {**frame.images, key: made}, attrs)
