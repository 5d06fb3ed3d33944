"""The Python calls: the same bits as the commands, on arrays and records, and a light import."""

import gc
import json
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit import load
from blurkit.data.prepare import Preparation
from blurkit.engine.engine import Engine
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.reports.values import to_json
from blurkit.synthesis.drawing import Synthesis
from blurkit.systems import uses
from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling
from blurkit.systems.uses import start_engine
from blurkit.tasks.reblur import apply_kernel
from tests.cli import bgans
from tests.cli.command import records
from tests.cli.invoke import done, timeless
from tests.cli.kernel_spaces import CODE, saved
from tests.cli.pictures import blurred, photo, plant_photos, write
from tests.engine.networks import steered, stored
from tests.io.scenes import assert_all_same
from tests.shared import ROOT, vgg11

net = partial(load, "deblur.pt")
BLUR_CODE = np.random.default_rng(0).standard_normal((CODE, 2, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    whole = MSDINet(DegradationEncoder(1, 8), PriorUpsampling(1, 8), width=8, hidden=8)
    with torch.no_grad():
        whole.train()(torch.rand(2, 3, 64, 64))  # settles the spectral norms
    for name, networks in {"enc": steered(1).roles(), "deblur": {"deblur": whole}}.items():
        stored(folder / f"{name}.pt", networks, crop=64)
    saved(folder / "kernel.pt", variational=True)
    bgans.saved(folder / "bgan.pt")
    write(folder / "sharp.png", photo(5, 64, 80))
    for name in ("photo.png", "blurry.png"):
        write(folder / name, blurred(photo(5, 64, 80)))
    write(folder / "other.png", photo(50, 60, 56))
    plant_photos(folder / "others", 2)
    for number in range(2):
        write(folder / f"photos/{number}.png", blurred(photo(number)))
    pair = Record("a/b", {"sharp": photo(7), "blur": blurred(photo(7))}, {"number": 3})
    blurkit.write_records([pair], folder / "pairs.h5")
    blurkit.write_records([Record("k", {}, {"kernel": BLUR_CODE})], folder / "code.h5")
    np.save(folder / "k.npy", np.eye(5))
    return folder


@pytest.fixture(autouse=True)
def inside(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)


@pytest.fixture
def x(files: Path) -> SimpleNamespace:
    """What calls are given: images and records, and models, which are read when they are needed."""
    images = {path.stem: imageio.imread(path) for path in files.glob("*.png")}
    (pair,) = blurkit.read_records("pairs.h5")
    (sharp,) = blurkit.read_records("sharp.png", image="sharp")
    (other,) = blurkit.read_records("other.png", image="sharp")
    both = {"sharp": images["sharp"], "blur": images["blurry"]}
    models = {name: load(f"{name}.pt") for name in ("enc", "kernel", "bgan")}
    found = {"pair": pair, "both": both, "record": sharp, "other_record": other}
    sweep = partial(models["enc"].interpolate, images["sharp"], images["photo"])
    return SimpleNamespace(**images, **found, **models, net=net(), default=load(), sweep=sweep)


# ---- what commands give --------------------------------------------------------------------------

DEBLUR = "deblur photo.png -c deblur.pt"
SPACE = "reblur sharp.png -c kernel.pt"
SWEEP = "interpolate photo.png sharp.png -c enc.pt"
THREE = "transfer other.png sharp.png photo.png"
NOISE = "reblur sharp.png --noise -c bgan.pt"
CALLS: dict[str, Callable[[Any], Any]] = {
    DEBLUR: lambda x: x.net.deblur(x.photo),
    f"{DEBLUR} --tile 32 --overlap 8": lambda x: net(tile=32, overlap=8).deblur(x.photo),
    f"{DEBLUR} --protocol slices --strength 0.3": lambda x: net(protocol="slices").deblur(
        x.photo, strength=0.3
    ),
    f"{DEBLUR} --precision fp32 --device cpu": lambda x: net(precision="fp32", device="cpu").deblur(
        x.photo
    ),
    f"{DEBLUR} --encoder enc.pt": lambda x: net(["enc.pt"]).deblur(x.photo),
    "deblur photo.png": lambda x: x.default.deblur(x.photo),
    "deblur photo.png --method network": lambda x: x.default.deblur(x.photo, method="network"),
    "deblur pairs.h5 -c deblur.pt": lambda x: x.net.deblur(x.pair),
    "reblur other.png --like photo.png": lambda x: x.default.reblur(x.other, x.photo),
    "reblur other.png --like photo.png -c enc.pt": lambda x: x.enc.reblur(x.other, x.photo),
    "reblur pairs.h5 -c enc.pt": lambda x: x.enc.reblur(x.pair, x.pair),
    "reblur pairs.h5 --search --iterations 2 -c kernel.pt": lambda x: x.kernel.retrieve(
        x.pair, iterations=2
    ),
    f"{SPACE} --like pairs.h5": lambda x: x.kernel.reblur(x.sharp, x.pair),
    "transfer sharp.png pairs.h5 -c kernel.pt": lambda x: x.kernel.transfer(x.sharp, x.pair),
    f"{SPACE} --random --seed 4 --random-scale 2": lambda x: x.kernel.random_blur(
        x.record, seed=4, scale=2.0
    ),
    f"{SPACE} --kernel code.h5": lambda x: x.kernel.apply_kernel(x.sharp, BLUR_CODE),
    "reblur sharp.png --kernel k.npy": lambda x: x.default.apply_kernel(x.sharp, np.eye(5)),
    "reblur sharp.png --kernel k.npy --gamma 2.2": lambda x: x.default.apply_kernel(
        x.sharp, np.eye(5), gamma=2.2
    ),
    NOISE: lambda x: x.bgan.random_blur(x.record),
    f"{NOISE} --seed 4 --random-scale 0.5": lambda x: x.bgan.random_blur(
        x.record, seed=4, scale=0.5
    ),
    THREE: lambda x: x.default.transfer(x.other, x.both),
    f"{THREE} -c enc.pt": lambda x: x.enc.transfer(x.other, x.both),
    "transfer other.png pairs.h5 -c enc.pt": lambda x: x.enc.transfer(x.other_record, x.pair),
    f"{SWEEP} --steps 3 --from -0.5 --to 2": lambda x: x.sweep(steps=3, first=-0.5, last=2),
    f"{SWEEP} --steps 2 --spherical": lambda x: x.sweep(steps=2, spherical=True),
    f"{SWEEP} --steps 2 --deblur": lambda x: x.sweep(steps=2, deblur=True),
    "interpolate pairs.h5 -c enc.pt": lambda x: x.enc.interpolate(x.pair, x.pair),
}
"""Commands, and calls that make the same."""


@pytest.mark.parametrize("command", CALLS)
def test_calls_give_the_bits_of_commands(command: str, x: SimpleNamespace, tmp_path: Path) -> None:
    done(*command.split(), "-o", tmp_path / "out.h5", "-q")
    wanted = records(tmp_path / "out.h5")
    made = CALLS[command](x)
    source, role = ("blur", "restored") if "deblur" in command else ("sharp", "reblurred")
    for one, record in zip(made if "interpolate" in command else [made], wanted, strict=True):
        if isinstance(one, Record):
            assert_all_same(timeless([one]), timeless([record]))
        else:
            np.testing.assert_array_equal(one, record.images[role])
        if "-c" in command and "interpolate" not in command:
            assert not np.array_equal(record.images[role], record.images[source])
    assert set(x.pair.images) == {"sharp", "blur"} and set(x.pair.attrs) == {"number"}


def test_an_encoder_of_another_file_and_amounts_change_the_result(x: SimpleNamespace) -> None:
    assert not np.array_equal(*(net(encoder).deblur(x.photo) for encoder in ((), "enc.pt")))
    assert not np.array_equal(*x.sweep(steps=2))


REFUSED: dict[str, Callable[[Any], Any]] = {
    r"--strength 1\.1: must be from 0": lambda x: x.default.deblur(x.photo, strength=1.1),
    "takes the blur of a pair, sharp and blur": lambda x: x.kernel.reblur(x.sharp, x.photo),
    "a blur code, which needs the networks": lambda x: apply_kernel(x.record, BLUR_CODE),
    "a kernel's sum is above 0, found 0": lambda x: x.kernel.apply_kernel(
        x.sharp, np.zeros((3, 3))
    ),
    "blur needs a BGAN, .* or a variational blur": lambda x: x.enc.random_blur(x.sharp),
    "holds kernel_space .*, not --system msdi": lambda x: load("kernel.pt", system="msdi").reblur(
        x.sharp, x.pair
    ),
    "no weights of 'space' come with": lambda x: load(system="space").reblur(x.sharp, x.pair),
    "--protocol whole: is for deblurring": lambda x: load("enc.pt", protocol="whole").reblur(
        x.photo, x.photo
    ),
    r"\(H, W, 1\) or \(H, W, 3\)": lambda x: x.default.deblur(np.zeros((4, 4, 4), np.uint8)),
    r"\(2, 4, 4, 3\)": lambda x: x.default.deblur(np.zeros((2, 4, 4, 3), np.uint8)),
    "int64": lambda x: x.default.deblur(np.zeros((4, 4), np.int64)),
    "values from 128 to 128; floats must be in": lambda x: x.default.deblur(np.full((4, 4), 128.0)),
    "16 values are NaN": lambda x: x.default.deblur(np.full((4, 4), np.nan)),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_is_refused(words: str, x: SimpleNamespace) -> None:
    with pytest.raises(blurkit.BlurkitError, match=words):
        REFUSED[words](x)


def test_contextual_similarity(x: SimpleNamespace) -> None:
    options = ("--features", vgg11(), "--bandwidth", 0.5, "--layer", "relu2_1", "--json", "-q")
    told = done("contextual-sim", "photo.png", "other.png", *options).json[0]
    how = {"features": vgg11(), "bandwidth": 0.5, "layers": ["relu2_1"]}
    found = blurkit.contextual_similarity(x.photo, x.other, **how)
    assert (found.distance, found.similarity) == (told["distance"], told["similarity"])


def test_every_depth_and_shape_comes_back(x: SimpleNamespace) -> None:
    deblur, colour = x.net.deblur, x.photo
    exact = deblur(colour / 255)  # float64
    assert exact.dtype == np.float32 and exact.shape == colour.shape
    np.testing.assert_array_equal(deblur(colour), np.rint(exact * 255))
    sixteen = deblur(colour.astype(np.uint16) * 257)
    assert sixteen.dtype == np.uint16
    np.testing.assert_array_equal(sixteen, np.rint(exact * 65535))
    gray = deblur(colour[:, :, 0])
    assert gray.shape == colour.shape[:2]
    np.testing.assert_array_equal(gray, deblur(colour[:, :, :1])[:, :, 0])


def test_networks_are_built_and_freed(x: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def build(*given: Any, **options: Any) -> Engine:
        built.append(weakref.ref(engine := start_engine(*given, **options)))
        return engine

    monkeypatch.setattr(uses, "start_engine", build)
    monkeypatch.setattr("blurkit.model.onnx_is_faster", lambda placement: False)  # on any processor
    network = load("enc.pt")
    np.testing.assert_array_equal(*(network.deblur(x.photo) for _ in range(2)))
    assert len(built) == 1
    network.reblur(x.photo, x.photo)
    assert len(built) == 2
    net().deblur(x.photo)
    assert len(built) == 3
    default = load()
    np.testing.assert_array_equal(*(default.deblur(x.photo, method="network") for _ in range(2)))
    assert len(built) == 4
    del network, default
    gc.collect()
    assert not any(reference() for reference in built)


# ---- records -------------------------------------------------------------------------------------


def test_records_go_where_commands_write(tmp_path: Path) -> None:
    (record,), one = blurkit.read_records("pairs.h5"), tmp_path / "one.png"
    assert blurkit.write_records([record, Record("c", record.images)], f"{tmp_path}/images/") == 2
    written = imageio.imread(tmp_path / "images/a/b.png")
    np.testing.assert_array_equal(written, record.images["blur"])
    record.images["restored"] = record.images["sharp"]
    blurkit.write_records([record], one)
    np.testing.assert_array_equal(imageio.imread(one), record.images["sharp"])
    for path, words in ((one, "exists already"), (tmp_path / "one.txt", "-o ")):
        with pytest.raises(blurkit.BlurkitError, match=words):
            blurkit.write_records([record], path)
    assert blurkit.write_records([record], one, force=True) == 1


def test_evaluate_and_info() -> None:
    ran = done("eval", "pairs.h5", "--metric", "psnr-y", "--json", "-q")
    for given in (blurkit.read_records("pairs.h5"), "pairs.h5"):
        report = blurkit.evaluate(given, metrics=["psnr-y"])
        assert ran.json[-1]["total"] == report.only.total
        assert ran.json[0] == report.images[0].as_dict()
    for restored, reference in (("photos", "others"), ("photo.png", "sharp.png")):
        *_, total = done("eval", restored, reference, "--json", "-q").json
        paired = blurkit.evaluate(restored, reference=reference).only.total
        assert json.loads(to_json(paired)) == total["total"]
    compared = blurkit.evaluate([{"one": r, "two": r} for r in blurkit.read_records("pairs.h5")])
    assert list(compared.runs) == ["one", "two"] and compared.comparison is not None
    for name in ("pairs.h5", "photo.png", "photos", "deblur.pt"):
        (told,) = done("info", name, "--json", "--size", "64x32").json
        assert told == {"file": name, **json.loads(to_json(blurkit.info(name, size=(32, 64))))}
    with pytest.raises(blurkit.BlurkitError, match="no such file or folder"):
        blurkit.info("missing.h5")


def test_prepare(tmp_path: Path) -> None:
    options = ("--synthesize", "shake", "--copies", 2, "--crop", 32, "--seed", 3, "--jobs", 1)
    done("prepare", "photos", *options, "-o", tmp_path / "out.h5", "-q")
    how = Preparation(synthesis=Synthesis("shake"), copies=2, crop=32, seed=3, measure=psnr)
    made = blurkit.prepare("photos", preparation=how, image="sharp")
    assert_all_same(made, records(tmp_path / "out.h5"))
    assert [r.name for r in blurkit.prepare("photos")] == ["0", "1"]


def test_a_gif_that_may_not_be_read_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("photos", tmp_path / "photos")
    (tmp_path / "photos/a.gif").write_bytes(b"GIF89a")
    opened = Path.open

    def refusing(path: Path, *mode: Any) -> Any:
        if path.suffix == ".gif":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *mode)

    monkeypatch.setattr(Path, "open", refusing)
    failed: list[str] = []
    how = Preparation(synthesis=Synthesis("realistic"))
    made = blurkit.prepare(
        tmp_path / "photos",
        preparation=how,
        image="sharp",
        on_error=lambda where, error: failed.append(str(error)),
    )
    assert [record.name for record in made] == ["0", "1"]
    assert failed == [f"{tmp_path / 'photos/a.gif'}: cannot be read (Permission denied)"]


def test_reading_stops_or_goes_on(tmp_path: Path) -> None:
    shutil.copytree("photos", tmp_path / "photos")
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
        "blurkit.Record; assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert all(callable(getattr(blurkit, name)) for name in {*blurkit.__all__} - {"__version__"})
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
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    notes = re.findall(r'note: Revealed type is "(\S+?)[\["]', told)
    assert notes == ["blurkit.io.records.Record", "numpy.ndarray"], told
