"""Training follows the official code, step by step: tests/tools/official.py recorded that.

Weights, images and networks are the same; the loop, the losses, the optimisers, clipping and the
schedule are ours. In float64, only the last digits may differ.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.msdi.config import ReblurConfiguration
from blurkit.systems.msdi.recipe import ReblurRecipe
from blurkit.systems.nafnet.config import NAFNetConfiguration
from blurkit.systems.nafnet.recipe import NAFNetRecipe
from blurkit.training.configuration import Configuration, Run
from blurkit.training.loop import Trainer
from blurkit.training.recipe import Recipe
from tests.tools import official

RUN: dict[str, Any] = {"iterations": official.STEPS, "schedule_iterations": official.SCHEDULE}
RUN |= {"batch": official.CROPS, "crop": official.SIDE, "width": 64 // official.NARROWER}

MSDI = {
    **{"GAN": ("adversarial", 1), "GAN_Feat": ("matching", 10), "VGG": ("perceptual", 30)},
    **{"l_pix": ("deblur", 10), "D_Fake": ("on_fake", 1), "D_real": ("on_real", 1)},
}
"""The names of the official terms: ours, and the weights that they include."""


def msdi() -> ReblurRecipe:
    widths = {"hidden": 128 // official.NARROWER, "discriminator_width": 64 // official.NARROWER}
    with official.narrower():
        features = FeatureNetwork(BACKBONES[0]).double()
    recipe = ReblurRecipe(ReblurConfiguration.resolve("official", **RUN, **widths), features)
    official.fill_features(features)
    official.fill(recipe.model.double())
    official.fill(recipe.networks["discriminator"].double(), "discriminator.")
    return recipe


def nafnet() -> NAFNetRecipe:
    recipe = NAFNetRecipe(NAFNetConfiguration.resolve("paper", **RUN, blocks="small"))
    official.fill(recipe.network.double())
    return recipe


class Batches:
    """The batches of the recording as the samples of a training."""

    def __len__(self) -> int:
        return official.STEPS

    def load(self, step: int, part: slice) -> int:
        return step

    def to_device(self, loaded: int, device: torch.device) -> dict[str, Tensor]:
        return official.batch(loaded)


def trained(recipe: Recipe, folder: Path) -> list[dict[str, Tensor]]:
    """Train it, and return the terms of every loss, in order."""
    terms: list[dict[str, Tensor]] = []
    whole = recipe.loss

    def loss(optimizer: str, crops: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total, found = whole(optimizer, crops)
        terms.append(found)
        return total, found

    recipe.loss = loss
    run = Run(str(folder / "net.pt"), "cpu", log_every=official.STEPS + 1, quiet=True)
    Trainer(recipe, run, Batches(), {}, {}).train()
    return terms


def recorded(name: str) -> dict[str, Any]:
    return json.loads((official.FOLDER / f"{name}.json").read_text())


def assert_same_weights(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> None:
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key] == pytest.approx(values, rel=1e-9, abs=1e-9), key


def test_stage_1_of_msdi_net_trains_as_the_official_code(tmp_path: Path) -> None:
    wanted, recipe = recorded("msdi"), msdi()
    terms = trained(recipe, tmp_path)
    assert len(terms) == 2 * official.STEPS  # the generators, then the discriminator
    for step, losses in enumerate(wanted["losses"]):
        found = terms[2 * step] | terms[2 * step + 1]
        assert losses.keys() == MSDI.keys()
        for name, (own, weight) in MSDI.items():
            assert weight * found[own].item() == pytest.approx(losses[name], rel=1e-10), name
    weights = official.digest(recipe.model.state_dict())
    weights |= official.digest(recipe.networks["discriminator"].state_dict(), "discriminator.")
    assert_same_weights(weights, wanted["weights"])


def test_nafnet_trains_as_the_official_code(tmp_path: Path) -> None:
    wanted, recipe = recorded("nafnet"), nafnet()
    terms = trained(recipe, tmp_path)
    losses = [step["l_pix"] for step in wanted["losses"]]
    assert [term["psnr_loss"].item() for term in terms] == pytest.approx(losses, rel=1e-12)
    assert_same_weights(official.digest(recipe.network.state_dict()), wanted["weights"])


@pytest.mark.parametrize(
    ("name", "c"),
    [
        ("msdi", ReblurConfiguration.resolve("official")),
        ("nafnet", NAFNetConfiguration.resolve("paper")),
    ],
)
def test_the_presets_are_the_released_option_files(name: str, c: Configuration) -> None:
    options = recorded(name)["options"]
    assert options["betas"] == [c.beta1, c.beta2]
    assert options["schedule_iterations"] == (c.schedule_iterations or c.iterations)
    assert options["weight_decay"] == getattr(c, "weight_decay", 0)
    for option in ("learning_rate", "final_learning_rate", "iterations", "crop", "batch"):
        assert options[option] == getattr(c, option)
