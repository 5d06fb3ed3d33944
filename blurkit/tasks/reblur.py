"""Reblurring: photos with the blur of another picture, of a kernel or code, or with random blur."""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.data.sources import ShardSource, is_stream, read_shard_source
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.films import unfilmed
from blurkit.io.records import Attributes, Image, Record, from_float, to_float
from blurkit.io.shards import is_shard
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.metrics.sharpness import gradient_energy
from blurkit.synthesis.drawing import expose, name_of_copy, seeds
from blurkit.synthesis.exposure import Exposure
from blurkit.synthesis.kernels import normalised, read_kernels
from blurkit.systems.blind_search import SearchContext, retrieve_blur
from blurkit.systems.uses import Coder, Drawer, Reblurrer
from blurkit.tasks.deblur import ESTIMATED, SCORES, rounded_sharpness, with_sharpness

SAME_SCENE = 0.87
"""Correlation of two pictures from which they show one scene. Blurry and sharp images of 22 real
pairs have 0.896 and more, two different photos of 137 in BSDS500 at most 0.848."""

OF_THE_BLUR = (
    *("kernel", "kernel_name", "seed", "gamma", "noise"),
    *("average", "stride", "response", "psnr_blur"),
)
"""Attributes that describe how a record's blur was made and how strong it is. Those of exposures,
which begin with `blur_`, do so too."""

# ---- like another --------------------------------------------------------------------------------


def reblur(record: Record, like: Record, engine: Engine) -> Record:
    """Return `record` with `reblurred`: its `sharp` with the blur of the `blur` of `like` (Eq. 3).

    A blur kernel space uses the `sharp` of `like` too. The result has the photo's own size and
    depth; the two records may differ in size. The attributes of `with_reblurred` describe it, and
    if `like` is `record` itself, the PSNRs of `reproduction`. Raises BlurkitError if an image is
    missing, the images of a pair differ in size, or the network fails.
    """
    sharp = record.image("sharp", "restored")
    started = time.perf_counter()
    reblurred = with_guides(sharp, like, engine)
    finished = with_reblurred(record, reblurred, like.name, engine.name, engine.summary(), started)
    if like is record:
        finished.attrs |= reproduction(reblurred, sharp, like.image("blur"))
    return finished


