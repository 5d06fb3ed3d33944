"""What `train-reblur` and `train-deblur` say and leave behind, in good runs."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.io.images import read_image
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import MODULATION_KEYS, STEERING_KEYS
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.registry import load_networks
from blurkit.tasks.train import fingerprint
from blurkit.training.configuration import Configuration, Run
from tests.cli.command import assert_done, files, run
from tests.cli.invoke import invoke
from tests.shared import shared_folder
from tests.tools.pack import pack
from tests.training.runs import DEBLUR, JOINT, STEPS, beside, read_log

RECIPES: list[tuple[str, type[Configuration]]] = [
    ("train-reblur", ReblurConfiguration),
    ("train-reblur", KernelSpaceConfiguration),
    ("train-deblur", DeblurConfiguration),
    ("train-deblur", MSFSConfiguration),
]
pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = [*JOINT, "--validate-on", 0]


@pytest.mark.parametrize(("command", "recipe"), RECIPES)
def test_every_field_is_an_option_with_the_papers_value(
    command: str, recipe: type[Configuration]
) -> None:
    shown = invoke(command, "--system", recipe.system, "--help-all").out.decode()
    for f in [*fields(recipe), *(f for f in fields(Run) if "help" in f.metadata)]:
        assert f"--{f.name.replace('_', '-')}" in shown
    text = " ".join(re.sub(r"-\n\s+", "-", shown).split())
    for name, value in recipe.resolve("paper").as_dict().items():
        flag = f"--{name.replace('_', '-')}"
        told = rf"{flag}[ /][^\[]*\[paper: {re.escape(str(value))}\]"
        assert re.search(told, text), name


@pytest.mark.parametrize(
    "preset",
    [
        "paper",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("text", "official")),
        "small",
    ],
)
def test_a_dry_run_prints_the_configuration_and_touches_nothing(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    ran = invoke("train-reblur", "nowhere/", "--preset", preset, "--batch", 2, "--dry-run")
    assert ran.status == 0, ran.err
    (shown,) = ran.json
    estimate = shown.pop("estimate")
    expected = ReblurConfiguration.resolve(preset, batch=2)
    assert shown == {"system": "msdi", **expected.as_dict()}
    assert estimate["trained"] == sum(estimate["parameters"].values())
    assert 0 < estimate["weights"] < estimate["total"]
    # The table for people is on standard error, with small numbers as they are.
    assert f"{expected.final_learning_rate}" in ran.err
    assert f"{estimate['trained']:,}" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_stage_2_takes_its_width_from_the_encoder(
    joint_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = invoke("train-deblur", "--encoder", joint_run, "--batch", 2, "--dry-run", "-q")
    assert ran.status == 0 and ran.err == ""
    (shown,) = ran.json
    assert (shown["width"], shown["batch"]) == (8, 2)
    assert 0 < shown["estimate"]["trained"] < shown["estimate"]["parameters"]["deblur"]
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_says_how_it_came_about(
    training_shards: Path, joint_run: Path, deblur_run: Path
) -> None:
    for path, recipe, command in (
        (joint_run, ReblurConfiguration, "train-reblur"),
        (deblur_run, DeblurConfiguration, "train-deblur"),
    ):
        torch.load(path, weights_only=True)
        checkpoint = load_checkpoint(path)
        assert checkpoint.system == "msdi"
        assert set(checkpoint.configuration) == {f.name for f in fields(recipe)}
        assert checkpoint.configuration["iterations"] == STEPS
        about = checkpoint.provenance
        assert about["command"].startswith(f"blurkit {command} {training_shards} --")
        assert about["data"] == fingerprint(sorted(training_shards.glob("train-*.h5")))
        assert (about["records"], about["seed"], about["iterations"]) == (3, 10, STEPS)
        assert set(about["metrics"]) == {"psnr_blur", "psnr", "ssim_matlab"}
        json.dumps(about)


def test_a_checkpoint_holds_every_role(joint_run: Path, deblur_run: Path) -> None:
    joint = {
        role: type(network).__name__
        for role, network in load_networks(load_checkpoint(joint_run)).items()
    }
    assert joint == {
        "encoder": "DegradationEncoder",
        "latents": "PriorUpsampling",
        "reblur": "JointGenerator",
        "deblur": "JointGenerator",
        "discriminator": "MultiscaleDiscriminator",
    }
    (deblur,) = load_networks(load_checkpoint(deblur_run)).items()
    assert (deblur[0], type(deblur[1]).__name__) == ("deblur", "MSDINet")


def test_validation_is_in_the_log_and_pictures_are_beside_it(
    joint_run: Path, deblur_run: Path
) -> None:
    for output in (joint_run, deblur_run):
        lines = [line for line in read_log(output) if "validation" in line]
        assert [line["step"] for line in lines] == [STEPS // 2, STEPS]
        assert lines[-1]["validation"] == load_checkpoint(output).provenance["metrics"]
        assert all(10 < line["validation"]["psnr"] < 60 for line in lines)
        pictures = sorted(beside(output, "samples").iterdir())
        steps = [int(p.name.split("-")[0]) for p in pictures]
        assert steps == [STEPS // 2, STEPS // 2, STEPS, STEPS]
        assert read_image(pictures[0]).pixels.shape[2] == 3
        assert not beside(output, "state.pt").exists()


def test_a_checkpoint_through_a_pipe(training_shards: Path, tmp_path: Path) -> None:
    options = [training_shards, *QUICK, "--iterations", 2, "-o", "-"]
    ran = run("train-reblur", *options, cwd=tmp_path)
    assert_done(ran)
    (tmp_path / "piped.pt").write_bytes(ran.out)
    assert "reblur" in load_checkpoint(tmp_path / "piped.pt").networks
    assert list(files(tmp_path)) == ["piped.pt", "train.log.jsonl"]
    piped = run("deblur", training_shards, "-c", "-", "-o", tmp_path / "out.h5", input=ran.out)
    assert_done(piped)


def test_safetensors(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.safetensors"
    ran = invoke("train-reblur", training_shards, *QUICK, "--iterations", 1, "-o", output)
    assert_done(ran)
    assert set(load_networks(load_checkpoint(output))) >= {"encoder", "latents"}
    options = [training_shards, "--encoder", output, *DEBLUR, "--validate-on", 0]
    assert_done(invoke("train-deblur", *options, "--iterations", 1, "-o", tmp_path / "deblur.pt"))


@pytest.mark.parametrize(
    "name", ["vgg11_bn_trunk.safetensors", "squeezenet1_1_caffe_features.safetensors"]
)
def test_the_perceptual_loss_trains(name: str, training_shards: Path, tmp_path: Path) -> None:
    weights = shared_folder("weights", "BLURKIT_WEIGHTS")
    output = tmp_path / "enc.pt"
    options = [*QUICK, "--iterations", 4, "--perceptual", "features", "--features", weights / name]
    assert_done(invoke("train-reblur", training_shards, *options, "-o", output))
    losses = [line["losses"]["perceptual"] for line in read_log(output)]
    assert len(losses) == 4 and min(losses) > 0
    assert load_checkpoint(output).provenance["features"] in (
        "VGG-11 with batch normalisation",
        "SqueezeNet 1.1",
    )


def test_automatic_features_go_on_without(
    training_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    options = [o for o in QUICK if o != "-q"] + ["--iterations", 1, "--perceptual", "auto"]
    ran = invoke("train-reblur", training_shards, *options, "-o", tmp_path / "enc.pt")
    assert ran.status == 0, ran.err
    assert "no feature network found: training without the perceptual loss" in ran.err
    assert "perceptual" not in read_log(tmp_path / "enc.pt")[0]["losses"]


def test_force_begins_again(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.pt"
    for name in (output, beside(output, "state.pt")):
        name.write_bytes(b"old")
    options = [training_shards, *QUICK, "--iterations", 1, "-o", output, "--force"]
    assert_done(invoke("train-reblur", *options))
    assert load_checkpoint(output).provenance["iterations"] == 1
    assert list(files(tmp_path)) == ["enc.log.jsonl", "enc.pt"]


def test_training_begins_with_the_networks_of_another_checkpoint(
    training_shards: Path, joint_run: Path, deblur_run: Path, tmp_path: Path
) -> None:
    """At a learning rate of 0 they are what comes out; packed weights lack the encoder inside."""
    packed, output = tmp_path / "packed.pt", tmp_path / "deblur.pt"
    save_checkpoint(pack([load_checkpoint(joint_run), load_checkpoint(deblur_run)], {}), packed)
    short = [*DEBLUR, "--iterations", 2, "--validate-on", 0]
    still = [*("--learning-rate", 0, "--final-learning-rate", 0)]
    command = ["train-deblur", training_shards, "--encoder", joint_run, *short, *still]
    for start in (deblur_run, packed):
        assert_done(invoke(*command, "--start", start, "-o", output, "--force"))
        wanted = load_checkpoint(start).networks["deblur"]
        made = load_checkpoint(output)
        for key, parameter in load_networks(made)["deblur"].named_parameters():
            if not key.startswith(STEERING_KEYS):
                assert torch.equal(parameter, wanted[key].float()), key
        assert made.provenance["start"] == load_checkpoint(start).provenance
    plain = tmp_path / "plain.pt"
    unsteered = ["--injection", "none", "--blur-weight", 0, "--width", 8]
    assert_done(invoke("train-deblur", training_shards, *short, *unsteered, "-o", plain))
    assert_done(invoke(*command, "--start", plain, "-o", output, "--force"))
    made, wanted = load_networks(load_checkpoint(output))["deblur"], load_checkpoint(plain)
    parameters = dict(made.named_parameters())
    assert parameters.keys() - wanted.networks["deblur"].keys() == {
        key for key in parameters if key.startswith((*STEERING_KEYS, *MODULATION_KEYS))
    }
    for key, tensor in wanted.networks["deblur"].items():
        assert torch.equal(parameters[key], tensor), key
    before = output.read_bytes()
    for wrong, words in (
        (["--start", deblur_run, "--hidden", 4], "its deblur is another network than this"),
        (["--start", tmp_path / "none.pt"], "none.pt: no such"),
    ):
        ran = invoke(*command, *wrong, "-o", output, "--force")
        assert ran.status == 1 and words in ran.err and len(ran.lines) == 1
    assert output.read_bytes() == before
