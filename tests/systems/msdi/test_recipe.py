"""Losses and a step of each stage against the paper's equations; what a collapse is told by."""

import copy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.losses import (
    LIMITS,
    CollapseWatch,
    blur_aware_loss,
    feature_matching_loss,
    frequency_loss,
)
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.tasks.train import begin_with
from blurkit.training.recipe import COLLAPSED_LINES, Recipe
from tests.systems.oracle import l1, squared, step, trained_by
from tests.training.runs import batch

SMALL: dict[str, Any] = {"width": 4, "hidden": 4, "identity_start": False}
STEERED = ("net_prior.", "prior_upsampling.")
PAPER = {"modulation": "paper", "inject_stages": "both", "inject_bottleneck": True}


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards)


def states(made: Recipe) -> dict[str, dict[str, Tensor]]:
    """Copies of the state dicts of a recipe's networks."""
    return {role: copy.deepcopy(network.state_dict()) for role, network in made.networks.items()}


def changed(before: dict[str, dict[str, Tensor]], made: Recipe) -> dict[str, set[str]]:
    """The parameters by role that are no longer as before."""
    return {
        role: {k for k, p in n.named_parameters() if not torch.equal(p, before[role][k])}
        for role, n in made.networks.items()
    }


# ---- losses --------------------------------------------------------------------------------------


def scales(seed: int) -> list[list[Tensor]]:
    """Two scales of four feature maps and a score map, as a discriminator gives them."""
    rng = np.random.default_rng(seed)
    return [
        [
            torch.from_numpy(rng.normal(size=(2, channels, size, size + 1))).requires_grad_()
            for channels in (3, 4, 5, 6, 1)
        ]
        for size in (9, 5)
    ]


def images(seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((2, 3, 32, 32), np.float32))


def test_feature_matching_teaches_the_features_of_the_made_image_alone() -> None:
    fake, real = scales(1), scales(2)
    feature_matching_loss(fake, real).backward()
    assert all(t.grad is None for features in real for t in features)
    assert all(t.grad is not None for features in fake for t in features[:-1])
    assert all(features[-1].grad is None for features in fake)


def test_blur_aware_loss_takes_the_partial_encoder() -> None:
    torch.manual_seed(0)
    whole, part = DegradationEncoder(1, 4).eval(), BlurEncoder(4).eval()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("res_")})
    both = [blur_aware_loss(encoder, images(1), images(2)).item() for encoder in (whole, part)]
    assert both[0] == both[1] > 0


def test_frequency_loss_is_the_l1_distance_of_spectra() -> None:
    one, other = images(1), images(2)
    spectra = (np.fft.rfft2(image.double().numpy()) for image in (one, other))
    difference = np.subtract(*spectra)
    direct = (np.abs(difference.real) + np.abs(difference.imag)).mean() / 2
    assert float(frequency_loss(one, other)) == pytest.approx(direct, rel=1e-4)
    assert float(frequency_loss(one, one)) == 0


# ---- stage 1 -------------------------------------------------------------------------------------


@cache
def features() -> FeatureNetwork:
    return FeatureNetwork(BACKBONES[1])


def stage_1(preset: str = "small", with_features: bool = False, **options: Any) -> ReblurRecipe:
    torch.manual_seed(3)
    small = SMALL | {"discriminator_width": 4, "crop": 64, "reblur_loss": "adversarial"} | options
    configuration = ReblurConfiguration.resolve(preset, **small)
    made = ReblurRecipe(configuration, features() if with_features else None)
    for network in made.networks.values():
        network.train()
    return made


