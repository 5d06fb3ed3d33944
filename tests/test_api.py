"""The Python calls: the same bits as the commands, on arrays and records, and a light import."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.data.prepare import Preparation
from blurkit.engine.engine import Engine
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.reports.values import to_json
from blurkit.synthesis.drawing import Synthesis
from blurkit.systems import uses
from blurkit.systems.uses import start_engine
from blurkit.tasks.reblur import apply_kernel
from tests.cli import bgans
from tests.cli.command import assert_done, blurred, photo, records, write
from tests.cli.invoke import invoke
from tests.cli.kernel_spaces import CODE, saved
from tests.pages import blocks
from tests.shared import ROOT, shared_folder


def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny networks and photos under the names that docs/python.md uses."""
    from blurkit.systems.msdi.networks import (
        DegradationEncoder,
        JointGenerator,
        JointModel,
        MSDINet,
        PriorUpsampling,
    )

    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": 8, "hidden": 8}
    encoder = (DegradationEncoder(1, 8), PriorUpsampling(1, 8))
    joint = JointModel(*encoder, JointGenerator(**options), JointGenerator(**options))
    whole = MSDINet(DegradationEncoder(1, 8), PriorUpsampling(1, 8), **options)
    with torch.no_grad():
        joint.train()(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
        whole.train()(torch.rand(2, 3, 64, 64))  # settles the spectral norms
    parts = {
        "encoder": joint.net_prior,
        "latents": joint.prior_upsampling,
        "reblur": joint.inverse_generator,
        "deblur": joint.generator,
    }
    networks = {role: state(part) for role, part in parts.items() if part is not None}
    save_checkpoint(Checkpoint(networks, "msdi", {"crop": 64}), folder / "enc.pt")
    networks = {"deblur": state(whole)}
    save_checkpoint(Checkpoint(networks, "msdi", {"crop": 64}), folder / "deblur.pt")
    saved(folder / "kernel.pt", variational=True)
    bgans.saved(folder / "bgan.pt")
    write(folder / "sharp.png", photo(5, 72, 100))
    write(folder / "photo.png", blurred(photo(5, 72, 100)))
    write(folder / "blurry.png", blurred(photo(5, 72, 100)))
    imageio.imwrite(folder / "photo.jpg", blurred(photo(5, 72, 100)))
    write(folder / "other.png", photo(50, 80, 66))
    for number in range(2):
        for name in ("photos", "blurry"):
            write(folder / f"{name}/{number}.png", blurred(photo(number)))
    pair = Record("a/b", {"sharp": photo(7), "blur": blurred(photo(7))}, {"number": 3})
    blurkit.write_records([pair], folder / "pairs.h5")
    return folder


@pytest.fixture(scope="module")
def images(files: Path) -> dict[str, np.ndarray]:
    return {path.stem: imageio.imread(path) for path in files.glob("*.png")}


def command(files: Path, tmp_path: Path, role: str, *arguments: object) -> list[np.ndarray]:
    """The images that a command writes into a shard."""
    named = [files / a if (files / str(a)).exists() else a for a in arguments]
    assert_done(invoke(*named, "-o", tmp_path / "out.h5", "-q"))
    return [record.images[role] for record in records(tmp_path / "out.h5")]


# ---- arrays --------------------------------------------------------------------------------------


def test_deblur(files: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    network = blurkit.load(files / "deblur.pt")
    (wanted,) = command(files, tmp_path, "restored", "deblur", "photo.png", "-c", "deblur.pt")
    assert not np.array_equal(wanted, images["photo"])
    np.testing.assert_array_equal(network.deblur(images["photo"]), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"tile": 32, "overlap": 8},
        {"protocol": "slices", "strength": 0.3},
        {"precision": "fp32", "device": "cpu"},
    ],
)
def test_options_are_those_of_the_command(
    options: dict[str, Any], files: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    given = dict(options)
    call = {"strength": given.pop("strength")} if "strength" in given else {}
    network = blurkit.load(files / "deblur.pt", **given)
    flags = [text for name, value in options.items() for text in (f"--{name}", value)]
    (wanted,) = command(
        files, tmp_path, "restored", "deblur", "photo.png", "-c", "deblur.pt", *flags
    )
    np.testing.assert_array_equal(network.deblur(images["photo"], **call), wanted)


def test_an_encoder_of_another_file(
    files: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    arguments = ("deblur", "photo.png", "-c", "deblur.pt", "--encoder", "enc.pt")
    (wanted,) = command(files, tmp_path, "restored", *arguments)
    mixed = blurkit.load(files / "deblur.pt", encoder=[files / "enc.pt"])
    restored = mixed.deblur(images["photo"])
    np.testing.assert_array_equal(restored, wanted)
    own = blurkit.load(files / "deblur.pt").deblur(images["photo"])
    assert not np.array_equal(restored, own)


def test_without_a_file_the_shipped_weights_are_taken(
    files: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    (wanted,) = command(files, tmp_path, "restored", "deblur", "photo.png")
    weights = blurkit.load()
    np.testing.assert_array_equal(weights.deblur(images["photo"]), wanted)
    (tmp_path / "out.h5").unlink()
    network = ("deblur", "photo.png", "--method", "network")
    (wanted,) = command(files, tmp_path, "restored", *network)
    np.testing.assert_array_equal(weights.deblur(images["photo"], method="network"), wanted)
    (tmp_path / "out.h5").unlink()
    (wanted,) = command(files, tmp_path, "reblurred", "reblur", "other.png", "--like", "photo.png")
    made = weights.reblur(images["other"], images["photo"])
    np.testing.assert_array_equal(made, wanted)
    with pytest.raises(blurkit.BlurkitError, match=r"--strength 1\.1: must be from 0"):
        weights.deblur(images["photo"], strength=1.1)


def test_the_blur_kernel_space(files: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    space = blurkit.load(files / "kernel.pt")
    (pair,) = blurkit.read_records(files / "pairs.h5")
    code = np.random.default_rng(0).standard_normal((CODE, 2, 2)).astype(np.float32)
    blurkit.write_records([Record("k", {}, {"kernel": code})], tmp_path / "k.h5")
    np.save(tmp_path / "k.npy", np.eye(5))
    (photo,) = blurkit.read_records(files / "sharp.png", image="sharp")
    sharp = images["sharp"]
    for made, arguments in (
        (space.reblur(sharp, pair), ["--like", "pairs.h5", "-c", "kernel.pt"]),
        (space.transfer(sharp, pair), ["--like", "pairs.h5", "-c", "kernel.pt"]),
        (
            space.random_blur(photo, seed=4, scale=2).images["reblurred"],
            ["--random", "--seed", 4, "--random-scale", 2, "-c", "kernel.pt"],
        ),
        (
            space.apply_kernel(sharp, code),
            ["--kernel", tmp_path / "k.h5", "-c", "kernel.pt"],
        ),
        (blurkit.load().apply_kernel(sharp, np.eye(5)), ["--kernel", tmp_path / "k.npy"]),
        (
            blurkit.load().apply_kernel(sharp, np.eye(5), gamma=2.2),
            ["--kernel", tmp_path / "k.npy", "--gamma", 2.2],
        ),
    ):
        (wanted,) = command(files, tmp_path, "reblurred", "reblur", "sharp.png", *arguments)
        (tmp_path / "out.h5").unlink()
        np.testing.assert_array_equal(made, wanted)
        assert not np.array_equal(made, sharp)
    with pytest.raises(blurkit.BlurkitError, match="takes the blur of a pair, sharp and blur"):
        space.reblur(sharp, images["photo"])
    with pytest.raises(blurkit.BlurkitError, match="a blur code, which needs the networks"):
        apply_kernel(photo, code)
    with pytest.raises(blurkit.BlurkitError, match="a kernel's sum is above 0, found 0"):
        space.apply_kernel(sharp, np.zeros((3, 3)))
    with pytest.raises(blurkit.BlurkitError, match=r"blur needs a BGAN, .* or a variational blur"):
        blurkit.load(files / "enc.pt").random_blur(sharp)
    with pytest.raises(blurkit.BlurkitError, match=r"holds kernel_space .*, not --system msdi"):
        blurkit.load(files / "kernel.pt", system="msdi").reblur(sharp, pair)
    with pytest.raises(blurkit.BlurkitError, match="no weights of 'space' come with blurkit"):
        blurkit.load(system="space").reblur(sharp, pair)


@pytest.mark.parametrize("options", [{}, {"seed": 4}, {"seed": 4, "scale": 0.5}])
def test_random_blur_of_a_bgan(options: dict[str, Any], files: Path, tmp_path: Path) -> None:
    flags = {"seed": "--seed", "scale": "--random-scale"}
    given = [word for name, value in options.items() for word in (flags[name], value)]
    arguments = ("reblur", "sharp.png", "--noise", "-c", "bgan.pt", *given)
    (wanted,) = command(files, tmp_path, "reblurred", *arguments)
    (photo,) = blurkit.read_records(files / "sharp.png", image="sharp")
    made = blurkit.load(files / "bgan.pt").random_blur(photo, **options)
    np.testing.assert_array_equal(made.images["reblurred"], wanted)
    assert made.attrs["reblurred_noise"].shape == (4,)
    assert not np.array_equal(wanted, photo.images["sharp"])


def test_reblur_and_transfer(files: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    networks = blurkit.load(files / "enc.pt")
    arguments = ("reblur", "other.png", "--like", "photo.png", "-c", "enc.pt")
    (wanted,) = command(files, tmp_path, "reblurred", *arguments)
    reblurred = networks.reblur(images["other"], images["photo"])
    np.testing.assert_array_equal(reblurred, wanted)
    (tmp_path / "out.h5").unlink()
    arguments = ("transfer", "other.png", "sharp.png", "photo.png", "-c", "enc.pt")
    (wanted,) = command(files, tmp_path, "reblurred", *arguments)
    pair = {"sharp": images["sharp"], "blur": images["photo"]}
    np.testing.assert_array_equal(networks.transfer(images["other"], pair), wanted)
    (tmp_path / "out.h5").unlink()
    (wanted,) = command(files, tmp_path, "reblurred", *arguments[:4])  # what comes with blurkit
    np.testing.assert_array_equal(blurkit.load().transfer(images["other"], pair), wanted)


@pytest.mark.parametrize("spherical", [False, True])
def test_interpolate(
    spherical: bool, files: Path, images: dict[str, np.ndarray], tmp_path: Path
) -> None:
    networks = blurkit.load(files / "enc.pt")
    arguments = ["photo.png", "sharp.png", "-c", "enc.pt", "--steps", 3, "--from", -0.5, "--to", 2]
    arguments += ["--spherical"] if spherical else []
    wanted = command(files, tmp_path, "reblurred", "interpolate", *arguments)
    path = {"steps": 3, "first": -0.5, "last": 2, "spherical": spherical}
    frames = networks.interpolate(images["sharp"], images["photo"], **path)
    np.testing.assert_array_equal(frames, wanted)
    assert not np.array_equal(frames[0], frames[2])


def test_interpolate_to_restore(files: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    networks = blurkit.load(files / "enc.pt")
    arguments = ("photo.png", "sharp.png", "-c", "enc.pt", "--steps", 2, "--deblur")
    wanted = command(files, tmp_path, "restored", "interpolate", *arguments)
    frames = networks.interpolate(images["sharp"], images["photo"], steps=2, deblur=True)
    np.testing.assert_array_equal(frames, wanted)


def test_contextual_similarity(files: Path, images: dict[str, np.ndarray]) -> None:
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    options = ("--features", features, "--bandwidth", 0.5, "--layer", "relu2_1", "--json", "-q")
    ran = invoke("contextual-sim", files / "photo.png", files / "other.png", *options)
    assert_done(ran)
    found = blurkit.contextual_similarity(
        images["photo"], images["other"], features=features, bandwidth=0.5, layers=["relu2_1"]
    )
    assert found.distance == ran.json[0]["distance"]
    assert found.similarity == ran.json[0]["similarity"]


def test_every_depth_and_shape_comes_back(files: Path, images: dict[str, np.ndarray]) -> None:
    network = blurkit.load(files / "deblur.pt")
    colour = images["photo"]
    exact = network.deblur(colour / 255)  # float64
    assert exact.dtype == np.float32 and exact.shape == colour.shape
    np.testing.assert_array_equal(network.deblur(colour), np.rint(exact * 255))
    sixteen = network.deblur(colour.astype(np.uint16) * 257)
    assert sixteen.dtype == np.uint16
    np.testing.assert_array_equal(sixteen, np.rint(exact * 65535))
    gray = network.deblur(colour[:, :, 0])
    assert gray.shape == colour.shape[:2]
    np.testing.assert_array_equal(gray, network.deblur(colour[:, :, :1])[:, :, 0])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), r"\(H, W, 1\) or \(H, W, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\(2, 4, 4, 3\)"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 128.0), "values from 128 to 128; floats must be in"),
        (np.full((4, 4), np.nan), "16 values are NaN"),
    ],
)
def test_what_is_no_image_is_refused(image: np.ndarray, words: str, files: Path) -> None:
    with pytest.raises(blurkit.BlurkitError, match=words):
        blurkit.load(files / "deblur.pt").deblur(image)


def test_networks_are_built_once_and_freed(
    files: Path, images: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(*given: Any, **options: Any) -> Engine:
        built.append(weakref.ref(engine := start_engine(*given, **options)))
        return engine

    monkeypatch.setattr(uses, "start_engine", build)
    network = blurkit.load(files / "enc.pt")
    first = network.deblur(images["photo"])
    np.testing.assert_array_equal(network.deblur(images["photo"]), first)
    assert len(built) == 1
    network.reblur(images["photo"], images["photo"])
    assert len(built) == 2
    blurkit.load(files / "deblur.pt").deblur(images["photo"])
    assert len(built) == 3
    default = blurkit.load()
    first = default.deblur(images["photo"])
    np.testing.assert_array_equal(default.deblur(images["photo"]), first)
    assert len(built) == 4
    del network, default
    gc.collect()
    assert not any(reference() for reference in built)


# ---- records -------------------------------------------------------------------------------------


def same_but_for_time(first: Record, second: Record) -> None:
    assert first.name == second.name and first.images.keys() == second.images.keys()
    for role, image in first.images.items():
        np.testing.assert_array_equal(image, second.images[role])
    kept = [{k: v for k, v in r.attrs.items() if "seconds" not in k} for r in (first, second)]
    np.testing.assert_equal(*kept)


@pytest.mark.parametrize(
    ("name", "checkpoint", "call"),
    [
        ("deblur", "deblur.pt", lambda r, c: c.deblur(r)),
        ("reblur", "enc.pt", lambda r, c: c.reblur(r, r)),
        ("interpolate", "enc.pt", lambda r, c: c.interpolate(r, r)[6]),
    ],
)
def test_records(name: str, checkpoint: str, call: Any, files: Path, tmp_path: Path) -> None:
    shard = files / "pairs.h5"
    assert_done(invoke(name, shard, "-c", files / checkpoint, "-o", tmp_path / "out.h5", "-q"))
    (record,) = blurkit.read_records(shard)
    made = call(record, blurkit.load(files / checkpoint))
    same_but_for_time(made, records(tmp_path / "out.h5")[-1])
    assert set(record.images) == {"sharp", "blur"} and set(record.attrs) == {"number"}


def test_transfer_onto_a_record(files: Path, tmp_path: Path) -> None:
    arguments = (files / "other.png", files / "pairs.h5", "-c", files / "enc.pt")
    assert_done(invoke("transfer", *arguments, "-o", tmp_path / "out.h5", "-q"))
    (record,) = blurkit.read_records(files / "other.png", image="sharp")
    (pair,) = blurkit.read_records(files / "pairs.h5")
    made = blurkit.load(files / "enc.pt").transfer(record, pair)
    same_but_for_time(made, records(tmp_path / "out.h5")[0])
    assert made.attrs["reblurred_psnr"] > 0


def test_records_go_where_commands_write(files: Path, tmp_path: Path) -> None:
    (record,) = blurkit.read_records(files / "pairs.h5")
    assert blurkit.write_records([record, Record("c", record.images)], f"{tmp_path}/images/") == 2
    written = imageio.imread(tmp_path / "images/a/b.png")
    np.testing.assert_array_equal(written, record.images["blur"])
    record.images["restored"] = record.images["sharp"]
    blurkit.write_records([record], tmp_path / "one.png")
    np.testing.assert_array_equal(imageio.imread(tmp_path / "one.png"), record.images["sharp"])
    with pytest.raises(blurkit.BlurkitError, match="exists already"):
        blurkit.write_records([record], tmp_path / "one.png")
    assert blurkit.write_records([record], tmp_path / "one.png", force=True) == 1
    with pytest.raises(blurkit.BlurkitError, match="-o "):
        blurkit.write_records([record], tmp_path / "one.txt")


def test_evaluate_and_info(files: Path) -> None:
    ran = invoke("eval", files / "pairs.h5", "--metric", "psnr-y", "--json", "-q")
    report = blurkit.evaluate(blurkit.read_records(files / "pairs.h5"), metrics=["psnr-y"])
    assert ran.json[-1]["total"] == report.only.total
    assert ran.json[0] == report.images[0].as_dict()
    runs = [{"one": r, "two": r} for r in blurkit.read_records(files / "pairs.h5")]
    compared = blurkit.evaluate(runs)
    assert list(compared.runs) == ["one", "two"] and compared.comparison is not None
    for name in ("pairs.h5", "photo.png", "photos", "deblur.pt"):
        (told,) = invoke("info", files / name, "--json", "--size", "64x32").json
        found = blurkit.info(files / name, size=(32, 64))
        assert told == {"file": str(files / name), **json.loads(to_json(found))}
    with pytest.raises(blurkit.BlurkitError, match="no such file or folder"):
        blurkit.info(files / "missing.h5")


def test_prepare(files: Path, tmp_path: Path) -> None:
    options = ("--synthesize", "shake", "--copies", 2, "--crop", 32, "--seed", 3, "--jobs", 1)
    assert_done(invoke("prepare", files / "photos", *options, "-o", tmp_path / "out.h5", "-q"))
    how = Preparation(synthesis=Synthesis("shake"), copies=2, crop=32, seed=3, measure=psnr)
    made = blurkit.prepare(files / "photos", preparation=how, image="sharp")
    for one, other in zip(made, records(tmp_path / "out.h5"), strict=True):
        same_but_for_time(one, other)
    assert [r.name for r in blurkit.prepare(files / "photos")] == ["0", "1"]


def test_export(files: Path, images: dict[str, np.ndarray], tmp_path: Path) -> None:
    told = blurkit.export(files / "deblur.pt", tmp_path / "net.onnx")
    assert (told.use, told.tile) == ("deblurring", 64)
    by_onnx = blurkit.load(tmp_path / "net.onnx").deblur(images["photo"])
    by_torch = blurkit.load(files / "deblur.pt", precision="fp32").deblur(images["photo"])
    assert np.abs(by_onnx.astype(int) - by_torch).max() <= 1


def test_retrieve(files: Path, tmp_path: Path) -> None:
    (pair,) = blurkit.read_records(files / "pairs.h5")
    options = ("--search", "--iterations", 2, "-c", files / "kernel.pt")
    assert_done(invoke("reblur", files / "pairs.h5", *options, "-o", tmp_path / "out.h5", "-q"))
    made = blurkit.load(files / "kernel.pt").retrieve(pair, iterations=2)
    same_but_for_time(made, records(tmp_path / "out.h5")[0])


def test_a_protocol_is_for_deblurring(files: Path, images: dict[str, np.ndarray]) -> None:
    with pytest.raises(blurkit.BlurkitError, match="--protocol whole: is for deblurring"):
        blurkit.load(files / "enc.pt", protocol="whole").reblur(images["photo"], images["photo"])


def test_reading_stops_or_goes_on(files: Path, tmp_path: Path) -> None:
    shutil.copytree(files / "photos", tmp_path / "photos")
    (tmp_path / "photos/0.png").write_bytes(b"no image")
    with pytest.raises(blurkit.BlurkitError, match=re.escape("0.png")):
        list(blurkit.read_records(tmp_path / "photos"))
    failed: list[str] = []
    found = blurkit.read_records(tmp_path / "photos", on_error=lambda w, e: failed.append(str(e)))
    assert [record.name for record in found] == ["1"]
    assert len(failed) == 1


# ---- the package ---------------------------------------------------------------------------------


def test_the_import_is_light() -> None:
    script = (
        "import sys, blurkit; assert {'load', 'Record'} <= set(dir(blurkit)); "
        "assert not {'torch', 'numpy', 'h5py'} & set(sys.modules); "
        "blurkit.BlurkitError; assert 'numpy' not in sys.modules; "
        "blurkit.Record; assert 'torch' not in sys.modules; "
        "names = set(blurkit.__all__) - {'__version__'}; "
        "assert all(callable(getattr(blurkit, name)) for name in names)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'blurr'"):
        blurkit.blurr  # noqa: B018


@pytest.mark.slow
def test_type_checkers_see_the_calls(tmp_path: Path) -> None:
    assert (ROOT / "blurkit/py.typed").is_file()
    (tmp_path / "use.py").write_text(
        "import blurkit\n"
        "model = blurkit.load('x.pt')\n"
        "for record in blurkit.read_records('x.h5'):\n"
        "    reveal_type(model.deblur(record))\n"
        "    reveal_type(model.deblur(record.images['blur']))\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    notes = re.findall(r'note: Revealed type is "(\S+?)[\["]', done.stdout)
    assert notes == ["blurkit.io.records.Record", "numpy.ndarray"], done.stdout


@pytest.mark.slow  # test_pages.py runs it as written, in the samples
def test_all_python_of_the_page_runs_on_tiny_files(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shared_folder("weights", "BLURKIT_WEIGHTS")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    shutil.copy(files / "deblur.pt", tmp_path / "msdi.pt")
    shutil.copy(weights / "vgg11_bn_trunk.safetensors", tmp_path / "features.safetensors")
    monkeypatch.chdir(tmp_path)
    found = [b.text for b in blocks(ROOT / "docs/python.md") if b.language == "python"]
    exec("\n".join(text for text in found if "https://" not in text), {})
    told = capsys.readouterr().out
    assert "(0 is the same), CX " in told and "missing.pt: no such checkpoint" in told
    assert "a/b (48, 64, 3) deconvolution.pt" in told
    for name in ("restored.png", "0-restored.png", "1-restored.png", "restored.h5", "mine.h5"):
        assert (tmp_path / name).is_file()
