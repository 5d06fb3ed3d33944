"""Networks ready to run: which files they come from, what runs them, and the tasks that use them.

Imports torch only where a network of torch runs, so that an ONNX file does without.
"""

from __future__ import annotations

import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, Say, UsageError
from blurkit.io.records import Record, check_image
from blurkit.options import Method, Placement, ValueRange, choose_method, choose_reblurring
from blurkit.synthesis.kernels import KernelSheet
from blurkit.systems.code import with_code
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.system import (
    Use,
    introduction,
    load_shipped,
    providers,
    shipped_file,
    title_and_date,
)
from blurkit.tasks.deblur import deblur as deblur_record
from blurkit.tasks.deblur import deblur_by_search, masked, window_deblurring, with_sharpness

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.systems.blind_search import SearchContext

Photo = TypeVar("Photo", np.ndarray, Record)

Work = Callable[[Record], Record]
"""A function that processes a record."""

LikeWork = Callable[[Record, Record], Record]
"""A function that gives a record the blur of another one."""

CODE_STEPS = 200
"""Default number of steps of a code search; twice as many gain a tenth of a dB."""

CODE_RATE = 5e-4
"""Default learning rate of a code search, from the released code."""


@dataclass
class Model:
    """Networks and the tasks that they do; a file is read when a call first needs it.

    `source`, `encoders`, `system`, `value_range` and `network` are as for `blurkit.load`. `say`
    receives what is worth knowing, `warn` warnings, and `watch` the progress in a photo.

    `deblur` and its like take an image or a record. For many records, `deblurring` and its like
    return the function of one record, ready to run, and the engine that it uses.
    """

    source: str | Path | Checkpoint | None = None
    encoders: Sequence[str | Path | Checkpoint] = ()
    system: str | None = None
    placement: Placement = field(default_factory=Placement)
    value_range: ValueRange | None = None
    network: str = ""
    say: Say = lambda text: None
    warn: Say = warnings.warn
    watch: Callable[[str, int, int], None] = lambda stage, done, total: None
    _engines: dict[Any, Engine] = field(default_factory=dict, init=False, repr=False)
    _restorer: tuple[Any, Work] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.network and (self.source is None or self._is_onnx):
            raise UsageError(f"--network {self.network}: name its trained weights, too, with -c")
        if self._is_onnx and not self._suits_onnx:
            raise UsageError(
                "an ONNX file takes no --encoder, no --protocol local and no --precision but fp32"
            )

    # ---- deblurring ------------------------------------------------------------------------------

    def deblur(
        self,
        image: Photo,
        *,
        method: Method | None = None,
        kernel: ArrayLike | KernelSheet | None = None,
        gamma: float = 2.2,
        strength: float = 1.0,
        keep_kernel: bool = False,
        mask: np.ndarray | None = None,
    ) -> Photo:
        """Return `image` deblurred, or a record with `restored` made from its `blur`.

        The `method` "network" restores with the checkpoint's deblurring network; "shake" estimates
        the blur of each part and inverts it; "auto" does so where that should beat the network that
        comes with blurkit. None is "network" if a checkpoint, encoder, tile, overlap or protocol is
        given, else "auto". A `kernel` (height, width) is the known blur of the whole picture, which
        acted on light: pixel values to the power of `gamma`; a `KernelSheet` has the blur of its
        windows. `strength` is how much is restored, from 0 (image unchanged) to 1 (all), and a
        `mask` (height, width) where: 0 leaves a pixel as it is, the largest value of its type, or
        1.0, restores it. With `keep_kernel`, a record's attribute `kernel` is the estimated blur,
        and `KernelSheet.of` its attributes that of every window. Raises BlurkitError if the
        checkpoint lacks the networks, or if the image or the mask is invalid.
        """
        work, _ = self.deblurring(method, kernel, gamma, strength, keep_kernel)
        restored = work(_record(image, "blur"))
        if mask is not None:
            restored = masked(restored, as_image(mask, "mask"))
        if isinstance(image, Record):  # an array would not show the appraisal
            restored = with_sharpness(restored)
        return _as_given(image, restored, "restored")

    def deblurring(
        self,
        method: Method | None = None,
        kernel: ArrayLike | KernelSheet | None = None,
        gamma: float = 2.2,
        strength: float = 1.0,
        keep_kernel: bool = False,
    ) -> tuple[Work, Engine | None]:
        """Return the function that deblurs records, and the engine if a network restores any blur.

        Arguments and errors are those of `deblur`; records are not appraised. Of a film's frame,
        the `begun` of a function that estimates blur returns another one that finishes the record:
        if that is called after the next frame was begun, it guides the frame as well.
        """
        named, has_kernel = self.source is not None, kernel is not None
        place = self.placement
        for_network = bool(self.encoders) or place.tiled or place.protocol != "tiles"
        found = isinstance(kernel, KernelSheet)
        method = choose_method(method, named, has_kernel, for_network, found)
        if method != "network":
            array = kernel if kernel is None or found else np.asarray(kernel)
            settings = {"gamma": gamma, "strength": strength, "keep_kernel": keep_kernel}
            return self._deconvolving(method, array, settings), None
        if keep_kernel:
            raise UsageError("keep_kernel requires the method auto or shake, or a kernel")
        engine = self._by_onnx() or self.engine("deblurring")
        return partial(deblur_record, engine=engine, strength=strength), engine

    def _deconvolving(self, method: Method, kernel: Any, settings: dict[str, Any]) -> Work:
        """Return the function that deblurs records by their blur; the last one is kept."""
        array = isinstance(kernel, np.ndarray)
        known = (kernel.shape, kernel.dtype.str, kernel.tobytes()) if array else kernel
        key = method, known, settings
        if self._restorer is None or self._restorer[0] != key:
            checkpoint = self.checkpoint("deconvolving")
            otherwise = self._shipped.engine("deblurring") if method == "auto" else None
            more = {"otherwise": otherwise, "watch": self.watch, "warn": self.warn}
            work = window_deblurring(checkpoint, self.placement, kernel=kernel, **settings, **more)
            self._restorer = key, work
        return self._restorer[1]

    def blind_deblur(
        self,
        image: Photo,
        *,
        preset: str = "small",
        config: str | Path | None = None,
        generator: str | Path | Sequence[str | Path] = (),
        features: str | Path | None = None,
        strength: float = 1.0,
        keep_kernel: bool = False,
        region: tuple[int, int, int, int] | None = None,
        batch: int = 1,
        **options: Any,
    ) -> Photo:
        """Return `image` deblurred by a search for image and blur, or a record with `restored`.

        It works as `blurkit blind-deblur`: the checkpoint holds F and G of a kernel space;
        `options` are those of `SearchOptions`, which override the values in the file `config`,
        which override those of `preset`; `generator` are the files of a StyleGAN, `features` is the
        file of a feature network. With `keep_kernel`, a record's attribute `kernel` is the blur
        that was found. With `region`, the left and top corner, the width and the height of a
        rectangle, only that is searched, and the whole image is deblurred by the kernel found
        there. `batch` tiles are searched together. A search that diverges returns its last good
        image, with a warning.
        """
        from blurkit.systems.blind_search import TiledSearch, run_searches

        chosen, place = SearchOptions.resolve(preset, config, **options), self.placement
        files = [generator] if isinstance(generator, (str, Path)) else generator
        context, name = self.searching(chosen, files, features)
        record = _record(image, "blur")
        search = TiledSearch(record, context, place.tile, place.overlap, region)
        if keep_kernel:
            search.check_one_blur()
        for _ in run_searches([search], batch, warn=self.warn):
            pass
        record = deblur_by_search(search, name, strength, keep_kernel, place, self.warn)
        if iteration := record.attrs.get("blind_diverged"):
            self.warn(f"the search diverged at iteration {iteration}")
        return _as_given(image, record, "restored")

    def searching(
        self,
        options: SearchOptions,
        generators: Sequence[str | Path] = (),
        features: str | Path | None = None,
        system: str | None = None,
    ) -> tuple[SearchContext, str]:
        """Return what `load_context` does, and the name of what restores."""
        from blurkit.systems.blind_search import load_context

        checkpoint = self.checkpoint("search") if options.encoded else None
        hardware = self.placement.device, self.placement.precision
        context = load_context(options, checkpoint, generators, features, *hardware, system)
        return context, checkpoint.name if checkpoint else options.operator

    # ---- reblurring ------------------------------------------------------------------------------

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
        named = self.source is not None or bool(self.encoders or self.system)
        named |= self.placement.tiled
        method = choose_reblurring(method, named, like is image)
        if method != "network" and named:
            raise UsageError(f"the method {method} takes no networks: use blurkit.load() alone")
        work, _ = self.reblurring(method, isinstance(image, Record))
        return _as_given(image, work(_record(image, "sharp"), _record(like, "blur")), "reblurred")

    def reblurring(self, method: Method, appraise: bool = True) -> tuple[LikeWork, Engine | None]:
        """Return the function that blurs records like others, and the engine if a network does it.

        A network's records are appraised only with `appraise`. Raises as `reblur` does.
        """
        from blurkit.tasks import reblur as tasks

        if method == "shake":
            return tasks.with_estimated_blur(self._windows.estimated), None
        engine = (self if method == "network" else self._shipped).engine("reblurring")
        work = partial(tasks.reblurred_like if appraise else tasks.reblur, engine=engine)
        if method == "network":
            return work, engine
        return tasks.with_estimated_blur(self._windows.estimated, work), engine

    def transfer(self, image: Photo, pair: Record | Mapping[str, np.ndarray]) -> Photo:
        """Return `image` with the blur of another scene's `pair` of `sharp` and `blur`.

        In a returned record, `reblurred_psnr` is the PSNR in dB between the pair's own sharp image,
        reblurred, and its blurry one; `reblurred_psnr_sharp` is that of the sharp image itself.
        Of the weights that come with blurkit, the default is the blur kernel space.
        """
        from blurkit.tasks.reblur import reproduce

        if not isinstance(pair, Record):
            pair = Record("pair", {role: as_image(array, role) for role, array in pair.items()})
        work, engine = self.transferring()
        record = work(_record(image, "sharp"), pair)
        if isinstance(image, Record):
            record.attrs |= reproduce(pair, engine)
        return _as_given(image, record, "reblurred")

    def transferring(self) -> tuple[LikeWork, Engine]:
        """Return the function that gives records the blur of a pair, and its engine."""
        from blurkit.tasks.reblur import reblur

        # A code compares both images of the pair; only networks without codes take an encoder.
        engine = self.engine("reblurring", "reblurring" if self.encoders else "coding")
        return partial(reblur, engine=engine), engine

    def random_blur(self, image: Photo, *, seed: int = 0, scale: float | None = None) -> Photo:
        """Return a sharp `image` with a new blur, or a record with `reblurred`.

        The checkpoint holds a BGAN or a blur kernel space; UsageError is raised for a kernel space
        that is not variational and comes without codes. The noise or code is drawn from a normal
        distribution with standard deviation `scale` (None: 1 for noise; for a code one of those
        that come with the kernel space, or else 1.2); it depends on `seed` and a record's name.
        """
        from blurkit.tasks.reblur import random_blur

        engine = self.engine(("noise", "random"))
        record = random_blur(_record(image, "sharp"), engine, seed, scale)
        return _as_given(image, record, "reblurred")

    def apply_kernel(self, image: Photo, kernel: ArrayLike, *, gamma: float = 1.0) -> Photo:
        """Return a sharp `image` blurred by a `kernel`, or a record with `reblurred`.

        A kernel (height, width) is convolved with light, that is, pixel values to the power of
        `gamma`; a code (code, rows, columns) belongs to the checkpoint's blur kernel space. Both
        are what `blind-deblur --keep-kernel` stores in a record's attributes.
        """
        from blurkit.tasks.reblur import apply_kernel

        array = np.asarray(kernel)
        engine = self.engine("coding") if array.ndim != 2 else None
        record = apply_kernel(_record(image, "sharp"), array, "kernel", engine, gamma)
        return _as_given(image, record, "reblurred")

    def retrieve(
        self,
        pair: Record,
        *,
        iterations: int = CODE_STEPS,
        kernel_rate: float = CODE_RATE,
        seed: int = 0,
    ) -> Record:
        """Return a record of `sharp` and `blur` with `reblurred`, by a code found for its own blur.

        The code is searched for in a blur kernel space, in `iterations` steps at the learning rate
        `kernel_rate`. Raises BlurkitError if the search diverges.
        """
        return self.retrieving(iterations, kernel_rate, seed)(pair)

    def retrieving(self, iterations: int, kernel_rate: float, seed: int) -> Work:
        """Return the function that searches for the code of a pair, as `retrieve` does."""
        from blurkit.tasks.reblur import retrieve

        options = SearchOptions.resolve(
            iterations=iterations, kernel_rate=kernel_rate, start_gaussian=0.0, seed=seed
        )
        (system,) = providers("search").values()
        context, name = self.searching(options, system=system.name)
        return partial(retrieve, context=context, checkpoint=name)

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
        record, blurry = _record(image, "sharp"), _record(like, "blur")
        both = Record(record.name, {**record.images, "blur": blurry.image("blur")}, record.attrs)
        frames, _ = self.interpolating(steps, first, last, deblur, spherical)
        key = "restored" if deblur else "reblurred"
        return [_as_given(image, work(), key) for _, work in frames(both)]

    def interpolating(
        self, steps: int, first: float, last: float, deblur: bool, spherical: bool
    ) -> tuple[Callable[[Record], Iterator[tuple[Record, Callable[[], Record]]]], Engine]:
        """Return the function that yields a record's frames with their work, and the engine."""
        from blurkit.tasks.reblur import amounts, frames

        path = amounts(steps, first, last)
        engine = self.engine("interpolation", deblur=deblur)
        return partial(frames, engine=engine, path=path, deblur=deblur, spherical=spherical), engine

    # ---- files and engines -----------------------------------------------------------------------

    def checkpoint(self, use: Use) -> Checkpoint:
        """Return the checkpoint of the source, or the one that comes with blurkit for `use`.

        Raises BlurkitError for a bad file.
        """
        if self.source is None:
            shipped = load_shipped(self.system, use)
            self.say(introduction(*title_and_date(shipped)))
            return shipped
        return with_code(_loaded(self.source), self.network, self.warn)

    def engine(
        self, use: Use | tuple[Use, ...], shipped: Use | None = None, **options: Any
    ) -> Engine:
        """Return the engine that runs a network for `use`.

        It is created only once. Without a source, the checkpoint is the one that comes with blurkit
        for the use `shipped`, by default `use`. Raises as `start_engine` does.
        """
        from blurkit.systems.uses import start_engine

        key = (use, shipped, *options.items())
        if key not in self._engines:
            if self.placement.protocol != "tiles" and use != "deblurring":
                raise UsageError(f"--protocol {self.placement.protocol}: is for deblurring")
            first = self.checkpoint(shipped or (use if isinstance(use, str) else use[-1]))
            options |= {"placement": self.placement, "warn": self.warn, "system": self.system}
            engine = start_engine(use, first, *map(_loaded, self.encoders), **options)
            if first.code is not None and getattr(engine.runner.network, "code", None) is None:
                self.warn(f"{first.name}: is not of {self.network}, which is not used")
            self._engines[key] = engine
        return self._engines[key]

    @cached_property
    def _shipped(self) -> Model:
        """What comes with blurkit, on the same hardware; it does not introduce itself."""
        return Model(placement=self.placement, warn=self.warn)

    @cached_property
    def _windows(self) -> Any:
        return window_deblurring(self.checkpoint("deconvolving"), self.placement, watch=self.watch)

    # ---- deblurring without torch ----------------------------------------------------------------
    # Importing torch takes longer than deblurring a photo of a megapixel.

    @property
    def _is_onnx(self) -> bool:
        return isinstance(self.source, (str, Path)) and str(self.source).endswith(".onnx")

    @property
    def _suits_onnx(self) -> bool:
        """Whether nothing is asked for that only networks of torch have."""
        place = self.placement
        exact = place.precision in ("auto", "fp32") and place.protocol != "local"
        return exact and not self.encoders

    def _by_onnx(self) -> Engine | None:
        """Return the engine of the ONNX file that deblurs, None if torch is to do it.

        Without a source, it is the file that comes with blurkit, where that gives the same result
        sooner: on a processor without bfloat16.
        """
        if self._is_onnx:
            file = Path(str(self.source))
        elif (self.source, self.system) != (None, None) or not self._suits_onnx:
            return None
        else:
            file = shipped_file().with_suffix(".onnx")
            runs = file.exists() and find_spec("onnxruntime") is not None
            if not runs or not onnx_is_faster(self.placement):
                return None
        if file not in self._engines:
            from blurkit.engine.onnx_runner import OnnxRunner, onnx_engine

            engine = onnx_engine(file, self.placement, self.warn, self.value_range)
            assert isinstance(engine.runner, OnnxRunner)
            if engine.runner.layout:
                self.say(f"{file.name}: {engine.runner.layout.summary()}")
            if self.source is None:
                self.say(introduction(engine.runner.about.title, engine.runner.about.date))
            self._engines[file] = engine
        return self._engines[file]


GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What Linux shows of a GPU that torch may use."""

CPU_INFO = Path("/proc/cpuinfo")


def onnx_is_faster(placement: Placement) -> bool:
    """Return whether ONNX Runtime beats torch: on a processor that computes in float32."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    gpu = placement.device == "auto" and (apple or any(Path(gpu).exists() for gpu in GPUS))
    if gpu or placement.device not in ("auto", "cpu"):
        return False
    if placement.precision == "fp32":
        return True
    return not (CPU_INFO.exists() and "avx512_bf16" in CPU_INFO.read_text())


def _loaded(source: str | Path | Checkpoint) -> Checkpoint:
    from blurkit.io.checkpoints import load_checkpoint  # imports torch

    return load_checkpoint(source) if isinstance(source, (str, Path)) else source


# ---- arrays as records ---------------------------------------------------------------------------


def _record(image: np.ndarray | Record, role: str) -> Record:
    return image if isinstance(image, Record) else Record("image", {role: as_image(image, role)})


def as_image(array: np.ndarray, where: str) -> np.ndarray:
    """Return a user's array as a record's image. Raises BlurkitError if it is none."""
    array = np.asarray(array)
    if array.dtype.kind != "f":
        return check_image(array, where)
    image = check_image(array.astype(np.float32), where)
    low, high = image.min(), image.max()
    if low < 0 or high > 1:
        raise BlurkitError(f"{where}: values from {low:g} to {high:g}; floats must be in [0, 1]")
    return image


def _as_given(given: Photo, record: Record, role: str) -> Photo:
    """Return the result in the form of the input: a record, or an array of the input's shape."""
    result: Any = record
    if not isinstance(given, Record):
        result = record.images[role].reshape(np.shape(given))
    return result
