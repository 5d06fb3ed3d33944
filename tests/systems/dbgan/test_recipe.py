"""BGAN and DBGAN: a step against Eq. 7-10 written out, the warm-up, collapse, real runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor

from blurkit.errors import UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.features import PRE_ACTIVATION, FeatureNetwork, load_features
from blurkit.systems.dbgan.config import BGANConfiguration, DBGANConfiguration
from blurkit.systems.dbgan.networks import BGAN, DBGAN, SpectralVGGDiscriminator, VGGDiscriminator
from blurkit.systems.dbgan.recipe import AdversarialRecipe, BGANRecipe, DBGANRecipe
from blurkit.systems.registry import load_networks
from tests.cli.command import assert_done, assert_refused, run
from tests.cli.invoke import invoke
from tests.shared import shared_folder
from tests.training.plain_descent import apart
from tests.training.runs import batch, read_log, resumed, tensors

TINY: dict[str, Any] = {
    **{"width": 4, "blocks": 1, "discriminator_width": 4, "crop": 64, "batch": 2},
    **{"perceptual": "none", "content_weight": 0.3, "content_loss": "l2"},
}
OPTIONS = [*("--preset", "small", "--width", 8, "--blocks", 1, "--discriminator-width", 8)]
OPTIONS += [*("--batch", 2, "--device", "cpu", "--perceptual", "none", "-q")]


def bgan(features: FeatureNetwork | None = None, **changed: Any) -> BGANRecipe:
    torch.manual_seed(4)
    options = TINY | {"warm_up": 0, "real_share": 1.0} | changed
    made = BGANRecipe(BGANConfiguration.resolve("paper", **options), features)
    made.drawing = 3, slice(0, 2)
    return made


def dbgan(features: FeatureNetwork | None = None, **changed: Any) -> DBGANRecipe:
    torch.manual_seed(4)
    return DBGANRecipe(DBGANConfiguration.resolve("paper", **(TINY | changed)), features)


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    made = batch(training_shards)
    return {**made, "real": made["blur"].flip(3)}


def step(
    made: AdversarialRecipe, crops: dict[str, Tensor]
) -> tuple[dict[str, float], dict[str, float]]:
    """Losses, and the total of each optimiser; no update."""
    for network in made.networks.values():
        network.train()
    totals: dict[str, float] = {}

    def update(name: str, loss: Tensor) -> None:
        totals[name] = loss.item()
        loss.backward()

    losses = made.step(crops, update)
    return {name: value.item() for name, value in losses.items()}, totals


def logits(discriminator: torch.nn.Module, images: Tensor) -> np.ndarray:
    """As the recipe's discriminator gives them: in train mode, real and made ones apart."""
    with torch.no_grad():
        return copy.deepcopy(discriminator).train()(images).double().numpy()


