"""Networks and losses of users: trained, resumed, run, measured and exported by their names."""

import re
from importlib import metadata
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.nn.blocks import blueprints
from blurkit.systems.nafnet.networks import NAFNet
from blurkit.training.configuration import Run
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.cli.pictures import photo, write
from tests.engine.networks import states
from tests.training.runs import assert_same_bits

MINE = '''
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import beside

Path("it ran").touch()

@dataclass
class Kept:
    value: int = 3

class Net(nn.Module):
    """Its names are those that blurkit uses, its views and buffers those of many networks."""

    def __init__(
        self, width: int = 8, scale: float = 0.1, kernels=(3, 3), act=nn.GELU, bias: bool = True
    ):
        super().__init__()
        self.size, self.name, self.options = 5, None, "mine"
        self.rates = [x.item() for x in torch.linspace(0, scale, len(kernels))]
        self.register_buffer("ramp", torch.linspace(0, 1, width), persistent=False)
        self.volume = nn.Parameter(torch.ones(1, 1, 1, 1, 1))
        self.first = nn.Conv2d(3, width, 4, stride=4, bias=bias)
        convs = [nn.Conv2d(width, width, k, padding=k // 2) for k in kernels]
        self.body = nn.Sequential(*(nn.Sequential(conv, act()) for conv in convs))
        self.last = nn.Sequential(nn.Conv2d(width, 48, 1), nn.PixelShuffle(4))

    def forward(self, image):
        n, c, h, w = image.shape
        image = image.view(n, c * h, w).view(n, c, h, w)
        first = self.last(self.body(self.first(image)) * self.ramp.view(1, -1, 1, 1))
        return [first, image + beside.GAIN * first * self.volume[0]]

def small():
    return Net(width=4)

def loss(results, sharp):
    assert len(results) == 2
    return sum((result - sharp).abs().mean() for result in results)

class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.ones(3, 1, 1))

    def forward(self, results, sharp):
        return ((results[-1] - sharp) * self.weight).square().mean()

def many(results, sharp):
    return (results[-1] - sharp).abs()

def failing(results, sharp):
    return results[5]

class Needs(Net):
    def __init__(self, width, kernels):
        super().__init__(width, kernels=kernels)

class Clash(Net):
    def __init__(self, batch=3):
        super().__init__()

class Halves(nn.Module):
    def forward(self, image):
        return image[..., ::2]

class Twelve(Net):
    multiple = 12

class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 16, stride=16)

    def forward(self, image):
        return self.net(image).repeat(1, 1, 16, 16) + image * 0

nothing = 3
'''
RAISING = re.compile(r"assert len|padding=k|results\[5\]")
"""The lines of it that raise errors."""

