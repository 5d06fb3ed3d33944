"""ONNX files of other programs: how they take images is found out, and `deblur` gives their result.

The networks are made with the package onnx, and each is run by ONNX Runtime directly to compare.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
from onnx import TensorProto, helper, numpy_helper

import blurkit
from blurkit.engine import onnx_runner
from blurkit.engine.onnx_runner import ONNX_METADATA, Exported
from blurkit.errors import BlurkitError
from tests.cli.command import Ran, assert_failed, assert_refused
from tests.cli.invoke import invoke

FLOAT, HALF, BYTE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8
BOOL, INT = TensorProto.BOOL, TensorProto.INT64
PHOTO = skimage.data.coffee()[100:190, 200:310]
Shape = Sequence[int | str]
PHOTOS: Shape = ("n", 3, "h", "w")


class Graph:
    """A network in the making: each method adds a node and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, [*inputs], [f"v{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def weight(self, value: Any, kind: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def convolution(self, image: str, channels: int = 3, step: int = 1, seed: int = 0) -> str:
        """A random 3x3 convolution with a bias that suits values in 0..1."""
        noise = np.random.default_rng(seed)
        kernel = noise.normal(0, 0.01, (channels, channels, 3, 3))
        bias = self.weight(noise.normal(0, 0.02, channels))
        pads, steps = [1] * 4, [step] * 2
        return self("Conv", image, self.weight(kernel), bias, pads=pads, strides=steps)

    def residual(self, image: str, channels: int = 3, seed: int = 0) -> str:
        return self("Add", image, self.convolution(image, channels, seed=seed))

    def write(
        self,
        path: Path,
        *results: str,
        shape: Shape = PHOTOS,
        made: Shape | None = None,
        inputs: Sequence[str] = ("x",),
        types: tuple[int, int] = (FLOAT, FLOAT),
    ) -> Path:
        """Write the network; inputs have the `shape`, and so have `results`, or that in `made`."""
        ends = zip((inputs, results), types, (shape, made or shape), strict=True)
        parts = (
            [helper.make_tensor_value_info(name, kind, sides) for name in names]
            for names, kind, sides in ends
        )
        graph = helper.make_graph(self.nodes, "network", *parts, self.weights)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name="a test")
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path


def nchw(path: Path, shape: Shape = ("n", 3, "h", "w"), scale: float = 1) -> Path:
    """A network for values in 0..`scale`."""
    graph, channels = Graph(), shape[1] if isinstance(shape[1], int) else 3
    unit = graph("Div", "x", graph.weight(scale))
    back = graph("Mul", graph.residual(unit, channels), graph.weight(scale))
    return graph.write(path, back, shape=shape)


def nhwc(path: Path, shape: Shape = ("n", "h", "w", 3)) -> Path:
    graph = Graph()
    planes = graph("Transpose", "x", perm=[0, 3, 1, 2])
    back = graph("Transpose", graph.residual(planes), perm=[0, 2, 3, 1])
    return graph.write(path, back, shape=shape)


def signed(path: Path) -> Path:
    """A network for values in -1..1 with a result that is limited to them."""
    graph = Graph()
    smaller = graph("Mul", graph.residual("x"), graph.weight(4))
    smaller = graph("Div", smaller, graph.weight(4))
    darker = graph("Sub", smaller, graph.weight(0.3))
    limited = graph("Clip", darker, graph.weight(-1), graph.weight(1))
    return graph.write(path, graph("Add", limited, graph.weight(0.3)))


def byte(path: Path, result: int = BYTE) -> Path:
    """A network of bytes, NHWC as TensorFlow's, which gives bytes or values in 0..1."""
    graph = Graph()
    values = graph("Div", graph("Cast", "x", to=FLOAT), graph.weight(255))
    planes = graph.residual(graph("Transpose", values, perm=[0, 3, 1, 2]))
    back = graph("Transpose", planes, perm=[0, 2, 3, 1])
    if result == BYTE:
        limited = graph("Clip", graph("Mul", back, graph.weight(255)), *map(graph.weight, (0, 255)))
        back = graph("Cast", graph("Round", limited), to=BYTE)
    return graph.write(path, back, shape=(1, "h", "w", 3), types=(BYTE, result))


def half(path: Path) -> Path:
    graph = Graph()
    back = graph("Cast", graph.residual(graph("Cast", "x", to=FLOAT)), to=HALF)
    return graph.write(path, back, types=(HALF, HALF))


def multiple(path: Path) -> Path:
    """A network that halves images three times and enlarges them again."""
    graph = Graph()
    small = "x"
    for seed in range(3):
        small = graph.convolution(small, step=2, seed=seed)
    large = graph("Resize", small, "", graph.weight([1, 1, 8, 8]), mode="nearest")
    return graph.write(path, graph("Add", "x", large))


