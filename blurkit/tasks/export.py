"""Networks as ONNX files, which ONNX Runtime and other programs run without torch.

darktable's packages are ZIP files with a folder: config.json, which darktable reads, model.onnx,
and model.yaml, which its repository of models asks for (darktable, dev-doc/AI.md, AI_Tasks.md).
"""

import io
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from blurkit.engine.engine import InputShapes, SizeRequirement
from blurkit.engine.onnx_runner import ONNX_METADATA, PHOTO, Exported, open_session
from blurkit.errors import BlurkitError, one_line, silenced
from blurkit.io.checkpoints import Checkpoint, halved, load_checkpoint
from blurkit.io.images import read_image
from blurkit.io.records import to_float
from blurkit.io.writing import replacing
from blurkit.systems.code import with_code
from blurkit.systems.registry import assemble, network_name
from blurkit.systems.system import Use, title_and_date
from blurkit.systems.uses import network_for, trained_tile
from blurkit.tasks.inspect import input_shapes

ANY_SIZE = {0: "number", 2: "height", 3: "width"}
"""Names of the dimensions that may have any size."""

LARGEST_DIFFERENCE = 1e-4
"""The largest difference to torch's results, relative to values above 1, on a photo."""

LARGEST_RESULT = 1e3
"""Results for a photo beyond this are those of an untrained network, of which no digit is sure."""

DARKTABLE_SIDE = 768
"""The side in pixels of the tiles that a package for darktable takes; it tries 768 before less."""


class Flat(nn.Module):
    """A network whose inputs and outputs are single tensors: lists become several of them.

    `shapes` are those of the network's inputs. With `last`, the last output is the only one.
    """

    def __init__(self, network: nn.Module, shapes: InputShapes, last: bool) -> None:
        super().__init__()
        self.network, self.shapes, self.last = network, shapes, last
        self.eval()  # the exporter puts all parts into the mode of the whole

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the network's outputs for its inputs."""
        given = iter(tensors)
        arguments = [
            [next(given) for _ in shape] if isinstance(shape, list) else next(given)
            for shape in self.shapes
        ]
        outputs = tuple(_leaves(self.network(*arguments)))
        return outputs[-1:] if self.last else outputs


def export(
    source: str | Path | Checkpoint,
    output: str | Path,
    use: Use = "deblurring",
    role: str = "",
    half: bool = False,
    force: bool = False,
    network: str = "",
    program: Literal["", "darktable"] = "",
) -> Exported:
    """Write a network of a checkpoint, or of its file, as an ONNX file; return what that says.

    It is the network in `role` with all its outputs, or the one for a `use` with its last output.
    Sizes are dynamic if the results are right at more than one, else those of the training crops.
    `half` stores weights in half precision; the file computes in float32 all the same. `network`
    names the code of a network of your own, FILE.py:CLASS, which is then run. For the `program`
    darktable, `output` is a package of a network that deblurs 768x768 pixels. Nothing is written
    before its results for a photo were compared with torch's. Raises BlurkitError if the
    checkpoint has no such network, ONNX cannot express it or the results differ.
    """
    checkpoint = source if isinstance(source, Checkpoint) else load_checkpoint(source)
    checkpoint = with_code(checkpoint, network, warnings.warn)
    if role:
        networks = assemble(checkpoint)
        if role not in networks:
            raise BlurkitError(f"{checkpoint.where}: has no {role!r}, only {', '.join(networks)}")
        chosen = networks[role].eval()
    else:
        chosen = network_for(use, checkpoint)
    if half:
        state = halved(chosen.state_dict())
        chosen.load_state_dict({key: value.float() for key, value in state.items()})
    tile = trained_tile(checkpoint, chosen)
    size: SizeRequirement = getattr(chosen, "size", SizeRequirement())
    title, date = title_and_date(checkpoint)
    sizes = [(size.minimum, size.multiple), (tile, tile)]
    if program:
        tile = size.padded(DARKTABLE_SIDE, DARKTABLE_SIDE)[0]
        sizes = [(tile, tile)] if tile == DARKTABLE_SIDE else []
    reason = f"takes no {DARKTABLE_SIDE}x{DARKTABLE_SIDE} pixels, as {program} needs"
    with TemporaryDirectory() as folder:
        made = Path(folder) / "network.onnx"
        for least in sizes:
            about = Exported(role or use, title, date, tile, *least, checkpoint.provenance)
            try:
                write_onnx(chosen, about, half, made, *(("input", "output") if program else ()))
            except BlurkitError as error:
                reason = str(error)
                continue
            with replacing(Path(output), force) as partial:
                content, name = made.read_bytes(), Path(output).stem
                partial.write_bytes(darktable_package(content, name, about) if program else content)
            return about
    raise BlurkitError(f"{checkpoint.where}: {reason}")


