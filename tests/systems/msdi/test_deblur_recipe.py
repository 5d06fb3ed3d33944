"""One step of stage 2 against Eq. 7 and 8; encoder and latents stay as they are to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.msdi.config import DeblurConfiguration
from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe
from blurkit.tasks.train import begin_with
from tests.training.runs import batch

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper"},
    "text": {"preset": "text"},
    "half weight": {"preset": "text", "psnr_weight": 0.25, "blur_weight": 3.0},
    "both stages": {"preset": "text", "supervise_first": True},
    "five layers": {"preset": "text", "blur_layers": "official"},
    "without": {"preset": "paper", "blur_weight": 0.0},
    "one U-Net": {"preset": "text", "generator": "single", "unshuffle": 2, "width": 6},
    "L1": {"preset": "paper", "pixel_loss": "l1"},
}


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards, crop=128)


def stage_1() -> dict[str, nn.Module]:
    torch.manual_seed(3)
    encoder, latents = DegradationEncoder(1, 4), PriorUpsampling(1, 4)
    with torch.no_grad():
        for _ in range(20):  # settles the spectral norms
            latents(encoder(torch.rand(1, 3, 64, 64)))
    return {"encoder": encoder, "latents": latents}


def recipe(preset: str, pretrained: dict[str, nn.Module], **changed: Any) -> DeblurRecipe:
    small = {"width": 4, "hidden": 4, "crop": 128, "identity_start": False} | changed
    made = DeblurRecipe(DeblurConfiguration.resolve(preset, **small), pretrained, "enc.pt")
    made.network.train()
    return made


def minus_psnr(image: Tensor, sharp: Tensor) -> float:
    error = (image - sharp).double().square().mean((1, 2, 3)).numpy()
    return -float(np.mean(10 * np.log10(1 / error)))


def mean_distance(image: Tensor, sharp: Tensor) -> float:
    return float(np.abs(image.double().numpy() - sharp.double().numpy()).mean())


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_total_are_the_papers(variant: str, crops: dict[str, Tensor]) -> None:
    made = recipe(pretrained=stage_1(), **VARIANTS[variant])
    c = made.c
    twin = copy.deepcopy(made)
    totals: list[float] = []
    losses = made.step(crops, lambda name, loss: totals.append(loss.item()))
    assert twin.steering is not None
    encoder, upsampling = (part.eval() for part in twin.steering)
    with torch.no_grad():
        latents = upsampling(encoder(crops["blur"]), c.inject_bottleneck)
        output = twin.network(crops["blur"], latents)
        first, restored = output if c.generator == "stacked" else (None, output)
        maps = [
            encoder.features(image, "all" if c.blur_layers == "all" else "blur")
            for image in (restored, crops["sharp"])
        ]
    pixel_loss = minus_psnr if c.pixel_loss == "psnr" else mean_distance
    expected = {c.pixel_loss: pixel_loss(restored, crops["sharp"])}
    total = c.psnr_weight * expected[c.pixel_loss]
    if c.supervise_first:
        expected[f"{c.pixel_loss}_first"] = pixel_loss(first, crops["sharp"])
        total += c.psnr_weight * expected[f"{c.pixel_loss}_first"]
    if c.blur_weight:
        assert len(maps[0]) == (5 if c.blur_layers == "official" else 13)
        expected["blur"] = sum(
            float((a - b).abs().sum()) / a.numel() for a, b in zip(*maps, strict=True)
        )
        total += c.blur_weight * expected["blur"]
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-4)
    assert totals == pytest.approx([total], rel=1e-4)


def test_encoder_and_latents_stay_the_same_to_the_bit(crops: dict[str, Tensor]) -> None:
    made = recipe("small", stage_1())
    before = copy.deepcopy(made.network.state_dict())

    def update(name: str, loss: Tensor) -> None:
        made.optimizers[name].zero_grad()
        loss.backward()
        made.optimizers[name].step()

    for _ in range(2):
        made.network.train()
        made.step(crops, update)
    frozen = ("net_prior.", "prior_upsampling.")
    for key, value in made.network.state_dict().items():
        if key.startswith(frozen):
            assert torch.equal(value, before[key]), key
    changed = {k for k, v in made.network.named_parameters() if not torch.equal(v, before[k])}
    rest = {k for k in dict(made.network.named_parameters()) if not k.startswith(frozen)}
    # `conv_4` is in the released networks, but never run.
    assert {k for k in rest - changed if ".conv_4." not in k} == set()


def test_one_unet_is_saved_beside_what_steers_it(crops: dict[str, Tensor]) -> None:
    """Its latents may have another width than it with the paper's modulation."""
    made = recipe("small", stage_1(), generator="single", modulation="paper", width=6)
    assert list(made.networks) == ["encoder", "latents", "deblur"]
    before = {role: copy.deepcopy(n.state_dict()) for role, n in made.networks.items()}
    optimizer = made.optimizers["deblur"]
    for network in made.networks.values():
        network.train()

    def update(name: str, loss: Tensor) -> None:
        loss.backward()
        optimizer.step()

    made.step(crops, update)
    for role in ("encoder", "latents"):
        for key, value in made.networks[role].state_dict().items():
            assert torch.equal(value, before[role][key]), key
    last = "last.weight"
    assert not torch.equal(made.network.state_dict()[last], before["deblur"][last])


def test_the_network_may_begin_by_returning_its_input(crops: dict[str, Tensor]) -> None:
    made = recipe("small", stage_1(), identity_start=True)
    with torch.no_grad():
        images = made.network(crops["blur"])
    assert all(torch.equal(image, crops["blur"]) for image in images)


def test_a_steered_network_goes_on_from_an_unsteered_one(crops: dict[str, Tensor]) -> None:
    """Modulated as in the paper it begins by giving the same images, steered or not."""
    plain = recipe("small", {}, injection="none", blur_weight=0.0)
    paper = {"modulation": "paper", "inject_stages": "both", "inject_bottleneck": True}
    made = recipe("small", stage_1(), identity_start=True, **paper)
    begin_with(made, Checkpoint({"deblur": plain.network.state_dict()}, where="plain.pt"))
    with torch.no_grad():
        wanted, images = plain.network(crops["blur"]), made.network(crops["blur"])
    assert not torch.equal(wanted[-1], crops["blur"])
    for image, other in zip(images, wanted, strict=True):
        torch.testing.assert_close(image, other)


def test_the_blur_aware_loss_of_another_encoder(crops: dict[str, Tensor]) -> None:
    torch.manual_seed(5)
    other = BlurEncoder(4)
    made = recipe("small", {**stage_1(), "blur_encoder": other})
    own = recipe("small", stage_1())
    before = copy.deepcopy(other.state_dict())
    losses = [m.step(crops, lambda name, loss: None)["blur"] for m in (made, own)]
    assert losses[0] != losses[1]
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert not any(p.requires_grad for p in other.parameters())


def test_what_stage_1_must_give() -> None:
    with pytest.raises(BlurkitError, match=r"enc.pt: holds encoder \(DegradationEncoder\); train"):
        recipe("small", {"encoder": DegradationEncoder(1, 4)})
    with pytest.raises(BlurkitError, match="its latents have width 4, the network 8"):
        recipe("small", stage_1(), width=8)
