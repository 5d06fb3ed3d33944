"""A system of one's own: a folder, and one line. Nothing else has to know it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.cli.command import Ran, assert_done, blurred, photo, write
from tests.shared import ROOT

FILES = {
    "__init__": '''
"""A toy: an image plus a few convolutions of it."""
from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "toy",
    "Toy",
    architectures=(
        Architecture("toy", "deblur", "networks.ToyNet", ("toy.0.weight",)),
    ),
    uses={"deblurring": "a toy"},
    trainings=(
        Training("toy", "train-deblur", "A few convolutions.", "ToyConfiguration", "plan"),
    ),
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

from blurkit.nn.size import SizeRequirement


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


@cache
def server(house: Path) -> subprocess.Popen[str]:
    """A process in that house that runs commands until its input ends: torch is imported once."""
    paths = {"PYTHONPATH": f"{house}{os.pathsep}{ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-c", SERVER],
        cwd=house,
        env=os.environ | paths | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(house: Path, *arguments: object) -> Ran:
    """`blurkit ARGUMENTS` in that house."""
    process = server(house)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
    process.stdin.flush()
    status, out, err = json.loads(process.stdout.readline())
    return Ran(status, out.encode(), err)


@pytest.fixture(scope="module")
def trained(house: Path) -> Path:
    """A toy trained in two pieces, on pairs that `prepare` wrote."""
    for number in range(3):
        write(house / f"pairs/blur/{number}.png", blurred(photo(number, 64, 80)))
        write(house / f"pairs/sharp/{number}.png", photo(number, 64, 80))
    assert_done(run(house, "prepare", "pairs", "-o", "shards/", "-q"))
    options = ("--system", "toy", "--layers", 2, "--iterations", 6, "--batch", 2, "--crop", 32)
    command = ("train-deblur", "shards", *options, "-o", "toy.pt", "--save-minutes", 0, "-q")
    first = run(house, *command, "--minutes", 1e-9)
    assert first.status == 0 and (house / "toy.state.pt").is_file()
    assert_done(run(house, *command, "--resume"))
    return house / "toy.pt"


def test_it_trains_in_pieces_and_info_shows_it(house: Path, trained: Path) -> None:
    (found,) = run(house, "info", trained, "--json", "-q").json
    assert found["system"] == "toy" and found["configuration"]["layers"] == 2
    (network,) = found["networks"].values()
    assert network["network"] == "ToyNet" and network["layers"] == 2
    assert network["parameters"] == 2 * (81 + 3)


def test_it_deblurs_and_eval_measures_it(house: Path, trained: Path) -> None:
    blurry, output = house / "pairs/blur/0.png", house / "restored/"
    assert_done(run(house, "deblur", blurry, "-c", trained, "-o", f"{output}/", "-q"))
    scores = run(house, "eval", output / "0.png", house / "pairs/sharp/0.png", "--json", "-q").json
    assert scores[0]["psnr"] > 10
    network = run(
        house, "eval", output / "0.png", house / "pairs/sharp/0.png", "-c", trained, "--json", "-q"
    )
    assert network.json[-1]["network"]["name"] == "ToyNet"


def test_a_foreign_file_of_it_is_recognised(house: Path, trained: Path) -> None:
    state = torch.load(trained, weights_only=True)["networks"]["deblur"]
    torch.save({"params": state}, house / "foreign.pth")
    outputs = []
    for number, checkpoint in enumerate((trained, house / "foreign.pth")):
        output = house / f"from{number}.h5"
        arguments = ("pairs/blur", "-c", checkpoint, "--tile", 32, "--precision", "fp32", "-q")
        assert_done(run(house, "deblur", *arguments, "-o", output))
        (line,) = run(house, "info", output, "--json", "-q").json
        outputs.append(line["records"])
    assert outputs[0] == outputs[1]
    assert np.isfinite([v.abs().max() for v in state.values()]).all()


def test_its_option_is_not_another_systems_of_that_name(house: Path) -> None:
    """MSFS-Net's --layers is one of two words, the toy's is a number."""
    toy = run(house, "train-deblur", "--system", "toy", "--help").out.decode()
    assert re.search(r"--layers\s+(INTEGER|<int>)", toy) and "Convolutions of the toy" in toy
    other = run(house, "train-deblur", "--system", "msfs", "--help-all").out.decode()
    assert re.search(r"--layers\s+[<\[]paper\|official[>\]]", other)
    assert "Convolutions of the toy" not in other
    for system, layers in (("toy", "paper"), ("msfs", "3")):
        ran = run(house, "train-deblur", "shards", "--system", system, "--layers", layers)
        assert ran.status == 2 and "--layers" in ran.err
    assert run(house, "--version").status == 0
