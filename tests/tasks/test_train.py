"""Training from Python: every training of every system by its name, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit.errors import UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.system import systems
from blurkit.tasks.train import needs_of, plan_training, train
from blurkit.training.configuration import Run

TRAININGS = [(t.command, t.name) for system in systems().values() for t in system.trainings]
RUN = Run("x.pt", "cpu", quiet=True)


@pytest.mark.parametrize(("command", "name"), TRAININGS)
def test_every_training_is_planned(command: str, name: str) -> None:
    # What single trainings need beside shards; `paper` would need more.
    overrides: dict[str, Any] = {"batch": 1} | ({"real_share": 0.0} if name == "bgan" else {})
    if (command, name) == ("train-deblur", "msdi"):
        overrides |= {"injection": "none", "blur_weight": 0.0}
    preset = "paper" if name in ("deconvolution", "estimator") else "small"  # they have no other
    plan = plan_training(command, name, RUN, preset, overrides=overrides, dry_run=True)
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
