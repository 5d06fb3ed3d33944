"""Networks in ONNX files, run by ONNX Runtime. Imports no torch.

How a network of another program takes images is found from its graph, and by trying a photo.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.data.workers import processors
from blurkit.engine.engine import Engine, Runner, SizeRequirement, TileInputs
from blurkit.errors import BlurkitError, Say, UsageError, is_out_of_memory, one_line
from blurkit.io.images import read_image
from blurkit.io.paths import BYTES_PER_SECOND, IMPORTED_FROM
from blurkit.io.records import to_float
from blurkit.metrics.psnr import psnr
from blurkit.options import Placement, ValueRange, own_gpu

try:
    import onnxruntime
except ImportError as error:
    raise BlurkitError(
        "ONNX files need ONNX Runtime: pip install 'blurkit[cpu]', or 'blurkit[gpu]' for CUDA"
    ) from error

ONNX_METADATA = "blurkit"
"""The key of the metadata in files that `blurkit export` wrote: an `Exported` as JSON."""

PROVIDERS = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
PREFERRED = (*PROVIDERS.values(), "DmlExecutionProvider", "CPUExecutionProvider")
"""Where ONNX Runtime computes if its build offers several."""

NUMBERED = ("CUDAExecutionProvider", "DmlExecutionProvider")
"""Those that run on one of several GPUs, by its number."""


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

    @classmethod
    def parsed(cls, text: str) -> Exported:
        """Return the metadata in a `text`. Raises ValueError, TypeError or RecursionError."""
        about = cls(**json.loads(text))
        texts = {type(value) for value in (about.use, about.title, about.date)}
        sides = (about.tile, about.minimum, about.multiple)
        whole = all(type(side) is int and 0 < side <= 8192 for side in sides)
        if texts != {str} or not whole or not isinstance(about.provenance, dict):
            raise ValueError("a value is of another type or out of range")
        return about

    @property
    def size(self) -> SizeRequirement:
        """The sizes that the network takes."""
        return SizeRequirement(self.minimum, self.multiple)


def onnx_engine(
    path: Path,
    placement: Placement,
    warn: Say = warnings.warn,
    value_range: ValueRange | None = None,
) -> Engine:
    """Return the engine that deblurs with the network of an ONNX file, in float32.

    The default `tile` is the size of the crops of its training. Raises as `OnnxRunner` and `Engine`
    do, BlurkitError if the network is for another use, and UsageError for the protocol "local",
    which needs a network of torch, and for other tiles than those of a network of fixed size.
    """
    tile = placement.tile
    protocol = "tiles" if placement.protocol == "own" else placement.protocol
    if protocol == "local":
        raise UsageError(f"--protocol local: {path} has no means that could be made local")
    runner = OnnxRunner(path, placement.device, value_range)
    about = runner.about
    if runner.fixed and (protocol == "whole" or tile not in (None, about.tile)):
        raise UsageError(f"{path}: takes tiles of {about.tile} pixels only, no other --tile")
    if about.use != "deblurring":
        raise BlurkitError(f"{path}: holds a network for {about.use!r}, not one that deblurs")
    return Engine(runner, tile or about.tile, placement.overlap, protocol, warn, path.name)


class OnnxRunner(Runner):
    """The network of an ONNX file on a device.

    `layout` is how a network of another program takes images, None if `blurkit export` wrote the
    file. Raises BlurkitError if the file is missing, damaged or as `find_layout` does, and
    UsageError if ONNX Runtime cannot use the device or `value_range` is given for blurkit's file.
    """

    def __init__(
        self, path: Path, device: str = "auto", value_range: ValueRange | None = None
    ) -> None:
        provider, options = _provider(device)
        ours = PHOTO.parent in path.absolute().parents  # it comes with blurkit
        found = {} if ours else examined(path, value_range)
        self._open = lru_cache(partial(open_session, path, provider, options=options))
        self._threads = processors() if provider == "CPUExecutionProvider" else 0
        self.network = self._open(min(self._threads, 1))
        inputs = self.network.get_inputs()
        about, self.layout = _metadata(self.network, path), None
        if about is None:
            if "layout" not in found:
                raise BlurkitError(f"{path}: {found['problem']}")
            self.layout = OnnxLayout(**found["layout"])
            about, self.fixed = _foreign(self.layout), bool(self.layout.fixed)
        elif value_range:
            raise UsageError(f"--value-range: {path} says itself that its values are in 0..1")
        else:
            self.fixed = isinstance(inputs[0].shape[-1], int)
        self.about, self.size = about, about.size
        self._names = [node.name for node in inputs]
        self.batch = self._threads or 8
        self._pool = ThreadPoolExecutor(self.batch)
        self.precision = "float32"
        self.device = f"{provider.removesuffix('ExecutionProvider').lower()}/onnxruntime"

    def __call__(self, inputs: TileInputs, exact: bool = False) -> np.ndarray | None:
        try:
            if not self._threads:
                return self._run(self.network, inputs)
            # A thread for each tile is faster than all for one at a time, unless tiles are large.
            if inputs.images[0][0, 0].size > 512 * 512:
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
        if np.shape(result) != inputs.images[0].shape:
            raise BlurkitError(f"gives {np.shape(result)} for {inputs.images[0].shape}")
        return np.asarray(result)


def _provider(device: str) -> tuple[str, dict[str, int]]:
    """Return the provider for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, and its options."""
    available = onnxruntime.get_available_providers()
    kind, _, number = device.partition(":")
    wanted = PROVIDERS.get(kind, "CPUExecutionProvider")
    if device == "auto":
        wanted = next(name for name in PREFERRED if name in available)
    elif wanted not in available:
        raise UsageError(f"--device {device}: this build of ONNX Runtime lacks it; use auto or cpu")
    gpu = int(number) if number else own_gpu(_visible_gpus())
    return wanted, {} if gpu is None or wanted not in NUMBERED else {"device_id": gpu}


def _visible_gpus() -> int:
    """Return the number of GPUs that CUDA shows this process, as far as Linux says."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len(visible.split(","))
    return len([path for path in Path("/dev").glob("nvidia*") if path.name[6:].isdecimal()])