SHORT = [*("--preset", "small", "--crop", 32, "--batch", 2, "--iterations", 2, "--ema", 0)]
SHORT += ["--learning-rate", 1e-3, "--device", "cpu", "-q"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    Path("beside.py").write_text("GAIN = 1.0\n")
    return tmp_path


def trained(shards: Path, network: object, *options: object, output: str = "mine.pt") -> Path:
    options = (*SHORT, "--validate-on", 0, *options)
    done("train-deblur", shards, "--network", network, *options, "-o", output)
    return Path(output)


def test_train_resume_deblur_and_eval(training_shards: Path, one_thread: None) -> None:
    options = ("--loss", "mine.py:loss", "--kernels", "(1, 3)", "--no-bias", "--validate-on", 1)
    made = trained(training_shards, "mine.py:Net", *options, "--width", 4)
    about = load_checkpoint(made)
    code = about.provenance["code"]
    assert code["mine.py:Net"] == code["mine.py:loss"] and len(code["mine.py:Net"]) == 64
    assert about.configuration["kernels"] == "(1, 3)" and about.provenance["metrics"]["psnr"] > 5
    assert about.networks["deblur"]["first.weight"].shape == (4, 3, 4, 4)
    assert about.blueprints["deblur"]["class"] == "mine.py:Net"

    stopped = ("--minutes", 1e-9, "--loss", "mine.py:loss", *options[2:], "--width", 4)
    again = trained(training_shards, "mine.py:Net", *stopped, output="again.pt")
    assert not again.exists() and Path("again.state.pt").exists()
    trained(training_shards, "mine.py:Net", *stopped[2:], "--resume", output="again.pt")
    assert_same_bits(again, made)

    given = write("photo.png", photo(3, 50, 71))
    own = ("-c", made, "--network", "mine.py:Net", "--precision", "fp32", "-q")
    done("deblur", given, *own, "-o", "a.png")
    assert imageio.imread("a.png").shape == (50, 71, 3)  # no multiples of 4
    a = imageio.imread("a.png").astype(int)
    assert abs(a - imageio.imread(given)).mean() > 1
    model = blurkit.load(made, network="mine.py:Net", precision="fp32")
    np.testing.assert_array_equal(model.deblur(imageio.imread(given)), a)
    *_, total = invoke("eval", "a.png", given, *own[:4], "--json", "-q").json
    assert total["network"]["name"] == "mine.py:Net"


@pytest.mark.slow
def test_export(training_shards: Path) -> None:
    made, given = trained(training_shards, "mine.py:Net"), write("photo.png", photo(3, 50, 71))
    own = (made, "--network", "mine.py:Net")
    done("export", *own, "-o", "mine.onnx", "-q")
    for checkpoint, output in ((own, "a.png"), (["mine.onnx"], "b.png")):
        done("deblur", given, "-c", *checkpoint, "--precision", "fp32", "-o", output, "-q")
    a, b = (imageio.imread(name).astype(int) for name in ("a.png", "b.png"))
    assert abs(a - b).max() <= 1


def test_code_runs_only_where_it_is_named(training_shards: Path) -> None:
    made = trained(training_shards, "mine.py:Net", "--loss", "mine.py:loss")
    given, ran = write("photo.png", photo(3)), Path("it ran")
    blurkit.systems.code._run.cache_clear()
    ran.unlink()
    again = ("train-deblur", training_shards, "--config", made, "-o", "x.pt", "-q")
    for command in (
        ("deblur", given, "-c", made, "-o", "x.png", "-q"),
        ("export", made, "-o", "x.onnx", "-q"),
        ("eval", given, given, "-c", made, "-q"),
        again,
    ):
        refused = invoke(*command)
        assert refused.status in (1, 2) and "--network" in refused.err, refused.err
    done("info", made, "-q")
    assert not ran.exists()
    named = (*again, "--network", "mine.py:Net")
    assert_refused(invoke(*named), "--loss mine.py:loss: name it again", status=2)
    done(*named, "--loss", "mine.py:loss")
    assert ran.exists()

    with Path("mine.py").open("a") as file:
        file.write("# changed\n")
    use = ("deblur", given, "-c", made, "--network", "mine.py:Net", "-o", "x.png", "-q")
    assert "mine.py has changed since mine.pt was trained with it" in invoke(*use).err
    known = {"deblur": NAFNet(4, (1,), 1, (1,))}  # and only its loss was of that code
    about = load_checkpoint(made).provenance
    save_checkpoint(Checkpoint(states(known), "", {}, about, "", blueprints(known)), made)
    assert "has changed" not in invoke(*use, "--force").err


@pytest.mark.parametrize("name", ["mine.py:small", "mine:small", "entry"])
def test_functions_modules_and_entry_points(
    name: str, training_shards: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    entry = metadata.EntryPoint("entry", "mine:small", "blurkit.systems")

    def entry_points(group: str, name: str = "entry") -> list[metadata.EntryPoint]:
        return [entry] if (group, name) == ("blurkit.systems", "entry") else []

    monkeypatch.setattr("blurkit.systems.code.entry_points", entry_points)
    made = trained(training_shards, name, "--loss", "mine.py:Loss")
    assert load_checkpoint(made).networks["deblur"]["first.weight"].shape[0] == 4
    assert blurkit.load(made, network=name).deblur(photo(3)).shape == (48, 64, 3)


def test_weights_of_any_kind_are_trained_further(training_shards: Path) -> None:
    torch.manual_seed(0)
    network = NAFNet(4, (1,), 1, (1,))
    torch.save({"state_dict": {f"net.{k}": v for k, v in network.state_dict().items()}}, "naf.ckpt")
    made = trained(training_shards, "naf.ckpt", "--loss", "l1")
    state = load_checkpoint(made).networks["deblur"]
    assert state.keys() == network.state_dict().keys()
    assert 0 < (state["intro.weight"] - network.state_dict()["intro.weight"]).abs().max() < 0.01
    assert blurkit.load(made).deblur(photo(3)).shape == (48, 64, 3)


def test_weights_of_other_programs_of_your_own_network(training_shards: Path) -> None:
    made = trained(training_shards, "mine.py:Net")
    state = load_checkpoint(made).networks["deblur"]
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, "theirs.pth")
    fine = ("--start", "theirs.pth", "--learning-rate", 0, "--final-learning-rate", 0)
    start = trained(training_shards, "mine.py:Net", *fine, output="start.pt")
    again = load_checkpoint(start).networks["deblur"]
    assert all(torch.equal(again[key], value) for key, value in state.items())
    ours = blurkit.load(made, network="mine.py:Net").deblur(photo(3))
    theirs = blurkit.load("theirs.pth", network="mine.py:Net", tile=32).deblur(photo(3))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("network", "options", "words"),
    [
        ("mine.py", (), "mine.py: write FILE.py:NAME or MODULE:NAME"),
        ("none.py:Net", (), "none.py: No such file"),
        ("mine.py:Nett", (), "mine.py has no class or function 'Nett'"),
        ("mine.py:nothing", (), "has no class or function 'nothing'"),
        ("mine.py:loss", ("--results", "3", "--sharp", "4"), "mine.py:loss, line LINE: TypeError"),
        ("mine.py:Needs", (), "--width: mine.py:Needs needs a value"),
        ("mine.py:Clash", (), "its argument 'batch' is an option of every training"),
        ("mine.py:Net", ("--kernels", "(3, 'x')"), "mine.py:Net, line LINE: TypeError"),
        ("mine.py:Halves", (), "makes [1, 3, 65, 33] of [1, 3, 65, 65]; it must return an image"),
        ("mine.py:Twelve", (), "--crop 32: mine.py:Twelve takes multiples of 12 pixels"),
        ("mine.py:Net", ("--loss", "mine.py:many"), "mine.py:many: returns [2, 3, 32, 32], not a"),
        ("mine.py:Net", ("--loss", "mine.py:failing"), "mine.py:failing, line LINE: IndexError"),
        ("mine.py:Net", ("--loss", "l3"), "l3: write FILE.py:NAME"),
        ("broken.py:Net", (), "broken.py, line 2: ZeroDivisionError"),
        ("wrong.py:Net", (), "wrong.py: SyntaxError"),
        ("naf.pth", (), "naf.pth: no such file (from --network)"),
        ("empty.pth", (), "empty.pth: is empty"),
    ],
)
def test_what_fails_is_one_line(
    network: str, options: tuple[str, ...], words: str, training_shards: Path
) -> None:
    Path("broken.py").write_text("a = 0\nb = 1 / a\n")
    Path("wrong.py").write_text("class\n")
    Path("empty.pth").touch()
    command = ("train-deblur", training_shards, "--network", network, *SHORT, "-o", "x.pt")
    ran = invoke(*command, "--validate-on", 0, *options)
    assert ran.status in (1, 2) and len(ran.lines) == 1, ran.err
    lines = [f"line {n}:" for n, text in enumerate(MINE.splitlines(), 1) if RAISING.search(text)]
    assert any(words.replace("line LINE:", line) in ran.err for line in lines), ran.err


def test_sides_are_found(training_shards: Path) -> None:
    made = trained(training_shards, "mine.py:Wide")
    for height, width in ((1, 1), (17, 33), (64, 31)):
        model = blurkit.load(made, network="mine.py:Wide", protocol="whole")
        assert model.deblur(photo(3, height, width)).shape == (height, width, 3)
    with pytest.raises(BlurkitError, match="--tile 24: this network needs a multiple of 16"):
        blurkit.load(made, network="mine.py:Wide", tile=24).deblur(photo(3))


def test_a_training_is_one_call(training_shards: Path, one_thread: None) -> None:
    inputs = {"network": "mine.py:Net", "loss": "charbonnier"}
    small = {"iterations": 1, "batch": 1, "crop": 32, "width": 4}
    run = Run("mine.pt", "cpu", quiet=True, validate_on=0)
    made = blurkit.train(
        "train-deblur", "any-network", [training_shards], run, "small", inputs, overrides=small
    )
    assert made.configuration["loss"] == "charbonnier" and made.configuration["width"] == 4
    assert Path("mine.pt").exists()
