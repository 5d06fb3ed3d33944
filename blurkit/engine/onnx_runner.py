"""Networks in ONNX files, run by ONNX Runtime. Imports no torch."""

from __future__ import annotations

import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from blurkit.data.workers import processors
from blurkit.engine.engine import Engine, Protocol, Runner, Warn
from blurkit.engine.onnx_layout import OnnxLayout, ValueRange
from blurkit.engine.onnx_probe import find_layout
from blurkit.engine.tiles import TileInputs
from blurkit.errors import BlurkitError, UsageError, is_out_of_memory, one_line
from blurkit.nn.size import SizeRequirement

ONNX_METADATA = "blurkit"
"""The key of the metadata in files that `blurkit export` wrote: an `Exported` as JSON."""

PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
PREFERRED = (*PROVIDERS.values(), "DmlExecutionProvider", "CPUExecutionProvider")
"""Where ONNX Runtime computes if its build offers several."""

SHARED_PIXELS = 512 * 512
"""The number of pixels of a tile from which all threads work on one tile together."""

SEVERE = 3
"""ONNX Runtime logs errors only; they are raised as well."""


@dataclass(frozen=True)
class Exported:
    """What an exported network says of itself.

    `title`, `date` and `provenance` are those of its checkpoint. `tile` is the side of the crops of
    its training in pixels; sides must be at least `minimum` and multiples of `multiple`, both of
    which are `tile` if the network takes images of this size only.
    """

    use: str
    title: str = ""
    date: str = ""
    tile: int = 256
    minimum: int = 1
    multiple: int = 1
    provenance: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return the metadata as stored."""
        return json.dumps(asdict(self))

    @property
    def size(self) -> SizeRequirement:
        """The sizes that the network takes."""
        return SizeRequirement(self.minimum, self.multiple)


def onnx_engine(
    path: Path,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    protocol: Protocol = "tiles",
    warn: Warn = warnings.warn,
    value_range: ValueRange | None = None,
) -> Engine:
    """Return the engine that deblurs with the network of an ONNX file.

    The default `tile` is the size of the crops of its training. Raises as `OnnxRunner` and `Engine`
    do, BlurkitError if the network is for another use, and UsageError for the protocol "local",
    which needs a network of torch, and for other tiles than those of a network of fixed size.
    """
    if protocol == "local":
        raise UsageError(f"--protocol local: {path} has no means that could be made local")
    runner = OnnxRunner(path, device, value_range)
    about = runner.about
    if runner.fixed and (protocol == "whole" or tile not in (None, about.tile)):
        raise UsageError(f"{path}: takes tiles of {about.tile} pixels only, no other --tile")
    if about.use != "deblurring":
        raise BlurkitError(f"{path}: holds a network for {about.use!r}, not one that deblurs")
    return Engine(runner, tile or about.tile, overlap, protocol, warn)


class OnnxRunner(Runner):
    """The network of an ONNX file on a device.

    `layout` is how a network of another program takes images, None if `blurkit export` wrote the
    file. Raises BlurkitError if the file is missing, damaged or as `find_layout` does, and
    UsageError if ONNX Runtime cannot use the device or `value_range` is given for blurkit's file.
    """

    def __init__(
        self, path: Path, device: str = "auto", value_range: ValueRange | None = None
    ) -> None:
        provider = _provider(device)
        self._open = lru_cache(partial(open_session, path, provider))
        self._threads = processors() if provider == "CPUExecutionProvider" else 0
        self.network = self._open(min(self._threads, 1))
        about, self.layout = _metadata(self.network, path), None
        if about is None:
            self.layout = _layout(self.network, path, value_range)
            about = _foreign(self.layout)
        elif value_range:
            raise UsageError(f"--value-range: {path} says itself that its values are in 0..1")
        self.about = about
        self._names = [node.name for node in self.network.get_inputs()]
        if self.layout:
            self.fixed = bool(self.layout.fixed)
        else:
            self.fixed = isinstance(self.network.get_inputs()[0].shape[-1], int)
        self.size = self.about.size
        self.batch = self._threads or 8
        self._pool = ThreadPoolExecutor(self.batch)
        self.precision = "float32"
        self.device = f"{provider.removesuffix('ExecutionProvider').lower()}/onnxruntime"

    def __call__(self, inputs: TileInputs, exact: bool = False) -> np.ndarray | None:
        """Return the network's images (N, 3, H, W) float32, or None if memory ran out.

        On a processor, each tile of a batch has a thread of its own, which takes less time than
        all threads for one tile after the other.
        """
        try:
            if not self._threads:
                return self._run(self.network, inputs)
            if inputs.images[0][0, 0].size > SHARED_PIXELS:
                return self._run(self._open(self._threads), inputs)
            tiles = [inputs[number : number + 1] for number in range(len(inputs))]
            return np.concatenate([*self._pool.map(partial(self._run, self.network), tiles)])
        except Exception as error:  # of any of its classes
            if not is_out_of_memory(error):
                raise BlurkitError(f"ONNX Runtime failed: {one_line(error)}") from error
            return None

    def _run(self, session: Any, inputs: TileInputs) -> np.ndarray:
        if self.layout:
            return self.layout.run(session, inputs.images[0])
        images = map(np.ascontiguousarray, inputs.images)
        (result,) = session.run(None, dict(zip(self._names, images, strict=True)))
        return np.asarray(result)


def _provider(device: str) -> str:
    """Return the name of the provider for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`."""
    available = onnxruntime.get_available_providers()
    if device == "auto":
        return next(name for name in PREFERRED if name in available)
    wanted = PROVIDERS.get(device.partition(":")[0], "CPUExecutionProvider")
    if wanted not in available:
        raise UsageError(f"--device {device}: this build of ONNX Runtime lacks it; use auto or cpu")
    return wanted


def open_session(path: Path, provider: str = "CPUExecutionProvider", threads: int = 0) -> Any:
    """Return the session that runs an ONNX file; with 0 `threads`, ONNX Runtime chooses them.

    Raises BlurkitError if it is missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SEVERE
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    try:
        if not path.exists():
            raise BlurkitError(f"{path}: no such file")
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except BlurkitError:
        raise
    except Exception as error:
        reason = one_line(error)[:200]
        raise BlurkitError(f"{path}: damaged, or not an ONNX file ({reason})") from error


def describe_onnx(path: Path) -> dict[str, Any]:
    """Return what an ONNX file says of itself, with the names and shapes of inputs and outputs.

    Of another program's file, this is its layout, or why blurkit cannot run it as `problem`.
    Raises BlurkitError if the file is missing or damaged.
    """
    session = open_session(path)
    ends = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    shapes = {
        end: {node.name: "x".join(map(str, node.shape)) for node in nodes}
        for end, nodes in ends.items()
    }
    about = {"kind": "ONNX network", **shapes}
    if exported := _metadata(session, path):
        return about | asdict(exported)
    about["producer"] = session.get_modelmeta().producer_name
    try:
        return about | find_layout(session).describe()
    except BlurkitError as error:
        return about | {"problem": str(error)}


def _layout(session: Any, path: Path, value_range: ValueRange | None) -> OnnxLayout:
    try:
        return find_layout(session, value_range)
    except BlurkitError as error:
        raise BlurkitError(f"{path}: {error}") from error


def _foreign(layout: OnnxLayout) -> Exported:
    """Return what blurkit's own file would say of a network with this layout."""
    size = SizeRequirement(layout.fixed or layout.minimum, layout.multiple)
    tile = layout.fixed or size.padded(Exported.tile, 1)[0]
    return Exported("deblurring", tile=tile, minimum=size.minimum, multiple=size.multiple)


def _metadata(session: Any, path: Path) -> Exported | None:
    stored = session.get_modelmeta().custom_metadata_map.get(ONNX_METADATA)
    if stored is None:
        return None
    try:
        return Exported(**json.loads(stored))
    except (ValueError, TypeError) as error:
        raise BlurkitError(f"{path}: damaged, what it says of itself cannot be read") from error
