"""The presets of MSDI-Net: `paper` is the released version 1, and both its stages fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.tasks.inspect import macs
from blurkit.tasks.train import plan_training
from blurkit.training.configuration import Run
from tests.cli.command import assert_done, assert_refused
from tests.cli.invoke import invoke
from tests.shared import shared_folder
from tests.training.runs import tensors

NARROW = ["--width", 4, "--hidden", 4, "--crop", 64, "--batch", 1, "--iterations", 1]
QUICK = [*NARROW, "--validate-on", 0, "--device", "cpu", "-q"]


def stage_2(preset: str) -> DeblurRecipe:
    """A preset's network at its full width, without memory."""
    stage_1 = ReblurConfiguration.resolve(preset)
    version = 1 if stage_1.encoder_version == "1" else 2
    with torch.device("meta"):
        networks = {
            "encoder": DegradationEncoder(version, layers=stage_1.encoder_layers),
            "latents": PriorUpsampling(version),
        }
        return DeblurRecipe(DeblurConfiguration.resolve(preset), networks)


def test_paper_is_the_released_network() -> None:
    """Its tensors by name and shape, and its cost: the paper's 336.4 by an unnamed tool."""
    network = stage_2("paper").network
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    released = shared_folder("parity", "BLURKIT_PARITY") / "msdi_net_v1.json"
    assert shapes == json.loads(released.read_text())["state_dict"]
    assert macs(network, (1, 3, 256, 256)) / 1e9 == pytest.approx(332.8, abs=0.1)


def test_what_the_other_presets_cost() -> None:
    cost = {p: macs(stage_2(p).network, (1, 3, 256, 256)) / 1e9 for p in ("text", "official")}
    assert cost == pytest.approx({"text": 362.9, "official": 338.9}, abs=0.1)


def test_stage_1_of_paper_trains_the_parts_of_stage_2() -> None:
    """Its E and latents are those of the released network, its generators the same U-Nets."""
    with torch.device("meta"):
        networks = ReblurRecipe(ReblurConfiguration.resolve()).networks
    own = {key: tuple(t.shape) for key, t in stage_2("paper").network.state_dict().items()}
    places = {"encoder": "net_prior.", "latents": "prior_upsampling.", "reblur": "", "deblur": ""}
    for role, place in places.items():
        for key, tensor in networks[role].state_dict().items():
            assert own[place + key] == tuple(tensor.shape)


def test_both_stages_without_a_preset(training_shards: Path, tmp_path: Path) -> None:
    encoder, output = tmp_path / "enc.pt", tmp_path / "deblur.pt"
    narrow = ["--discriminator-width", 4, "--perceptual", "none"]
    assert_done(invoke("train-reblur", training_shards, *QUICK, *narrow, "-o", encoder))
    stage = ["train-deblur", training_shards, "--encoder", encoder]
    assert_done(invoke(*stage, *QUICK, "-o", output))
    given = {"width": 4, "hidden": 4, "crop": 64, "batch": 1, "iterations": 1}
    configuration = load_checkpoint(output).configuration
    assert configuration == DeblurConfiguration.resolve("paper", **given).as_dict()
    before, after = tensors(encoder), tensors(output)
    frozen = {k: t for k, t in after.items() if k.startswith("deblur.net_prior.")}
    assert frozen
    for key, tensor in frozen.items():
        assert torch.equal(tensor, before[key.replace("deblur.net_prior.", "encoder.")])


@pytest.fixture(scope="module")
def version_2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the released joint stage leaves."""
    path = tmp_path_factory.mktemp("official") / "joint.pt"
    networks = {"encoder": DegradationEncoder(2, 4), "latents": PriorUpsampling(2, 4)}
    states = {role: network.state_dict() for role, network in networks.items()}
    save_checkpoint(Checkpoint(states, "msdi", {}), path)
    return path


def test_the_released_second_version_needs_the_encoder_of_the_first(version_2: Path) -> None:
    stage = ["train-deblur", "--preset", "official", "--dry-run", "-q", "--encoder", version_2]
    stage += ["--batch", 1, "--hidden", 4]
    assert_refused(invoke(*stage), "version 1", "--blur-encoder FILE", "net_E.pth", status=2)
    assert_done(invoke(*stage, "--blur-encoder", version_2))
    assert_done(invoke(*stage, "--blur-weight", 0))
    # Other presets take the features of the encoder at hand.
    stage[stage.index("official")] = "small"
    assert_done(invoke(*stage))


def test_the_first_version_is_its_own_blur_encoder(tmp_path: Path) -> None:
    networks = {"encoder": DegradationEncoder(1, 4), "latents": PriorUpsampling(1, 4)}
    states = {role: network.state_dict() for role, network in networks.items()}
    save_checkpoint(Checkpoint(states, "msdi", {}), tmp_path / "enc.pt")
    inputs: dict[str, Any] = {"encoder": (str(tmp_path / "enc.pt"),)}
    run = Run(str(tmp_path / "deblur.pt"))
    plan = plan_training("train-deblur", "msdi", run, "official", inputs, {"hidden": 4})
    made = plan.build()
    assert isinstance(made, DeblurRecipe) and isinstance(made.blur_encoder, DegradationEncoder)
    assert made.blur_encoder.version == 1
    with pytest.raises(UsageError, match="use one of paper, text, official, small"):
        plan_training("train-deblur", "msdi", run, "tiny", inputs)
