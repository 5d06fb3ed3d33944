"""The commands as Python calls on arrays and records.

An image is an array (H, W, 3), (H, W, 1) or (H, W): uint8, uint16, or floats in [0, 1]. The result
for an array has its shape and depth; floats become float32. The result for a record is the record
that the command would write: it also holds the new image and attributes that describe it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from blurkit.data import sources
from blurkit.engine.device import choose_device
from blurkit.engine.engine import Engine
from blurkit.engine.onnx_runner import onnx_engine
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io import checkpoints
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.records import Record, check_image
from blurkit.metrics import sharpness as sharpness_metric
from blurkit.metrics.contextual import Contextual, ContextualSimilarity, contextual_network
from blurkit.nn.features import FeatureNetwork, find_features
from blurkit.options import (
    Method,
    Placement,
    Precision,
    Protocol,
    ValueRange,
    choose_method,
    choose_reblurring,
)
from blurkit.reports.page import RestorationReport
from blurkit.systems.system import Use, load_shipped, search_options, shipped_for_pairs
from blurkit.systems.uses import start_engine
from blurkit.tasks import deblur as deblurring
from blurkit.tasks import reblur as interpolation
from blurkit.tasks import reblur as reblurring
from blurkit.tasks.addresses import local_file, refuse_unused
from blurkit.tasks.blind_deblur import RegionJob, SearchJob, start_search
from blurkit.tasks.deblur import appraised

Photo = TypeVar("Photo", np.ndarray, Record)

WRITTEN_IMAGES = ("restored", "reblurred", "blur", "sharp")
"""The roles of the image that image files and folders receive; the first present one is used."""

# ---- files ---------------------------------------------------------------------------------------


def read_records(
    *inputs: str | Path, image: str = "blur", blur: str = "blur", on_error: OnError = raise_error
) -> Iterator[Record]:
    """Yield the records of images, folders, datasets and shards, with one in memory at a time.

    A single image gets the role `image`; `blur` is a dataset's blur folder, such as `blur_gamma`.
    The first bad item raises BlurkitError, unless `on_error(where, error)` handles it.
    """
    return sources.read_records(inputs, image=image, blur=blur, on_error=on_error)


def write_records(records: Iterable[Record], output: str | Path, force: bool = False) -> int:
    """Write records to an image, a folder, a shard (.h5) or `-`, as `-o` does; return their number.

    A folder must exist or end in `/`. Image files receive the restored image, else the reblurred,
    else the blurry, else the sharp one. Raises BlurkitError if the output exists, unless `force` is
    given, and UsageError if it is of another kind.
    """
    count = 0
    with open_sink(str(output), WRITTEN_IMAGES, "written", FileOptions(force)) as sink:
        for record in records:
            sink.write(record)
            count += 1
    return count


# ---- models --------------------------------------------------------------------------------------


def load(
    source: str | Path | Checkpoint | None = None,
    encoder: str | Path | Sequence[str | Path] = (),
    *,
    sha256: str | Sequence[str] = (),
    system: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    value_range: ValueRange | None = None,
) -> Model:
    """Return the networks in a file of blurkit or of the official code; `-` is standard input.

    A file whose name ends in `.onnx` deblurs by ONNX Runtime. If another program wrote it,
    `value_range` names the values of black and white in it (None: found by trying a photo).

    Without a `source`, each call uses the weights that come with blurkit for its task, or those of
    `system`. `encoder` is one or more files whose encoder or latents replace the checkpoint's.
    `tile` is the side in pixels at which networks run (None: the size they were trained on),
    `overlap` the width in pixels that tiles share (None: 32 or half a tile). `device` is auto, cpu,
    cuda, cuda:N or mps, `precision` is auto, fp32, bf16 or fp16. A file may be an address
    (https://...), which is fetched once into the user's cache; `sha256` is the digest that it must
    have, or those of several files. Raises BlurkitError if a file is missing, damaged or not a
    checkpoint, or cannot be fetched.
    """
    files = [encoder] if isinstance(encoder, (str, Path)) else encoder
    digests = [sha256] if isinstance(sha256, str) else sha256
    refuse_unused(digests, [source, *files])
    source = local_file(source, digests)
    if isinstance(source, (str, Path)) and Path(source).suffix == ".onnx":
        if encoder or precision not in ("auto", "fp32"):
            raise UsageError(f"{source}: an ONNX file takes no encoder and no precision but fp32")
        cut = tile, overlap
        return Model(None, (), system, *cut, device, onnx=Path(source), value_range=value_range)
    if value_range:
        raise UsageError("value_range requires an ONNX file")
    loaded = checkpoints.load_checkpoint(source) if isinstance(source, (str, Path)) else source
    encoders = tuple(checkpoints.load_checkpoint(local_file(file, digests)) for file in files)
    return Model(loaded, encoders, system, tile, overlap, device, precision)


@dataclass
class Model:
    """Networks ready to run, as `load` returns them; each is built when a call first needs it."""

    checkpoint: Checkpoint | None
    encoders: tuple[Checkpoint, ...] = ()
    system: str | None = None
    tile: int | None = None
    overlap: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    onnx: Path | None = None
    value_range: ValueRange | None = None
    _engines: dict[tuple[object, ...], Engine] = field(default_factory=dict, repr=False)

    def deblur(
        self,
        image: Photo,
        *,
        method: Method | None = None,
        kernel: ArrayLike | None = None,
        gamma: float = 2.2,
        strength: float = 1.0,
        keep_kernel: bool = False,
        protocol: Protocol = "tiles",
    ) -> Photo:
        """Return `image` deblurred, or a record with `restored` made from its `blur`.

        The `method` "network" restores with the checkpoint's deblurring network; "shake" estimates
        the blur of each part and inverts it; "auto" does so where that should beat the network that
        comes with blurkit. None is "network" if a checkpoint, encoder, tile, overlap or protocol is
        given, else "auto". A `kernel` (height, width) is the known blur of the whole picture, which
        acted on light: pixel values to the power of `gamma`. `strength` is how much is restored,
        from 0 (image unchanged) to 1 (all). With `keep_kernel`, a record's attribute `kernel` is
        the estimated blur. `protocol` "slices", "whole" or "local" reproduces how papers measured.
        Raises BlurkitError if the checkpoint lacks the networks or the image is invalid.
        """
        tiled = protocol != "tiles" or self.tile is not None or self.overlap is not None
        has_kernel = kernel is not None
        has_checkpoint = self.checkpoint is not None or self.onnx is not None
        method = choose_method(method, has_checkpoint, has_kernel, bool(self.encoders) or tiled)
        record = _record(image, "blur")
        if method == "network":
            if keep_kernel:
                raise UsageError("keep_kernel requires the method auto or shake, or a kernel")
            engine = self._engine("deblurring", protocol)
            name = self.onnx.name if self.onnx else self._checkpoint("deblurring").name
            record = deblurring.deblur(record, engine, name, strength)
        else:
            restore = deblurring.deblur_by_kernel(
                self._checkpoint("deconvolving"),
                Placement(self.device, self.precision),
                kernel=np.asarray(kernel) if has_kernel else None,
                gamma=gamma,
                otherwise=self._shipped._engine("deblurring") if method == "auto" else None,
                strength=strength,
                keep_kernel=keep_kernel,
            )
            record = restore(record)
        return _as_given(image, _appraised(image, record), "restored")

    def blind_deblur(
        self,
        image: Photo,
        *,
        preset: str = "small",
        generator: str | Path | Sequence[str | Path] = (),
        features: str | Path | None = None,
        strength: float = 1.0,
        keep_kernel: bool = False,
        region: tuple[int, int, int, int] | None = None,
        **options: Any,
    ) -> Photo:
        """Return `image` deblurred by a search for image and blur, or a record with `restored`.

        It works as `blurkit blind-deblur`: the checkpoint holds F and G of a kernel space;
        `options` are the command's, which override those of `preset`; `generator` are the files of
        a StyleGAN, `features` is the file of a feature network. With `keep_kernel`, a record's
        attribute `kernel` is the blur that was found. With `region`, the left and top corner, the
        width and the height of a rectangle, only that is searched, and the whole image is deblurred
        by the kernel found there. A search that diverges returns its last good image, with a
        warning.
        """
        chosen: Any = search_options().resolve(preset, **options)
        checkpoint = self._checkpoint("search") if chosen.encoded else None
        files = [generator] if isinstance(generator, (str, Path)) else generator
        search = start_search(chosen, checkpoint, files, features, self.device, self.precision)
        record = _record(image, "blur")
        job: SearchJob
        if region is None:
            job = search.job(record, self.tile, self.overlap)
        else:
            hardware = self.device, self.precision
            job = RegionJob(record, search, region, *hardware, warnings.warn)
        if keep_kernel:
            job.check_one_blur()
        name = checkpoint.name if checkpoint else chosen.operator
        for finished in search.run([job], warn=warnings.warn):
            record = finished.result(name, strength, keep_kernel)
        if iteration := record.attrs.get("blind_diverged"):
            warnings.warn(f"the search diverged at iteration {iteration}", stacklevel=2)
        return _as_given(image, record, "restored")

    def reblur(
        self, image: Photo, like: np.ndarray | Record, *, method: Method | None = None
    ) -> Photo:
        """Return a sharp `image` blurred like the blurry `like`, or a record with `reblurred`.

        The `sharp` of a record is blurred; a record `like` gives its `blur` and may be the same
        record. The sizes may differ. The `method` "shake" applies the kernel that is estimated in
        `like`, and raises BlurkitError if none is believed; "network" uses the checkpoint's
        network, "auto" does so only without a believed estimate. None is "network" if a checkpoint,
        encoder, system, tile or overlap is given or `like` is `image`, else "auto". For a blur
        kernel space, `like` must be a record of a pair.
        """
        named = any((self.checkpoint, self.encoders, self.system, self.tile, self.overlap))
        method = choose_reblurring(method, named, like is image)
        if method != "network" and named:
            raise UsageError(f"the method {method} takes no networks: use blurkit.load() alone")
        blur: Callable[[Record, Record], Record] | None = None
        if method != "shake":
            work = reblurring.reblurred_like if isinstance(image, Record) else reblurring.reblur
            name = self._checkpoint("reblurring").name
            blur = partial(work, engine=self._engine("reblurring"), checkpoint=name)
        if method != "network":
            placement = Placement(self.device, self.precision)
            estimate = deblurring.blur_estimator(self._checkpoint("deconvolving"), placement)
            blur = reblurring.EstimatedBlur(estimate, blur)
        assert blur is not None
        return _as_given(image, blur(_record(image, "sharp"), _record(like, "blur")), "reblurred")

    def transfer(self, image: Photo, pair: Record | Mapping[str, np.ndarray]) -> Photo:
        """Return `image` with the blur of another scene's `pair` of `sharp` and `blur`.

        In a returned record, `reblurred_psnr` is the PSNR in dB between the pair's own sharp image,
        reblurred, and its blurry one; `reblurred_psnr_sharp` is that of the sharp image itself.
        Of the weights that come with blurkit, the default is the blur kernel space.
        """
        shipped = shipped_for_pairs(bool(self.encoders))
        engine = self._engine("reblurring", shipped=shipped)
        name = self._checkpoint(shipped).name
        if not isinstance(pair, Record):
            pair = Record("pair", {role: _checked(array, role) for role, array in pair.items()})
        record = reblurring.reblur(_record(image, "sharp"), pair, engine, name)
        if isinstance(image, Record):
            record.attrs |= reblurring.reproduce(pair, engine)
        return _as_given(image, record, "reblurred")

    def random_blur(self, image: Photo, *, seed: int = 0, scale: float | None = None) -> Photo:
        """Return a sharp `image` with a new blur, or a record with `reblurred`.

        The checkpoint holds a BGAN or a blur kernel space; UsageError is raised for a kernel space
        that is not variational and comes without codes. The noise or code is drawn from a normal
        distribution with standard deviation `scale` (None: 1 for noise; for a code one of those
        that come with the kernel space, or else 1.2); it depends on `seed` and a record's name.
        """
        engine, name = self._engine(("noise", "random")), self._checkpoint("random").name
        record = reblurring.random_blur(_record(image, "sharp"), engine, name, seed, scale)
        return _as_given(image, record, "reblurred")

    def apply_kernel(self, image: Photo, kernel: ArrayLike, *, gamma: float = 1.0) -> Photo:
        """Return a sharp `image` blurred by a `kernel`, or a record with `reblurred`.

        A kernel (height, width) is convolved with light, that is, pixel values to the power of
        `gamma`; a code (code, rows, columns) belongs to the checkpoint's blur kernel space. Both
        are what `blind-deblur --keep-kernel` stores in a record's attributes.
        """
        engine, name, array = None, "", np.asarray(kernel)
        if array.ndim != 2:
            engine, name = self._engine("coding"), self._checkpoint("coding").name
        record = _record(image, "sharp")
        record = reblurring.apply_kernel(record, array, "kernel", engine, name, gamma)
        return _as_given(image, record, "reblurred")

    def interpolate(
        self,
        image: Photo,
        like: np.ndarray | Record,
        *,
        steps: int = 7,
        first: float = 0.0,
        last: float = 1.0,
        deblur: bool = False,
        spherical: bool = False,
    ) -> list[Photo]:
        """Return frames between a sharp `image` and the blurry image `like` of the same scene.

        Of records, the `sharp` of `image` and the `blur` of `like` are used; both may be the same
        record. `steps` frames go from the amount of blur `first` to `last`: 0 is the sharp image's,
        1 the blurry one's. With `deblur`, the blurry image is restored along the path instead. With
        `spherical`, degradations are mixed along a circle.
        """
        engine = self._engine("interpolation", deblur=deblur)
        name = self._checkpoint("interpolation").name
        record, blurry = _record(image, "sharp"), _record(like, "blur")
        both = Record(record.name, {**record.images, "blur": blurry.image("blur")}, record.attrs)
        path = interpolation.amounts(steps, first, last)
        frames = interpolation.frames(both, engine, path, name, deblur, spherical)
        key = "restored" if deblur else "reblurred"
        return [_as_given(image, work(), key) for _, work in frames]

    @cached_property
    def _shipped(self) -> Model:
        """What comes with blurkit, on the same hardware."""
        return Model(None, device=self.device, precision=self.precision)

    def _checkpoint(self, use: Use) -> Checkpoint:
        if self.onnx:
            raise UsageError(f"{self.onnx}: an ONNX file deblurs only")
        return self.checkpoint or load_shipped(self.system, use)

    def _engine(
        self,
        use: Use | tuple[Use, ...],
        protocol: Protocol = "tiles",
        shipped: Use | None = None,
        **options: Any,
    ) -> Engine:
        """Return the engine for a use, which is created only once.

        Without a checkpoint, it is the one that comes with blurkit for the use `shipped`, by
        default `use`.
        """
        placement = Placement(self.device, self.precision, self.tile, self.overlap, protocol)
        key = (use, protocol, shipped, *options.items())
        if key not in self._engines and self.onnx and use == "deblurring":
            self._engines[key] = onnx_engine(self.onnx, placement, value_range=self.value_range)
        if key not in self._engines:
            self._engines[key] = start_engine(
                use,
                self._checkpoint(shipped or (use if isinstance(use, str) else use[-1])),
                *self.encoders,
                placement=placement,
                system=self.system,
                **options,
            )
        return self._engines[key]


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
    """Return how similar image `x` is to image `y`, aligned or not, of any sizes.

    The result's `distance` is what papers print, -log CX: 0 for equal images, smaller is more
    similar. `features` is the file of a feature network (None: the one in BLURKIT_FEATURES, or
    VGG-19 in torch's cache), `layers` are some of its layers; `bandwidth` and `distance` (cosine,
    l1, l2) are those of Mechrez et al. 2018. Raises BlurkitError without a network and for an image
    that is too small.
    """
    network = _features(find_features(features), tuple(layers), device)
    compare = ContextualSimilarity(network, bandwidth, distance)
    return compare(_checked(x, "x"), _checked(y, "y"))


@lru_cache(maxsize=2)
def _features(path: Path, layers: tuple[str, ...], device: str) -> FeatureNetwork:
    return contextual_network(path, layers, choose_device(device))


# ---- what results are worth ----------------------------------------------------------------------


def sharpness(image: np.ndarray) -> float:
    """Return how sharp an image looks, from 0 (blurry) to 1 (sharp), without a reference.

    It is 1 minus the perceptual blur metric of Crete et al. 2007. Raises BlurkitError if the image
    is invalid.
    """
    return sharpness_metric.sharpness(_checked(image, "image"))


def html_report(records: Iterable[Record], folder: str | Path, force: bool = False) -> Path:
    """Write the report of `deblur --html` on restored records to a folder; return its page.

    Records with `sharp` get PSNR and SSIM, too. One record is in memory at a time. Raises
    BlurkitError if the folder holds a report, unless `force` is given, or other files; if a record
    lacks `blur` or `restored`; or if there is no record.
    """
    report = RestorationReport(Path(folder), force)
    for record in records:
        report.add(record)
    page = report.write()
    if page is None:
        raise BlurkitError(f"{folder}: there is no record to report")
    return page


# ---- arrays as records ---------------------------------------------------------------------------


def _record(image: np.ndarray | Record, role: str) -> Record:
    return image if isinstance(image, Record) else Record("image", {role: _checked(image, role)})


def _checked(array: np.ndarray, where: str) -> np.ndarray:
    """Return a user's array as a record's image."""
    array = np.asarray(array)
    if array.dtype.kind == "f":
        image = check_image(array.astype(np.float32), where)
        if image.min() < 0 or image.max() > 1:
            low, high = image.min(), image.max()
            raise BlurkitError(
                f"{where}: values from {low:g} to {high:g}; floats must be in [0, 1]"
            )
        return image
    return check_image(array, where)


def _appraised(given: np.ndarray | Record, record: Record) -> Record:
    """Return a restored record with its appraisal, which the result for an array would not show."""
    return appraised(record) if isinstance(given, Record) else record


def _as_given(given: Photo, record: Record, role: str) -> Photo:
    """Return the result in the form of the input: a record, or an array of the input's shape."""
    result: Any = record
    if not isinstance(given, Record):
        result = record.images[role].reshape(np.shape(given))
    return result
