"""The presets against papers and released code, and values that make no sense, of all systems."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from blurkit.errors import UsageError
from blurkit.synthesis import BLUR_KINDS
from blurkit.systems.dbgan.config import BGANConfiguration, DBGANConfiguration
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.training.configuration import Configuration, Run

# The schedule and batch of Section 4.1, the rest as in the released version 1.
PAPER: dict[str, Any] = {
    **{"crop": 256, "learning_rate": 3e-4, "final_learning_rate": 1e-7, "schedule_iterations": 0},
    **{"beta1": 0.9, "beta2": 0.99, "clip": 0.01, "ema": 0.0, "orientations": "all", "seed": 10},
    **{"width": 64, "hidden": 128, "sharp_pairs": 0.0, "synthesize": "none", "mix": 0.5},
    **{"modulation": "official", "inject_stages": "first", "inject_bottleneck": False},
    **{"identity_start": False, "injection": "multi-scale"},
    **{"generator": "stacked", "unshuffle": 1, "synthetic_share": 0.0},
}
# Sections 3.1 to 3.3 to the letter.
TEXT: dict[str, Any] = {
    **{"modulation": "paper", "inject_stages": "both", "inject_bottleneck": True, "clip": 0.0}
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
# Section 4.2 of DBGAN, with the numbers of steps and the sizes as in docs/systems/dbgan.md.
ADVERSARIAL: dict[str, Any] = {
    **{"iterations": 300_000, "batch": 4, "crop": 128, "learning_rate": 1e-4},
    **{"final_learning_rate": 1e-6, "schedule_iterations": 0, "beta1": 0.9, "beta2": 0.999},
    **{"clip": 0.0, "ema": 0.0, "sharp_pairs": 0.0, "synthesize": "none", "synthetic_share": 0.0},
    **{"mix": 0.5, "orientations": "flip", "width": 64, "seed": 10, "initial_weights": "normal"},
    **{"initial_deviation": 0.01, "discriminator": "vgg", "discriminator_width": 64},
    **{"perceptual": "features", "perceptual_weight": 1.0, "adversarial_weight": 0.01},
    **{"content_loss": "l2", "content_weight": 0.005},
}
BGAN_PAPER = ADVERSARIAL | {
    **{"content_weight": 0.0, "content_crops": "all", "blocks": 9, "noise_length": 4},
    **{"noise_tries": 1, "warm_up": 100_000, "real_share": 0.5},
}
DBGAN_PAPER = ADVERSARIAL | {
    **{"variant": "plain", "traditional_loss": "vanilla", "blocks": 16, "growth": 32}
}
RELEASED = {"orientations": "all", "initial_weights": "kaiming"}
RECIPES: list[tuple[type[Configuration], dict[str, dict[str, Any]]]] = [
    (ReblurConfiguration, {"paper": JOINT_PAPER, "text": JOINT_TEXT, "official": JOINT_OFFICIAL}),
    (
        DeblurConfiguration,
        {"paper": DEBLUR_PAPER, "text": DEBLUR_TEXT, "official": DEBLUR_OFFICIAL},
    ),
    (MSFSConfiguration, {"paper": MSFS_PAPER, "text": MSFS_TEXT, "official": MSFS_OFFICIAL}),
    (BGANConfiguration, {"paper": BGAN_PAPER, "official": BGAN_PAPER | RELEASED}),
    (DBGANConfiguration, {"paper": DBGAN_PAPER, "official": DBGAN_PAPER | RELEASED}),
]
"""All presets but `small`, whose values are our own."""


@pytest.mark.parametrize(("recipe", "presets"), RECIPES)
def test_presets(recipe: type[Configuration], presets: dict[str, dict[str, Any]]) -> None:
    assert tuple(recipe.presets) == (*presets, "small")
    for name, values in presets.items():
        assert recipe.resolve(name).as_dict() == values
    assert recipe.resolve().as_dict() == presets["paper"]


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
SENSELESS: list[tuple[type[Configuration], dict[str, Any], str]] = [
    *(
        (ReblurConfiguration, {name: value}, f"^--{name.replace('_', '-')} {value}: ")
        for name, value in WRONG.items()
    ),
    (ReblurConfiguration, {"depth": 3}, "unknown options: depth"),
    (ReblurConfiguration, {"injection": "none"}, "--injection none: train-reblur learns degrad"),
    (ReblurConfiguration, {"synthetic_share": 0.5}, "--synthetic-share requires --synthesize"),
    (ReblurConfiguration, {"synthesize": "camera", "synthetic_share": 1.5}, "must be at most 1"),
    (ReblurConfiguration, {"synthesize": "spin"}, "--synthesize spin: use one of none, shake, ca"),
    (MSFSConfiguration, {"width": 7}, "--width 7: must be even"),
    (MSFSConfiguration, {"latent_blocks": 0}, "--latent-blocks 0: must be at least 1"),
    (
        MSFSConfiguration,
        {"scales_weight": 1.0, "layers": "paper"},
        "--scales-weight requires --layers official",
    ),
    (DBGANConfiguration, {"crop": 80}, "--crop 80: the discriminator takes a multiple of 32"),
    (DBGANConfiguration, {"crop": 224}, "--crop 224: the discriminator takes"),
    (DBGANConfiguration, {"mix": 1.5}, "--mix 1.5: must be at most 1"),
    (BGANConfiguration, {"real_share": 2}, "--real-share 2: must be at most 1"),
    (KernelSpaceConfiguration, {"crop": 128}, "--crop 128: codes need a multiple of 128, at leas"),
    (KernelSpaceConfiguration, {"crop": 320}, "--crop 320: codes need"),
    (KernelSpaceConfiguration, {"restarts": "1,x"}, "--restarts 1,x: separate steps by commas"),
    (KernelSpaceConfiguration, {"restarts": "5,3"}, "--restarts 5,3: steps must increase"),
]


@pytest.mark.parametrize(("kind", "options", "words"), SENSELESS)
def test_values_that_make_no_sense_are_named(
    kind: type[Configuration], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        kind.resolve("small", **options)


def test_unknown_presets() -> None:
    with pytest.raises(UsageError, match="--preset tiny: use one of paper, text, official, small"):
        ReblurConfiguration.resolve("tiny")


def test_all_layers_of_the_encoder_need_large_crops() -> None:
    with pytest.raises(UsageError, match="--crop 64: --blur-layers all needs at least 128"):
        DeblurConfiguration.resolve("text", crop=64)
    assert DeblurConfiguration.resolve("text", crop=64, blur_weight=0.0).crop == 64
    assert DeblurConfiguration.resolve(crop=64).crop == 64


def test_what_fits_together() -> None:
    assert DeblurConfiguration.resolve(injection="none").injection == "none"
    assert ReblurConfiguration.resolve("small", synthesize="camera", synthetic_share=1.0)
    assert get_args(get_type_hints(ReblurConfiguration)["synthesize"]) == ("none", *BLUR_KINDS)


def test_a_run_checks_its_own_numbers() -> None:
    for wrong in ({"log_every": 0}, {"validate_every": -1}, {"save_minutes": -1.0}):
        with pytest.raises(UsageError, match="must be at least"):
            Run("x.pt", **wrong)


def test_every_field_says_what_it_is() -> None:
    for recipe, _ in RECIPES:
        assert all(f.metadata["help"].endswith(".") for f in fields(recipe))
