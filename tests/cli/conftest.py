"""What the commands are tried on: a small dataset tree, its shard, and a network that is quick."""

from pathlib import Path

import numpy as np
import pytest
import torch

from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling
from tests.cli.command import assert_done
from tests.cli.invoke import invoke
from tests.cli.pictures import plant_photos, plant_tree
from tests.engine.networks import steered, stored


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder of its own, which is empty."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A feature network is neither named nor kept from another program."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)


@pytest.fixture
def photos(inside: None) -> Path:
    """A folder of three sharp photos of 64x48."""
    return plant_photos("photos", 3)


@pytest.fixture
def kernel(inside: None) -> Path:
    """A kernel that takes the mean of five pixels in a row."""
    np.save("k.npy", np.full((1, 5), 0.2))
    return Path("k.npy")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoPro tree of 4 test pairs of 64x48: scene0/0, scene0/1, scene1/0, scene1/1."""
    return plant_tree(tmp_path_factory.mktemp("tree"), 4)


@pytest.fixture(scope="session")
def shard(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of `tree` in one shard."""
    path = tmp_path_factory.mktemp("shard") / "pairs.h5"
    assert_done(invoke("prepare", tree, "-o", path, "--jobs", 1, "--quiet"))
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MSDI-Net that nearly returns its input and works in tiles of 64 pixels."""
    torch.manual_seed(0)
    network = MSDINet(DegradationEncoder(1, 8), PriorUpsampling(1, 8), width=8, hidden=8)
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 64, 64))  # settles the spectral norms
        network.last.weight.mul_(0.05)
        network.last.bias.zero_()
    return stored(tmp_path_factory.mktemp("checkpoint") / "tiny.pt", {"deblur": network}, crop=64)


@pytest.fixture(scope="session")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of the joint stage, `steered()`, that work in tiles of 64 pixels."""
    return stored(tmp_path_factory.mktemp("joint") / "enc.pt", steered().roles(), crop=64)