def outputs(twin: ReblurRecipe, crops: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x' = y + G_d(y, E(y)) and y' = x + G_r(x, E(y)), Eq. 3 and 5, network by network."""
    blur, sharp, n = crops["blur"], crops["sharp"], twin.networks
    latents = n["latents"](n["encoder"](blur), twin.c.inject_bottleneck)
    made = n["deblur"](blur, latents), n["reblur"](sharp, latents)
    return (made[0][-1], made[1][-1]) if twin.c.generator == "stacked" else made


def judge(twin: ReblurRecipe, crops: dict[str, Tensor], fake: Tensor) -> tuple[Any, Any]:
    """D's feature maps of (x, y') and of (x, y)."""
    sharp, real = crops["sharp"], crops["blur"]
    pairs = torch.cat([torch.cat([sharp, fake], 1), torch.cat([sharp, real], 1)])
    scales = twin.networks["discriminator"](pairs)
    return ([[f[:2] for f in maps] for maps in scales], [[f[2:] for f in maps] for maps in scales])


def hinge(scales: list[list[Tensor]], sign: int) -> float:
    """-E[min(0, -1 + sign * D)], the mean of both scales."""
    terms = [-torch.clamp(-1 + sign * maps[-1], max=0).mean() for maps in scales]
    return float(sum(terms) / 2)


@pytest.mark.parametrize("preset", ["paper", "text", "official", "small"])
def test_losses_and_totals_are_the_papers(preset: str, crops: dict[str, Tensor]) -> None:
    made = stage_1(preset, True)
    twin = copy.deepcopy(made)
    losses, totals = step(made, crops)
    with torch.no_grad():
        deblurred, reblurred = outputs(twin, crops)
        fake, real = judge(twin, crops, reblurred)
        seen, wanted = twin.features(reblurred), twin.features(crops["blur"])
        layers = zip((1 / 8, 1 / 4, 1 / 2, 1), seen, wanted, strict=True)
        expected = {
            "deblur": l1(deblurred, crops["sharp"]),
            "perceptual": sum(weight * l1(a, b) for weight, a, b in layers),
            "adversarial": -sum(float(maps[-1].mean()) for maps in fake) / 2,
        }
        matching = sum(
            l1(a, b) / 2
            for f, r in zip(fake, real, strict=True)
            for a, b in zip(f[:-1], r[:-1], strict=True)
        )
        # D's turn: the image is made and judged again, one power iteration later.
        fake, real = judge(twin, crops, outputs(twin, crops)[1])
        expected |= {"on_fake": hinge(fake, -1), "on_real": hinge(real, 1)}
    total = expected["adversarial"] + 30 * expected["perceptual"] + 10 * expected["deblur"]
    if preset in ("paper", "official"):
        expected["matching"] = matching
        total += 10 * matching
    assert losses == pytest.approx(expected, rel=1e-5)
    discriminator = expected["on_fake"] + expected["on_real"]
    assert totals == pytest.approx({"generator": total, "discriminator": discriminator}, rel=1e-5)


def test_weights_of_the_losses(crops: dict[str, Tensor]) -> None:
    weights = {"adversarial_weight": 0.5, "perceptual_weight": 3.0, "deblur_weight": 7.0}
    losses, totals = step(stage_1("small", True, matching_weight=2.0, **weights), crops)
    total = 0.5 * losses["adversarial"] + 3 * losses["perceptual"] + 7 * losses["deblur"]
    assert totals["generator"] == pytest.approx(total + 2 * losses["matching"], rel=1e-6)


def test_without_features_and_without_a_discriminator(crops: dict[str, Tensor]) -> None:
    losses, totals = step(stage_1(), crops)
    assert "perceptual" not in losses
    total = losses["adversarial"] + 10 * losses["deblur"]
    assert totals["generator"] == pytest.approx(total, rel=1e-6)
    made = stage_1(adversarial_weight=0)
    losses, totals = step(made, crops)
    assert (set(losses), set(totals)) == ({"deblur"}, {"generator"})
    assert set(made.networks) == {"encoder", "latents", "reblur", "deblur"}


def test_the_l1_loss_of_reblurring(crops: dict[str, Tensor]) -> None:
    made = stage_1("small", True, reblur_loss="l1", perceptual_weight=4.0)
    with torch.no_grad():
        deblurred, reblurred = copy.deepcopy(made).model(crops["blur"], crops["sharp"])
    losses, totals = step(made, crops)  # which has no use for features
    expected = {"deblur": l1(deblurred, crops["sharp"]), "reblur": l1(reblurred, crops["blur"])}
    assert losses == pytest.approx(expected, rel=1e-5)
    total = 10 * expected["deblur"] + 4 * expected["reblur"]
    assert totals == pytest.approx({"generator": total}, rel=1e-5)
    assert all(trained_by(network) for network in made.networks.values())


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
    wanted = ["conv_latent_init", "conv_latent_up2", "conv_latent_up3"]
    assert [name for name, part in steps.items() if trained_by(part)] == wanted


@pytest.mark.parametrize("generator", ["single", "stacked"])
def test_networks_may_begin_as_the_identity(generator: str, crops: dict[str, Tensor]) -> None:
    made = stage_1(identity_start=True, generator=generator)
    with torch.no_grad():
        deblurred, reblurred = made.model(crops["blur"], crops["sharp"])
    assert torch.equal(deblurred, crops["blur"])
    assert torch.equal(reblurred, crops["sharp"])


@pytest.mark.slow
def test_latents_may_begin_as_strong_as_the_map() -> None:
    """Of norm 1 each, and all of E(y) is still to be told from them at full size."""
    z = torch.randn(6, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    told = {}
    for start in (True, False):
        upsampling = stage_1(identity_start=start).networks["latents"].train()
        with torch.no_grad():
            for _ in range(20):  # settles the spectral norms
                upsampling(z)
            largest = upsampling.eval()(z)[0]
        told[start] = float((largest - largest.mean(0)).std())
        if start:
            for module in upsampling.modules():
                if isinstance(module, nn.Conv2d):
                    matrix = module.get_parameter("weight_orig").detach().flatten(1).double()
                    norms = np.linalg.svd(matrix.numpy(), compute_uv=False)
                    filters = min(module.in_channels, module.out_channels)
                    np.testing.assert_allclose(norms[:filters], 1, atol=1e-3)
                    assert not module.get_parameter("bias").any()
    # Measured: 0.09 and 0.0003.
    assert told[True] > 0.03 > 30 * told[False]


def test_the_encoder_may_learn_slower(crops: dict[str, Tensor]) -> None:
    """Adam's first step moves every weight that has a gradient by the learning rate."""
    made = stage_1(encoder_rate=0.125, reblur_loss="l1")
    before = states(made)
    optimizer = made.optimizers["generator"]
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group.get("share", 1.0)  # as the training loop sets it
    step(made, crops)
    optimizer.step()
    for role, network in made.networks.items():
        moved = max((p - before[role][k]).abs().max().item() for k, p in network.named_parameters())
        rate = 1.25e-4 if role in ("encoder", "latents") else 1e-3
        assert moved == pytest.approx(rate, rel=0.01), role


