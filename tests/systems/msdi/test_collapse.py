"""Collapse of MSDI-Net's training: what is measured, when it is said, and what it leaves alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.losses import LIMITS, CollapseWatch
from blurkit.systems.msdi.networks import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.training.recipe import COLLAPSED_LINES
from tests.cli.command import assert_done
from tests.cli.invoke import invoke
from tests.training.runs import batch, read_log, tensors

TINY: dict[str, Any] = {"width": 4, "hidden": 4, "crop": 64, "batch": 2}
OPTIONS = [*("--width", 4, "--hidden", 4, "--crop", 64, "--batch", 2, "--discriminator-width", 4)]
OPTIONS += [*("--perceptual", "none", "--validate-on", 0, "--device", "cpu", "-q")]
OPTIONS += [*("--generator", "single", "--reblur-loss", "l1", "--learning-rate", 0.01)]
HEALTHY = {name: 2 * limit for name, (limit, _) in LIMITS.items()}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards, count=3)


def stage_1(**options: Any) -> ReblurRecipe:
    torch.manual_seed(3)
    given = TINY | {"discriminator_width": 4} | options
    made = ReblurRecipe(ReblurConfiguration.resolve("paper", **given))
    for network in made.networks.values():
        network.train()
    return made


def distance(first: Tensor, second: Tensor) -> float:
    return float(np.abs(first.double().numpy() - second.double().numpy()).mean())


def test_what_is_measured_of_stage_1(crops: dict[str, Tensor]) -> None:
    """Image by image: the next image's map, and the picture that its degradation gives."""
    made = stage_1()
    measured = {name: value.item() for name, value in made.measures(crops).items()}
    twin = made.model.eval()
    blur, sharp = crops["blur"], crops["sharp"]
    with torch.no_grad():
        maps = [twin.net_prior(one[None]) for one in blur]
        latents = [twin.prior_upsampling(z) for z in maps]
        restored = [twin.generator(b[None], z)[-1] for b, z in zip(blur, latents, strict=True)]
        assert twin.inverse_generator is not None
        own, other = (
            [twin.inverse_generator(s[None], z)[-1] for s, z in zip(sharp, given, strict=True)]
            for given in (latents, [latents[2], *latents[:2]])
        )
    size = float(torch.cat(maps).abs().mean())
    expected = {
        "degradations": distance(torch.cat(maps), torch.cat([maps[2], *maps[:2]])) / size,
        "restored": distance(torch.cat(restored), blur) / distance(blur, sharp),
        "exchange": distance(torch.cat(own), torch.cat(other)) / distance(blur, sharp),
    }
    assert measured == pytest.approx(expected, rel=1e-3)
    assert measured["exchange"] > 0


def test_what_is_measured_of_stage_2(crops: dict[str, Tensor]) -> None:
    """Nothing here is reblurred, and without injection there is no degradation."""
    torch.manual_seed(3)
    pretrained = {"encoder": DegradationEncoder(1, 4), "latents": PriorUpsampling(1, 4)}
    for injection, names in (
        ("multi-scale", {"restored", "degradations"}),
        ("none", {"restored"}),
    ):
        c = DeblurConfiguration.resolve("paper", **TINY, identity_start=True, injection=injection)
        made = DeblurRecipe(c, copy.deepcopy(pretrained))
        measured = made.measures(crops)
        assert measured.keys() == names
        assert measured["restored"] == 0  # it begins by returning its input


def test_single_crops_are_exchanged_with_those_of_the_call_before(
    crops: dict[str, Tensor],
) -> None:
    """A batch of one has no other degradation."""
    watch = CollapseWatch(0)
    for n in range(3):
        blur, sharp = watch.crops(crops["blur"][n : n + 1], crops["sharp"][n : n + 1])
        assert torch.equal(blur, crops["blur"][max(0, n - 1) : n + 1])
        assert torch.equal(sharp, crops["sharp"][max(0, n - 1) : n + 1])


@pytest.mark.parametrize("name", LIMITS)
def test_a_collapse_is_said_once(name: str) -> None:
    watch, dead = CollapseWatch(10), HEALTHY | {name: 0.0}
    assert not any(watch.collapsed(step, dead) for step in range(11))  # too early to tell
    assert not any(watch.collapsed(step, HEALTHY) for step in range(11, 20))
    said = [watch.collapsed(step, dead) for step in range(20, 30)]
    third = COLLAPSED_LINES - 1
    assert [bool(text) for text in said] == [n == third for n in range(10)]
    assert LIMITS[name][1] in said[third] and f"({name} 0" in said[third]
    # A line between that is as it should be begins the count again.
    watch = CollapseWatch(0)
    assert not any(
        watch.collapsed(n, dead if n % COLLAPSED_LINES else HEALTHY) for n in range(1, 20)
    )


def warnings(output: Path) -> list[str]:
    """Those of a run's log, which its checkpoint keeps."""
    logged = [
        f"step {line['step']}: {line['warning']}" for line in read_log(output) if "warning" in line
    ]
    assert load_checkpoint(output).provenance.get("warnings", []) == logged
    return logged


def test_the_texts_layers_collapse(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.pt"
    steps = ["--preset", "text", "--learning-rate", 3e-4, "--iterations", 4, "--log-every", 1]
    ran = invoke("train-reblur", training_shards, *OPTIONS, *steps, "-o", output)
    assert_done(ran)
    (warning,) = warnings(output)
    assert "the encoder gives all images nearly the same degradation" in warning
    assert warning in ran.err
    measured = [line["losses"]["degradations"] for line in read_log(output) if "losses" in line]
    assert max(measured) < LIMITS["degradations"][0]


def test_the_released_layers_do_not(training_shards: Path, tmp_path: Path) -> None:
    """From latents at full strength and at a high rate, since there are so few steps."""
    output = tmp_path / "enc.pt"
    steps = ["--identity-start", "--iterations", 18, "--log-every", 3]
    assert_done(invoke("train-reblur", training_shards, *OPTIONS, *steps, "-o", output))
    assert warnings(output) == []
    last = [line["losses"] for line in read_log(output) if "losses" in line][-1]
    for name, (limit, _) in LIMITS.items():
        assert last[name] > limit


def test_measuring_leaves_the_training_as_it_is(training_shards: Path, tmp_path: Path) -> None:
    seldom, often = tmp_path / "seldom.pt", tmp_path / "often.pt"
    for output, every in ((seldom, 100), (often, 1)):
        command = ["train-reblur", training_shards, *OPTIONS, "--iterations", 3]
        assert_done(invoke(*command, "--log-every", every, "-o", output))
    one, other = tensors(seldom), tensors(often)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