def open_session(
    path: Path,
    provider: str = "CPUExecutionProvider",
    threads: int = 0,
    options: Mapping[str, int] | None = None,
) -> Any:
    """Return the session that runs an ONNX file; with 0 `threads`, ONNX Runtime chooses them.

    `options` are the provider's. Raises BlurkitError if the file is missing or damaged.
    """
    how = onnxruntime.SessionOptions()
    how.log_severity_level = 4  # errors are raised, not logged as well
    how.intra_op_num_threads = threads
    how.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = {provider: dict(options or {})} | {"CPUExecutionProvider": {}}
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    try:
        return onnxruntime.InferenceSession(
            str(path), how, providers=[*providers], provider_options=[*providers.values()]
        )
    except Exception as error:
        reason = one_line(error)[:200]
        raise BlurkitError(f"{path}: damaged, or not an ONNX file ({reason})") from error


def describe_onnx(path: Path) -> dict[str, Any]:
    """Return what an ONNX file says of itself, with the names and shapes of inputs and outputs.

    Of another program's file, this is its layout, or why blurkit cannot run it as `problem`.
    Raises BlurkitError if the file is missing or damaged.
    """
    found = examined(path)
    if "layout" in found:
        found |= OnnxLayout(**found.pop("layout")).describe()
    return {"kind": "ONNX network", **found}


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
        about = Exported.parsed(stored)
    except (ValueError, TypeError, RecursionError) as error:
        raise BlurkitError(f"{path}: damaged, what it says of itself cannot be read") from error
    inputs = session.get_inputs()
    images = [node for node in inputs if node.type == "tensor(float)" and len(node.shape) == 4]
    if not images or (about.use == "deblurring" and len(inputs) != 1):
        raise BlurkitError(f"{path}: damaged, its network does not take what it says of itself")
    return about


# ---- Examining a file in a child process ---------------------------------------------------------

