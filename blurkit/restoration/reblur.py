"""Reblurring: the blur of one picture put onto another, and how well that reproduces a real one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.models.roles import assemble, held
from blurkit.restoration.engine import Engine
from blurkit.restoration.guided import GuidedGenerator, guided

SCORES = ("reblurred_psnr", "reblurred_psnr_sharp")
"""Attributes of a record that was reblurred like itself: how near that, and its sharp image, come
to its blurry one."""

OF_THE_BLUR = {
    "kernel",
    "kernel_name",
    "seed",
    "gamma",
    "noise",
    "average",
    "stride",
    "response",
    "psnr_blur",
}
"""Attributes that tell how a record's blur was made, and how strong it is."""


def reblurring_network(checkpoint: Checkpoint, *encoders: Checkpoint) -> GuidedGenerator:
    """G_r of a checkpoint with its encoder: (sharp, guide) to sharp + G_r(sharp, E(guide)) (Eq. 3).

    Encoder and latents come from `encoders` where they are given. Raises BlurkitError naming what
    the checkpoint holds when that is not enough.
    """
    networks = assemble(checkpoint, *encoders)
    network = guided(networks, "reblur")
    if network is None:
        raise BlurkitError(
            f"{checkpoint.where}: holds {held(networks)}; reblur needs encoder, latents and a "
            "reblurring generator, as train-reblur writes them"
        )
    return network


def reblur(record: Record, like: Record, engine: Engine, checkpoint: str) -> Record:
    """`record` with `reblurred`: its `sharp` with the blur of the `blur` of `like` (Eq. 3).

    The size and depth of its own; the two pictures need not be of one size. Attributes
    `reblurred_like`, `reblurred_by`, `reblurred_with` and `reblurred_seconds` say how; when the
    record has that very blur itself, `reblurred_psnr` is how near the reblurred image comes to it,
    and `reblurred_psnr_sharp` how near the sharp one was, in dB on 8-bit values.
    Raises BlurkitError when an image is missing or the network fails.
    """
    sharp, blur = record.image("sharp", "restored"), like.image("blur")
    started = time.perf_counter()
    reblurred = from_float(engine(to_float(sharp), to_float(blur)), sharp.dtype)
    attrs = {
        **{key: value for key, value in record.attrs.items() if key not in SCORES},
        "reblurred_like": like.name,
        "reblurred_by": checkpoint,
        "reblurred_with": engine.told(),
        "reblurred_seconds": round(time.perf_counter() - started, 4),
    }
    if like is record:
        attrs |= reproduction(reblurred, sharp, blur)
    return Record(record.name, {**record.images, "reblurred": reblurred}, attrs)


def reproduce(pair: Record, engine: Engine) -> dict[str, float]:
    """How well the blur of a pair is reproduced on its own sharp image; see `reproduction`.

    Raises BlurkitError when an image is missing or the network fails.
    """
    sharp, blur = pair.image("sharp"), pair.image("blur")
    reblurred = from_float(engine(to_float(sharp), to_float(blur)), sharp.dtype)
    return reproduction(reblurred, sharp, blur)


def reproduction(reblurred: Image, sharp: Image, blur: Image) -> dict[str, float]:
    """How near a reblurred image, and the sharp one it came from, are to the real blurry one.

    PSNR in dB on 8-bit values under the keys of `SCORES`; infinite for equal images.
    Raises BlurkitError for images of different sizes.
    """
    wanted = eight_bit(blur)
    scores = (psnr(eight_bit(image), wanted) for image in (reblurred, sharp))
    return dict(zip(SCORES, scores, strict=True))


def swapped(record: Record) -> Record:
    """A reblurred record as a pair to train on: its `blur` is the reblurred image.

    The images `sharp` and `blur` only; `blur_from` names the record whose blur it is. What told of
    its own blur is left out.
    """
    images = {"blur": record.images["reblurred"], "sharp": record.image("sharp", "restored")}
    attrs = {
        "blur_from" if key == "reblurred_like" else key: value
        for key, value in record.attrs.items()
        if key not in OF_THE_BLUR
    }
    return Record(record.name, images, attrs)


def exchange(count: int, seed: int) -> list[int]:
    """For each of `count` records another one, each taken once and none its own (Sattolo, 1986).

    Raises BlurkitError when there is no other.
    """
    if count < 2:
        raise BlurkitError(f"--shuffle needs two records at least to exchange blurs; found {count}")
    generator = random.Random(seed)
    donors = list(range(count))
    for last in range(count - 1, 0, -1):
        other = generator.randrange(last)
        donors[last], donors[other] = donors[other], donors[last]
    return donors


def draw(references: int, seed: int) -> Iterator[int]:
    """Without end one of so many references, in random order, all before any comes again."""
    generator = random.Random(seed)
    while True:
        yield from generator.sample(range(references), references)