def test_each_optimiser_moves_its_own_networks_alone(crops: dict[str, Tensor]) -> None:
    """The generator's step leaves the discriminator without gradients, and the other way round."""
    made = stage_1(matching_weight=10.0)
    found: dict[str, tuple[set[str], set[str]]] = {}

    def update(name: str, loss: Tensor) -> None:
        before, optimizer = states(made), made.optimizers[name]
        loss.backward()
        optimizer.step()
        touched = {role for role, network in made.networks.items() if trained_by(network)}
        found[name] = touched, {role for role, keys in changed(before, made).items() if keys}
        for network in made.networks.values():
            network.zero_grad()

    made.step(crops, update)
    generator, discriminator = {"encoder", "latents", "reblur", "deblur"}, {"discriminator"}
    assert found == {"generator": (generator,) * 2, "discriminator": (discriminator,) * 2}


def test_learning_rates() -> None:
    rates: dict[str, Any] = {"learning_rate": 3e-4, "final_learning_rate": 1e-7, "iterations": 1000}
    both = stage_1(**rates)
    middle = pytest.approx((3e-4 + 1e-7) / 2, rel=1e-12)
    for optimizer in ("generator", "discriminator"):
        assert both.learning_rate(optimizer, 0) == 3e-4
        assert both.learning_rate(optimizer, 500) == middle
        for end in (1000, 2000):
            assert both.learning_rate(optimizer, end) == pytest.approx(1e-7, rel=1e-9)
    official = stage_1("official", **rates, schedule_iterations=2000)
    assert {official.learning_rate("generator", step) for step in (0, 500, 1000)} == {3e-4}
    assert official.learning_rate("discriminator", 1000) == middle


# ---- stage 2 -------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper"},
    "text": {"preset": "text"},
    "both stages": {
        **{"preset": "text", "supervise_first": True, "psnr_weight": 0.25, "blur_weight": 3.0}
    },
    "five layers": {"preset": "text", "blur_layers": "official"},
    "without": {"preset": "paper", "blur_weight": 0.0},
    "one U-Net": {"preset": "text", "generator": "single", "unshuffle": 2, "width": 6},
    "L1": {"preset": "paper", "pixel_loss": "l1"},
}