def darktable_package(content: bytes, name: str, about: Exported) -> bytes:
    """Return the package of a network that takes one size: an ONNX file's content and its name."""
    words = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    shared = {
        "id": words if words.startswith("denoise-") else f"denoise-{words}",
        "name": f"deblur {name}",
        "description": f"{about.title} of {about.date}, which removes motion blur",
        "task": "denoise",  # of the tasks, the one that returns an image of the same size
        "version": "1.0",
        "backend": "onnx",
        "arch": "blurkit",
        "tiling": True,
        "attributes": {"input_sizes": [about.tile]},
    }
    data = "; ".join(map(str, about.provenance.get("trained_on") or ["not stated"]))
    card = {"scope": "single-image motion deblurring", "training_data": data}
    recipe = shared | {"type": "single", "model_card": card}
    files: dict[str, str | bytes] = {
        "config.json": json.dumps(shared, indent=2),
        "model.yaml": "".join(f"{key}: {json.dumps(value)}\n" for key, value in recipe.items()),
        "model.onnx": content,
    }
    package = io.BytesIO()
    with ZipFile(package, "w", ZIP_DEFLATED) as packed:
        for file, data_of_file in files.items():
            packed.writestr(ZipInfo(f"{shared['id']}/{file}"), data_of_file, ZIP_DEFLATED)
    return package.getvalue()


def write_onnx(
    network: nn.Module,
    about: Exported,
    half: bool,
    path: Path,
    given: str = "image",
    result: str = "result",
) -> None:
    """Write a network; raise BlurkitError if ONNX cannot express it or the results differ.

    `given` and `result` are the names of the image and of the result of a network for a use.
    """
    tile, size = about.tile, about.size
    last = about.use in ("deblurring", "reblurring")  # whose networks take images only
    guides = tuple(getattr(network, "guides", ())) if about.use == "reblurring" else ()
    sides = [size.padded(tile, tile), size.padded(tile + 64, tile + 32)]
    dynamic = size.multiple < tile
    shapes: list[InputShapes] = [
        list(((1, 3, *side),) * (1 + len(guides))) if last else input_shapes(network, *side)
        for side in sides[: 1 + dynamic]
    ]
    flat = Flat(network, shapes[-1], last)
    inputs = _pictures(shapes[-1])  # of a size for which no network makes an exception
    axes = ANY_SIZE if dynamic else {}
    names = [f"input_{number}" for number in range(len(inputs))]
    if last:
        names, results = [given, *guides], [result]
    else:
        with torch.inference_mode():
            count = len(flat(*map(torch.from_numpy, inputs)))
        results = [f"output_{number}" for number in range(count)]
    sys.stdout.flush()
    try:  # to standard output, torch prints a network that it fails to export
        with torch.inference_mode(), warnings.catch_warnings(), silenced(1):
            warnings.simplefilter("ignore")  # about sizes that it takes for constants
            torch.onnx.export(
                flat,
                tuple(map(torch.from_numpy, inputs)),
                str(path),
                input_names=names,
                output_names=results,
                dynamic_axes=dict.fromkeys([*names, *(results if last else [])], axes),
                opset_version=17,
                do_constant_folding=not half,  # what is computed from weights has all its bits
                dynamo=False,  # it would take the sizes for constants
            )
    except Exception as error:  # of any kind
        reason = one_line(error).partition(". ")[0][:120]
        raise BlurkitError(f"ONNX cannot express {network_name(network)} ({reason})") from error
    _finish(path, about, half)
    session = open_session(path)
    for shape in shapes:
        _compare(Flat(network, shape, last), session, names, _pictures(shape))