def with_guides(
    sharp: Image,
    like: Record,
    engine: Engine,
    drawn: Mapping[str, Any] | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Image:
    """Return an image with the blur that a network takes from the images of `like`.

    `drawn` are random values for the network. The depth stays, unless a `dtype` is given. Raises
    BlurkitError if an image of `like` is missing or they differ in size, or if the network fails.
    """
    network = engine.runner.network
    assert isinstance(network, Reblurrer)
    roles = network.guides
    if len(roles) > 1 and not set(roles) <= like.images.keys():
        raise BlurkitError(
            f"record {like.name!r} holds {', '.join(like.images)}; this network takes the blur of "
            f"a pair, {' and '.join(roles)}"
        )
    like.check_one_size(*roles)
    images = (sharp, *(like.image(role) for role in roles))
    blurred = engine(*map(to_float, images), **(drawn or {}))
    return from_float(blurred, sharp.dtype if dtype is None else dtype)


def with_reblurred(
    record: Record, reblurred: Image, like: str, by: str, settings: str, started: float
) -> Record:
    """Return `record` with `reblurred` and the attributes that describe how it was made.

    `like` names the source of the blur, `by` the checkpoint or operation, `settings` how it ran.
    """
    about = {
        "reblurred_like": like,
        "reblurred_by": by,
        "reblurred_with": settings,
        "reblurred_seconds": round(time.perf_counter() - started, 4),
    }
    kept = {key: value for key, value in record.attrs.items() if key not in SCORES}
    return Record(record.name, record.images | {"reblurred": reblurred}, kept | about)


def reblurred_like(record: Record, like: Record, engine: Engine) -> Record:
    """Return `reblur`'s record, appraised; `sharpness_like` is that of the other record's `blur`.

    If both show one scene at one size, the PSNRs of `reproduction` are measured, too.
    """
    finished = _beside(reblur(record, like, engine), record, like)
    finished.attrs["sharpness_like"] = rounded_sharpness(like.image("blur"))
    return finished


def with_estimated_blur(
    estimate: Callable[[Image], Attributes],
    otherwise: Callable[[Record, Record], Record] | None = None,
) -> Callable[[Record, Record], Record]:
    """Return the function of `record` and `like` that blurs the first like the second.

    `record` gets `reblurred`: its `sharp` with the kernel that is estimated in the `blur` of
    `like`, whose direction it keeps. `ESTIMATED` attributes describe the kernel, the others are
    those of `reblurred_like`. `estimate` returns `kernel` (h, w), `blur_gamma`, `blur_length`,
    `blur_angle` and `blur_trust` of an image, or {} if it believes none; `otherwise` then blurs the
    record (None: BlurkitError is raised). The last estimate is kept.
    """
    last: tuple[Record | None, Attributes] = None, {}

    def blurred(record: Record, like: Record) -> Record:
        nonlocal last
        if last[0] is not like:
            last = like, estimate(like.image("blur"))
        if found := last[1]:
            made = apply_kernel(record, found["kernel"], like.name, gamma=found["blur_gamma"])
            made.attrs |= {f"reblurred_{key}": found[f"blur_{key}"] for key in ESTIMATED}
            return _beside(made, record, like)
        if otherwise is not None:
            return otherwise(record, like)
        raise BlurkitError(f"no uniform blur is found in {like.name}; --method network needs none")

    return blurred


def _beside(finished: Record, record: Record, like: Record) -> Record:
    """Return `record` reblurred like another, appraised, and measured if both show one scene."""
    source = "sharp" if "sharp" in record.images else "restored"
    finished = with_sharpness(finished, "reblurred", source)
    sharp, blur = record.image(source), like.image("blur")
    if like is not record and _one_scene(sharp, blur):
        finished.attrs |= reproduction(finished.images["reblurred"], sharp, blur)
    return finished


def retrieve(record: Record, context: SearchContext, checkpoint: str) -> Record:
    """Return `record` with `reblurred`: its `sharp` with a blur found to produce its `blur`.

    Random values depend only on the seed of `context` and the record's name. Raises BlurkitError if
    an image is missing, the two differ in size, memory runs out or the search diverges.
    """
    sharp, blur = record.image("sharp"), record.image("blur")
    record.check_one_size("sharp", "blur")
    started = time.perf_counter()
    generator = np.random.default_rng(seeds(context.options.seed, record.name))
    image, settings = retrieve_blur(context, sharp, blur, int(generator.integers(2**62)))
    reblurred = from_float(image, sharp.dtype)
    finished = with_reblurred(record, reblurred, record.name, checkpoint, settings, started)
    finished.attrs |= reproduction(reblurred, sharp, blur)
    return finished


def reproduce(pair: Record, engine: Engine) -> dict[str, float]:
    """Return the `reproduction` of a pair's blur on its own sharp image; raise as `reblur` does."""
    sharp, blur = pair.image("sharp"), pair.image("blur")
    return reproduction(with_guides(sharp, pair, engine), sharp, blur)


def reproduction(reblurred: Image, sharp: Image, blur: Image) -> dict[str, float]:
    """Return the PSNR of a reblurred image, and of its sharp source, against the real blurry one.

    It is in dB on 8-bit values, by `SCORES`. Raises BlurkitError for images of different sizes.
    """
    target = eight_bit(blur)
    scores = (psnr(eight_bit(image), target) for image in (reblurred, sharp))
    return dict(zip(SCORES, scores, strict=True))


def _one_scene(first: Image, second: Image) -> bool:
    """Return whether two images have one shape and depth and their pixels are as similar."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    values = np.stack([to_float(image).ravel() for image in (first, second)])
    return bool(values.std(axis=1).all()) and float(np.corrcoef(values)[0, 1]) >= SAME_SCENE


# ---- by a kernel, a code, or chance --------------------------------------------------------------


def apply_kernel(
    record: Record,
    kernel: np.ndarray,
    name: str = "kernel",
    engine: Engine | None = None,
    gamma: float = 1.0,
) -> Record:
    """Return `record` with `reblurred`: its `sharp` blurred by `kernel`, whose name is `name`.

    A kernel (height, width) is divided by its sum and convolved with light, that is, pixel values
    to the power of `gamma`, as `prepare --kernels` does. A code (code, rows, columns) goes into F,
    which `engine` runs as a `CodedBlur`. Attributes are those of `reblur`. Raises BlurkitError if
    there is no image or no network that fits a code, UsageError unless `gamma` is above 0.
    """
    if not 0 < gamma < math.inf:
        raise UsageError(f"--gamma {gamma:g}: a gamma is above 0; 1 leaves the values unchanged")
    sharp = record.image("sharp", "restored")
    started = time.perf_counter()
    if kernel.ndim == 2:
        exposure = Exposure("shake", 0, kernel=normalised(kernel, name), gamma=gamma)
        reblurred, _ = expose(sharp, exposure)
        return with_reblurred(record, reblurred, name, "convolution", f"gamma={gamma:g}", started)
    if engine is None:
        raise BlurkitError(f"{name}: a blur code, which needs the networks it was found with")
    network = engine.runner.network
    assert isinstance(network, Coder)
    try:
        condition = network.condition(kernel, sharp)
        reblurred = from_float(engine(to_float(sharp), **condition), sharp.dtype)
    except BlurkitError as error:
        raise BlurkitError(f"{name}: {error}") from error
    return with_reblurred(record, reblurred, name, engine.name, engine.summary(), started)


def random_blur(
    record: Record, engine: Engine, seed: int = 0, scale: float | None = None
) -> Record:
    """Return `record` with `reblurred`: its `sharp` with a random blur.

    `engine` runs a `Drawer`, whose noise is normal with standard deviation `scale` (None: as the
    network draws by default). Random values depend only on `seed` and the record's name, or that of
    the film whose frame it is; the record keeps them where the network can.
    """
    network = engine.runner.network
    assert isinstance(network, Drawer)
    sharp = record.image("sharp", "restored")
    started = time.perf_counter()
    generator = np.random.default_rng(seeds(seed, record.attrs.get("film", record.name)))
    image = to_float(sharp)
    if scale is None:
        drawn, scale = network.typical(image, generator)
    else:
        drawn = network.drawn(image, generator, scale)
    reblurred = from_float(engine(image, **drawn), sharp.dtype)
    how = network.use, engine.name, engine.summary()
    finished = with_reblurred(record, reblurred, *how, started)
    finished.attrs |= {"reblurred_seed": seed, **network.kept(drawn)}
    if scale is not None:
        finished.attrs["reblurred_scale"] = scale
    return finished


def versions(record: Record, copies: int) -> Iterator[Record]:
    """Yield copies of `record`, numbered after the first one; of a frame, they are images."""
    attrs = record.attrs if copies == 1 else unfilmed(record.attrs)
    for copy in range(copies):
        frame = {"frame": copy} if copy else {}
        yield Record(name_of_copy(record.name, copy), record.images, attrs | frame)


# ---- data sets -----------------------------------------------------------------------------------


def transferred(
    record: Record, copy: int, pairs: Sequence[Record], engine: Engine, seed: int
) -> Record:
    """Return `record` as a training pair: its `sharp` gets the blur of one of `pairs`.

    The choice depends only on `seed`, the record's name and `copy`, its version. So do the random
    values of a variational kernel space: k = mean + deviation * N(0, 1), as in the released code
    (Section 4.4). The attributes of an older blur are left out. Raises as `reblur` does.
    """
    sharp = record.image("sharp")
    generator = np.random.default_rng(seeds(seed, record.name, copy))
    pair = pairs[int(generator.integers(len(pairs)))]
    network = engine.runner.network
    assert isinstance(network, Reblurrer)
    blur = with_guides(sharp, pair, engine, network.drawn(sharp, generator))
    about = {
        "blur_from": pair.name,
        "transferred_by": engine.name,
        "transferred_with": engine.summary(),
        "seed": seed,
    }
    images = {"blur": blur, "sharp": sharp}
    return Record(name_of_copy(record.name, copy), images, _without_blur(record.attrs) | about)


def _without_blur(attrs: Attributes) -> Attributes:
    return {k: v for k, v in attrs.items() if k not in OF_THE_BLUR and not k.startswith("blur_")}


def swapped(record: Record) -> Record:
    """Return a reblurred record as a training pair: its `blur` is the reblurred image.

    `blur_from` names the record that the blur comes from; attributes of its own are left out.
    """
    images = {"blur": record.images["reblurred"], "sharp": record.image("sharp", "restored")}
    own = _without_blur(record.attrs).items()
    attrs = {"blur_from" if key == "reblurred_like" else key: value for key, value in own}
    return Record(record.name, images, attrs)


def exchange(count: int, seed: int) -> list[int]:
    """Return a random permutation of `count` records that moves every one (Sattolo, 1986).

    Raises BlurkitError for fewer than two records.
    """
    if count < 2:
        raise BlurkitError(f"--shuffle needs two records at least to exchange blurs; found {count}")
    generator, donors = random.Random(seed), list(range(count))
    for last in range(count - 1, 0, -1):
        other = generator.randrange(last)
        donors[last], donors[other] = donors[other], donors[last]
    return donors


def draw(references: int, seed: int) -> Iterator[int]:
    """Yield indices below `references` without end, all in random order before any is repeated."""
    generator = random.Random(seed)
    while True:
        yield from generator.sample(range(references), references)


# ---- Interpolation -------------------------------------------------------------------------------


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
    deblur: bool = False,
    spherical: bool = False,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Yield the frames of a record with `sharp` and `blur`, each with a function to compute it.

    Frame k is named RECORD/k and gets `reblurred`, the sharp image with that amount of its blur, or
    with `deblur`, `restored` from the blurry one; its attributes include `amount` and
    `gradient_energy`, and for a reblurred frame of amount 1 the PSNRs of `reproduction`. `engine`
    runs a network for interpolation of that kind; `spherical` mixes along a circle. Size and depth
    are those of the source. Raises BlurkitError if an image is missing.
    """
    record.image("sharp"), record.image("blur")
    digits = len(str(len(path) - 1))
    for number, amount in enumerate(path):
        name = f"{record.name}/{number:0{digits}d}"
        frame = Record(name, record.images, {**record.attrs, "frame": number, "amount": amount})
        yield frame, partial(_frame, frame, engine, deblur, spherical)


def _frame(frame: Record, engine: Engine, deblur: bool, spherical: bool) -> Record:
    sharp, blur, amount = frame.images["sharp"], frame.images["blur"], frame.attrs["amount"]
    source, key = (blur, "restored") if deblur else (sharp, "reblurred")
    made = engine(*map(to_float, (source, sharp, blur)), amount=amount, spherical=spherical)
    image = from_float(made, source.dtype)
    about = {
        **(reproduction(image, sharp, blur) if amount == 1 and not deblur else {}),
        "gradient_energy": gradient_energy(image),
        f"{key}_by": engine.name,
        f"{key}_with": engine.summary(),
    }
    return Record(frame.name, frame.images | {key: image}, frame.attrs | about)


# ---- Blurs ---------------------------------------------------------------------------------------


def read_blurs(source: str) -> list[tuple[str, np.ndarray]]:
    """Return the (name, blur) of each blur in `source`: kernels, or codes of a blur kernel space.

    In a shard, or in a stream (`-`), the blur is each record's attribute `kernel`, (height, width)
    for a kernel and (code, rows, columns) for a code. Any other source is read by `read_kernels`.
    Raises BlurkitError as that does, if a record has no blur, and if there is no record.
    """
    if not is_stream(source) and not is_shard(Path(source)):
        return list(read_kernels(Path(source)))
    blurs = []
    for record in read_shard_source(ShardSource(source), pixels=False):
        blur = record.attrs.get("kernel")
        if not isinstance(blur, np.ndarray):
            raise BlurkitError(
                f"{source}: record {record.name!r} holds no kernel; "
                "blind-deblur --keep-kernel writes one"
            )
        blurs.append((record.name, blur))
    if not blurs:
        raise BlurkitError(f"{source}: holds no records")
    return blurs
