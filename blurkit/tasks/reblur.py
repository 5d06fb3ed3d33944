"""Reblurring: photos with the blur of another picture, of a kernel or code, or with a new one.

And how well the blur of a pair is reproduced on its own sharp image.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.synthesis.blurred_records import expose, name_of_copy, seeds
from blurkit.synthesis.exposure import Exposure
from blurkit.synthesis.kernels import normalised
from blurkit.systems.kernel_space.inference import (
    CodedBlur,
    Transfer,
    apply_code,
    places,
    random_map,
)
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.msdi.inference import GuidedGenerator, guided
from blurkit.systems.roles import assemble, held

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
"""Attributes that tell how a record's blur was made, and how strong it is. So do those of
exposures, which begin with `blur_`."""

RANDOM_SCALE = 1.2
"""The standard deviation of a new blur's code, that of the released code."""


def reblurring_network(
    checkpoint: Checkpoint, *encoders: Checkpoint, system: str | None = None
) -> GuidedGenerator | Transfer:
    """The network of a checkpoint that puts another picture's blur onto a photo, in eval mode.

    G_r of MSDI-Net with its encoder, (sharp, blur) to sharp + G_r(sharp, E(blur)) (Eq. 3), with
    encoder and latents from `encoders` where they are given; else F and G of a blur kernel space.
    `system`, msdi or kernel-space, tells which it has to be. Raises BlurkitError naming what the
    checkpoint holds when that is not enough, UsageError when it is of another system.
    """
    networks = assemble(checkpoint, *encoders)
    network, space = guided(networks, "reblur"), networks.get("kernel_space")
    if network is not None and system != "kernel-space":
        return network
    if isinstance(space, EncodedBlur) and system != "msdi":
        if encoders:
            raise UsageError(f"{checkpoint.where}: a blur kernel space has no use for --encoder")
        return Transfer(space).eval()
    if system is not None:
        raise UsageError(f"{checkpoint.where}: holds {held(networks)}, not --system {system}")
    raise BlurkitError(
        f"{checkpoint.where}: holds {held(networks)}; reblur needs encoder, latents and a "
        "reblurring generator, or a blur kernel space, as train-reblur writes them"
    )


# ---- like another --------------------------------------------------------------------------------


def reblur(record: Record, like: Record, engine: Engine, checkpoint: str) -> Record:
    """`record` with `reblurred`: its `sharp` with the blur of the `blur` of `like` (Eq. 3).

    A blur kernel space takes the `sharp` of `like` too. The result has the photo's own size and
    depth; the two records need not be of one size. Attributes
    `reblurred_like`, `reblurred_by`, `reblurred_with` and `reblurred_seconds` say how; when the
    record has that very blur itself, `reblurred_psnr` is how near the reblurred image comes to it,
    and `reblurred_psnr_sharp` how near the sharp one was, in dB on 8-bit values.
    Raises BlurkitError when an image is missing, a pair is of two sizes, or the network fails.
    """
    sharp = record.image("sharp", "restored")
    given = guides(like, engine)
    started = time.perf_counter()
    reblurred = from_float(engine(to_float(sharp), *given), sharp.dtype)
    finished = with_reblurred(record, reblurred, like.name, checkpoint, engine.told(), started)
    if like is record:
        finished.attrs |= reproduction(reblurred, sharp, like.image("blur"))
    return finished


def guides(like: Record, engine: Engine) -> list[np.ndarray]:
    """The images of `like`, floats in [0, 1], that an engine's network takes its blur from.

    Raises BlurkitError when one is missing, or they are not of one size.
    """
    roles = getattr(engine.network, "guides", ("blur",))
    if len(roles) > 1 and not set(roles) <= like.images.keys():
        raise BlurkitError(
            f"record {like.name!r} holds {', '.join(like.images)}; a blur kernel space takes the "
            f"blur of a pair, {' and '.join(roles)}"
        )
    like.check_one_size(*roles)
    return [to_float(like.image(role)) for role in roles]


def with_reblurred(
    record: Record, reblurred: Image, like: str, by: str, told: str, started: float
) -> Record:
    """`record` with `reblurred` and the attributes that say how it was made: `like` whom, `by`
    what, as `told`, since `started`, a time of `perf_counter`."""
    attrs = {
        **{key: value for key, value in record.attrs.items() if key not in SCORES},
        "reblurred_like": like,
        "reblurred_by": by,
        "reblurred_with": told,
        "reblurred_seconds": round(time.perf_counter() - started, 4),
    }
    return Record(record.name, {**record.images, "reblurred": reblurred}, attrs)


def reproduce(pair: Record, engine: Engine) -> dict[str, float]:
    """How well the blur of a pair is reproduced on its own sharp image; see `reproduction`.

    Raises BlurkitError when an image is missing or the network fails.
    """
    sharp, blur = pair.image("sharp"), pair.image("blur")
    reblurred = from_float(engine(to_float(sharp), *guides(pair, engine)), sharp.dtype)
    return reproduction(reblurred, sharp, blur)


def reproduction(reblurred: Image, sharp: Image, blur: Image) -> dict[str, float]:
    """How near a reblurred image, and the sharp one it came from, are to the real blurry one.

    PSNR in dB on 8-bit values under the keys of `SCORES`; infinite for equal images.
    Raises BlurkitError for images of different sizes.
    """
    wanted = eight_bit(blur)
    scores = (psnr(eight_bit(image), wanted) for image in (reblurred, sharp))
    return dict(zip(SCORES, scores, strict=True))


