"""The presets against the papers and the released code, and values that make no sense."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from blurkit.errors import UsageError
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.training.configuration import Configuration, Run

# The schedule and batch of Section 4.1, the rest as in the released version 1.
PAPER: dict[str, Any] = {
    **{"crop": 256, "learning_rate": 3e-4, "final_learning_rate": 1e-7, "schedule_iterations": 0},
    **{
        "beta1": 0.9,
        "beta2": 0.99,
        "clip": 0.01,
        "ema": 0.0,
        "orientations": "all",
        "width": 64,
        "hidden": 128,
        "seed": 10,
        "sharp_pairs": 0.0,
    },
    **{"modulation": "official", "inject_stages": "first", "inject_bottleneck": False},
    **{"identity_start": False, "injection": "multi-scale"},
    **{
        "generator": "stacked",
        "unshuffle": 1,
        "synthesize": "none",
        "synthetic_share": 0.0,
        "mix": 0.5,
    },
}
# Sections 3.1 to 3.3 to the letter.
TEXT: dict[str, Any] = {
    **{"modulation": "paper", "inject_stages": "both", "inject_bottleneck": True, "clip": 0.0},
}
JOINT_PAPER: dict[str, Any] = PAPER | {
    **{"iterations": 200_000, "batch": 32, "encoder_version": "1"},
    **{"encoder_layers": "official"},
    **{"discriminator_width": 64, "adversarial_weight": 1.0},
    **{"perceptual_weight": 30.0, "deblur_weight": 10.0, "matching_weight": 10.0},
    **{"schedule_generator": True, "perceptual": "features", "encoder_rate": 1.0},
    **{"code": "2d", "reblurring": True, "reblur_loss": "adversarial"},
}
JOINT_TEXT = JOINT_PAPER | TEXT | {"encoder_layers": "paper", "matching_weight": 0.0}
# MSDINet2e-Train.yml and the code that it runs.
JOINT_OFFICIAL: dict[str, Any] = JOINT_PAPER | {
    **{"iterations": 240_000, "schedule_iterations": 250_000, "learning_rate": 2e-4},
    **{"encoder_version": "2", "generator": "single", "schedule_generator": False},
}
DEBLUR_PAPER: dict[str, Any] = PAPER | {
    **{"iterations": 400_000, "batch": 64, "psnr_weight": 0.5, "supervise_first": True},
    **{"blur_weight": 1.0, "blur_layers": "official", "pixel_loss": "psnr"},
    "frequency_weight": 0.0,
}
DEBLUR_TEXT: dict[str, Any] = (
    DEBLUR_PAPER | TEXT | {"psnr_weight": 1.0, "supervise_first": False, "blur_layers": "all"}
)
DEBLUR_OFFICIAL = DEBLUR_PAPER | {"batch": 24}  # MSDINet2-Train.yml
# What `small` makes small.
SMALL: dict[str, Any] = {
    **{"batch": 4, "crop": 128, "final_learning_rate": 1e-6, "ema": 0.98, "clip": 0.0},
    **{"width": 12, "hidden": 24, "identity_start": True},
}
JOINT_SMALL: dict[str, Any] = (
    JOINT_PAPER
    | SMALL
    | {
        **{"iterations": 1000, "discriminator_width": 16, "matching_weight": 0.0},
        **{"generator": "single", "perceptual": "auto", "reblur_loss": "l1"},
        **{"learning_rate": 5e-4, "encoder_rate": 0.06, "sharp_pairs": 0.25},
        **{"inject_bottleneck": True},
    }
)
DEBLUR_SMALL: dict[str, Any] = (
    DEBLUR_PAPER
    | SMALL
    | {
        **{"iterations": 800, "learning_rate": 1e-3, "psnr_weight": 1.0},
    }
)
# The released network and options, with the losses, schedule and batch of the text.
MSFS_PAPER: dict[str, Any] = {
    **{"iterations": 3000 * 2103 // 4, "batch": 4, "crop": 256, "learning_rate": 1e-4},
    **{"final_learning_rate": 1e-7, "schedule_iterations": 0, "halve_every": 500 * 2103 // 4},
    **{"beta1": 0.9, "beta2": 0.999, "weight_decay": 1e-6, "clip": 0.0, "ema": 0.0, "seed": 10},
    **{"sharp_pairs": 0.0, "synthesize": "none", "synthetic_share": 0.0, "mix": 0.5},
    **{"orientations": "flip", "width": 64, "layers": "official", "encoder_blocks": 8},
    **{"latent_blocks": 10, "decoder_blocks": 30, "frequency_separation": True},
    **{"cross_scale": True, "contrastive_weight": 0.005, "consistency_weight": 0.005},
    **{"positive": "restored", "fixed_references": False, "image_loss": "l1"},
    **{"edge_weight": 0.0, "scales_weight": 0.0, "identity_start": False},
}
MSFS_TEXT: dict[str, Any] = MSFS_PAPER | {
    **{"layers": "paper", "beta2": 0.9, "weight_decay": 0.0, "orientations": "none"},
    "fixed_references": True,
}
MSFS_OFFICIAL: dict[str, Any] = MSFS_PAPER | {
    **{"batch": 2, "iterations": 3000 * 2103 // 2, "halve_every": 500 * 2103 // 2},
    **{"positive": "sharp", "scales_weight": 1.0},
}
MSFS_SMALL: dict[str, Any] = MSFS_PAPER | {
    **{"iterations": 1200, "crop": 128, "learning_rate": 1e-3, "final_learning_rate": 1e-6},
    **{"halve_every": 0, "beta2": 0.99, "weight_decay": 0.0, "ema": 0.98, "width": 16},
    **{"orientations": "all", "encoder_blocks": 2, "latent_blocks": 3, "decoder_blocks": 3},
    **{"fixed_references": True, "identity_start": True},
}
PRESETS = ("paper", "text", "official", "small")
RECIPES: list[tuple[type[Configuration], tuple[dict[str, Any], ...]]] = [
    (ReblurConfiguration, (JOINT_PAPER, JOINT_TEXT, JOINT_OFFICIAL, JOINT_SMALL)),
    (DeblurConfiguration, (DEBLUR_PAPER, DEBLUR_TEXT, DEBLUR_OFFICIAL, DEBLUR_SMALL)),
    (MSFSConfiguration, (MSFS_PAPER, MSFS_TEXT, MSFS_OFFICIAL, MSFS_SMALL)),
]


@pytest.mark.parametrize(("recipe", "presets"), RECIPES)
def test_presets(recipe: type[Configuration], presets: tuple[dict[str, Any], ...]) -> None:
    assert tuple(recipe.presets) == PRESETS
    for name, values in zip(PRESETS, presets, strict=True):
        assert recipe.resolve(name).as_dict() == values
    assert recipe.resolve().as_dict() == presets[0]


def test_what_is_given_wins_over_the_preset() -> None:
    made = ReblurConfiguration.resolve("official", clip=0.0, batch=8, width=None)
    assert (made.clip, made.batch, made.width, made.matching_weight) == (0.0, 8, 64, 10.0)


WRONG: dict[str, Any] = {
    **{"iterations": 0, "batch": 0, "crop": 40, "width": 7, "hidden": 0, "seed": -1, "ema": 1.0},
    **{"beta1": 1.0, "beta2": -0.1, "clip": -0.1, "learning_rate": float("nan")},
    **{"final_learning_rate": float("inf"), "schedule_iterations": -1, "discriminator_width": 0},
    **{"deblur_weight": -1.0, "generator": "triple", "encoder_version": 1},
    **{"injection": "all", "code": "3d", "reblur_loss": "l2"},
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_make_no_sense_are_named(name: str) -> None:
    with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} {WRONG[name]}: "):
        ReblurConfiguration.resolve(**{name: WRONG[name]})


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="--preset tiny: use one of paper, text, official, small"):
        ReblurConfiguration.resolve("tiny")
    with pytest.raises(UsageError, match="unknown options: depth"):
        ReblurConfiguration.resolve(depth=3)


def test_all_layers_of_the_encoder_need_large_crops() -> None:
    with pytest.raises(UsageError, match="--crop 64: --blur-layers all needs at least 128"):
        DeblurConfiguration.resolve("text", crop=64)
    assert DeblurConfiguration.resolve("text", crop=64, blur_weight=0.0).crop == 64
    assert DeblurConfiguration.resolve(crop=64).crop == 64


def test_reblurring_needs_the_degradation() -> None:
    with pytest.raises(UsageError, match="--injection none: train-reblur learns degradations"):
        ReblurConfiguration.resolve(injection="none")
    assert DeblurConfiguration.resolve(injection="none").injection == "none"


def test_a_run_checks_its_own_numbers() -> None:
    for wrong in ({"log_every": 0}, {"validate_every": -1}, {"save_minutes": -1.0}):
        with pytest.raises(UsageError, match="must be at least"):
            Run("x.pt", **wrong)


def test_every_field_says_what_it_is() -> None:
    for recipe, _ in RECIPES:
        assert all(f.metadata["help"].endswith(".") for f in fields(recipe))
