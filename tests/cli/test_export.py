"""`blurkit export`: networks as ONNX files, and deblurring by them without torch."""

import json
import zipfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import onnx
import onnxruntime
import pytest
import skimage.data
import torch
import yaml

import blurkit
from blurkit.errors import UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.msdi import networks as msdi
from blurkit.systems.nafnet.networks import GuidedNAFNet, NAFNet
from blurkit.systems.system import shipped_file
from blurkit.systems.uses import network_for
from tests.cli.command import assert_refused, fresh
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, write
from tests.engine.networks import stored

PHOTO = blurred(skimage.data.coffee()[:150, :200])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("photo") / "photo.png", PHOTO)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    told = blurkit.export(checkpoint, path)
    assert (told.use, told.tile) == ("deblurring", 64)
    return path


def difference(first: Path, second: Path) -> tuple[int, float]:
    """The largest difference of 8-bit values, and the fraction of pixels that differ."""
    a, b = (imageio.imread(path).astype(int) for path in (first, second))
    return int(np.abs(a - b).max()), float((a != b).any(axis=2).mean())


def assert_alike(photo: Path, first: Path, second: Path, *options: str) -> None:
    """Two files of weights give the same, which is not the photo."""
    for name, weights in (("1.png", first), ("2.png", second)):
        done("deblur", photo, "-c", weights, "--precision", "fp32", *options, "-o", name)
    most, fraction = difference(Path("1.png"), Path("2.png"))
    assert most <= 1 and fraction < 1e-3
    assert difference(photo, Path("2.png"))[1] > 0.5


def test_the_file_does_as_its_checkpoint(checkpoint: Path, exported: Path, photo: Path) -> None:
    assert_alike(photo, checkpoint, exported)


def test_any_program_can_run_the_file(checkpoint: Path, exported: Path) -> None:
    onnx.checker.check_model(onnx.load(exported))
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    tile = (PHOTO[:144, :192] / 255).astype(np.float32).transpose(2, 0, 1)[None]
    (restored,) = session.run(None, {"image": tile})
    with torch.no_grad():
        expected = network_for("deblurring", load_checkpoint(checkpoint))(torch.from_numpy(tile))
    np.testing.assert_allclose(restored, expected[-1].numpy(), atol=1e-4)