TRIAL_SECONDS = 30
TRIAL_MEMORY = 8 << 30
"""The child has so many seconds and bytes of memory to try an image, more for a large file."""


def examined(path: Path, value_range: ValueRange | None = None) -> dict[str, Any]:
    """Return the shapes of inputs and outputs of a network, and what the file says of itself.

    Of another program's file, that is its `producer` and `layout`, whose fields are those of an
    `OnnxLayout`, or `problem`. Both are found in a child process, since a graph may need any time
    and memory. Raises BlurkitError if it needs too much, or the file is missing or damaged.
    """
    if not path.exists():
        raise BlurkitError(f"{path}: no such file")
    state = path.stat()
    return dict(
        _examined_apart(path.absolute(), state.st_size, state.st_mtime_ns, value_range, path)
    )


@lru_cache
def _examined_apart(
    file: Path, size: int, changed: int, value_range: ValueRange | None, path: Path
) -> dict[str, Any]:
    seconds = TRIAL_SECONDS + size / BYTES_PER_SECOND
    command = [sys.executable, "-m", __name__, str(file), str(TRIAL_MEMORY + 4 * size)]
    command += [value_range] if value_range else []
    try:
        done = subprocess.run(
            command, input=b"", capture_output=True, timeout=seconds, check=True, cwd=IMPORTED_FROM
        )
    except subprocess.SubprocessError as error:
        reason = "ONNX Runtime crashes on it, or it needs too much memory"
        if isinstance(error, subprocess.TimeoutExpired):
            reason = f"its network takes more than {seconds:.0f} s for a small image"
        raise BlurkitError(f"{path}: {reason}") from error
    found = json.loads(done.stdout)
    if "error" in found:
        raise BlurkitError(f"{path}: {found['error'].removeprefix(f'{file}: ')}")
    return dict(found)


def _examine(path: Path, value_range: ValueRange | None) -> dict[str, Any]:
    """Return what `examined` does, found in this process."""
    session = open_session(path)
    ends = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    found: dict[str, Any] = {
        end: {node.name: "x".join(map(str, node.shape)) for node in nodes}
        for end, nodes in ends.items()
    }
    if exported := _metadata(session, path):
        if exported.use == "deblurring":  # that it ends; what it gives is seen later
            with contextlib.suppress(Exception):
                side = exported.size.padded(TRIED_SIDE, TRIED_SIDE)[0]
                session.run(None, {session.get_inputs()[0].name: _picture(side)})
        return found | asdict(exported)
    found["producer"] = session.get_modelmeta().producer_name
    try:
        return found | {"layout": asdict(find_layout(session, value_range))}
    except BlurkitError as error:
        return found | {"problem": str(error)}


def _main(file: str, memory: str, value_range: Any = None) -> None:
    """Print `_examine` as JSON."""
    with contextlib.suppress(ImportError, ValueError):
        import resource  # which Windows lacks

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    try:
        found = _examine(Path(file), value_range)
    except BlurkitError as error:
        found = {"error": str(error)}
    print(json.dumps(found))  # noqa: T201


# ---- How a foreign network takes images ----------------------------------------------------------

PHOTO = Path(__file__).parents[1] / "weights" / "photo.jpg"
"""The sharp photo on which networks are tried: CC0, from scikit-image's coffee."""

TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}
TRIED_SIDE = 64
"""Networks are tried on images of about so many pixels a side."""

GIVES = "gives "
"""How the reason begins for which a network that runs is refused."""


def find_layout(session: Any, value_range: ValueRange | None = None) -> OnnxLayout:
    """Return the layout of the network in a session, with `value_range` if that is given.

    Raises BlurkitError if it does not make one image of one image of the same size, or if
    `value_range` is needed.
    """
    reasons = []
    for layout in _candidates(session):
        try:
            return _in_range(session, _tried(session, layout), value_range)
        except _Unfit as reason:
            reasons.append(str(reason))
    raise BlurkitError(max(reasons, key=lambda reason: reason.startswith(GIVES)))