# ---- by a kernel, a code, or chance --------------------------------------------------------------


def apply_kernel(
    record: Record,
    kernel: np.ndarray,
    name: str = "kernel",
    engine: Engine | None = None,
    checkpoint: str = "",
    gamma: float = 1.0,
) -> Record:
    """`record` with `reblurred`: its `sharp` blurred by `kernel`, whose `name` the attributes tell.

    A kernel (height, width), divided by its sum, is convolved with as `prepare --kernels` does, in
    light `gamma` away from pixel values; by 1 it is the pixel values. A code (code, rows, columns)
    goes into F, which `engine` runs for it as a `CodedBlur`. Attributes are as `reblur`'s.
    Raises BlurkitError when there is no image, and for a code without networks that it fits,
    UsageError for a gamma that is not above 0.
    """
    if not 0 < gamma < math.inf:
        raise UsageError(f"--gamma {gamma:g}: a gamma is above 0; 1 leaves the values as they are")
    sharp = record.image("sharp", "restored")
    started = time.perf_counter()
    if kernel.ndim == 2:
        exposure = Exposure("shake", 0, kernel=normalised(kernel, name), gamma=gamma)
        reblurred, _ = expose(sharp, exposure)
        return with_reblurred(record, reblurred, name, "convolution", f"gamma={gamma:g}", started)
    if engine is None:
        raise BlurkitError(f"{name}: a blur code, which needs the networks it was found with")
    try:
        reblurred = from_float(apply_code(to_float(sharp), kernel, engine), sharp.dtype)
    except BlurkitError as error:
        raise BlurkitError(f"{name}: {error}") from error
    return with_reblurred(record, reblurred, name, checkpoint, engine.told(), started)


def random_blur(
    record: Record, engine: Engine, checkpoint: str, seed: int = 0, scale: float = RANDOM_SCALE
) -> Record:
    """`record` with `reblurred`: its `sharp` with a new blur, F(sharp, k), k ~ N(0, scale^2).

    `engine` runs a variational `CodedBlur`. What is drawn and told is as in `with_drawn`.
    """
    network = engine.network
    assert isinstance(network, CodedBlur)

    def blur(sharp: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return apply_code(sharp, scale * random_map(network.network, sharp, generator), engine)

    return with_drawn(record, blur, "random", engine, checkpoint, seed, scale)


def with_drawn(
    record: Record,
    blur: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    how: str,
    engine: Engine,
    checkpoint: str,
    seed: int,
    scale: float,
) -> Record:
    """`record` with `reblurred`: what `blur` makes of its `sharp`, (H, W, C) in [0, 1].

    The generator that it draws from depends on `seed` and the record's name only. Attributes are as
    `reblur`'s, like `how`, and `reblurred_seed` and `reblurred_scale`.
    """
    sharp = record.image("sharp", "restored")
    started = time.perf_counter()
    generator = np.random.default_rng(seeds(seed, record.name))
    reblurred = from_float(blur(to_float(sharp), generator), sharp.dtype)
    finished = with_reblurred(record, reblurred, how, checkpoint, engine.told(), started)
    finished.attrs |= {"reblurred_seed": seed, "reblurred_scale": scale}
    return finished


def versions(record: Record, copies: int) -> Iterator[Record]:
    """`record` as often as wanted, all but the first with their numbers in name and `frame`."""
    for copy in range(copies):
        frame = {"frame": copy} if copy else {}
        yield Record(name_of_copy(record.name, copy), record.images, record.attrs | frame)


# ---- data sets -----------------------------------------------------------------------------------


def transferred(
    record: Record,
    copy: int,
    pairs: Sequence[Record],
    engine: Engine,
    checkpoint: str,
    seed: int = 0,
) -> Record:
    """`record` as a pair to train on, its `sharp` with the blur of one of `pairs` (Section 4.4).

    Which one depends on `seed`, the record's name and `copy`, its version, only. So does what a
    variational kernel space draws: k = mean + deviation * N(0, 1), as the released code has it.
    Attributes `blur_from`, `transferred_by`, `transferred_with` and `seed` tell of the new blur;
    what told of an older one is left out. Raises BlurkitError as `reblur` does.
    """
    sharp = record.image("sharp")
    generator = np.random.default_rng(seeds(seed, record.name, copy))
    pair = pairs[int(generator.integers(len(pairs)))]
    given = guides(pair, engine)
    network = engine.network
    if isinstance(network, Transfer) and network.network.options["variational"]:
        network.noise = torch.from_numpy(random_map(network.network, sharp, generator))
        given.append(places(sharp))
    blur = from_float(engine(to_float(sharp), *given), sharp.dtype)
    attrs = {
        **{key: value for key, value in record.attrs.items() if not _of_the_blur(key)},
        "blur_from": pair.name,
        "transferred_by": checkpoint,
        "transferred_with": engine.told(),
        "seed": seed,
    }
    return Record(name_of_copy(record.name, copy), {"blur": blur, "sharp": sharp}, attrs)


def _of_the_blur(key: str) -> bool:
    return key in OF_THE_BLUR or key.startswith("blur_")


def swapped(record: Record) -> Record:
    """A reblurred record as a pair to train on: its `blur` is the reblurred image.

    The images `sharp` and `blur` only; `blur_from` names the record whose blur it is. What told of
    its own blur is left out.
    """
    images = {"blur": record.images["reblurred"], "sharp": record.image("sharp", "restored")}
    attrs = {
        "blur_from" if key == "reblurred_like" else key: value
        for key, value in record.attrs.items()
        if not _of_the_blur(key)
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
