"""Training from Python: every training of every system by its name, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.msdi.encoder import DegradationEncoder
from blurkit.systems.nafnet.networks import NAFNet
from blurkit.systems.system import systems
from blurkit.tasks.train import begin_with, needs_of, plan_training, train
from blurkit.training.configuration import Run
from blurkit.training.recipe import Recipe

TRAININGS = [(t.command, t.name) for system in systems().values() for t in system.trainings]
RUN = Run("x.pt", "cpu", quiet=True)


@pytest.mark.parametrize(("command", "name"), TRAININGS)
def test_every_training_is_planned(command: str, name: str) -> None:
    # What single trainings need beside shards; `paper` would need more.
    overrides: dict[str, Any] = {"batch": 1} | ({"real_share": 0.0} if name == "bgan" else {})
    if (command, name) == ("train-deblur", "msdi"):
        overrides |= {"injection": "none", "blur_weight": 0.0}
    preset = "paper" if name in ("deconvolution", "estimator") else "small"  # they have no other
    inputs = {"network": "blurkit.systems.nafnet.networks:NAFNet"} if name == "any-network" else {}
    plan = plan_training(command, name, RUN, preset, inputs, overrides, dry_run=True)
    needs = needs_of(plan, RUN)
    assert (plan.configuration.system, plan.configuration.batch) == (name, 1)
    assert needs["trained"] > 0 and needs["total"] > needs["weights"] > 0


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("bgan", {}, "--system bgan: train-deblur has msdi, msfs, dbgan"),
        ("msfs", {"inputs": {"encoder": ["x.pt"]}}, "--encoder is not an option of --system msfs"),
        ("msfs", {"inputs": {"features": "x.pth"}}, "--features is not an option of --system msfs"),
        ("msfs", {"overrides": {"mix": 0.5}}, "--mix requires --bgan FILE"),
        ("msdi", {}, "--encoder FILE: name the checkpoint that train-reblur wrote"),
        ("dbgan", {"overrides": {"variant": "plus"}}, "--variant plus and --bgan FILE require"),
        ("dbgan", {"preset": "tiny"}, "--preset tiny: use one of"),
    ],
)
def test_what_does_not_go_together(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_training("train-deblur", name, RUN, **given)


def test_a_training_is_one_call(training_shards: Path, tmp_path: Path, one_thread: None) -> None:
    output = tmp_path / "msfs.pt"
    run = Run(str(output), "cpu", quiet=True, validate_on=0)
    options = {"iterations": 1, "batch": 1, "crop": 32, "width": 8}
    made = train("train-deblur", "msfs", [training_shards], run, "small", overrides=options)
    saved = load_checkpoint(output)
    assert saved.configuration == made.configuration and saved.system == "msfs"
    own, other = made.networks["deblur"], saved.networks["deblur"]
    assert all(torch.equal(own[key], other[key]) for key in own)


NARROW = {"batch": 1, "crop": 64, "width": 8}
STARTS: list[tuple[str, str, dict[str, Any]]] = [
    ("train-deblur", "nafnet", NARROW),
    ("train-deblur", "msfs", NARROW),
    ("train-deblur", "dbgan", NARROW | {"perceptual": "none"}),
    ("train-reblur", "msdi", NARROW | {"hidden": 8, "perceptual": "none"}),
    ("train-reblur", "kernel-space", NARROW | {"crop": 256}),
]


@pytest.mark.parametrize(("command", "name", "options"), STARTS, ids=[s[1] for s in STARTS])
@pytest.mark.parametrize("prefix", ["", "module.net."])
def test_trainings_start_from_files_of_other_programs(
    command: str, name: str, options: dict[str, Any], prefix: str, tmp_path: Path
) -> None:
    """One network, or a joint model of several, whose roles the file does not name."""

    def recipe(seed: int) -> Recipe:
        torch.manual_seed(seed)
        return plan_training(command, name, RUN, "small", overrides=options).build()

    theirs, ours = recipe(1), recipe(2)
    module = getattr(theirs, "model", None) or next(iter(theirs.networks.values()))
    state = {prefix + key: value for key, value in module.state_dict().items()}
    torch.save({"state_dict": state, "best": np.float64(31)}, tmp_path / "a.ckpt")
    begin_with(ours, load_checkpoint(tmp_path / "a.ckpt"))
    begun = [role for role, network in theirs.networks.items() if network in {*module.modules()}]
    assert begun
    for role in begun:
        own, given = (one.networks[role].state_dict() for one in (ours, theirs))
        assert all(torch.equal(own[key], given[key]) for key in given), role


def test_a_start_of_other_networks_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(1)
    recipe = plan_training("train-deblur", "msfs", RUN, "small", overrides=NARROW).build()
    for state, words in (
        (DegradationEncoder(1, 4).state_dict(), "holds encoder; --start needs one of deblur"),
        (NAFNet(8).state_dict(), "its deblur is another network than this training's"),
        ({"a.weight": torch.zeros(1)}, "no known network has this state dict"),
    ):
        torch.save(state, tmp_path / "a.pth")
        with pytest.raises(BlurkitError, match=words):
            begin_with(recipe, load_checkpoint(tmp_path / "a.pth"))
