"""Find out how a network of another program takes images: from its graph, and by trying."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from blurkit.engine.onnx_layout import RANGES, OnnxLayout, ValueRange
from blurkit.errors import BlurkitError, one_line
from blurkit.io.images import read_image
from blurkit.io.records import to_float
from blurkit.metrics.psnr import psnr

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

MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Numbers that may have to divide the sides of an image."""

SHORTEST = 16
"""A fixed number below this is no height or width."""

NEARLY = 20.0
"""The least PSNR in dB between a sharp photo and what a network makes of it in the right range."""

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
    """A layout is not the network's; says why."""


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
        for multiple in [fixed] if fixed else MULTIPLES:
            yield OnnxLayout(*known, fixed or max(TRIED_SIDE, multiple), multiple)


def _kinds(shape: list[int | None]) -> Iterator[tuple[bool, int]]:
    """Yield whether channels come last, and their number, for an input of `shape`."""
    if len(shape) != 4:
        return
    for last in (False, True):
        sides = shape[1:3] if last else shape[2:]
        if all(side is None or side >= SHORTEST for side in sides):
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
    quiet = onnxruntime.RunOptions()
    quiet.log_severity_level = 4
    try:
        results = session.run(None, {layout.input: given}, quiet)
    except Exception as error:  # of any of its classes
        raise _Unfit(f"does not run ({one_line(error)[:200]})") from error
    outputs = [node for node in session.get_outputs() if node.type in TYPES]
    shapes = {
        node.name: np.shape(result)
        for node, result in zip(session.get_outputs(), results, strict=True)
    }
    images = [node.name for node in outputs if shapes[node.name] == given.shape]
    if len(images) > 1:
        raise BlurkitError(f"gives {len(images)} images ({', '.join(images)}), not one")
    if not images:
        made = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
        taken = "x".join(map(str, given.shape))
        raise _Unfit(f"{GIVES}{made} for {taken}; blurkit runs networks that keep an image's size")
    return replace(layout, output=images[0])


def _in_range(session: Any, layout: OnnxLayout, value_range: ValueRange | None) -> OnnxLayout:
    """Return a layout with the first ranges in which the network gives back nearly a photo.

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
    scores = {}
    for name in RANGES:
        scores[name] = _score(session, chosen(name))
        if scores[name] >= NEARLY:
            return chosen(name)
    found = ", ".join(f"{name}: {score:.0f} dB" for name, score in scores.items())
    raise BlurkitError(
        f"the range of its values cannot be told, since a photo does not come back in any ({found})"
        f"; name it with --value-range {'|'.join(RANGES)}"
    )


def _score(session: Any, layout: OnnxLayout) -> float:
    """Return the PSNR in dB between a photo and what the network makes of it."""
    photo = _picture(_side(layout))
    with np.errstate(all="ignore"):
        return psnr(layout.run(session, photo), photo)


def _picture(side: int) -> np.ndarray:
    """Return the centre of the photo, (1, 3, side, side) in [0, 1], mirrored where it is larger."""
    photo = to_float(read_image(PHOTO).pixels)
    more = [(0, max(0, side - length)) for length in photo.shape[:2]]
    whole = np.pad(photo, (*more, (0, 0)), "symmetric")
    top, left = ((length - side) // 2 for length in whole.shape[:2])
    square = whole[top : top + side, left : left + side]
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None])
