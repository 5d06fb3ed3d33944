"""BGAN and DBGAN: their losses and a step against Eq. 6-10 written out, collapse, real runs."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor
from torch.nn import functional

from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.features import PRE_ACTIVATION, FeatureNetwork, load_features
from blurkit.systems.dbgan.config import BGANConfiguration, DBGANConfiguration
from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.systems.dbgan.recipe import (
    ADVERSARIAL,
    AdversarialRecipe,
    BGANRecipe,
    DBGANRecipe,
    gradient_penalty,
)
from blurkit.systems.registry import load_networks
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.shared import vgg11
from tests.systems.oracle import squared, step, trained_by
from tests.training.runs import batch, read_log, tensors

# ---- losses --------------------------------------------------------------------------------------


def relativistic(real: np.ndarray, fake: np.ndarray) -> tuple[float, float]:
    """The discriminator's loss, Eq. 7, and the generator's, its labels exchanged."""
    lr, lf = real - fake.mean(), fake - real.mean()
    discriminator = -np.mean(np.log(expit(lr))) - np.mean(np.log(1 - expit(lf)))
    generator = -np.mean(np.log(1 - expit(lr))) - np.mean(np.log(expit(lf)))
    return float(discriminator), float(generator)


ORACLES = {
    "relativistic": relativistic,
    "vanilla": lambda r, f: (
        -np.log(expit(r)).mean() - np.log(1 - expit(f)).mean(),
        -np.log(expit(f)).mean(),
    ),
    "lsgan": lambda r, f: (((r - 1) ** 2).mean() + (f**2).mean(), ((f - 1) ** 2).mean()),
    "wgan-gp": lambda r, f: (f.mean() - r.mean(), -f.mean()),
}
"""The discriminator's and the generator's loss of logits of real and made images."""


def drawn(seed: int, count: int = 5) -> Tensor:
    values = np.random.default_rng(seed).normal(scale=2, size=(count, 1))
    return torch.from_numpy(values).requires_grad_()


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_losses(name: str) -> None:
    assert ORACLES.keys() == ADVERSARIAL.keys()
    real, fake = drawn(1), drawn(2, count=3)
    losses = ADVERSARIAL[name]
    found = losses.discriminator(real, fake).item(), losses.generator(real, fake).item()
    assert found == pytest.approx(ORACLES[name](real.detach().numpy(), fake.detach().numpy()))
    losses.generator(real, fake).backward()
    assert real.grad is None and fake.grad is not None
    far, off = (torch.tensor([[sign * 1e4]], requires_grad=True) for sign in (1.0, -1.0))
    for loss in losses:
        assert torch.isfinite(loss(far, off)) and torch.isfinite(loss(off, far))


def test_gradient_penalty() -> None:
    """The discriminator sum(a sin(x)) has the gradient a cos(x) at every value."""
    rng = np.random.default_rng(0)
    real, fake = rng.random((2, 3, 2, 4, 5))
    share, a = np.array([1, 0, 0.3]).reshape(3, 1, 1, 1), rng.random((2, 4, 5))
    slope = torch.from_numpy(a).requires_grad_()
    given = [torch.from_numpy(part).requires_grad_() for part in (real, fake, share)]
    penalty = gradient_penalty(lambda x: (slope * x.sin()).flatten(1).sum(1), *given)
    cosine = np.cos(share * real + (1 - share) * fake)
    norms = np.sqrt(((a * cosine) ** 2).sum(axis=(1, 2, 3)))
    assert penalty.item() == pytest.approx(((norms - 1) ** 2).mean())
    penalty.backward()
    by_slope = (2 / 3 * (1 - 1 / norms)[:, None, None, None] * a * cosine**2).sum(0)
    np.testing.assert_allclose(slope.grad, by_slope)
    assert all(tensor.grad is None for tensor in given), "only the discriminator learns from it"


# ---- one step ------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    **{"width": 4, "blocks": 1, "discriminator_width": 4, "crop": 64, "batch": 2},
    **{"perceptual": "none", "content_weight": 0.3, "content_loss": "l2"},
    "initial_deviation": 0.1,
}


def bgan(now: int = 3, **changed: Any) -> BGANRecipe:
    torch.manual_seed(4)
    options = TINY | {"warm_up": 0, "real_share": 1.0} | changed
    made = BGANRecipe(BGANConfiguration.resolve("paper", **options))
    made.drawing = now, slice(0, 2)
    return made


def dbgan(features: FeatureNetwork | None = None, **changed: Any) -> DBGANRecipe:
    torch.manual_seed(4)
    return DBGANRecipe(DBGANConfiguration.resolve("paper", **(TINY | changed)), features)


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    made = batch(training_shards)
    return {**made, "real": made["blur"].flip(3)}


def logits(discriminator: torch.nn.Module, *images: Tensor) -> list[np.ndarray]:
    """As the recipe's discriminator gives them: in train mode, real and made ones apart."""
    with torch.no_grad():
        return [copy.deepcopy(discriminator).train()(image).double().numpy() for image in images]


