"""A system of one's own: a folder, and one line. Nothing else has to know it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.command import Ran, assert_done, records
from tests.cli.pictures import plant_pair
from tests.shared import ROOT

FILES = {
    "__init__": '''
"""A toy: an image plus a few convolutions of it."""
from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "toy",
    "Toy",
    architectures=(Architecture("toy", "deblur", "networks.ToyNet", ("toy.0.weight",)),),
    uses={"deblurring": "a toy"},
    trainings=(Training("toy", "train-deblur", "A few convolutions.", "ToyConfiguration", "plan"),),
)
''',
    "config": """
from dataclasses import dataclass
from typing import ClassVar

from blurkit.options import option
from blurkit.training.configuration import Configuration


@dataclass(frozen=True)
class ToyConfiguration(Configuration):
    system: ClassVar[str] = "toy"
    layers: int = option(1, "Convolutions of the toy.", 1)
""",
    "networks": """
from torch import nn

from blurkit.engine.engine import SizeRequirement


class ToyNet(nn.Module):
    size = SizeRequirement(minimum=8, multiple=4)

    def __init__(self, layers):
        super().__init__()
        self.options = {"layers": layers}
        self.toy = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(layers)))

    @classmethod
    def from_shapes(cls, shapes):
        return cls(1 + max(shapes.numbers(r"toy\\\\.(\\\\d+)\\\\.weight")))

    def forward(self, image):
        return image + self.toy(image)
""",
    "inference": """
from blurkit.systems.toy.networks import ToyNet


def deblurring(networks):
    network = networks.get("deblur")
    return network if isinstance(network, ToyNet) else None
""",
    "recipe": """
from functools import partial

from torch.nn.functional import l1_loss

from blurkit.systems.toy.config import ToyConfiguration
from blurkit.systems.toy.networks import ToyNet
from blurkit.training.recipe import Plan, Recipe


class ToyRecipe(Recipe):
    def __init__(self, configuration):
        super().__init__(configuration)
        self.networks = {"deblur": ToyNet(configuration.layers)}
        self.optimizers = {"deblur": self.adam(self.networks["deblur"])}

    def loss(self, optimizer, batch):
        loss = l1_loss(self.networks["deblur"](batch["blur"]), batch["sharp"])
        return loss, {"l1": loss}


def plan(inputs, preset, overrides, run, dry_run):
    configuration = ToyConfiguration.resolve(preset, **overrides)
    return Plan(configuration, partial(ToyRecipe, configuration))
""",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the toy's folder and its line."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "blurkit", folder / "blurkit", ignore=shutil.ignore_patterns("*.pt"))
    for weights in (ROOT / "blurkit/weights").glob("*.pt"):
        (folder / "blurkit/weights" / weights.name).symlink_to(weights)
    toy = folder / "blurkit/systems/toy"
    toy.mkdir()
    for name, text in FILES.items():
        (toy / f"{name}.py").write_text(text.replace("\\\\", "\\"))
    registry = folder / "blurkit/systems/system.py"
    text, count = re.subn(r"^NAMES = \(", 'NAMES = ("toy", ', registry.read_text(), flags=re.M)
    assert count == 1
    registry.write_text(text)
    return folder


SERVER = """
import json, sys
import blurkit.systems.toy
from tests.cli.invoke import invoke
for line in sys.stdin:
    ran = invoke(*json.loads(line))
    print(json.dumps([ran.status, ran.out.decode(), ran.err]), flush=True)
"""


@pytest.fixture(scope="module")
def run(house: Path) -> Iterator[Callable[..., Ran]]:
    """`blurkit ARGUMENTS` in that house, in one process: torch is imported once."""
    paths = {"PYTHONPATH": f"{house}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, cwd=house, env=os.environ | paths, **pipes) as process:

        def ran(*arguments: object) -> Ran:
            process.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
            process.stdin.flush()
            status, out, err = json.loads(process.stdout.readline())
            return Ran(status, out.encode(), err)

        yield ran
        process.stdin.close()


@pytest.fixture(scope="module")
def trained(house: Path, run: Callable[..., Ran]) -> Path:
    """A toy trained in two pieces, on pairs that `prepare` wrote."""
    for number in range(3):
        plant_pair(house / "pairs", str(number), number, height=64, width=80)
    assert_done(run("prepare", "pairs", "-o", "shards/", "-q"))
    options = ("--system", "toy", "--layers", 2, "--iterations", 6, "--batch", 2, "--crop", 32)
    command = ("train-deblur", "shards", *options, "-o", "toy.pt", "--save-minutes", 0, "-q")
    assert_done(run(*command, "--minutes", 1e-9))
    assert (house / "toy.state.pt").is_file()
    assert_done(run(*command, "--resume"))
    return house / "toy.pt"


def test_it_trains_in_pieces_and_info_shows_it(run: Callable[..., Ran], trained: Path) -> None:
    (found,) = run("info", trained, "--json", "-q").json
    assert found["system"] == "toy" and found["configuration"]["layers"] == 2
    (network,) = found["networks"].values()
    assert network["network"] == "ToyNet" and network["layers"] == 2
    assert network["parameters"] == 2 * (81 + 3)


def test_it_deblurs_and_eval_measures_it(run: Callable[..., Ran], trained: Path) -> None:
    assert_done(run("deblur", "pairs/blur/0.png", "-c", trained, "-o", "restored/", "-q"))
    sides = ("restored/0.png", "pairs/sharp/0.png")
    image, last = run("eval", *sides, "-c", trained, "--json", "-q").json
    assert image["psnr"] > 10 and last["network"]["name"] == "ToyNet"


def test_a_foreign_file_is_recognised(house: Path, run: Callable[..., Ran], trained: Path) -> None:
    state = torch.load(trained, weights_only=True)["networks"]["deblur"]
    torch.save({"params": state}, house / "foreign.pth")
    options = ("--tile", 32, "--precision", "fp32", "-q", "-o")
    for checkpoint, output in ((trained, "own.h5"), ("foreign.pth", "foreign.h5")):
        assert_done(run("deblur", "pairs/blur", "-c", checkpoint, *options, output))
    for own, foreign in zip(*(records(house / f"{n}.h5") for n in ("own", "foreign")), strict=True):
        np.testing.assert_array_equal(own.images["restored"], foreign.images["restored"])