def unit(image: np.ndarray) -> np.ndarray:
    """Bytes as values in 0..1."""
    return image / np.float32(255)


def planes(image: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) of bytes as most networks take them: (N, C, H, W) in 0..1."""
    return unit(image).transpose(0, 3, 1, 2)


Encode = Callable[[np.ndarray], np.ndarray]


def run(path: Path, image: np.ndarray, encode: Encode = planes) -> np.ndarray:
    """The network's result for an image of bytes, both (H, W, C), as ONNX Runtime gives it."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    ((result,),) = session.run(None, {"x": encode(image[None])})
    return np.asarray(result if result.shape[:2] == image.shape[:2] else result.transpose(1, 2, 0))


KINDS: dict[str, tuple[Callable[[Path], Path], dict[str, Any], Encode, int]] = {
    "nchw": (
        nchw,
        {"layout": "NCHW", "type": "float32", "colour": "RGB", "range": "0..1", "multiple": 1},
        planes,
        1,
    ),
    "255": (
        lambda path: nchw(path, scale=255),
        {"range": "0..255"},
        lambda x: x.transpose(0, 3, 1, 2).astype(np.float32),
        255,
    ),
    "nhwc": (nhwc, {"layout": "NHWC", "range": "0..1"}, unit, 1),
    "names only": (
        lambda path: nhwc(path, ("n", "h", "w", "c")),
        {"layout": "NHWC", "colour": "RGB"},
        unit,
        1,
    ),
    "bytes": (byte, {"type": "uint8", "range": "0..255"}, lambda x: x, 255),
    "bytes to floats": (
        lambda path: byte(path, FLOAT),
        {"type": "uint8", "range": "0..255 to 0..1"},
        lambda x: x,
        1,
    ),
    "half": (half, {"type": "float16"}, lambda x: planes(x).astype(np.float16), 1),
}
"""Networks, what `info` says of them, what they take for bytes, and which result is white."""


@pytest.mark.parametrize("name", KINDS)
def test_the_result_is_that_of_onnx_runtime(name: str, tmp_path: Path) -> None:
    make, told, encode, white = KINDS[name]
    path = make(tmp_path / "net.onnx")
    (about,) = invoke("info", path, "--json").json
    assert about | told == about and about["producer"] == "a test"
    expected = run(path, PHOTO, encode).astype(float) * (255 / white)
    result = deblurred(path, tmp_path, "--protocol", "whole")
    assert np.abs(result - PHOTO).max() > 2
    assert np.abs(result - expected.clip(0, 255)).max() < 0.7
    assert np.abs(deblurred(path, tmp_path, "--tile", 64) - result)[:40, :40].max() < 1.1


def deblurred(path: Path, folder: Path, *options: object) -> np.ndarray:
    photo, made = folder / "photo.png", folder / "made.png"
    imageio.imwrite(photo, PHOTO)
    ran = invoke("deblur", photo, "-c", path, "-o", made, "-q", "--force", *options)
    assert (ran.status, ran.err) == (0, "")
    return np.asarray(imageio.imread(made), dtype=float)


def refused(path: Path, *options: object) -> Ran:
    photo, made = path.with_name("photo.png"), path.with_name("refused.png")
    imageio.imwrite(photo, PHOTO)
    ran = invoke("deblur", photo, "-c", path, "-o", made, "-q", *options)
    assert not made.exists()
    return ran


@pytest.mark.parametrize("sides", [(64, 64), (80, 160)])
def test_a_fixed_size_gives_the_tile(sides: tuple[int, int], tmp_path: Path) -> None:
    path = nchw(tmp_path / "net.onnx", (1, 3, *sides))
    (about,) = invoke("info", path, "--json").json
    assert about["tile"] == min(sides)
    expected = deblurred(nchw(tmp_path / "any.onnx"), tmp_path, "--tile", min(sides))
    assert np.abs(deblurred(path, tmp_path) - expected)[:32, :32].max() < 1.1
    for wrong in (("--tile", 2 * min(sides)), ("--protocol", "whole")):
        assert_refused(refused(path, *wrong), f"takes tiles of {min(sides)} pixels", status=2)


def test_sides_are_padded_to_a_multiple(tmp_path: Path) -> None:
    path = multiple(tmp_path / "net.onnx")
    (about,) = invoke("info", path, "--json").json
    assert about["multiple"] == 8
    result = deblurred(path, tmp_path, "--protocol", "whole")
    more = [(0, -side % 8) for side in PHOTO.shape[:2]]
    padded = np.pad(PHOTO, (*more, (0, 0)), "reflect")
    whole = run(path, padded)
    height, width = PHOTO.shape[:2]
    assert np.abs(result - (whole[:height, :width] * 255).clip(0, 255)).max() < 0.7