@pytest.mark.parametrize("guided", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_nafnet_is_exported(guided: bool, photo: Path) -> None:
    """The comparison with torch that comes before writing has passed; sizes are dynamic."""
    done("export", nafnet(Path("nafnet.pt"), guided), "-o", "nafnet.onnx")
    (told,) = done("info", "nafnet.onnx", "--json").json
    assert (told["minimum"], told["multiple"]) == (1, 1)
    assert_alike(photo, Path("nafnet.pt"), Path("nafnet.onnx"), "--protocol", "whole")


def nafnet(path: Path, guided: bool) -> Path:
    """A checkpoint of a small NAFNet whose blocks do something, unlike those of a new one."""
    torch.manual_seed(0)
    blocks = {"encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]}
    encoding = msdi.DegradationEncoder(1, 8), msdi.PriorUpsampling(1, 8)
    network = GuidedNAFNet(*encoding, 8, width=8, **blocks) if guided else NAFNet(8, **blocks)
    for key, weights in network.named_parameters():
        if key.endswith((".beta", ".gamma")):
            torch.nn.init.constant_(weights, 0.5)
    return stored(path, {"deblur": network}, system="nafnet", crop=64)


@pytest.mark.slow
@pytest.mark.parametrize("use", ["deblurring", "reblurring"])
def test_stacked_generators_are_exported(use: str) -> None:
    torch.manual_seed(0)
    options = {"modulation": "paper", "inject_stages": "both", "inject_bottleneck": True}
    roles = {role: msdi.StackedGenerator(8, 8, **options) for role in ("deblur", "reblur")}
    networks = {
        "encoder": msdi.DegradationEncoder(1, 8),
        "latents": msdi.PriorUpsampling(1, 8),
        **roles,
    }
    done("export", stored(Path("enc.pt"), networks, crop=64), "--use", use, "-o", "net.onnx")
    (told,) = done("info", "net.onnx", "--json").json
    assert list(told["inputs"]) == ["image", "blur"][: 1 + (use == "reblurring")]


def test_an_input_without_an_effect_is_left_out() -> None:
    """A generator that was trained without degradations takes latents that it does not use."""
    torch.manual_seed(0)
    plain = {"deblur": msdi.JointGenerator(8, injection="none")}
    done("export", stored(Path("plain.pt"), plain), "--role", "deblur", "-o", "plain.onnx")
    (told,) = done("info", "plain.onnx", "--json").json
    assert list(told["inputs"]) == ["input_0"]


def test_results_of_no_meaning_are_refused() -> None:
    network = msdi.JointGenerator(8, injection="none")
    torch.nn.init.constant_(network.last.weight, 1e38)  # the sums overflow
    wild = stored(Path("wild.pt"), {"deblur": network})
    assert_refused(invoke("export", wild, "-o", "wild.onnx"), "is the network trained?")


@pytest.mark.parametrize("options", [[], ["--method", "network"]], ids=["-c", "shipped"])
def test_torch_is_not_imported(exported: Path, photo: Path, options: list[str]) -> None:
    """Where a processor computes in bfloat16, the shipped weights run by torch."""
    code = (
        "import sys, blurkit.model as light\n"
        "light.GPUS, light.CPU_INFO = (), light.Path('none')\n"
        "from blurkit.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    given = options or ["-c", exported]
    ran = fresh("-c", code, "deblur", photo, *given, "-o", "a.png", "--device", "cpu")
    assert ran.status == 0, ran.err
    assert Path("a.png").exists()


def test_the_shipped_file_gives_what_the_shipped_checkpoint_gives(photo: Path) -> None:
    """With an encoder, torch runs; it is the checkpoint's own."""
    options = ["--method", "network", "--precision", "fp32", "--device", "cpu"]
    done("deblur", photo, *options, "-o", "a.png")
    done("deblur", photo, *options, "--encoder", shipped_file("msdi"), "-o", "b.png")
    most, fraction = difference(Path("a.png"), Path("b.png"))
    assert most <= 1 and fraction < 1e-3


@pytest.mark.slow
def test_python_and_half_the_size(checkpoint: Path, exported: Path, photo: Path) -> None:
    done("deblur", photo, "-c", exported, "-o", "a.png")
    model = blurkit.load(exported)
    np.testing.assert_array_equal(model.deblur(PHOTO), imageio.imread("a.png"))
    with pytest.raises(blurkit.BlurkitError, match="is not a checkpoint"):
        model.reblur(PHOTO, PHOTO)
    with pytest.raises(UsageError, match="no --encoder"):
        blurkit.load(exported, exported)
    ran = done("export", checkpoint, "--half", "-o", "half.onnx")
    assert ran.lines == ["wrote half.onnx: deblurring, images of multiples of 16 pixels"]
    assert Path("half.onnx").stat().st_size < 0.75 * exported.stat().st_size
    done("deblur", photo, "-c", "half.onnx", "-o", "half.png")
    assert difference(Path("a.png"), Path("half.png"))[0] <= 3


def test_what_the_file_says_of_itself(exported: Path) -> None:
    (told,) = done("info", exported, "--json").json
    assert (told["kind"], told["use"]) == ("ONNX network", "deblurring")
    assert told["inputs"] == {"image": "numberx3xheightxwidth"}
    assert told["outputs"] == {"result": "numberx3xheightxwidth"}
    assert (told["tile"], told["minimum"], told["multiple"]) == (64, 32, 16)


def test_what_is_refused(checkpoint: Path, joint: Path, exported: Path, photo: Path) -> None:
    space, output = shipped_file("kernel-space"), ("-o", "net.onnx")
    refused = {
        ("none.pt", *output): "no such checkpoint",
        (checkpoint, "-o", exported): "exists already",
        (checkpoint, "--role", "reblur", *output): "has no 'reblur'",
        (space, "--role", "kernel_space", *output): "ONNX cannot express LightKernelSpace",
    }
    assert_each_refused(refused, "export", status=1)
    assert_each_refused({("-o", "net.pt"): "name an ONNX file"}, "export", checkpoint)
    Path("net.onnx").write_bytes(b"no network")
    done("export", joint, "--role", "encoder", "-o", "role.onnx")
    bad = {
        ("net.onnx",): "damaged, or not an ONNX file",
        ("role.onnx",): "holds a network for 'encoder'",
    }
    assert_each_refused(bad, "deblur", photo, "-c", status=1)
    wrong = dict.fromkeys((("--encoder", checkpoint), ("--precision", "bf16")), "no --encoder")
    assert_each_refused(wrong, "deblur", photo, "-c", exported)


def test_sizes_that_differ_have_different_names(joint: Path) -> None:
    """ONNX Runtime may reuse the memory of one for another of the same name."""
    done("export", joint, "--role", "latents", "-o", "latents.onnx")
    outputs = [result.type.tensor_type.shape for result in onnx.load("latents.onnx").graph.output]
    sides = [side.dim_param for shape in outputs for side in shape.dim[2:]]
    assert len(sides) == 8 and all(sides) and len({*sides}) == 8


@pytest.mark.slow
def test_a_package_for_darktable(checkpoint: Path) -> None:
    """What darktable's dev-doc/AI.md and AI_Tasks.md ask for; the tile is theirs, not 64."""
    done("export", checkpoint, "--for", "darktable", "-o", "My net.dtmodel")
    with zipfile.ZipFile("My net.dtmodel") as package:
        package.extractall(".")
    folder = Path("denoise-my-net")
    about = json.loads((folder / "config.json").read_text())
    assert (about["id"], about["task"], about["backend"]) == (folder.name, "denoise", "onnx")
    assert about["attributes"] == {"input_sizes": [768]}
    recipe = yaml.safe_load((folder / "model.yaml").read_text())
    assert recipe["type"] == "single" and recipe.items() >= about.items()
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    assert 17 <= model.opset_import[0].version <= 20
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert (given.name, result.name) == ("input", "output")
    assert given.shape == result.shape == [1, 3, 768, 768]


def test_what_is_refused_for_darktable(checkpoint: Path) -> None:
    cases = {
        ("a.dtmodel", "--role", "deblur"): "no --role",
        ("a.dtmodel", "--use", "reblurring"): "no --role",
        ("a.onnx",): "such as net.dtmodel",
    }
    assert_each_refused(cases, "export", checkpoint, "--for", "darktable", "-o")