def relativistic(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """The discriminator's loss, Eq. 7, and the generator's, its labels exchanged."""
    lr, lf = real - fake.mean(), fake - real.mean()
    discriminator = -np.mean(np.log(expit(lr))) - np.mean(np.log(1 - expit(lf)))
    generator = -np.mean(np.log(1 - expit(lr))) - np.mean(np.log(expit(lf)))
    return float(discriminator), float(generator)


def squared(first: Tensor, second: Tensor) -> float:
    difference = first.detach().double().numpy() - second.detach().double().numpy()
    return float((difference**2).mean())


def test_dbgan_is_equation_10(crops: dict[str, Tensor]) -> None:
    made = dbgan(adversarial_weight=0.02, initial_deviation=0.1)
    twin = copy.deepcopy(made)
    restored = twin.generator(crops["blur"]).detach()
    real, fake = logits(twin.discriminator, crops["sharp"]), logits(twin.discriminator, restored)
    discriminator, generator = relativistic(real, fake)
    losses, totals = step(made, crops)
    content = squared(restored, crops["sharp"])
    assert losses["content"] == pytest.approx(content, rel=1e-5)
    assert losses["adversarial"] == pytest.approx(generator, rel=1e-4)
    assert losses["discriminator"] == pytest.approx(discriminator, rel=1e-4)
    expected = {"deblur": 0.3 * content + 0.02 * generator, "discriminator": discriminator}
    assert totals == pytest.approx(expected, rel=1e-4)
    lr, lf = real - fake.mean(), fake - real.mean()
    certainty = (expit(lr).mean() + (1 - expit(lf)).mean()) / 2
    assert losses["certainty"] == pytest.approx(certainty, rel=1e-4)


def test_each_opponent_learns_from_its_own_loss_alone(crops: dict[str, Tensor]) -> None:
    made = dbgan(initial_deviation=0.1)
    gradients: dict[str, tuple[bool, bool]] = {}

    def update(name: str, loss: Tensor) -> None:
        for network in made.networks.values():
            network.zero_grad()
        loss.backward()
        deblur, discriminator = (
            any(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
            for network in (made.generator, made.discriminator)
        )
        gradients[name] = deblur, discriminator

    made.step(crops, update)
    assert gradients == {"deblur": (True, False), "discriminator": (False, True)}


@pytest.mark.parametrize("loss", ["vanilla", "lsgan", "wgan-gp"])
def test_minus_has_a_traditional_loss(loss: str, crops: dict[str, Tensor]) -> None:
    made = dbgan(variant="minus", traditional_loss=loss, initial_deviation=0.1)
    restored = made.generator(crops["blur"]).detach()
    real, fake = logits(made.discriminator, crops["sharp"]), logits(made.discriminator, restored)
    losses, totals = step(made, crops)
    expected = {
        "vanilla": (-np.log(expit(fake)), -np.log(expit(real)) - np.log(1 - expit(fake))),
        "lsgan": ((fake - 1) ** 2, (real - 1) ** 2 + fake**2),
        "wgan-gp": (-fake, fake - real),
    }
    generator, discriminator = (float(term.mean()) for term in expected[loss])
    assert losses["adversarial"] == pytest.approx(generator, rel=1e-4)
    assert losses["discriminator"] == pytest.approx(discriminator, rel=1e-4)
    penalty = 10 * losses["penalty"] if loss == "wgan-gp" else 0.0
    assert totals["discriminator"] == pytest.approx(discriminator + penalty, rel=1e-4)
    assert ("penalty" in losses) == (loss == "wgan-gp")


def test_the_perceptual_loss_compares_features_before_their_activation(
    crops: dict[str, Tensor],
) -> None:
    weights = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    features = load_features(weights, [PRE_ACTIVATION])
    features.normalise = False
    made = dbgan(features, perceptual="features", content_weight=0.0, initial_deviation=0.1)
    restored = made.generator(crops["blur"]).detach()
    assert features.normalise  # as the released extractor, with ImageNet's mean and deviation
    (ours,), (wanted,) = features(restored), features(crops["sharp"])
    assert (wanted < 0).any()  # a ReLU has not been there
    losses, totals = step(made, crops)
    assert losses["perceptual"] == pytest.approx(float((ours - wanted).abs().mean()), rel=1e-4)
    assert totals["deblur"] == pytest.approx(
        losses["perceptual"] + 0.01 * losses["adversarial"], rel=1e-4
    )
    assert made.provenance == {"features": "VGG-11 with batch normalisation"}


def test_bgan_is_held_to_what_section_3_4_says(crops: dict[str, Tensor]) -> None:
    """First the records' own blur, to be shown and to be like; then unrelated photos."""
    for now, (target, real) in ((99, ("blur", "blur")), (100, ("sharp", "real"))):
        made = bgan(warm_up=100, initial_deviation=0.1)
        made.drawing = now, slice(0, 2)
        noise = made.noise(5)[:, :4]  # the fifth number decides about the crop
        fake = made.generator(crops["sharp"], noise).detach()
        discriminator = copy.deepcopy(made.discriminator)
        _, generator = relativistic(logits(discriminator, crops[real]), logits(discriminator, fake))
        losses, totals = step(made, crops)
        shown, wanted = fake, crops[target]
        if target == "sharp":  # whose detail a blurry image has not: means of 16x16 pixels
            shown, wanted = (
                t.unflatten(2, (4, 16)).unflatten(4, (4, 16)).mean((3, 5)) for t in (fake, wanted)
            )
        content = squared(shown, wanted)
        assert losses["content"] == pytest.approx(content, rel=1e-4)
        assert losses["adversarial"] == pytest.approx(generator, rel=1e-4)
        assert totals.keys() == {"bgan", "discriminator"}


@pytest.mark.parametrize(("crops_of", "when"), [("paired", 99), ("unpaired", 100)])
def test_the_content_loss_can_leave_out_crops(
    crops_of: str, when: int, crops: dict[str, Tensor]
) -> None:
    """Up to step 99 all crops have blur of their own, from then on none."""
    found = {}
    for now in (99, 100):
        for name in (crops_of, "all"):
            made = bgan(warm_up=100, initial_deviation=0.1, content_crops=name)
            made.drawing = now, slice(0, 2)
            found[name, now] = step(made, crops)[0]["content"]
    assert found[crops_of, when] == found["all", when] > 0
    assert found[crops_of, 199 - when] == 0 < found["all", 199 - when]


def test_of_several_noise_vectors_the_nearest_learns(crops: dict[str, Tensor]) -> None:
    """For crops with blur of their own; an unrelated photo is near to none of them."""
    made = bgan(warm_up=100, noise_tries=5, initial_deviation=0.3)
    drawn = made.noise(5 * 4 + 1)[:, :-1].unflatten(1, (5, 4))
    tried = torch.stack([made.generator(crops["sharp"], z) for z in drawn.unbind(1)]).detach()
    off = np.abs((tried - crops["blur"]).numpy()).mean((2, 3, 4))
    nearest = tried[torch.from_numpy(off.argmin(0)), torch.arange(2)]
    assert len(set(off.argmin(0))) > 1 or off.argmin(0).any()  # not just the first of each
    losses, _ = step(made, crops)
    assert losses["content"] == pytest.approx(squared(nearest, crops["blur"]), rel=1e-4)
    made.drawing = 200, slice(0, 2)
    shown = made.judged(crops).fake.detach()
    first = made.noise(5 * 4 + 1)[:, :4]
    torch.testing.assert_close(shown, made.generator(crops["sharp"], first).detach())


def test_a_share_of_the_real_photos_is_unrelated(crops: dict[str, Tensor]) -> None:
    made = bgan(real_share=0.3)
    seen: list[Tensor] = []
    for number in range(200):
        made.drawing = number, slice(0, 2)
        seen.append(made.judged(crops).real)
    unrelated = [
        torch.equal(a, b) for real in seen for a, b in zip(real, crops["real"], strict=True)
    ]
    own = [torch.equal(a, b) for real in seen for a, b in zip(real, crops["blur"], strict=True)]
    assert [a != b for a, b in zip(unrelated, own, strict=True)] == [True] * 400
    assert 0.22 < np.mean(unrelated) < 0.38


def test_photos_alone_will_do_without_a_warm_up() -> None:
    assert bgan().images == ("sharp",)
    assert bgan(real_share=0.5).images == bgan(warm_up=1).images == ("blur", "sharp")


def test_a_discriminator_that_runs_away_is_told_once() -> None:
    made = dbgan()
    good = {"certainty": 0.7, "discriminator": 1.2}
    won, lost = {**good, "certainty": 0.9999}, {**good, "certainty": 0.01}
    assert [bool(made.check_collapse(x)) for x in (won, won, good, won, won)] == [False] * 5
    told = made.check_collapse(won)
    assert "tells all crops apart (certainty 1.000" in told and "--learning-rate" in told
    assert made.check_collapse(won) == ""
    assert made.check_collapse(good) == ""
    assert [bool(made.check_collapse(lost)) for _ in range(3)] == [False, False, True]


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        made = DBGANRecipe(DBGANConfiguration.resolve())
        blurring = BGANRecipe(BGANConfiguration.resolve())
    for recipe in (made, blurring):
        c = recipe.configuration
        assert (c.batch, c.crop, c.learning_rate, c.final_learning_rate) == (4, 128, 1e-4, 1e-6)
        assert (c.adversarial_weight, c.initial_deviation) == (0.01, 0.01)
        assert isinstance(recipe.discriminator, VGGDiscriminator)
        assert sum(p.numel() for p in recipe.discriminator.parameters()) == 14_502_281
    assert made.c.content_weight == 0.005 and blurring.c.content_weight == 0
    assert sum(p.numel() for p in made.generator.parameters()) == 11_588_163
    assert sum(p.numel() for p in blurring.generator.parameters()) == 1_704_515
    spectral = dbgan(discriminator="spectral")
    assert isinstance(spectral.discriminator, SpectralVGGDiscriminator)


@pytest.mark.parametrize(
    ("kind", "changed", "words"),
    [
        (DBGANConfiguration, {"crop": 80}, "--crop 80: the discriminator takes a multiple of 32"),
        (DBGANConfiguration, {"crop": 224}, "--crop 224: the discriminator takes"),
        (DBGANConfiguration, {"mix": 1.5}, "--mix 1.5: must be at most 1"),
        (BGANConfiguration, {"real_share": 2}, "--real-share 2: must be at most 1"),
    ],
)
def test_values_that_make_no_sense_are_named(
    kind: type[BGANConfiguration], changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        kind.resolve("small", **changed)


# ---- real runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def blurry(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos that show nothing of the training set, in shards of their own."""
    folder = tmp_path_factory.mktemp("blurry")
    photos = training_shards.parent / "photos"
    assert_done(run("prepare", photos, "--as", "blur", "-o", f"{folder}/", "-q"))
    return folder


@pytest.fixture(scope="module")
def bgan_run(training_shards: Path, blurry: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("bgan") / "bgan.pt"
    command = ["train-reblur", training_shards, "--system", "bgan", "--blurry", blurry, *OPTIONS]
    assert_done(run(*command, "--iterations", 8, "--warm-up", 4, "--log-every", 1, "-o", output))
    return output


@pytest.mark.slow
def test_bgan_resumes_to_the_bit_over_the_end_of_its_warm_up(
    training_shards: Path, blurry: Path, tmp_path: Path
) -> None:
    command = ["train-reblur", training_shards, "--system", "bgan", "--blurry", blurry, *OPTIONS]
    command += ["--warm-up", 3, "--initial-deviation", 0.1]
    straight = resumed(tmp_path, *command)
    checkpoint = load_checkpoint(straight)
    assert checkpoint.system == "bgan" and checkpoint.provenance["real"]
    networks = load_networks(checkpoint)
    assert isinstance(networks["bgan"], BGAN) and networks.keys() == {"bgan", "discriminator"}
    steps = [line["losses"] for line in read_log(straight) if "losses" in line]
    assert all({"adversarial", "discriminator", "certainty"} < losses.keys() for losses in steps)
    validation = checkpoint.provenance["metrics"]
    assert validation["psnr_sharp"] > 8 and validation["pairwise_psnr"] > 8


@pytest.mark.slow
@pytest.mark.parametrize("discriminator", ["vgg", "spectral"])
def test_dbgan_resumes_to_the_bit_with_blur_of_a_bgan(
    discriminator: str, training_shards: Path, bgan_run: Path, tmp_path: Path
) -> None:
    command = ["train-deblur", training_shards, "--system", "dbgan", "--variant", "plus"]
    command += ["--bgan", bgan_run, *OPTIONS, "--growth", 4, "--discriminator", discriminator]
    straight = resumed(tmp_path, *command)
    checkpoint = load_checkpoint(straight)
    assert checkpoint.system == "dbgan" and checkpoint.configuration["variant"] == "plus"
    assert isinstance(load_networks(checkpoint)["deblur"], DBGAN)
    assert len(checkpoint.provenance["bgan"]) == 16
    assert {"psnr_blur", "psnr"} < checkpoint.provenance["metrics"].keys()
    changed = [*command, "--iterations", 6, "--log-every", 1, "-o", tmp_path / "stopped.pt"]
    assert_refused(run(*changed, "--resume"), "no saved state to resume")


def test_blur_of_a_bgan_serves_other_systems(
    training_shards: Path, bgan_run: Path, tmp_path: Path
) -> None:
    msdi = ["--injection", "none", "--blur-weight", 0, "--hidden", 4, "--width", 8]
    for name, options in (("msdi", msdi), ("msfs", ["--width", 8])):
        output = tmp_path / f"{name}.pt"
        command = ["train-deblur", training_shards, "--system", name, "--preset", "small", *options]
        command += [*("--crop", 64, "--batch", 2, "--iterations", 2, "--device", "cpu", "-q")]
        assert_done(invoke(*command, "--validate-on", 0, "-o", output))
        plain = tensors(output)
        command += ["--bgan", bgan_run, "--mix", 1, "--force", "--validate-on", 0]
        assert_done(invoke(*command, "-o", output))
        checkpoint = load_checkpoint(output)
        assert checkpoint.configuration["mix"] == 1 and checkpoint.provenance["bgan"]
        assert any(not torch.equal(plain[key], value) for key, value in tensors(output).items())


def test_a_collapse_is_in_the_log_and_in_the_checkpoint(
    training_shards: Path, tmp_path: Path
) -> None:
    """A discriminator that learns a hundred times too fast wins at once."""
    output = tmp_path / "x.pt"
    command = ["train-deblur", training_shards, "--system", "dbgan", *OPTIONS[:-1]]
    command += [*("--iterations", 24, "--log-every", 1, "--learning-rate", 0.05)]
    ran = run(*command, "--content-weight", 0, "--validate-on", 0, "-o", output)
    assert_done(ran)
    warnings = load_checkpoint(output).provenance["warnings"]
    assert "the discriminator" in warnings[0] and warnings[0] in ran.err
    assert any("warning" in line for line in read_log(output))
    (told,) = invoke("info", output, "--json").json
    assert warnings[0] in str(told)


def test_what_goes_together(training_shards: Path, bgan_run: Path, tmp_path: Path) -> None:
    reblur = ["train-reblur", training_shards, "--preset", "small", "--dry-run", "-q"]
    deblur = ["train-deblur", training_shards, "--preset", "small", "--dry-run", "-q"]
    for command, words in (
        ([*reblur, "--system", "bgan"], "--blurry SHARDS: name the blurry photos"),
        ([*reblur, "--blurry", tmp_path], "--blurry is not an option of --system msdi"),
        (
            [*reblur, "--system", "bgan", "--blurry", tmp_path, "--real-share", 0],
            "never used with --real-share 0,",
        ),
        ([*reblur, "--system", "bgan", "--bgan", bgan_run], "--bgan is not an option of"),
        ([*deblur, "--system", "dbgan", "--variant", "plus"], "--variant plus and --bgan FILE"),
        ([*deblur, "--system", "dbgan", "--bgan", bgan_run], "--variant plus and --bgan FILE"),
        ([*deblur, "--system", "msfs", "--mix", 0.2], "--mix requires --bgan FILE"),
        ([*deblur, "--system", "msfs", "--features", "x"], "--features is not an option of"),
    ):
        ran = invoke(*command)
        assert ran.status == 2 and words in ran.err and len(ran.lines) == 1, ran.err
    shown = invoke(*reblur, "--system", "bgan", "--real-share", 0).json[0]
    assert shown["system"] == "bgan" and shown["estimate"]["parameters"].keys() == {
        "bgan",
        "discriminator",
    }
    wrong = ["train-deblur", training_shards, "--system", "msfs", "--preset", "small"]
    ran = run(*wrong, "--bgan", tmp_path / "no.pt", "-o", tmp_path / "x.pt")
    assert_refused(ran, "no.pt: no such file (from --bgan)")
    other = ["train-reblur", training_shards, "--system", "bgan", *OPTIONS, "--blurry", tmp_path]
    assert_refused(run(*other, "-o", tmp_path / "x.pt"), "holds no train-*.h5")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["bgan", pytest.param("dbgan", marks=pytest.mark.slow)])
def test_two_processes_follow_the_gradients_of_one(
    stage: str, training_shards: Path, bgan_run: Path, tmp_path: Path
) -> None:
    """Relativistic losses take means over the whole batch, batch norm too.

    Rounding leaves 1e-4 at most; means of each process's own logits lead 0.1 and more apart.
    """
    assert max(apart(stage, training_shards, bgan_run, tmp_path).values()) <= 1e-3
