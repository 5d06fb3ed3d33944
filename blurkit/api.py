"""What the commands do, as Python calls on arrays and records.

An image is an array (H, W, 3), (H, W, 1) or (H, W): uint8, uint16, or floats in [0, 1]. What comes
back has its shape and its depth, floats as float32. A record comes back as the command would write
it, with the new image beside its own and how it was made among its attributes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from blurkit.data import sources
from blurkit.engine.device import Precision, choose_device
from blurkit.engine.engine import Engine, Protocol
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io import checkpoints
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, check_image
from blurkit.io.sinks import open_sink
from blurkit.metrics.contextual import Contextual, ContextualSimilarity, contextual_network
from blurkit.nn.features import FeatureNetwork, find_features
from blurkit.systems.dbgan.inference import NoisyBlur, drawing_network, noisy_blur
from blurkit.systems.deconvolution.beginning import shipped_deconvolution, shipped_estimator
from blurkit.systems.deconvolution.deblurring import ShakeDeblurring
from blurkit.systems.kernel_space.inference import coded_network
from blurkit.systems.kernel_space.search_context import load_context
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.systems.roles import assemble
from blurkit.tasks import blind_deblur as blind
from blurkit.tasks import deblur as deblurring
from blurkit.tasks import interpolate as interpolation
from blurkit.tasks import reblur as reblurring
from blurkit.weights.shipped import load_shipped

Picture = TypeVar("Picture", np.ndarray, Record)

SHOWN = ("restored", "reblurred", "blur", "sharp")
"""The image of a record that image files and folders receive: the first that is there."""

# ---- files ---------------------------------------------------------------------------------------


def load_checkpoint(
    source: str | Path | None = None,
    encoder: str | Path | Sequence[str | Path] = (),
    system: str | None = None,
) -> Checkpoint:
    """The networks in a file of blurkit or of the official code, or on standard input for `-`.

    Without a `source` they are those that come with blurkit, of the `system` msdi (None) or
    kernel-space; with one, UsageError is raised for a `system`. `encoder` is a file, or several,
    whose encoder or latents take the place of the checkpoint's. The calls below build a
    checkpoint's networks once and keep them while it lives, so that what is changed in it later has
    no effect.
    Raises BlurkitError for a file that is missing, damaged or no checkpoint.
    """
    if source is not None and system is not None:
        raise UsageError("system chooses among the weights that come with blurkit, not in a file")
    if source is None:
        loaded = load_shipped(system or "msdi")
    else:
        loaded = checkpoints.load_checkpoint(source)
    files = [encoder] if isinstance(encoder, (str, Path)) else encoder
    if files:
        networks = assemble(loaded, *map(checkpoints.load_checkpoint, files))
        loaded.networks = {role: network.state_dict() for role, network in networks.items()}
    return loaded


def read_records(
    *inputs: str | Path, image: str = "blur", blur: str = "blur", on_error: OnError = raise_error
) -> Iterator[Record]:
    """The records of images, folders, datasets and shards, one in memory at a time.

    A single image gets the role `image`; `blur` is a dataset's blur folder, such as `blur_gamma`.
    The first bad item raises BlurkitError, unless `on_error` takes it: `on_error(where, error)`.
    """
    return sources.read_records(inputs, image=image, blur=blur, on_error=on_error)


def write_records(records: Iterable[Record], output: str | Path, force: bool = False) -> int:
    """Write records to an image, a folder, a shard (.h5) or `-`, as `-o` does; returns how many.

    A folder is there already or ends in `/`. Image files receive the restored image, else the
    reblurred, else the blurry, else the sharp one. Raises BlurkitError for what exists already,
    unless `force`, and UsageError for an output of another kind.
    """
    count = 0
    with open_sink(str(output), SHOWN, "written", force) as sink:
        for record in records:
            sink.write(record)
            count += 1
    return count


# ---- pictures ------------------------------------------------------------------------------------


def deblur(
    image: Picture,
    checkpoint: Checkpoint | None = None,
    *,
    strength: float = 1.0,
    tile: int | None = None,
    overlap: int | None = None,
    protocol: Protocol = "tiles",
    device: str = "auto",
    precision: Precision = "auto",
) -> Picture:
    """`image` without its blur, or a record with `restored` made from its `blur`.

    Without a `checkpoint` the blur of each part is estimated and undone where that should be better
    than MSDI-Net, as `blurkit deblur` does without -c; tiles are MSDI-Net's then.
    `strength` is how much is restored, from 0 (the image as it is) to 1 (all).
    `tile` is the side in pixels the networks work at (None: the size they were trained on),
    `overlap` what tiles share (None: 32 or half a tile); `protocol` "slices", "whole" or "local" is
    how papers measured. `device` is auto, cpu, cuda, cuda:N or mps, `precision` auto, fp32, bf16 or
    fp16. Raises BlurkitError for a checkpoint without networks for it and an image that is none.
    """
    build = deblurring.deblurring_network
    weights = load_shipped() if checkpoint is None else checkpoint
    engine = _engine(weights, build, {}, tile, overlap, device, precision, protocol)
    record = _record(image, "blur")
    if checkpoint is None:
        deblurring.check_strength(strength)
        name = load_shipped("deconvolution").name
        record = ShakeDeblurring(
            shipped_deconvolution(device, precision), name, otherwise=engine, strength=strength
        )(record)
    else:
        record = deblurring.deblur(record, engine, weights.name, strength)
    return _as_given(image, record, "restored")


def blind_deblur(
    image: Picture,
    checkpoint: Checkpoint | None = None,
    *,
    preset: str = "default",
    generator: str | Path | Sequence[str | Path] = (),
    features: str | Path | None = None,
    strength: float = 1.0,
    keep_kernel: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    **options: Any,
) -> Picture:
    """`image` without its blur, both searched at once, or a record with `restored`.

    As `blurkit deblur --blind`: `checkpoint` holds F and G of a kernel space (None: those that come
    with blurkit), `options` are fields of `BlindOptions` on top of the `preset`; `generator` are
    the files of a StyleGAN, `features` that of a feature network. With `keep_kernel` a record's
    attribute `kernel` is the blur that was found. A search that diverges gives its last good
    image, and warns. Other options and errors are those of `deblur`.
    """
    chosen = BlindOptions.resolve(preset, **options)
    if checkpoint is None and chosen.operator == "kernel-space":
        checkpoint = load_shipped("kernel-space")
    files = [generator] if isinstance(generator, (str, Path)) else generator
    estimator = shipped_estimator(device, precision) if chosen.start_estimate else None
    context = load_context(chosen, checkpoint, files, features, device, precision, estimator)
    job = blind.Job(_record(image, "blur"), context, tile, overlap)
    if keep_kernel:
        job.check_one_blur()
    for finished in blind.run([job], chosen.batch, warn=warnings.warn):
        by = checkpoint.name if checkpoint else chosen.operator
        record = finished.result(by, strength, keep_kernel)
    if iteration := record.attrs.get("blind_diverged"):
        warnings.warn(f"the search diverged at iteration {iteration}", stacklevel=2)
    return _as_given(image, record, "restored")


def reblur(
    image: Picture,
    like: np.ndarray | Record,
    checkpoint: Checkpoint,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Picture:
    """A sharp `image` blurred like the blurry image `like`, or a record with `reblurred`.

    A record's `sharp` is blurred, like the `blur` of `like`, which may be the record itself. The
    sizes may differ. For a blur kernel space `like` is a record of a pair. Options and errors are
    those of `deblur`.
    """
    build = reblurring.reblurring_network
    engine = _engine(checkpoint, build, {}, tile, overlap, device, precision)
    record = reblurring.reblur(
        _record(image, "sharp"), _record(like, "blur"), engine, checkpoint.name
    )
    return _as_given(image, record, "reblurred")


def transfer(
    image: Picture,
    pair: Record | Mapping[str, np.ndarray],
    checkpoint: Checkpoint,
    *,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Picture:
    """`image` with the blur of another scene's `pair`, `sharp` and `blur`; or such a record.

    A record tells by `reblurred_psnr` how near the pair's own sharp image, reblurred, comes to its
    blurry one, and by `reblurred_psnr_sharp` how near it was, in dB. Options and errors are those
    of `deblur`.
    """
    build = reblurring.reblurring_network
    engine = _engine(checkpoint, build, {}, tile, overlap, device, precision)
    if not isinstance(pair, Record):
        pair = Record("pair", {role: _checked(array, role) for role, array in pair.items()})
    record = reblurring.reblur(_record(image, "sharp"), pair, engine, checkpoint.name)
    if isinstance(image, Record):
        record.attrs |= reblurring.reproduce(pair, engine)
    return _as_given(image, record, "reblurred")


def random_blur(
    image: Picture,
    checkpoint: Checkpoint,
    *,
    seed: int = 0,
    scale: float | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Picture:
    """A sharp `image` with a new blur, or a record with `reblurred` made from its `sharp`.

    `checkpoint` holds a BGAN, or is of a variational blur kernel space; UsageError is raised for
    one that is not variational. Noise or code is normal with standard deviation `scale` (None: 1,
    of a code 1.2), drawn by `seed` and a record's name. Other options and errors are those of
    `deblur`.
    """
    engine = _engine(checkpoint, drawing_network, {}, tile, overlap, device, precision)
    by_noise = isinstance(engine.network, NoisyBlur)
    draw = partial(noisy_blur if by_noise else reblurring.random_blur, seed=seed)
    if scale is not None:
        draw = partial(draw, scale=scale)
    record = draw(_record(image, "sharp"), engine, checkpoint.name)
    return _as_given(image, record, "reblurred")


def apply_kernel(
    image: Picture,
    kernel: ArrayLike,
    checkpoint: Checkpoint | None = None,
    *,
    gamma: float = 1.0,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Picture:
    """A sharp `image` blurred by a `kernel`, or a record with `reblurred` made from its `sharp`.

    A kernel (height, width) is convolved with, in light `gamma` away from pixel values; a code
    (code, rows, columns) is of the blur kernel space in `checkpoint`. Both are what
    `deblur --blind --keep-kernel` puts among a record's attributes. Other options and errors are
    those of `deblur`.
    """
    engine, array = None, np.asarray(kernel)
    if checkpoint is not None and array.ndim != 2:
        engine = _engine(checkpoint, coded_network, {}, tile, overlap, device, precision)
    record = _record(image, "sharp")
    name = checkpoint.name if checkpoint is not None else ""
    record = reblurring.apply_kernel(record, array, "kernel", engine, name, gamma)
    return _as_given(image, record, "reblurred")


def interpolate(
    image: Picture,
    like: np.ndarray | Record,
    checkpoint: Checkpoint,
    *,
    steps: int = 7,
    first: float = 0.0,
    last: float = 1.0,
    deblur: bool = False,
    spherical: bool = False,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> list[Picture]:
    """The frames between a sharp `image` and the blurry one of the same scene, `like`.

    Of records it takes the `sharp` of the one and the `blur` of the other, which may be the same.
    `steps` frames go from the amount of blur `first` to `last`: 0 is the sharp image's, 1 the
    blurry one's. With `deblur` the blurry image is restored along the path instead. `spherical`
    mixes degradations along a circle. Other options and errors are those of `deblur`.
    """
    build = interpolation.interpolation_network
    options = {"deblur": deblur, "spherical": spherical}
    engine = _engine(checkpoint, build, options, tile, overlap, device, precision)
    record, blurry = _record(image, "sharp"), _record(like, "blur")
    both = {**record.images, "blur": blurry.image("blur")}
    path = interpolation.amounts(steps, first, last)
    frames = interpolation.frames(
        Record(record.name, both, record.attrs), engine, path, checkpoint.name
    )
    key = "restored" if deblur else "reblurred"
    return [_as_given(image, work(), key) for _, work in frames]


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
    """How alike image `x` is to `y`, the one it is held to, aligned or not, of any sizes.

    The result's `distance` is what papers print, -log CX: 0 is the same, smaller is more similar.
    `features` is the file of a feature network (None: the one in BLURKIT_FEATURES, or VGG-19 in
    torch's cache), `layers` are some of its layers; `bandwidth` and `distance` (cosine, l1, l2) are
    those of Mechrez et al. 2018. Raises BlurkitError without a network and for too small an image.
    """
    network = _features(find_features(features), tuple(layers), device)
    compare = ContextualSimilarity(network, bandwidth, distance)
    return compare(_checked(x, "x"), _checked(y, "y"))


# ---- arrays as records ---------------------------------------------------------------------------


def _record(image: np.ndarray | Record, role: str) -> Record:
    return image if isinstance(image, Record) else Record("image", {role: _checked(image, role)})


def _checked(array: np.ndarray, where: str) -> np.ndarray:
    """A user's array as a record's image."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        image = check_image(array.astype(np.float32), where)
        if image.min() < 0 or image.max() > 1:
            low, high = image.min(), image.max()
            raise BlurkitError(f"{where}: values from {low:g} to {high:g}; floats are in [0, 1]")
        return image
    return check_image(array, where)


def _as_given(given: Picture, record: Record, role: str) -> Picture:
    """The result for what was given: a record, or an array of the shape of the array."""
    result: Any = record
    if not isinstance(given, Record):
        result = record.images[role].reshape(np.shape(given))
    return result


# ---- networks that are kept ----------------------------------------------------------------------

KEPT = 4
"""Engines at a time: one for every purpose, checkpoint and set of options used of late."""

_engines: dict[object, Engine] = {}


def _engine(
    checkpoint: Checkpoint,
    build: Callable[..., nn.Module],
    options: Mapping[str, bool],
    tile: int | None,
    overlap: int | None,
    device: str,
    precision: Precision,
    protocol: Protocol = "tiles",
) -> Engine:
    """The engine for the network that `build` makes of a checkpoint, kept while that lives."""
    key = (id(checkpoint), build, *options.values(), tile, overlap, device, precision, protocol)
    if key not in _engines:
        network = build(checkpoint, **options)
        side = deblurring.trained_tile(checkpoint, network) if tile is None else tile
        engine = Engine(network, side, overlap, device, precision, protocol)
        while len(_engines) >= KEPT:
            del _engines[next(iter(_engines))]
        _engines[key] = engine
        weakref.finalize(checkpoint, partial(_engines.pop, key, None))
    return _engines[key]


@lru_cache(maxsize=2)
def _features(path: Path, layers: tuple[str, ...], device: str) -> FeatureNetwork:
    return contextual_network(path, layers, choose_device(device))
