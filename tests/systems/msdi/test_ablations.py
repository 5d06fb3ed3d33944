"""Every ablation of MSDI-Net trains, validates, and comes back from its checkpoint alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    MSDINet,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.registry import describe, load_networks
from blurkit.systems.uses import network_for
from blurkit.tasks.train import run_plan
from blurkit.training.configuration import Run
from blurkit.training.recipe import Plan, Recipe
from tests.cli.command import assert_done, assert_refused, records
from tests.cli.invoke import invoke
from tests.training.runs import batch, tensors

TINY: dict[str, Any] = {
    **{"crop": 64, "batch": 1, "iterations": 2, "ema": 0.0, "width": 4, "hidden": 4}
}
JOINT: dict[str, Any] = TINY | {
    **{"discriminator_width": 4, "perceptual": "none", "reblur_loss": "adversarial"}
}

STAGE_1: dict[str, dict[str, Any]] = {
    "lowest": {"injection": "lowest"},
    "input": {"injection": "input", "generator": "stacked", "inject_stages": "both"},
    "concat": {"injection": "concat", "inject_bottleneck": True},
    "without reblurring": {"reblurring": False},
    "1-d": {"code": "1d"},
    "1-d, version 2": {"code": "1d", "encoder_version": "2"},
    "1-d, paper's layers": {"code": "1d", "encoder_layers": "paper"},
    "l1": {"reblur_loss": "l1"},
}
STAGE_2: dict[str, dict[str, Any]] = {
    "lowest": {"injection": "lowest", "modulation": "paper", "inject_bottleneck": True},
    "input": {"injection": "input", "inject_stages": "both"},
    "concat": {"injection": "concat"},
    "none": {"injection": "none"},
    "without blur loss": {"blur_weight": 0.0},
}


def pretrained() -> dict[str, nn.Module]:
    """What stage 1 leaves to stage 2, as it begins."""
    torch.manual_seed(3)
    networks = {"encoder": DegradationEncoder(1, 4), "latents": PriorUpsampling(1, 4)}
    with torch.no_grad():
        for _ in range(10):  # settles the spectral norms
            networks["latents"](networks["encoder"](torch.rand(1, 3, 64, 64)))
    return {role: network.eval() for role, network in networks.items()}


def trained(recipe: Recipe, shards: Path, output: Path) -> Checkpoint:
    """The checkpoint that a few steps of a recipe leave, as it is read from the file."""
    run = Run(str(output), "cpu", validate_every=2, validate_on=1, samples=False, quiet=True)
    run_plan(Plan(recipe.configuration, lambda: recipe), [shards], run)
    return load_checkpoint(output)


def assert_comes_back(recipe: Recipe, checkpoint: Checkpoint, options: dict[str, Any]) -> None:
    """Recognised by its tensors alone, with the same outputs; validated on its way."""
    assert {k: checkpoint.configuration[k] for k in options} == options
    assert checkpoint.provenance["metrics"]["psnr"] > 5
    loaded = load_networks(Checkpoint(checkpoint.networks, "", {}, {}, "x.pt"))
    assert {r: describe(n) for r, n in loaded.items()} == {
        r: describe(n) | {"trainable": describe(loaded[r])["trainable"]}
        for r, n in recipe.networks.items()
    }
    image = torch.rand(1, 3, 64, 64)
    network = network_for("deblurring", checkpoint)
    # Convolutions of channels-last weights sum in another order, so not to the same bits.
    for each in (network, *recipe.networks.values()):
        each.to(memory_format=torch.contiguous_format).eval()
    with torch.no_grad():
        result = network(image)
        if isinstance(recipe, ReblurRecipe):
            expected = recipe.model(image, image)[0]
        else:
            expected = recipe.networks["deblur"](image)[-1]
    result = result[-1] if isinstance(result, list) else result
    assert torch.equal(result, expected)
    assert not torch.equal(result, image)


@pytest.mark.parametrize("variant", STAGE_1)
def test_stage_1(variant: str, training_shards: Path, tmp_path: Path) -> None:
    options = STAGE_1[variant]
    configuration = ReblurConfiguration.resolve("small", **JOINT | options)
    recipe = ReblurRecipe(configuration)
    checkpoint = trained(recipe, training_shards, tmp_path / "enc.pt")
    assert_comes_back(recipe, checkpoint, options)
    roles = {"encoder", "latents", "deblur"}
    if variant != "without reblurring":
        roles |= {"reblur"} if variant == "l1" else {"reblur", "discriminator"}
    assert set(checkpoint.networks) == roles


@pytest.mark.parametrize("variant", STAGE_2)
def test_stage_2(variant: str, training_shards: Path, tmp_path: Path) -> None:
    options = STAGE_2[variant]
    configuration = DeblurConfiguration.resolve("small", **TINY | options)
    recipe = DeblurRecipe(configuration, pretrained())
    checkpoint = trained(recipe, training_shards, tmp_path / "deblur.pt")
    assert_comes_back(recipe, checkpoint, options)
    kind = StackedGenerator if variant == "none" else MSDINet
    assert type(load_networks(checkpoint)["deblur"]) is kind
    steering = any(
        k.startswith(("net_prior", "ad1", "prior")) for k in checkpoint.networks["deblur"]
    )
    assert steering == (variant != "none")


# ---- one step against the definitions ------------------------------------------------------------


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards)


def stage_1(**options: Any) -> ReblurRecipe:
    torch.manual_seed(3)
    small = JOINT | {"identity_start": False} | options
    made = ReblurRecipe(ReblurConfiguration.resolve("small", **small))
    for network in made.networks.values():
        network.train()
    return made


def step(made: Recipe, crops: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """Losses and totals of one step; its gradients stay in the networks."""
    totals: dict[str, float] = {}

    def update(name: str, loss: Tensor) -> None:
        totals[name] = loss.item()
        loss.backward()

    losses = made.step(crops, update)
    return {name: float(loss) for name, loss in losses.items()}, totals


def l1(first: Tensor, second: Tensor) -> float:
    return float(np.abs(first.detach().double().numpy() - second.double().numpy()).mean())


def trained_by(network: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())


@pytest.mark.parametrize("weight", [30.0, 4.0])
def test_the_l1_loss_of_reblurring(weight: float, crops: dict[str, Tensor]) -> None:
    made = stage_1(reblur_loss="l1", perceptual_weight=weight)
    with torch.no_grad():
        deblurred, reblurred = copy.deepcopy(made).model(crops["blur"], crops["sharp"])
    losses, totals = step(made, crops)
    expected = {"deblur": l1(deblurred, crops["sharp"]), "reblur": l1(reblurred, crops["blur"])}
    assert losses == pytest.approx(expected, rel=1e-5)
    total = 10 * expected["deblur"] + weight * expected["reblur"]
    assert totals == pytest.approx({"generator": total}, rel=1e-5)
    assert all(trained_by(network) for network in made.networks.values())


def test_l1_has_no_use_for_features(crops: dict[str, Tensor]) -> None:
    made = stage_1(reblur_loss="l1")
    made.features = FeatureNetwork(BACKBONES[1])
    assert set(step(made, crops)[0]) == {"deblur", "reblur"}


def test_without_reblurring_the_encoder_learns_from_deblurring(crops: dict[str, Tensor]) -> None:
    made = stage_1(reblurring=False)
    with torch.no_grad():
        deblurred, reblurred = copy.deepcopy(made).model(crops["blur"], crops["sharp"])
    assert reblurred is None
    losses, totals = step(made, crops)
    assert losses == pytest.approx({"deblur": l1(deblurred, crops["sharp"])}, rel=1e-5)
    assert totals == pytest.approx({"generator": 10 * losses["deblur"]}, rel=1e-6)
    assert set(made.networks) == {"encoder", "latents", "deblur"}
    assert all(trained_by(network) for network in made.networks.values())


def test_what_only_the_lowest_scale_needs_is_trained_alone(crops: dict[str, Tensor]) -> None:
    made = stage_1(injection="lowest", inject_bottleneck=False)
    step(made, crops)
    steps = dict(made.networks["latents"].named_children())
    assert [n for n, up in steps.items() if trained_by(up)] == [
        "conv_latent_init",
        "conv_latent_up2",
        "conv_latent_up3",
    ]


def test_without_degradation_the_encoder_serves_the_blur_aware_loss(
    crops: dict[str, Tensor],
) -> None:
    options = TINY | {"identity_start": False, "injection": "none", "blur_weight": 3.0}
    networks = pretrained()
    encoder = networks["encoder"]
    made = DeblurRecipe(DeblurConfiguration.resolve("small", **options), networks)
    with torch.no_grad():
        restored = made.network(crops["blur"])[-1]
        maps = zip(encoder.features(restored), encoder.features(crops["sharp"]), strict=True)
        expected = sum(l1(a, b) for a, b in maps)
    losses, totals = step(made, crops)
    assert losses["blur"] == pytest.approx(expected, rel=1e-4)
    total = losses["psnr"] + losses["psnr_first"] + 3 * losses["blur"]
    assert totals == pytest.approx({"deblur": total}, rel=1e-5)
    assert trained_by(made.network) and not trained_by(encoder)


def test_without_an_encoder_there_is_no_blur_aware_loss(crops: dict[str, Tensor]) -> None:
    options = TINY | {"injection": "none"}
    with pytest.raises(UsageError, match="--injection none: the blur-aware loss needs --encoder"):
        DeblurRecipe(DeblurConfiguration.resolve("small", **options), {})
    made = DeblurRecipe(DeblurConfiguration.resolve("small", **options, blur_weight=0.0), {})
    assert set(step(made, crops)[0]) == {"psnr", "psnr_first"}


# ---- the commands --------------------------------------------------------------------------------

SMALL = [*("--preset", "small", "--batch", 2, "--crop", 64, "--hidden", 8, "--device", "cpu")]
QUICK = [*SMALL, "--iterations", 1, "--validate-on", 0, "-q"]


@pytest.mark.parametrize(
    ("given", "roles"),
    [
        (["--injection", "concat"], {"encoder", "latents", "reblur", "deblur", "discriminator"}),
        (["--no-reblurring"], {"encoder", "latents", "deblur"}),
        (["--reblur-loss", "l1"], {"encoder", "latents", "reblur", "deblur"}),
        (["--code", "1d"], {"encoder", "latents", "reblur", "deblur", "discriminator"}),
    ],
)
@pytest.mark.parametrize(
    "preset",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("paper", "text")), "official"],
)
def test_dry_runs_of_stage_1(preset: str, given: list[str], roles: set[str]) -> None:
    ran = invoke("train-reblur", *given, "--preset", preset, "--batch", 2, "--dry-run", "-q")
    assert_done(ran)
    estimate = ran.json[0]["estimate"]
    assert set(estimate["parameters"]) == roles
    assert estimate["trained"] == sum(estimate["parameters"].values())
    assert 0 < estimate["activations"] < estimate["total"]


def test_dry_runs_of_stage_2(stage_1: Path) -> None:
    sizes = {}
    for kind in ("multi-scale", "lowest", "input", "concat", "none"):
        ran = invoke(
            "train-deblur", "--encoder", stage_1, "--injection", kind, *SMALL, "--dry-run", "-q"
        )
        assert_done(ran)
        sizes[kind] = ran.json[0]["estimate"]["trained"]
    # The latent's 8 channels at the 3x3 convolution of the entrance; nothing else is added.
    assert sizes["input"] - sizes["none"] == 8 * 8 * 9
    assert sizes["none"] < sizes["lowest"] < sizes["multi-scale"]
    alone = invoke(
        "train-deblur", "--injection", "none", "--blur-weight", 0, *SMALL, "--dry-run", "-q"
    )
    assert_done(alone)
    assert set(alone.json[0]["estimate"]["parameters"]) == {"deblur"}


def test_without_degradation_by_command(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "deblur.pt"
    command = ["train-deblur", training_shards, *QUICK, "--injection", "none", "-o", output]
    assert_refused(invoke(*command), "--encoder FILE", "--blur-weight 0", status=2)
    assert not output.exists()
    assert_done(invoke(*command, "--blur-weight", 0))
    test = next(training_shards.glob("val-*.h5"))
    assert_done(invoke("deblur", test, "-c", output, "-o", tmp_path / "out.h5", "-q"))
    for record in records(tmp_path / "out.h5"):
        assert record.images["restored"].shape == record.images["blur"].shape


def test_a_one_dimensional_code_goes_on_to_stage_2(training_shards: Path, tmp_path: Path) -> None:
    encoder, output = tmp_path / "enc.pt", tmp_path / "deblur.pt"
    narrow = ["--width", 8, "--discriminator-width", 8, "--perceptual", "none"]
    stage = ["train-reblur", training_shards, *QUICK, *narrow, "--code", "1d", "-o", encoder]
    assert_done(invoke(*stage))
    stage = ["train-deblur", training_shards, *QUICK, "--encoder", encoder, "-o", output]
    assert_done(invoke(*stage))
    held = load_networks(load_checkpoint(output))["deblur"].net_prior
    assert held.options["code"] == "1d"
    before, after = tensors(encoder), tensors(output)
    for key in ("out_1d.0.bias", "out_1d.0.weight_orig"):
        assert torch.equal(after[f"deblur.net_prior.{key}"], before[f"encoder.{key}"])


def test_stage_1_needs_the_degradation(tmp_path: Path) -> None:
    ran = invoke("train-reblur", *SMALL, "--injection", "none", "-o", tmp_path / "x.pt")
    assert_refused(ran, "--injection none", "train-deblur", status=2)