def _finish(path: Path, about: Exported, half: bool) -> None:
    """Add what a file says of itself; with `half`, store large tensors that allow it in 16 bits."""
    model = onnx.load(path)
    model.metadata_props.add(key=ONNX_METADATA, value=about.text())
    graph = model.graph
    for output in graph.output:  # torch calls dimensions of different outputs the same
        for axis, side in enumerate(output.type.tensor_type.shape.dim):
            if side.dim_param and side.dim_param not in ANY_SIZE.values():
                side.dim_param = f"{output.name}_{axis}"
    casts = []
    for tensor in list(graph.initializer) if half else []:
        values = numpy_helper.to_array(tensor)
        small = values.astype(np.float16) if values.dtype == np.float32 else values
        if small.size < 1024 or small is values or (small.astype(np.float32) != values).any():
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(small, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def _compare(flat: Flat, session: Any, names: Sequence[str], inputs: Sequence[np.ndarray]) -> None:
    """Raise BlurkitError if a session's results for inputs are not those of a network."""
    taken = {node.name for node in session.get_inputs()}  # ONNX drops those without an effect
    feeds = {name: values for name, values in zip(names, inputs, strict=True) if name in taken}
    results = session.run(None, feeds)
    with torch.inference_mode():
        expected = flat(*map(torch.from_numpy, inputs))
    for found, wanted in zip(results, expected, strict=True):
        values = wanted.numpy()
        scale = float(np.maximum(1, np.abs(values).max()))  # NaN stays NaN
        with np.errstate(invalid="ignore"):  # infinities
            difference = float(np.abs(found - values).max()) / scale
        if not difference <= LARGEST_DIFFERENCE:  # also true for NaN
            if not scale <= LARGEST_RESULT:
                raise BlurkitError(
                    f"its results for a photo reach {scale:.0e}, so ONNX's cannot be compared with "
                    "them; is the network trained?"
                )
            sides = "x".join(map(str, inputs[0].shape))
            raise BlurkitError(f"in ONNX, the results for {sides} differ by {difference:.1e}")


def _pictures(shapes: InputShapes) -> list[np.ndarray]:
    """Return the inputs of a network: parts of a photo, and noise for what is no picture."""
    photo = to_float(read_image(PHOTO).pixels).transpose(2, 0, 1)[None]
    noise = np.random.default_rng(0)
    inputs = []
    for number, shape in enumerate(_leaves(shapes, (list,))):
        if len(shape) == 4 and shape[1] == 3:
            sides = zip(shape, photo.shape, strict=True)
            more = [(0, max(0, wanted - side)) for wanted, side in sides]
            turned = photo[..., :: (-1) ** number]  # a guide is another picture
            picture = np.pad(turned, more, mode="symmetric")
            inputs.append(np.ascontiguousarray(picture[..., : shape[2], : shape[3]]))
        else:
            inputs.append(noise.standard_normal(shape, np.float32))
    return inputs


def _leaves(nested: Any, kinds: tuple[type, ...] = (list, tuple)) -> Iterator[Any]:
    parts: Any = nested if isinstance(nested, kinds) else [nested]
    for part in parts:
        yield from _leaves(part, kinds) if isinstance(part, kinds) else [part]