def test_a_network_for_gray_images_runs_on_each_channel(tmp_path: Path) -> None:
    path = nchw(tmp_path / "net.onnx", (1, 1, "h", "w"))
    result = deblurred(path, tmp_path, "--protocol", "whole")
    for channel in range(3):
        gray = run(path, PHOTO[..., [channel]])[..., 0]
        assert np.abs(result[..., channel] - gray.clip(0, 1) * 255).max() < 0.7


def test_the_range_can_be_named(tmp_path: Path) -> None:
    """Of this network, only -1..1 would be right, but 0..1 gives nearly the photo too."""
    path = signed(tmp_path / "net.onnx")
    found, named = (
        deblurred(path, tmp_path, "--protocol", "whole", *options)
        for options in ((), ("--value-range", "-1..1"))
    )
    expected = run(path, PHOTO, lambda x: 2 * planes(x) - 1)
    assert np.abs(named - ((expected + 1) * 127.5).clip(0, 255)).max() < 0.7
    assert np.abs(found - named).max() > 2
    tiled = deblurred(path, tmp_path, "--value-range=-1..1")
    np.testing.assert_array_equal(blurkit.load(path, value_range="-1..1").deblur(PHOTO), tiled)


def test_the_layout_is_said(tmp_path: Path) -> None:
    photo, path = tmp_path / "photo.png", nchw(tmp_path / "net.onnx")
    imageio.imwrite(photo, PHOTO)
    ran = invoke("deblur", photo, "-c", path, "-o", tmp_path / "made.png")
    words = "layout NCHW, type float32, colour RGB, range 0..1, multiple 1"
    assert ran.lines[0] == f"net.onnx: {words}"


def larger(path: Path) -> Path:
    graph = Graph()
    back = graph("Resize", "x", "", graph.weight([1, 1, 2, 2]), mode="nearest")
    return graph.write(path, back, made=("n", 3, "H", "W"))


def classifier(path: Path) -> Path:
    graph = Graph()
    flat = graph("Flatten", graph("GlobalAveragePool", graph.convolution("x")))
    return graph.write(path, flat, made=("n", 3))


def two_inputs(path: Path) -> Path:
    graph = Graph()
    return graph.write(path, graph("Add", "x", "mask"), inputs=("x", "mask"))


def failing(path: Path) -> Path:
    graph = Graph()
    back = graph("Reshape", "x", graph.weight([1, 3, 7, 11], np.int64))
    return graph.write(path, back, made=("n", 3, "H", "W"))


def two_results(path: Path) -> Path:
    graph = Graph()
    return graph.write(path, *(graph.residual("x", seed=seed) for seed in range(2)))


def negative(path: Path) -> Path:
    graph = Graph()
    return graph.write(path, graph("Neg", "x"))


def vectors(path: Path) -> Path:
    graph = Graph()
    return graph.write(path, graph("Relu", "x"), shape=("n", 10))


REFUSED = {
    larger: "gives 1x3x130x130 for 1x3x65x65; blurkit runs networks that keep an image's size",
    classifier: "gives 1x3 for 1x3x65x65",
    two_inputs: "takes 2 inputs (x, mask); blurkit gives one image",
    two_results: "gives 2 images (v1, v3), not one",
    negative: "the range of its values cannot be told, since a photo does not come",
    vectors: "takes tensor(float) of nx10; blurkit gives one gray or RGB image",
}


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_is_refused(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path, reason = make(tmp_path / "net.onnx"), REFUSED[make]
    assert_refused(refused(path), f"{path}: {reason}")
    (about,) = invoke("info", path, "--json").json
    assert about["problem"].startswith(reason)
    with pytest.raises(BlurkitError):
        blurkit.load(path).deblur(PHOTO)


def own(path: Path, about: str, network: Callable[[Path], Path] = nchw) -> Path:
    """A network that says of itself what `blurkit export` writes, or something else."""
    model = onnx.load(network(path))
    model.metadata_props.add(key=ONNX_METADATA, value=about)
    onnx.save(model, path)
    return path


def told(**values: Any) -> str:
    return json.dumps({**json.loads(Exported("deblurring").text()), **values})


LIES = {
    **{f"{key} {value}": told(**{key: value}) for key in ("tile", "minimum", "multiple")
       for value in (0, -3, "a word", 1.5, True, None, 10**9, [256])},
    **{key: told(**{key: 5}) for key in ("use", "title", "date", "provenance", "unknown")},
    **{"brackets": "[" * 100_000, "nothing": "", "null": "null", "a list": "[1]", "no use": "{}"},
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_lies_of_a_file_about_itself_are_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError, RecursionError)):
        Exported.parsed(LIES[name])
    if name in ("multiple 0", "tile a word", "brackets"):
        path = own(tmp_path / "net.onnx", LIES[name])
        words = "damaged, what it says of itself cannot be read"
        assert_refused(refused(path), f"{path}: {words}")
        assert_failed(invoke("info", path), "net.onnx", words)


