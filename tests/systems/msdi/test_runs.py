"""Real runs of MSDI-Net: its ablations, both stages by command, a collapse that is told of."""

from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.encoder import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.losses import LIMITS
from blurkit.systems.msdi.networks import MSDINet, StackedGenerator
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.registry import describe, load_networks
from blurkit.systems.uses import network_for
from blurkit.tasks.train import plan_training, run_plan
from blurkit.training.configuration import Run
from blurkit.training.recipe import Plan, Recipe
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.engine.networks import stored
from tests.systems.msdi.test_recipe import pretrained
from tests.training.runs import assert_same_bits, read_log

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- every ablation trains, validates, and comes back from its checkpoint alone ------------------

TINY: dict[str, Any] = {
    **{"crop": 64, "batch": 1, "iterations": 1, "ema": 0.0, "width": 4, "hidden": 4}
}
JOINT: dict[str, Any] = TINY | {
    **{"discriminator_width": 4, "perceptual": "none", "reblur_loss": "adversarial"}
}
STAGE_1: dict[str, dict[str, Any]] = {
    "input": {"injection": "input", "generator": "stacked", "inject_stages": "both"},
    "concat": {"injection": "concat", "inject_bottleneck": True},
    "without reblurring": {"reblurring": False, "injection": "lowest"},
    "1-d, version 2": {"code": "1d", "encoder_version": "2"},
    "1-d, paper's layers": {"code": "1d", "encoder_layers": "paper", "reblur_loss": "l1"},
}
STAGE_2: dict[str, dict[str, Any]] = {
    "lowest": {"injection": "lowest", "modulation": "paper", "inject_bottleneck": True},
    "input": {"injection": "input", "inject_stages": "both"},
    "concat": {"injection": "concat", "blur_weight": 0.0},
    "none": {"injection": "none"},
}


