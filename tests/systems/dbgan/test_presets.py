"""The presets of BGAN and DBGAN, and each remedy of `small` on its own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from blurkit.systems.dbgan.config import BGANConfiguration, DBGANConfiguration
from blurkit.systems.dbgan.recipe import AdversarialRecipe, BGANRecipe, DBGANRecipe
from blurkit.training.configuration import Configuration

# Section 4.2, with the numbers of steps and the network's sizes as in docs/systems/dbgan.md.
BOTH: dict[str, Any] = {
    **{"iterations": 300_000, "batch": 4, "crop": 128, "learning_rate": 1e-4},
    **{"final_learning_rate": 1e-6, "schedule_iterations": 0, "beta1": 0.9, "beta2": 0.999},
    **{"clip": 0.0, "ema": 0.0, "sharp_pairs": 0.0, "synthesize": "none", "synthetic_share": 0.0},
    **{"mix": 0.5, "orientations": "flip", "width": 64, "seed": 10, "initial_weights": "normal"},
    **{"initial_deviation": 0.01, "discriminator": "vgg", "discriminator_width": 64},
    **{"perceptual": "features", "perceptual_weight": 1.0, "adversarial_weight": 0.01},
    **{"content_loss": "l2", "content_weight": 0.005},
}
BGAN_PAPER = BOTH | {
    **{"content_weight": 0.0, "content_crops": "all", "blocks": 9, "noise_length": 4},
    **{"noise_tries": 1, "warm_up": 100_000, "real_share": 0.5},
}
DBGAN_PAPER = BOTH | {
    **{"variant": "plain", "traditional_loss": "vanilla", "blocks": 16, "growth": 32},
}
RELEASED = {"orientations": "all", "initial_weights": "kaiming"}


@pytest.mark.parametrize(
    ("kind", "paper"), [(BGANConfiguration, BGAN_PAPER), (DBGANConfiguration, DBGAN_PAPER)]
)
def test_paper_is_the_text_and_official_begins_as_the_released_code(
    kind: type[Configuration], paper: dict[str, Any]
) -> None:
    assert tuple(kind.presets) == ("paper", "official", "small")
    assert kind.resolve().as_dict() == kind.resolve("paper").as_dict() == paper
    assert kind.resolve("official").as_dict() == paper | RELEASED


def deviations(recipe: AdversarialRecipe, role: str) -> list[float]:
    """By weight, its deviation relative to Kaiming's, sqrt(2 / values that it sums up)."""
    return [
        float(p.detach().std() / math.sqrt(2 / p[0].numel()))
        for p in recipe.networks[role].parameters()
        if p.ndim > 1 and p.numel() > 5000  # enough for an estimate
    ]


def test_the_released_initial_weights_are_kaimings_and_a_tenth_in_the_generator() -> None:
    torch.manual_seed(0)
    sizes = {"blocks": 2, "crop": 64, "discriminator_width": 16}
    bgan = BGANRecipe(BGANConfiguration.resolve("official", width=32, **sizes))
    dbgan = DBGANRecipe(DBGANConfiguration.resolve("official", width=32, **sizes))
    for recipe, role in ((bgan, "bgan"), (dbgan, "deblur")):
        assert deviations(recipe, role) == pytest.approx(
            [0.1] * len(deviations(recipe, role)), rel=0.1
        )
        judged = deviations(recipe, "discriminator")
        assert judged == pytest.approx([1] * len(judged), rel=0.1)
        biases = [p for n, p in recipe.networks[role].named_parameters() if n.endswith("bias")]
        assert not any(bool(bias.any()) for bias in biases)