def test_what_a_file_says_of_itself_may_be_nested_deeply(tmp_path: Path) -> None:
    nested: dict[str, Any] = {}
    for _ in range(450):
        nested = {"a": nested}
    path = own(tmp_path / "net.onnx", told(provenance=nested))
    assert_failed(invoke("info", path), "net.onnx", "nested too deeply")


@pytest.mark.parametrize("network", [two_inputs, vectors])
def test_a_network_must_take_what_its_file_says(network: Any, tmp_path: Path) -> None:
    path = own(tmp_path / "net.onnx", told(), network)
    assert_refused(refused(path), "its network does not take what it says of itself")


@pytest.mark.parametrize("network", [larger, failing])
def test_what_a_network_gives_must_have_the_size_of_the_image(
    network: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And what ONNX Runtime says goes into one line, without colours, and nowhere else."""
    ran = refused(own(tmp_path / "net.onnx", told(), network))
    assert_failed(ran, "photo", "ONNX Runtime failed: ")
    assert "x1b" not in ran.err and "\x1b" not in ran.err
    assert capfd.readouterr().err == ""


def endless(path: Path) -> Path:
    """A network with a loop whose condition stays true."""
    parts = {"i": (INT, []), "c": (BOOL, []), "v": (FLOAT, PHOTOS)}
    inputs = [helper.make_tensor_value_info(name, *part) for name, part in parts.items()]
    results = [helper.make_tensor_value_info(f"{n}2", *parts[n]) for n in ("c", "v")]
    nodes = [helper.make_node("Identity", [n], [f"{n}2"]) for n in ("c", "v")]
    graph = Graph()
    body = helper.make_graph(nodes, "body", inputs, results)
    return graph.write(path, graph("Loop", "", graph.weight(True, np.bool_), "x", body=body))


def hungry(path: Path) -> Path:
    """A network that makes a matrix of terabytes."""
    graph = Graph()
    sides = graph.weight([10**6, 10**6], np.int64)
    total = graph("ReduceSum", graph("ConstantOfShape", sides), keepdims=0)
    return graph.write(path, graph("Add", "x", total))


def test_a_network_that_never_ends_or_takes_all_memory_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_runner, "TRIAL_SECONDS", 1)
    opened: list[Path] = []  # in this process, before the trial
    monkeypatch.setattr(onnx_runner, "open_session", lambda *given: opened.append(*given))
    path = endless(tmp_path / "endless.onnx")
    assert_failed(invoke("info", path), "endless.onnx", "takes more than 1 s for a small image")
    assert_refused(refused(path), "takes more than 1 s for a small image")
    path = own(tmp_path / "own.onnx", told(), endless)
    assert_refused(refused(path), "takes more than 1 s for a small image")
    monkeypatch.undo()
    assert not opened
    # an old onnxruntime computes constants when it opens a file
    assert_refused(refused(hungry(tmp_path / "hungry.onnx")), "hungry.onnx: ", "(")


def test_no_file_in_the_current_folder_is_run(tmp_path: Path) -> None:
    """A child process examines the network; photos may lie beside a file called json.py."""
    for name in ("json", "numpy", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    (about,) = invoke("info", nchw(tmp_path / "net.onnx"), "--json", cwd=tmp_path).json
    assert about["layout"] == "NCHW"


def test_a_damaged_file_and_wrong_options_are_refused(tmp_path: Path) -> None:
    path = nchw(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes()[:200])
    assert_refused(refused(path), "damaged, or not an ONNX file")
    ran = invoke("info", path)
    assert ran.status == 1 and "damaged, or not an ONNX file" in ran.err
    no_range = refused(tmp_path / "net.pt", "--value-range", "0..1")
    assert_refused(no_range, "--value-range requires -c with an ONNX file", status=2)


def test_a_named_range_is_not_tried(tmp_path: Path) -> None:
    result = deblurred(negative(tmp_path / "net.onnx"), tmp_path, "--value-range", "-1..1")
    assert np.abs(result - (255.0 - PHOTO)).max() <= 1
