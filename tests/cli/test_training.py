"""What `train-reblur` and `train-deblur` say and leave behind, in good runs and when they fail."""

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit import write_records
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.images import read_image
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import STEERING_KEYS
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.registry import load_networks
from blurkit.tasks.train import fingerprint
from blurkit.training.configuration import Configuration, Run
from tests.cli.command import assert_done, assert_refused, files, run
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.shared import vgg11
from tests.tools.pack import pack
from tests.training.runs import (
    DEBLUR,
    JOINT,
    STEPS,
    WHOLE,
    assert_same_bits,
    beside,
    plain,
    read_log,
    train,
)

RECIPES: list[tuple[str, type[Configuration]]] = [
    ("train-reblur", ReblurConfiguration),
    ("train-reblur", KernelSpaceConfiguration),
    ("train-deblur", DeblurConfiguration),
    ("train-deblur", MSFSConfiguration),
]
pytestmark = pytest.mark.usefixtures("one_thread")

ONE_STEP = ("--validate-on", 0, "--iterations", 1)
QUICK = (*JOINT, *ONE_STEP)

# ---- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "recipe"), RECIPES)
def test_fields_are_options_with_papers_values(command: str, recipe: type[Configuration]) -> None:
    shown = invoke(command, "--system", recipe.system, "--help-all").out.decode()
    for f in [*fields(recipe), *(f for f in fields(Run) if "help" in f.metadata)]:
        assert f"--{f.name.replace('_', '-')}" in shown
    text = " ".join(re.sub(r"-\n\s+", "-", shown).split())
    for name, value in recipe.resolve("paper").as_dict().items():
        flag = f"--{name.replace('_', '-')}"
        assert re.search(rf"{flag}[ /][^\[]*\[paper: {re.escape(str(value))}\]", text), name


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("paper", "text", "official")]


@pytest.mark.parametrize("preset", [*SLOW, "small"])
@pytest.mark.usefixtures("no_features")
def test_a_dry_run_prints_the_configuration_and_touches_nothing(preset: str) -> None:
    ran = done("train-reblur", "nowhere/", "--preset", preset, "--batch", 2, "--dry-run")
    (shown,) = ran.json
    estimate = shown.pop("estimate")
    expected = ReblurConfiguration.resolve(preset, batch=2)
    assert shown == {"system": "msdi", **expected.as_dict()}
    assert estimate["trained"] == sum(estimate["parameters"].values())
    assert 0 < estimate["weights"] < estimate["total"]
    # The table for people is on standard error, with small numbers as they are.
    assert f"{expected.final_learning_rate}" in ran.err
    assert f"{estimate['trained']:,}" in ran.err
    assert list(Path().iterdir()) == []


def test_a_dry_run_of_stage_2_takes_its_width_from_the_encoder(stage_1: Path) -> None:
    ran = done("train-deblur", "--encoder", stage_1, "--batch", 2, "--dry-run", "-q")
    (shown,) = ran.json
    assert (ran.err, shown["width"], shown["batch"]) == ("", 8, 2)
    assert 0 < shown["estimate"]["trained"] < shown["estimate"]["parameters"]["deblur"]
    assert list(Path().iterdir()) == []


# ---- what is left behind -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint_run(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of stage 1, trained without a stop, beside its log and its pictures."""
    output = tmp_path_factory.mktemp("joint") / "enc.pt"
    train("train-reblur", training_shards, *JOINT, *WHOLE, "-o", output)
    return output