def test_dbgan_is_equation_10(crops: dict[str, Tensor]) -> None:
    made = dbgan(adversarial_weight=0.02)
    restored = made.generator(crops["blur"]).detach()
    real, fake = logits(made.discriminator, crops["sharp"], restored)
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
    made = dbgan()
    touched: dict[str, tuple[bool, bool]] = {}

    def update(name: str, loss: Tensor) -> None:
        for network in made.networks.values():
            network.zero_grad()
        loss.backward()
        touched[name] = trained_by(made.generator), trained_by(made.discriminator)

    made.step(crops, update)
    assert touched == {"deblur": (True, False), "discriminator": (False, True)}


@pytest.mark.parametrize("loss", ["vanilla", "lsgan", "wgan-gp"])
def test_minus_has_a_traditional_loss(loss: str, crops: dict[str, Tensor]) -> None:
    made = dbgan(variant="minus", traditional_loss=loss)
    restored = made.generator(crops["blur"]).detach()
    expected = ORACLES[loss](*logits(made.discriminator, crops["sharp"], restored))
    losses, totals = step(made, crops)
    assert (losses["discriminator"], losses["adversarial"]) == pytest.approx(expected, rel=1e-4)
    penalty = 10 * losses["penalty"] if loss == "wgan-gp" else 0.0
    assert totals["discriminator"] == pytest.approx(expected[0] + penalty, rel=1e-4)
    assert ("penalty" in losses) == (loss == "wgan-gp")


def test_the_perceptual_loss_is_of_features_before_activation(crops: dict[str, Tensor]) -> None:
    features = load_features(vgg11(), [PRE_ACTIVATION])
    features.normalise = False
    made = dbgan(features, perceptual="features", content_weight=0.0)
    restored = made.generator(crops["blur"]).detach()
    assert features.normalise  # as the released extractor, with ImageNet's mean and deviation
    (ours,), (wanted,) = features(restored), features(crops["sharp"])
    assert (wanted < 0).any()  # a ReLU has not been there
    losses, totals = step(made, crops)
    assert losses["perceptual"] == pytest.approx(float((ours - wanted).abs().mean()), rel=1e-4)
    total = losses["perceptual"] + 0.01 * losses["adversarial"]
    assert totals["deblur"] == pytest.approx(total, rel=1e-4)
    assert made.provenance == {"features": "VGG-11 with batch normalisation"}


def test_bgan_is_held_to_what_section_3_4_says(crops: dict[str, Tensor]) -> None:
    """First the records' own blur, to be shown and to be like; then unrelated photos."""
    for now, (target, real) in ((99, ("blur", "blur")), (100, ("sharp", "real"))):
        made = bgan(now, warm_up=100)
        noise = made.noise(5)[:, :4]  # the fifth number decides about the crop
        fake = made.generator(crops["sharp"], noise).detach()
        _, generator = relativistic(*logits(made.discriminator, crops[real], fake))
        losses, totals = step(made, crops)
        shown, wanted = fake, crops[target]
        if target == "sharp":  # whose detail a blurry image has not: means of 16x16 pixels
            shown, wanted = (functional.avg_pool2d(t, 16) for t in (fake, wanted))
        assert losses["content"] == pytest.approx(squared(shown, wanted), rel=1e-4)
        assert losses["adversarial"] == pytest.approx(generator, rel=1e-4)
        assert totals.keys() == {"bgan", "discriminator"}


@pytest.mark.parametrize(("crops_of", "when"), [("paired", 99), ("unpaired", 100)])
def test_content_loss_of_some_crops(crops_of: str, when: int, crops: dict[str, Tensor]) -> None:
    """Up to step 99 all crops have blur of their own, from then on none."""
    found = {}
    for now in (99, 100):
        for name in (crops_of, "all"):
            made = bgan(now, warm_up=100, content_crops=name)
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
    made, unrelated = bgan(real_share=0.3), []
    for number in range(200):
        made.drawing = number, slice(0, 2)
        shown = zip(made.judged(crops).real, crops["real"], crops["blur"], strict=True)
        for real, other, own in shown:
            unrelated.append(torch.equal(real, other))
            assert torch.equal(real, own) != unrelated[-1]
    assert len(unrelated) == 400 and 0.22 < np.mean(unrelated) < 0.38


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


def test_the_defaults_are_the_papers_networks() -> None:
    spectral = BGANConfiguration.resolve(discriminator="spectral")
    with torch.device("meta"):
        for recipe, sizes in (
            (BGANRecipe(BGANConfiguration.resolve()), [1_704_515, 14_502_281]),
            (DBGANRecipe(DBGANConfiguration.resolve()), [11_588_163, 14_502_281]),
            (BGANRecipe(spectral), [1_704_515, 14_496_521]),
        ):
            parts = recipe.networks.values()
            assert [sum(p.numel() for p in part.parameters()) for part in parts] == sizes


def deviations(recipe: AdversarialRecipe, role: str) -> list[float]:
    """By weight, its deviation relative to Kaiming's, sqrt(2 / values that it sums up)."""
    return [
        float(p.detach().std() / math.sqrt(2 / p[0].numel()))
        for p in recipe.networks[role].parameters()
        if p.ndim > 1 and p.numel() > 5000  # enough for an estimate
    ]