def trained(recipe: Recipe, shards: Path, output: Path, options: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a step: validated, recognised by its tensors, with the same outputs."""
    run = Run(str(output), "cpu", validate_on=1, samples=False, quiet=True)
    run_plan(Plan(recipe.configuration, lambda: recipe), [shards], run)
    checkpoint = load_checkpoint(output)
    assert checkpoint.configuration | options == checkpoint.configuration
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
    assert torch.equal(result, expected) and not torch.equal(result, image)
    return checkpoint


@pytest.mark.parametrize("variant", STAGE_1)
def test_ablations_of_stage_1(variant: str, training_shards: Path, tmp_path: Path) -> None:
    options = STAGE_1[variant]
    recipe = ReblurRecipe(ReblurConfiguration.resolve("small", **JOINT | options))
    checkpoint = trained(recipe, training_shards, tmp_path / "enc.pt", options)
    roles = {"encoder", "latents", "deblur"}
    if variant != "without reblurring":
        roles |= {"reblur"} if "reblur_loss" in options else {"reblur", "discriminator"}
    assert set(checkpoint.networks) == roles


@pytest.mark.parametrize("variant", STAGE_2)
def test_ablations_of_stage_2(variant: str, training_shards: Path, tmp_path: Path) -> None:
    options = STAGE_2[variant]
    configuration = DeblurConfiguration.resolve("small", **TINY | options)
    recipe = DeblurRecipe(configuration, {role: n.eval() for role, n in pretrained().items()})
    checkpoint = trained(recipe, training_shards, tmp_path / "deblur.pt", options)
    kind = StackedGenerator if variant == "none" else MSDINet
    assert type(load_networks(checkpoint)["deblur"]) is kind
    keys = checkpoint.networks["deblur"]
    steering = any(key.startswith(("net_prior", "ad1", "prior")) for key in keys)
    assert steering == (variant != "none")


SMALL = [*("--preset", "small", "--batch", 2, "--crop", 64, "--hidden", 8, "--device", "cpu")]
NARROW = [*("--width", 4, "--hidden", 4, "--crop", 64, "--batch", 1, "--discriminator-width", 4)]
NARROW += [*("--perceptual", "none", "--iterations", 1)]
QUICK = ["--iterations", 1, "--validate-on", 0, "--device", "cpu", "-q"]


def test_without_degradation_by_command(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "deblur.pt"
    given = [*SMALL, *QUICK, "--injection", "none", "-o", output]
    command = ["train-deblur", training_shards, *given]
    assert_refused(invoke(*command), "--encoder FILE", "--blur-weight 0", status=2)
    assert not output.exists()
    alone = [*command, "--blur-weight", 0]
    assert invoke(*alone, "--dry-run").json[0]["estimate"]["parameters"].keys() == {"deblur"}
    done(*alone)
    ran = invoke("train-reblur", *SMALL, "--injection", "none", "-o", tmp_path / "x.pt")
    assert_refused(ran, "--injection none", "train-deblur", status=2)


def test_both_stages_without_a_preset(training_shards: Path, tmp_path: Path) -> None:
    """Stage 2 has the encoder of stage 1, whose code has one dimension, to the bit."""
    encoder, output = tmp_path / "enc.pt", tmp_path / "deblur.pt"
    done("train-reblur", training_shards, *NARROW, *QUICK, "--code", "1d", "-o", encoder)
    stage = ["train-deblur", training_shards, "--encoder", encoder, *NARROW[:8], *QUICK]
    done(*stage, "-o", output)
    given = {"width": 4, "hidden": 4, "crop": 64, "batch": 1, "iterations": 1}
    checkpoint = load_checkpoint(output)
    assert checkpoint.configuration == DeblurConfiguration.resolve("paper", **given).as_dict()
    network = load_networks(checkpoint)["deblur"].net_prior
    assert network.options["code"] == "1d"
    frozen = load_checkpoint(encoder).networks["encoder"]
    assert network.state_dict().keys() == frozen.keys()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, frozen[key]), key


def left_by_stage_1(path: Path, version: int) -> Path:
    encoder, latents = DegradationEncoder(version, 4), PriorUpsampling(version, 4)
    return stored(path, {"encoder": encoder, "latents": latents})


def test_the_released_second_version_needs_the_encoder_of_the_first(tmp_path: Path) -> None:
    encoder = left_by_stage_1(tmp_path / "joint.pt", 2)
    stage = ["train-deblur", "--preset", "official", "--dry-run", "-q", "--encoder", encoder]
    stage += ["--batch", 1, "--hidden", 4]
    assert_refused(invoke(*stage), "version 1", "--blur-encoder FILE", "net_E.pth", status=2)
    done(*stage, "--blur-encoder", encoder)
    done(*stage, "--blur-weight", 0)
    # Other presets take the features of the encoder at hand.
    stage[stage.index("official")] = "small"
    done(*stage)


def test_the_first_version_is_its_own_blur_encoder(tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"encoder": (str(left_by_stage_1(tmp_path / "enc.pt", 1)),)}
    run = Run(str(tmp_path / "deblur.pt"))
    made = plan_training("train-deblur", "msdi", run, "official", inputs, {"hidden": 4}).build()
    assert isinstance(made, DeblurRecipe) and isinstance(made.blur_encoder, DegradationEncoder)
    assert made.blur_encoder.version == 1
    with pytest.raises(UsageError, match="use one of paper, text, official, small"):
        plan_training("train-deblur", "msdi", run, "tiny", inputs)


OPTIONS = [*NARROW[:6], "--batch", 2, "--discriminator-width", 4, "--perceptual", "none"]
OPTIONS += [*("--generator", "single", "--reblur-loss", "l1", "--learning-rate", 0.01), *QUICK]


def watched(shards: Path, output: Path, *options: object) -> tuple[list[str], list[Any], str]:
    """Warnings, which the checkpoint keeps too, logged losses, and what was said."""
    ran = done("train-reblur", shards, *OPTIONS, *options, "-o", output)
    log = read_log(output)
    warnings = [f"step {line['step']}: {line['warning']}" for line in log if "warning" in line]
    assert load_checkpoint(output).provenance.get("warnings", []) == warnings
    return warnings, [line["losses"] for line in log if "losses" in line], ran.err


def test_the_texts_layers_collapse(training_shards: Path, tmp_path: Path) -> None:
    text = ["--preset", "text", "--learning-rate", 3e-4, "--iterations", 4, "--log-every", 1]
    (warning,), losses, told = watched(training_shards, tmp_path / "enc.pt", *text)
    assert "the encoder gives all images nearly the same degradation" in warning
    assert warning in told
    assert warning in str(invoke("info", tmp_path / "enc.pt", "--json").json)
    assert max(line["degradations"] for line in losses) < LIMITS["degradations"][0]


def test_the_released_layers_do_not(training_shards: Path, tmp_path: Path) -> None:
    """From latents at full strength and at a high rate, since there are so few steps."""
    steps = ["--identity-start", "--iterations", 18, "--log-every", 3, "--seed", 1]
    warnings, losses, _ = watched(training_shards, tmp_path / "enc.pt", *steps)
    assert warnings == []
    assert all(losses[-1][name] > limit for name, (limit, _) in LIMITS.items())


def test_measuring_leaves_the_training_as_it_is(training_shards: Path, tmp_path: Path) -> None:
    seldom, often = tmp_path / "seldom.pt", tmp_path / "often.pt"
    for output, every in ((seldom, 100), (often, 1)):
        watched(training_shards, output, "--iterations", 3, "--log-every", every)
    assert_same_bits(often, seldom)