def pretrained() -> dict[str, nn.Module]:
    """What stage 1 leaves to stage 2, as it begins."""
    torch.manual_seed(3)
    encoder, latents = DegradationEncoder(1, 4), PriorUpsampling(1, 4)
    with torch.no_grad():
        for _ in range(20):  # settles the spectral norms
            latents(encoder(torch.rand(1, 3, 64, 64)))
    return {"encoder": encoder, "latents": latents}


def stage_2(
    preset: str = "small", given: dict[str, nn.Module] | None = None, **options: Any
) -> DeblurRecipe:
    configuration = DeblurConfiguration.resolve(preset, **SMALL | {"crop": 128} | options)
    made = DeblurRecipe(configuration, pretrained() if given is None else given, "enc.pt")
    made.network.train()
    return made


def minus_psnr(image: Tensor, sharp: Tensor) -> float:
    return float(
        np.mean([10 * np.log10(squared(*pair)) for pair in zip(image, sharp, strict=True)])
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_total_of_stage_2(variant: str, training_shards: Path) -> None:
    """Eq. 7 and 8."""
    made = stage_2(**VARIANTS[variant])
    c = made.c
    crops = batch(training_shards, crop=128 if c.blur_layers == "all" else 64)
    twin = copy.deepcopy(made)
    losses, totals = step(made, crops)
    encoder, upsampling = (part.eval() for part in twin.steering)
    with torch.no_grad():
        latents = upsampling(encoder(crops["blur"]), c.inject_bottleneck)
        output = twin.network(crops["blur"], latents)
        first, restored = output if c.generator == "stacked" else (None, output)
        maps = [encoder.features(image, c.blur_layers) for image in (restored, crops["sharp"])]
    pixel_loss = minus_psnr if c.pixel_loss == "psnr" else l1
    expected = {c.pixel_loss: pixel_loss(restored, crops["sharp"])}
    total = c.psnr_weight * expected[c.pixel_loss]
    if c.supervise_first:
        expected[f"{c.pixel_loss}_first"] = pixel_loss(first, crops["sharp"])
        total += c.psnr_weight * expected[f"{c.pixel_loss}_first"]
    if c.blur_weight:
        assert len(maps[0]) == (5 if c.blur_layers == "official" else 13)
        expected["blur"] = sum(l1(a, b) for a, b in zip(*maps, strict=True))
        total += c.blur_weight * expected["blur"]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert totals == pytest.approx({"deblur": total}, rel=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"generator": "single", "modulation": "paper", "width": 6}]
)
def test_encoder_and_latents_stay_the_same_to_the_bit(
    options: dict[str, Any], crops: dict[str, Tensor]
) -> None:
    """Inside the stacked network, or beside one U-Net, whose width may be another than theirs."""
    made = stage_2(**options)
    assert list(made.networks) == (["encoder", "latents", "deblur"] if options else ["deblur"])
    before = states(made)
    for _ in range(2):
        step(made, crops)
        made.optimizers["deblur"].step()
    for role, network in made.networks.items():
        for key, value in network.state_dict().items():
            if role != "deblur" or key.startswith(STEERED):
                assert torch.equal(value, before[role][key]), key
    rest = {k for k, _ in made.network.named_parameters() if not k.startswith(STEERED)}
    # These are in the released networks, but never run, the second only in stacked ones.
    unused = (".conv_4.", "conv_02.") if options else (".conv_4.",)
    left = rest - changed(before, made)["deblur"]
    assert {key for key in left if not any(name in key for name in unused)} == set()


def test_a_steered_network_goes_on_from_an_unsteered_one(crops: dict[str, Tensor]) -> None:
    """Modulated as in the paper it begins by giving the same images, steered or not."""
    plain = stage_2(given={}, injection="none", blur_weight=0.0)
    made = stage_2(identity_start=True, **PAPER)
    begin_with(made, Checkpoint({"deblur": plain.network.state_dict()}, where="plain.pt"))
    with torch.no_grad():
        wanted, images = plain.network(crops["blur"]), made.network(crops["blur"])
    assert not torch.equal(wanted[-1], crops["blur"])
    torch.testing.assert_close(images, wanted)