class _Unfit(Exception):
    """Says why a layout is not the network's."""


def _candidates(session: Any) -> Iterator[OnnxLayout]:
    """Yield the layouts that a graph allows. Raises BlurkitError if there are none."""
    nodes = session.get_inputs()
    if len(nodes) != 1:
        names = ", ".join(node.name for node in nodes)
        raise BlurkitError(f"takes {len(nodes)} inputs ({names}); blurkit gives one image")
    (node,) = nodes
    shape = [side if isinstance(side, int) and side > 0 else None for side in node.shape]
    kinds = list(_kinds(shape)) if node.type in TYPES else []
    if not kinds or shape[0] not in (None, 1):
        given = "x".join(map(str, node.shape))
        raise BlurkitError(f"takes {node.type} of {given}; blurkit gives one gray or RGB image")
    for last, channels in kinds:
        height, width = shape[1:3] if last else shape[2:]
        known = (node.name, "", TYPES[node.type], last, channels, shape[0] == 1, (height, width))
        fixed = OnnxLayout(*known, 1, 1).fixed
        for multiple in [fixed] if fixed else [2**power for power in range(10)]:
            yield OnnxLayout(*known, fixed or max(TRIED_SIDE, multiple), multiple)


def _kinds(shape: list[int | None]) -> Iterator[tuple[bool, int]]:
    """Yield whether channels come last, and their number, for an input of `shape`."""
    if len(shape) != 4:
        return
    for last in (False, True):
        sides = shape[1:3] if last else shape[2:]
        if all(side is None or side >= 16 for side in sides):  # else it is a number of channels
            for channels in (3, 1):
                if shape[3 if last else 1] in (channels, None):
                    yield last, channels


def _side(layout: OnnxLayout) -> int:
    """Return the side of the images on which a layout is tried: no larger power of 2 divides it."""
    times = -(-TRIED_SIDE // layout.multiple)
    return layout.fixed or layout.multiple * (times + 1 - times % 2)


def _tried(session: Any, layout: OnnxLayout) -> OnnxLayout:
    """Return a layout with the name of the output that is an image of the input's size.

    Raises _Unfit if the network does not run or no output is one, BlurkitError if several are.
    """
    given = layout.encode(_picture(_side(layout))[:, : layout.channels])
    try:
        results = session.run(None, {layout.input: given})
    except Exception as error:  # of any of its classes
        raise _Unfit(f"does not run ({one_line(error)[:200]})") from error
    outputs = [*zip(session.get_outputs(), map(np.shape, results), strict=True)]
    images = [n.name for n, shape in outputs if n.type in TYPES and shape == given.shape]
    if len(images) > 1:
        raise BlurkitError(f"gives {len(images)} images ({', '.join(images)}), not one")
    if not images:
        made = ", ".join("x".join(map(str, shape)) for _, shape in outputs)
        taken = "x".join(map(str, given.shape))
        raise _Unfit(f"{GIVES}{made} for {taken}; blurkit runs networks that keep an image's size")
    return replace(layout, output=images[0])


def _in_range(session: Any, layout: OnnxLayout, value_range: ValueRange | None) -> OnnxLayout:
    """Return a layout with the first ranges in which a photo comes back with 20 dB of PSNR.

    Bytes are in 0..255; input and output are in the same range if both are floats. A `value_range`
    that is given is not tried. Raises BlurkitError if there are none.
    """
    types = {node.name: TYPES.get(node.type) for node in session.get_outputs()}

    def chosen(name: ValueRange) -> OnnxLayout:
        given: ValueRange = "0..255" if layout.type == "uint8" else name
        made: ValueRange = "0..255" if types[layout.output] == "uint8" else name
        return replace(layout, given=given, made=made)

    if value_range:
        return chosen(value_range)
    photo, scores = _picture(_side(layout)), {}
    for name in RANGES:
        with np.errstate(all="ignore"):
            scores[name] = psnr(chosen(name).run(session, photo), photo)
        if scores[name] >= 20:
            return chosen(name)
    found = ", ".join(f"{name}: {score:.0f} dB" for name, score in scores.items())
    raise BlurkitError(
        f"the range of its values cannot be told, since a photo does not come back in any ({found})"
        f"; name it with --value-range {'|'.join(RANGES)}"
    )


def _picture(side: int) -> np.ndarray:
    """Return the centre of the photo, (1, 3, side, side) in [0, 1], mirrored where it is larger."""
    photo = to_float(read_image(PHOTO).pixels)
    more = [(0, max(0, side - length)) for length in photo.shape[:2]]
    whole = np.pad(photo, (*more, (0, 0)), "symmetric")
    top, left = ((length - side) // 2 for length in whole.shape[:2])
    square = whole[top : top + side, left : left + side]
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None])