def test_the_released_initial_weights_are_kaimings_and_a_tenth_in_the_generator() -> None:
    torch.manual_seed(0)
    sizes = {"width": 32, "blocks": 2, "crop": 64, "discriminator_width": 16}
    bgan = BGANRecipe(BGANConfiguration.resolve("official", **sizes))
    dbgan = DBGANRecipe(DBGANConfiguration.resolve("official", **sizes))
    for recipe, role in ((bgan, "bgan"), (dbgan, "deblur")):
        np.testing.assert_allclose(deviations(recipe, role), 0.1, rtol=0.1)
        np.testing.assert_allclose(deviations(recipe, "discriminator"), 1, rtol=0.1)
        parameters = recipe.networks[role].named_parameters()
        assert not any(bool(p.any()) for name, p in parameters if name.endswith("bias"))


# ---- real runs -----------------------------------------------------------------------------------

OPTIONS = [*("--preset", "small", "--width", 8, "--blocks", 1, "--discriminator-width", 8)]
OPTIONS += [*("--batch", 2, "--device", "cpu", "--perceptual", "none", "-q")]


@pytest.fixture(scope="module")
def bgan_run(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BGAN beyond its warm-up, of photos that show nothing of the training set."""
    folder = tmp_path_factory.mktemp("bgan")
    blurry, output = folder / "blurry", folder / "bgan.pt"
    done("prepare", training_shards.parent / "photos", "--as", "blur", "-o", f"{blurry}/", "-q")
    given = [*OPTIONS, "--iterations", 4, "--warm-up", 2, "--log-every", 1, "-o", output]
    done("train-reblur", training_shards, "--system", "bgan", "--blurry", blurry, *given)
    return output


def test_what_a_run_leaves(bgan_run: Path) -> None:
    checkpoint = load_checkpoint(bgan_run)
    assert checkpoint.system == "bgan" and checkpoint.provenance["real"]
    networks = load_networks(checkpoint)
    assert isinstance(networks["bgan"], BGAN) and networks.keys() == {"bgan", "discriminator"}
    steps = [line["losses"] for line in read_log(bgan_run) if "losses" in line]
    assert all({"adversarial", "discriminator", "certainty"} < losses.keys() for losses in steps)
    validation = checkpoint.provenance["metrics"]
    assert validation["psnr_sharp"] > 8 and validation["pairwise_psnr"] > 8


def test_a_bgan_serves_dbgan_plus(training_shards: Path, bgan_run: Path, tmp_path: Path) -> None:
    output, plain = tmp_path / "x.pt", tmp_path / "plain.pt"
    command = ["train-deblur", training_shards, "--system", "dbgan", "--variant", "plus"]
    command += ["--bgan", bgan_run, *OPTIONS, "--growth", 4, "--iterations", 1, "--mix", 1]
    done(*command, "-o", output)
    done(*command, "--mix", 0, "-o", plain)
    one, other = tensors(output), tensors(plain)
    assert not all(torch.equal(other[key], value) for key, value in one.items())
    checkpoint = load_checkpoint(output)
    assert checkpoint.system == "dbgan" and checkpoint.configuration["variant"] == "plus"
    assert isinstance(load_networks(checkpoint)["deblur"], DBGAN)
    assert len(checkpoint.provenance["bgan"]) == 16
    assert {"psnr_blur", "psnr"} < checkpoint.provenance["metrics"].keys()


def test_what_goes_together(training_shards: Path, bgan_run: Path, tmp_path: Path) -> None:
    small = [training_shards, "--preset", "small", "--dry-run", "-q"]
    reblur, bgan = ["train-reblur", *small], ["train-reblur", *small, "--system", "bgan"]
    blurry = [*bgan, "--blurry", tmp_path]
    dbgan = ["train-deblur", *small, "--system", "dbgan", "--bgan", bgan_run]
    for command, words in (
        (bgan, "--blurry SHARDS: name the blurry photos"),
        ([*reblur, "--blurry", tmp_path], "--blurry is not an option of --system msdi"),
        ([*blurry, "--real-share", 0], "never used with --real-share 0,"),
        ([*bgan, "--bgan", bgan_run], "--bgan is not an option of"),
        (dbgan, "--variant plus and --bgan FILE"),
    ):
        assert_refused(invoke(*command), words, status=2)
    (shown,) = invoke(*bgan, "--real-share", 0).json
    assert shown["system"] == "bgan"
    assert shown["estimate"]["parameters"].keys() == {"bgan", "discriminator"}
    wrong = ["train-deblur", training_shards, "--system", "msfs", "--preset", "small"]
    ran = invoke(*wrong, "--bgan", tmp_path / "no.pt", "-o", tmp_path / "x.pt")
    assert_refused(ran, "no.pt: no such file (from --bgan)")
    other = ["train-reblur", training_shards, "--system", "bgan", *OPTIONS, "--blurry", tmp_path]
    assert_refused(invoke(*other, "-o", tmp_path / "x.pt"), "holds no train-*.h5")