def test_the_blur_aware_loss_of_another_encoder(crops: dict[str, Tensor]) -> None:
    torch.manual_seed(5)
    other = BlurEncoder(4)
    before = copy.deepcopy(other.state_dict())
    made = stage_2(given={**pretrained(), "blur_encoder": other})
    losses = [step(recipe, crops)[0]["blur"] for recipe in (made, stage_2())]
    assert losses[0] != losses[1]
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert not any(p.requires_grad for p in other.parameters())


def test_without_degradation_the_encoder_serves_the_blur_loss(crops: dict[str, Tensor]) -> None:
    networks = pretrained()
    encoder = networks["encoder"].eval()
    made = stage_2(given=networks, injection="none", blur_weight=3.0)
    with torch.no_grad():
        restored = made.network(crops["blur"])[-1]
        maps = zip(encoder.features(restored), encoder.features(crops["sharp"]), strict=True)
        expected = sum(l1(a, b) for a, b in maps)
    losses, totals = step(made, crops)
    assert losses["blur"] == pytest.approx(expected, rel=1e-4)
    total = losses["psnr"] + losses["psnr_first"] + 3 * losses["blur"]
    assert totals == pytest.approx({"deblur": total}, rel=1e-5)
    assert trained_by(made.network) and not trained_by(encoder)
    with pytest.raises(UsageError, match="--injection none: the blur-aware loss needs --encoder"):
        stage_2(given={}, injection="none")
    losses, _ = step(stage_2(given={}, injection="none", blur_weight=0.0), crops)
    assert losses.keys() == {"psnr", "psnr_first"}


def test_what_stage_1_must_give() -> None:
    with pytest.raises(BlurkitError, match=r"enc.pt: holds encoder \(DegradationEncoder\); train"):
        stage_2(given={"encoder": DegradationEncoder(1, 4)})
    with pytest.raises(BlurkitError, match="its latents have width 4, the network 8"):
        stage_2(width=8)


# ---- collapse ------------------------------------------------------------------------------------

HEALTHY = {name: 2 * limit for name, (limit, _) in LIMITS.items()}


def test_what_is_measured_of_stage_1(training_shards: Path) -> None:
    """Image by image: the next image's map, and the picture that its degradation gives."""
    crops = batch(training_shards, count=3)
    made = stage_1("paper")
    measured = {name: value.item() for name, value in made.measures(crops).items()}
    twin = made.model.eval()
    blur, sharp = crops["blur"], crops["sharp"]
    with torch.no_grad():
        maps = [twin.net_prior(one[None]) for one in blur]
        latents = [twin.prior_upsampling(z) for z in maps]
        restored = [twin.generator(b[None], z)[-1] for b, z in zip(blur, latents, strict=True)]
        own, other = (
            [twin.inverse_generator(s[None], z)[-1] for s, z in zip(sharp, given, strict=True)]
            for given in (latents, [latents[2], *latents[:2]])
        )
    size = float(torch.cat(maps).abs().mean())
    expected = {
        "degradations": l1(torch.cat(maps), torch.cat([maps[2], *maps[:2]])) / size,
        "restored": l1(torch.cat(restored), blur) / l1(blur, sharp),
        "exchange": l1(torch.cat(own), torch.cat(other)) / l1(blur, sharp),
    }
    assert measured == pytest.approx(expected, rel=1e-3)
    assert measured["exchange"] > 0


@pytest.mark.parametrize(
    ("injection", "names"), [("multi-scale", {"restored", "degradations"}), ("none", {"restored"})]
)
def test_measures_of_stage_2(injection: str, names: set[str], crops: dict[str, Tensor]) -> None:
    """Nothing here is reblurred, and without injection there is no degradation."""
    measured = stage_2("paper", identity_start=True, injection=injection).measures(crops)
    assert measured.keys() == names
    assert measured["restored"] == 0  # it begins by returning its input


def test_single_crops_are_exchanged_with_those_of_the_call_before(training_shards: Path) -> None:
    """A batch of one has no other degradation."""
    watch, crops = CollapseWatch(0), batch(training_shards, count=3)
    for n in range(3):
        given = watch.crops(crops["blur"][n : n + 1], crops["sharp"][n : n + 1])
        for found, name in zip(given, ("blur", "sharp"), strict=True):
            assert torch.equal(found, crops[name][max(0, n - 1) : n + 1])


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
    lines = [dead if n % COLLAPSED_LINES else HEALTHY for n in range(1, 20)]
    assert not any(watch.collapsed(n, line) for n, line in enumerate(lines, 1))