# ---- Layouts of foreign networks -----------------------------------------------------------------

RANGES: dict[ValueRange, tuple[int, int]] = {"0..1": (0, 1), "0..255": (0, 255), "-1..1": (-1, 1)}
"""The values of black and white, in the order in which they are tried."""


@dataclass(frozen=True)
class OnnxLayout:
    """How a network takes and gives images.

    `input` and `output` are their names. The input is of NumPy's `type`, (N, H, W, C) if
    `channels_last`, else (N, C, H, W), with `channels` 1 (gray) or 3 (RGB); N is 1 if `single`.
    Height and width are `sides` where these are not None, else multiples of `multiple` and at least
    `minimum`. The values of the input are in the range `given`, those of the output in `made`.
    """

    input: str
    output: str
    type: str
    channels_last: bool
    channels: int
    single: bool
    sides: Sequence[int | None]
    minimum: int
    multiple: int
    given: ValueRange = "0..1"
    made: ValueRange = "0..1"

    @property
    def fixed(self) -> int:
        """The side of the largest square in a fixed size, 0 if the size is not fixed."""
        return min((side for side in self.sides if side is not None), default=0)

    def describe(self) -> dict[str, Any]:
        """Return the layout as plain values."""
        size = {"tile": self.fixed} if self.fixed else {"multiple": self.multiple}
        return {
            "layout": "NHWC" if self.channels_last else "NCHW",
            "type": self.type,
            "colour": "gray" if self.channels == 1 else "RGB",
            "range": self.given if self.given == self.made else f"{self.given} to {self.made}",
            **size,
        }

    def summary(self) -> str:
        """Return `describe` as one line."""
        return ", ".join(f"{key} {value}" for key, value in self.describe().items())

    def run(self, session: Any, images: np.ndarray) -> np.ndarray:
        """Return the network's images for `images`, both (N, 3, H, W) float32 in [0, 1].

        A network for gray images runs on each channel on its own. Raises what ONNX Runtime raises.
        """
        planes = images.reshape(-1, self.channels, *images.shape[2:])
        parts = planes[:, None] if self.single else [planes]
        results = [session.run([self.output], {self.input: self.encode(p)})[0] for p in parts]
        return self.decode(np.concatenate(results), images.shape)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Return images (N, C, H, W) in [0, 1] as the network takes them, reflected to its size."""
        sides = zip(self.sides, images.shape[2:], strict=True)
        more = [(0, (wanted or side) - side) for wanted, side in sides]
        low, high = RANGES[self.given]
        values = np.pad(images, ((0, 0), (0, 0), *more), "symmetric") * (high - low) + low
        if self.type == "uint8":
            values = values.clip(0, 255).round()
        values = values.transpose(0, 2, 3, 1) if self.channels_last else values
        return np.ascontiguousarray(values, self.type)

    def decode(self, result: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the network's result as images of `shape`, (N, 3, H, W) float32 in [0, 1]."""
        values = result.transpose(0, 3, 1, 2) if self.channels_last else result
        low, high = RANGES[self.made]
        values = (values[..., : shape[2], : shape[3]].astype(np.float32) - low) / (high - low)
        return np.asarray(values, np.float32).reshape(shape)


if __name__ == "__main__":
    _main(*sys.argv[1:])