@pytest.fixture(scope="module")
def deblur_run(
    training_shards: Path, joint_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same for stage 2, with the encoder of `joint_run`."""
    output = tmp_path_factory.mktemp("deblur") / "deblur.pt"
    train("train-deblur", training_shards, "--encoder", joint_run, *DEBLUR, *WHOLE, "-o", output)
    return output


def test_what_is_left_behind(training_shards: Path, joint_run: Path, deblur_run: Path) -> None:
    joint = {"encoder": "DegradationEncoder", "latents": "PriorUpsampling"}
    joint |= dict.fromkeys(("reblur", "deblur"), "JointGenerator")
    joint |= {"discriminator": "MultiscaleDiscriminator"}
    for path, recipe, command, networks in (
        (joint_run, ReblurConfiguration, "train-reblur", joint),
        (deblur_run, DeblurConfiguration, "train-deblur", {"deblur": "MSDINet"}),
    ):
        torch.load(path, weights_only=True)
        checkpoint = load_checkpoint(path)
        assert checkpoint.system == "msdi"
        held = load_networks(checkpoint)
        assert {role: type(network).__name__ for role, network in held.items()} == networks
        assert set(checkpoint.configuration) == {f.name for f in fields(recipe)}
        assert checkpoint.configuration["iterations"] == STEPS
        about = checkpoint.provenance
        assert about["command"].startswith(f"blurkit {command} {training_shards} --")
        assert about["data"] == fingerprint(sorted(training_shards.glob("train-*.h5")))
        assert (about["records"], about["seed"], about["iterations"]) == (3, 10, STEPS)
        assert set(about["metrics"]) == {"psnr_blur", "psnr", "ssim_matlab"}
        json.dumps(about)
        lines = [line for line in read_log(path) if "validation" in line]
        assert [line["step"] for line in lines] == [STEPS // 2, STEPS]
        assert lines[-1]["validation"] == about["metrics"]
        assert all(10 < line["validation"]["psnr"] < 60 for line in lines)
        pictures = sorted(beside(path, "samples").iterdir())
        steps = [int(p.name.split("-")[0]) for p in pictures]
        assert steps == [STEPS // 2, STEPS // 2, STEPS, STEPS]
        assert read_image(pictures[0]).pixels.shape[2] == 3
        assert not beside(path, "state.pt").exists()


def test_a_network_learns_from_rsblurs_layout() -> None:
    """The preset `small`, from the released tree and lists to a checkpoint that was validated."""
    for number, split in enumerate(("train", "train", "val", "test")):
        place = Path(f"RSBlur/000{number // 2}/00000{number}")
        sharp = photo(number, 96, 96)
        write(place / "gt/gt_sharp.png", sharp)
        write(place / "real_blur/real_blur.png", blurred(sharp))
        write(place / "avg65_img/avg_blur.png", sharp[::-1])
        write(place / "avg65_mask_100/avg_blur.png", 0 * sharp)
        with Path(f"RSBlur_real_{split}.txt").open("a") as file:
            file.write(f"{place}/gt/gt_sharp.png {place}/real_blur/real_blur.png\n")
    ran = done("prepare", "RSBlur/", "-o", "shards/", "--jobs", 1)
    assert "RSBlur: RSBlur (real_blur, gt), 4 scenes" in ran.err
    quick = ("--iterations", 3, "--batch", 2, "--crop", 32, "--width", 8, "--device", "cpu", "-q")
    done("train-deblur", "shards/", "--system", "nafnet", "--preset", "small", *quick)
    made = load_checkpoint("deblur.pt").provenance
    assert (made["records"], made["iterations"]) == (2, 3)
    val, test = (psnr(blurred(photo(n, 96, 96)), photo(n, 96, 96)) for n in (2, 3))
    both = (val + test) / 2
    assert made["metrics"]["psnr_blur"] in (pytest.approx(val), pytest.approx(both))


@pytest.mark.slow
def test_a_checkpoint_through_a_pipe(training_shards: Path) -> None:
    ran = run("train-reblur", training_shards, *QUICK, "-o", "-")
    assert_done(ran)
    Path("piped.pt").write_bytes(ran.out)
    assert "reblur" in load_checkpoint(Path("piped.pt")).networks
    assert list(files()) == ["piped.pt", "train.log.jsonl"]
    done("deblur", write("photo.png", photo(0)), "-c", "-", "-o", "out.h5", input=ran.out)


def test_the_perceptual_loss_trains(training_shards: Path) -> None:
    output, features = Path("enc.pt"), ("--perceptual", "features", "--features", vgg11())
    done("train-reblur", training_shards, *QUICK, "--iterations", 2, *features, "-o", output)
    losses = [line["losses"]["perceptual"] for line in read_log(output)]
    assert len(losses) == 2 and min(losses) > 0
    assert load_checkpoint(output).provenance["features"] == "VGG-11 with batch normalisation"


@pytest.mark.usefixtures("no_features")
def test_automatic_features_go_on_without_and_force_begins_again(training_shards: Path) -> None:
    output = Path("enc.pt")
    for name in (output, beside(output, "state.pt")):
        name.write_bytes(b"old")
    options = [o for o in QUICK if o != "-q"] + ["--perceptual", "auto", "--force"]
    ran = done("train-reblur", training_shards, *options, "-o", output)
    assert "no feature network found: training without the perceptual loss" in ran.err
    assert "perceptual" not in read_log(output)[0]["losses"]
    assert load_checkpoint(output).provenance["iterations"] == 1
    assert list(files()) == ["enc.log.jsonl", "enc.pt"]


@pytest.mark.slow
def test_a_start_from_a_checkpoint(
    training_shards: Path, joint_run: Path, deblur_run: Path
) -> None:
    """At a learning rate of 0 they are what comes out; packed weights lack the encoder inside."""
    packed, output = Path("packed.pt"), Path("deblur.pt")
    save_checkpoint(pack([load_checkpoint(joint_run), load_checkpoint(deblur_run)], {}), packed)
    still = (*DEBLUR, *ONE_STEP, "--learning-rate", 0, "--final-learning-rate", 0)
    command = ["train-deblur", training_shards, "--encoder", joint_run, *still]
    for start in (deblur_run, packed):
        done(*command, "--start", start, "-o", output, "--force")
        wanted = load_checkpoint(start).networks["deblur"]
        made = load_checkpoint(output)
        for key, parameter in load_networks(made)["deblur"].named_parameters():
            if not key.startswith(STEERING_KEYS):
                assert torch.equal(parameter, wanted[key].float()), key
        assert made.provenance["start"] == load_checkpoint(start).provenance
    wrong = {
        ("--start", deblur_run, "--hidden", 4): "its deblur is another network than this",
        ("--start", "none.pt"): "none.pt: no such",
    }
    assert_each_refused(wrong, *command, "-o", output, "--force", status=1)


# ---- a training is repeated: --config FILE -------------------------------------------------------

NARROW = [*("--width", 4, "--encoder-blocks", 1, "--latent-blocks", 1, "--decoder-blocks", 1)]
MSFS = ["--system", "msfs", "--preset", "small", *NARROW, "--crop", 32, "--batch", 2]


@pytest.fixture
def printed() -> Path:
    """What a dry run of a step of MSFS-Net printed."""
    path, options = Path("msfs.json"), ("--iterations", 1, "--ema", 0.5, "--dry-run", "-q")
    path.write_bytes(done("train-deblur", *MSFS, *options).out)
    return path


def test_a_run_is_repeated_by_one_file(printed: Path, training_shards: Path) -> None:
    first, again, other = (Path(f"{name}.pt") for name in ("first", "again", "other"))
    learn = ["train-deblur", training_shards, "--device", "cpu", "--validate-on", 0, "-q"]
    done(*learn, "--config", printed, "-o", first)
    shown = json.loads(printed.read_text())
    made = load_checkpoint(first)
    assert {**shown, **made.configuration, "system": made.system} == shown
    assert made.configuration.keys() == shown.keys() - {"system", "estimate"}
    # Its checkpoint says the same, also where an option is given that it has anyway.
    done(*learn, f"--config={first}", "--system", "msfs", "-o", again)
    assert_same_bits(again, first)
    assert load_checkpoint(again).configuration == made.configuration
    # Single options win.
    done(*learn, "--config", first, "--seed", 3, "--no-cross-scale", "-o", other)
    changed = {**made.configuration, "seed": 3, "cross_scale": False}
    assert load_checkpoint(other).configuration == changed


@pytest.mark.slow
def test_stage_2_is_repeated_with_its_encoder(stage_1: Path, stage_2: Path) -> None:
    for path, command in (
        (stage_2, ("train-deblur", "--encoder", stage_1)),
        (stage_1, ("train-reblur",)),
    ):
        (shown,) = done(*command, "--config", path, "--dry-run", "-q").json
        assert {**shown, **load_checkpoint(path).configuration} == shown


def test_help_and_defaults_are_those_of_the_files_system(printed: Path) -> None:
    text = done("train-deblur", "--config", printed, "--help").out.decode()
    assert "Options of --system msfs" in text and "--encoder-blocks" in text
    shown = json.loads(printed.read_text())
    del shown["cross_scale"], shown["estimate"]  # as in an older file
    Path("old.json").write_text(json.dumps(shown, indent=2))
    (shown,) = done("train-deblur", "--config", "old.json", "--dry-run", "-q").json
    assert shown["cross_scale"] is True and shown["ema"] == 0.5


@pytest.mark.parametrize(
    ("changed", "given", "words", "status"),
    [
        ({}, ["--preset", "small"], "--preset and --config exclude each other", 2),
        ({}, ["--system", "dbgan"], "--system dbgan: ", 2),
        ({}, ["--hidden", 8], "--hidden is not an option of --system msfs", 2),
        ({"system": "bgan"}, [], "is of --system bgan; train-deblur has msdi, msfs, dbgan", 2),
        ({"system": ""}, [], "x.json: holds no configuration of a training", 1),
        ({"depth": 3, "tea\n": 1}, [], "of --system msfs: 'depth', 'tea\\n'", 1),
        ({"batch": "many"}, [], "x.json: batch is 'many', not int", 1),
        ({"batch": True}, [], "x.json: batch is 'True', not int", 1),
        ({"batch": 0}, [], "--batch 0: must be at least 1", 2),
        ({"layers": "all"}, [], "--layers all: use one of", 2),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], given: list[Any], words: str, status: int
) -> None:
    content = {"system": "msfs", **MSFSConfiguration().as_dict(), **changed}
    Path("x.json").write_text(json.dumps(content))
    ran = invoke("train-deblur", "--config", "x.json", *given, "--dry-run", "-q")
    assert_refused(ran, words, status=status)


def test_files_without_a_configuration(stage_2: Path, stage_1: Path) -> None:
    for name, content in enumerate((b"text", b"[1]", b"\xff\xfe", b"")):
        Path(f"{name}.json").write_bytes(content)
    network = load_checkpoint(stage_2).networks["deblur"]
    save_checkpoint(Checkpoint({"deblur": network}), Path("bare.pt"))
    cases: dict[tuple[object, ...], str] = {
        ("no.json",): "no.json: no such file (from --config)",
        ("no.pt",): "no.pt: no such checkpoint",
        ("bare.pt",): "holds no configuration of a training",
        # The configuration of stage 1, of a system of the same name.
        (stage_1, "--encoder", stage_1): "enc.pt: not options of this training of --system msdi: ",
    }
    cases |= {(f"{name}.json",): "is neither what --dry-run prints nor" for name in range(4)}
    assert_each_refused(cases, "train-deblur", "--dry-run", "-q", "--config", status=1)


# ---- shards and encoders that do not serve -------------------------------------------------------


def test_shards_that_do_not_serve() -> None:
    for name, *images in (
        ("blurry/train-0.h5", "blur"),
        ("test/test-0.h5", "blur", "sharp"),
        ("cut/train-0.h5", "blur", "sharp"),
    ):
        Path(name).parent.mkdir()
        held = (Record(f"{n}", {image: photo(n) for image in images}) for n in range(2))
        write_records(held, name)
    cut = Path("cut/train-0.h5")
    cut.write_bytes(cut.read_bytes()[:-500])
    cases = {
        ("nowhere",): "nowhere: no such shard or folder; ",
        ("test",): "test: holds no train-*.h5; make them with: blurkit prepare",
        ("blurry",): "train-0.h5: no record holds blur and sharp",
        ("cut",): "train-0.h5: ",
    }
    assert_each_refused(cases, "train-reblur", *QUICK, "-o", "x.pt", status=1)


def test_encoders_that_do_not_serve(training_shards: Path, stage_1: Path, stage_2: Path) -> None:
    part, garbage, absent = (Path(f"{n}.pt") for n in ("part", "garbage", "absent"))
    save_checkpoint(Checkpoint({"encoder": load_checkpoint(stage_1).networks["encoder"]}), part)
    garbage.write_bytes(os.urandom(1000))
    command = ("train-deblur", training_shards, *DEBLUR, "-o", "x.pt")
    assert_refused(invoke(*command), "--encoder FILE", "train-reblur", status=2)
    needed = "needs encoder and latents"
    for options, words in (
        ([absent], [f"{absent}: no such file (from --encoder)"]),
        ([garbage], ["garbage.pt: ", "not a checkpoint"]),
        ([part], ["part.pt: holds encoder (DegradationEncoder)", needed]),
        ([stage_2], ["deblur.pt: holds deblur (MSDINet)", needed]),
        ([stage_1, "--blur-encoder", stage_2], ["deblur.pt: holds deblur (MSDINet), but no enc"]),
        ([stage_1, "--width", 16], ["its latents have width 8, the network 16"]),
    ):
        assert_refused(invoke(*command, "--encoder", *options), *words)
    assert list(files()) == ["garbage.pt", "part.pt"]


# ---- outputs and resuming ------------------------------------------------------------------------


def test_outputs_that_exist_or_cannot_be_written(training_shards: Path) -> None:
    command = ("train-reblur", training_shards, *QUICK, "-o")
    for name in ("enc.pt", "old.state.pt", "train.state.pt", "file"):
        Path(name).write_bytes(b"precious")
    Path("folder.pt").mkdir()
    cases = {
        ("enc.pt",): "enc.pt: exists already; give --force",
        ("old.pt",): "old.state.pt: holds the state of a stopped run; continue it with --resume",
        ("-",): "train.state.pt: holds the state of a stopped run",  # not lost to a pipe
        ("file/enc.pt",): "file",
        ("enc.pt", "--resume"): "enc.pt: ",  # is no checkpoint
    }
    assert_each_refused(cases, *command, status=1)
    names = ("x.txt", "folder", "folder.pt")
    cases = {(name,): f"{name}: name a checkpoint ending in .pt" for name in names}
    assert_each_refused(cases, *command)
    torch.save({"weights": torch.zeros(1)}, Path("enc.state.pt"))
    ran = invoke(*command, "enc.pt", "--resume")
    assert_refused(ran, "enc.state.pt: is not the saved state of a training run")


def test_one_command_starts_continues_and_has_finished(training_shards: Path) -> None:
    """As a job does that a cluster starts again."""
    command = plain(training_shards, Path("net.pt"), STEPS, "--resume")
    loud = [option for option in command if option != "-q"]
    beside(Path("net.pt"), "log.jsonl").write_text("of a run killed before its first save\n")
    ran = done(*loud, "--minutes", 1e-9)
    assert "net.state.pt: no saved state to resume, so it starts" in ran.lines
    assert any(line.startswith("resumed at step 1 of ") for line in done(*loud).lines)
    before = files()
    assert done(*loud).lines == ["net.pt: is finished; there is nothing to resume"]
    assert files() == before
    assert_refused(invoke(*command, "--batch", 4), "net.pt: was trained with batch 2 (now 4)")
    assert_refused(invoke(*command, "--iterations", 99), "not 99; give --force to train again")


def test_resuming_another_run(training_shards: Path) -> None:
    options: list[Any] = [*JOINT, "-o", Path("enc.pt")]
    train("train-reblur", training_shards, *options, "--minutes", 1e-9)  # its first step
    changed = ("--resume", "--batch", 4, "--ema", 0.5)
    words = ("was trained with batch 2 (now 4), ema 0.9 (now 0.5)", "same options")
    before = files()
    assert_refused(invoke("train-reblur", training_shards, *options, *changed), *words)
    assert files() == before


# ---- features, numbers, choices ------------------------------------------------------------------


@pytest.mark.usefixtures("no_features")
def test_no_feature_network_and_no_connection(
    training_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    ran = invoke("train-reblur", training_shards, *QUICK, "--perceptual", "features", "-o", "x.pt")
    assert_refused(ran, "vgg19", "--features FILE", "BLURKIT_FEATURES", "--perceptual none")
    assert files() == {}


def test_a_loss_that_is_not_finite(training_shards: Path) -> None:
    wild = ["--learning-rate", 1e30, "--iterations", 4, "-o", "x.pt"]
    ran = invoke("train-reblur", training_shards, *QUICK, *wild)
    assert_refused(ran, "step ", "loss is not finite", "lower --learning-rate", "--force")
    assert not Path("x.pt").exists()


def test_wrong_usage(training_shards: Path) -> None:
    command = ("train-reblur", training_shards, *QUICK, "-o", "x.pt")
    absent = ("--features", "absent.pth", "--perceptual")
    told = "absent.pth: no such file (from --features)"
    cases = {(*absent, "features"): told, (*absent, "auto"): told}
    assert_each_refused(cases, *command, status=1)
    cases = {
        ("--crop", 40): "--crop 40: ",
        ("--learning-rate", "nan"): "--learning-rate nan: ",
        ("--log-every", 0): "--log-every 0: ",
        ("--device", "cuda:99"): "--device cuda:99: this machine does not",
        ("--device", "toaster"): "--device toaster: use auto, cpu",
    }
    assert_each_refused(cases, *command)
    choices = ("--preset", "tiny"), ("--generator", "triple"), ("--batch", "many")
    choices += ("--precision", "int8"), ("--no-such-option",)
    assert_each_refused({choice: choice[0] for choice in choices}, "train-reblur")
