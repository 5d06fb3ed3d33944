"""One step of stage 1 against the paper's equations, written out from the networks' outputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.msdi.config import ReblurConfiguration
from blurkit.systems.msdi.recipe import ReblurRecipe
from tests.training.runs import batch

SMALL: dict[str, Any] = {
    **{"width": 4, "hidden": 4, "discriminator_width": 4, "crop": 64},
    **{"identity_start": False, "reblur_loss": "adversarial"},
}


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards)


def recipe(preset: str, features: bool = False, **changed: Any) -> ReblurRecipe:
    torch.manual_seed(3)
    network = FeatureNetwork(BACKBONES[1]) if features else None
    made = ReblurRecipe(ReblurConfiguration.resolve(preset, **(SMALL | changed)), network)
    for network in made.networks.values():
        network.train()
    return made


def step(
    made: ReblurRecipe, crops: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A step that changes no weight: its losses, and the total that each optimiser was given."""
    totals: dict[str, float] = {}
    losses = made.step(crops, lambda name, loss: totals.update({name: loss.item()}))
    return losses, totals


def outputs(twin: ReblurRecipe, crops: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """x' = y + G_d(y, E(y)) and y' = x + G_r(x, E(y)), Eq. 3 and 5, network by network."""
    blur, sharp = crops["blur"], crops["sharp"]
    bottleneck = twin.c.inject_bottleneck
    latents = twin.networks["latents"](twin.networks["encoder"](blur), bottleneck)
    reblurred = twin.networks["reblur"](sharp, latents)
    deblurred = twin.networks["deblur"](blur, latents)
    pick = twin.c.generator == "stacked"
    return (deblurred[-1], reblurred[-1]) if pick else (deblurred, reblurred)


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
    made = recipe(preset, features=True)
    twin = copy.deepcopy(made)
    losses, totals = step(made, crops)
    with torch.no_grad():
        deblurred, reblurred = outputs(twin, crops)
        fake, real = judge(twin, crops, reblurred)
        assert twin.features is not None
        seen, wanted = twin.features(reblurred), twin.features(crops["blur"])
        layers = zip((1 / 8, 1 / 4, 1 / 2, 1), seen, wanted, strict=True)
        expected = {
            "deblur": float((deblurred - crops["sharp"]).abs().mean()),
            "perceptual": sum(weight * float((a - b).abs().mean()) for weight, a, b in layers),
            "adversarial": -sum(float(maps[-1].mean()) for maps in fake) / 2,
        }
        matching = sum(
            float((a - b).abs().mean()) / 2
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
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)
    discriminator = expected["on_fake"] + expected["on_real"]
    assert totals == pytest.approx({"generator": total, "discriminator": discriminator}, rel=1e-5)


def test_weights_of_the_losses(crops: dict[str, Tensor]) -> None:
    weights = {"adversarial_weight": 0.5, "perceptual_weight": 3.0, "deblur_weight": 7.0}
    losses, totals = step(recipe("small", True, matching_weight=2.0, **weights), crops)
    total = 0.5 * losses["adversarial"] + 3 * losses["perceptual"] + 7 * losses["deblur"]
    assert totals["generator"] == pytest.approx(float(total + 2 * losses["matching"]), rel=1e-6)


def test_without_features_and_without_a_discriminator(crops: dict[str, Tensor]) -> None:
    losses, totals = step(recipe("small"), crops)
    assert "perceptual" not in losses
    assert totals["generator"] == pytest.approx(
        float(losses["adversarial"] + 10 * losses["deblur"])
    )
    made = recipe("small", adversarial_weight=0)
    losses, totals = step(made, crops)
    assert (set(losses), set(totals)) == ({"deblur"}, {"generator"})
    assert set(made.networks) == {"encoder", "latents", "reblur", "deblur"}


@pytest.mark.parametrize("generator", ["single", "stacked"])
def test_networks_may_begin_by_returning_their_input(
    generator: str, crops: dict[str, Tensor]
) -> None:
    made = recipe("small", identity_start=True, generator=generator)
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
        upsampling = recipe("small", identity_start=start).networks["latents"].train()
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
    made = recipe("small", encoder_rate=0.125, reblur_loss="l1")
    before = {role: weights(network) for role, network in made.networks.items()}
    optimizer = made.optimizers["generator"]
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group.get("share", 1.0)  # as the training loop sets it

    def update(name: str, loss: Tensor) -> None:
        loss.backward()
        optimizer.step()

    made.step(crops, update)
    for role, network in made.networks.items():
        pairs = zip(before[role], weights(network), strict=True)
        furthest = max(float((a - b).abs().max()) for a, b in pairs)
        rate = 1.25e-4 if role in ("encoder", "latents") else 1e-3
        assert furthest == pytest.approx(rate, rel=0.01), role


def weights(network: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in network.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_each_optimiser_moves_its_own_networks_alone(crops: dict[str, Tensor]) -> None:
    made = recipe("small", matching_weight=10.0)
    before = {role: weights(network) for role, network in made.networks.items()}
    moved: dict[str, set[str]] = {}

    def update(name: str, loss: Tensor) -> None:
        optimizer = made.optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        now = {role: weights(network) for role, network in made.networks.items()}
        moved[name] = {role for role in now if not same(now[role], before[role])}
        before.update(now)

    made.step(crops, update)
    assert moved == {
        "generator": {"encoder", "latents", "reblur", "deblur"},
        "discriminator": {"discriminator"},
    }


def test_the_generators_step_leaves_the_discriminator_without_gradients(
    crops: dict[str, Tensor],
) -> None:
    made = recipe("small", matching_weight=10.0)

    def update(name: str, loss: Tensor) -> None:
        loss.backward()
        own = "discriminator" if name == "discriminator" else "reblur"
        for role, network in made.networks.items():
            touched = any(p.grad is not None for p in network.parameters())
            if name == "generator":
                assert touched == (role != "discriminator")
            elif role != own:
                assert not touched
        for network in made.networks.values():
            network.zero_grad()

    made.step(crops, update)


def test_learning_rates() -> None:
    rates: dict[str, Any] = {"learning_rate": 3e-4, "final_learning_rate": 1e-7, "iterations": 1000}
    both = recipe("small", **rates)
    for optimizer in ("generator", "discriminator"):
        assert both.learning_rate(optimizer, 0) == 3e-4
        assert both.learning_rate(optimizer, 500) == pytest.approx((3e-4 + 1e-7) / 2, rel=1e-12)
        assert both.learning_rate(optimizer, 1000) == pytest.approx(1e-7, rel=1e-9)
        assert both.learning_rate(optimizer, 2000) == pytest.approx(1e-7, rel=1e-9)
    official = recipe("official", **rates, schedule_iterations=2000)
    assert {official.learning_rate("generator", step) for step in (0, 500, 1000)} == {3e-4}
    middle = official.learning_rate("discriminator", 1000)
    assert middle == pytest.approx((3e-4 + 1e-7) / 2, rel=1e-12)
