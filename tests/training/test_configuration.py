"""The options of all trainings: defaults, and values that make no sense."""

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

KINDS: tuple[type[Configuration], ...] = (
    *(ReblurConfiguration, DeblurConfiguration, MSFSConfiguration, BGANConfiguration),
    *(DBGANConfiguration, KernelSpaceConfiguration),
)


@pytest.mark.parametrize("kind", KINDS)
def test_the_paper_is_the_default_and_trains_on_its_own_pairs(kind: type[Configuration]) -> None:
    """All other values of presets are in the tables of docs/systems, each with its source."""
    c = kind.resolve()
    assert c == kind.resolve("paper")
    assert (c.sharp_pairs, c.synthesize, c.synthetic_share, c.mix) == (0, "none", 0, 0.5)
    assert all(f.metadata["help"].endswith(".") for f in fields(kind))


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
SCALES_ALONE = {"scales_weight": 1.0, "layers": "paper"}
ALL_LAYERS, TINY = {"preset": "text", "crop": 64}, {"preset": "tiny"}
SENSELESS: list[tuple[type[Configuration], dict[str, Any], str]] = [
    *(
        (ReblurConfiguration, {name: value}, f"^--{name.replace('_', '-')} {value}: ")
        for name, value in WRONG.items()
    ),
    (ReblurConfiguration, {"depth": 3}, "unknown options: depth"),
    (ReblurConfiguration, {"injection": "none"}, "--injection none: train-reblur learns degrad"),
    (ReblurConfiguration, {"synthetic_share": 0.5}, "--synthetic-share requires --synthesize"),
    (ReblurConfiguration, {"synthesize": "camera", "synthetic_share": 1.5}, "and at most 1"),
    (ReblurConfiguration, {"synthesize": "spin"}, "--synthesize spin: use one of none, shake, ca"),
    (MSFSConfiguration, {"width": 7}, "--width 7: must be even"),
    (MSFSConfiguration, {"latent_blocks": 0}, "--latent-blocks 0: must be at least 1"),
    (MSFSConfiguration, SCALES_ALONE, "--scales-weight requires --layers official"),
    (DBGANConfiguration, {"crop": 80}, "--crop 80: the discriminator takes a multiple of 32"),
    (DBGANConfiguration, {"crop": 224}, "--crop 224: the discriminator takes"),
    (DBGANConfiguration, {"mix": 1.5}, "--mix 1.5: must be at least 0 and at most 1"),
    (BGANConfiguration, {"real_share": 2}, "--real-share 2: must be at most 1"),
    (KernelSpaceConfiguration, {"crop": 128}, "--crop 128: codes need a multiple of 128, at leas"),
    (KernelSpaceConfiguration, {"crop": 320}, "--crop 320: codes need"),
    (KernelSpaceConfiguration, {"restarts": "1,x"}, "--restarts 1,x: separate steps by commas"),
    (KernelSpaceConfiguration, {"restarts": "5,3"}, "--restarts 5,3: steps must increase"),
    (ReblurConfiguration, TINY, "--preset tiny: use one of paper, text, official, small"),
    (DeblurConfiguration, ALL_LAYERS, "--crop 64: --blur-layers all needs at least 128"),
]


@pytest.mark.parametrize(("kind", "options", "words"), SENSELESS)
def test_values_that_make_no_sense_are_named(
    kind: type[Configuration], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        kind.resolve(**{"preset": "small"} | options)


def test_what_fits_together() -> None:
    assert DeblurConfiguration.resolve(**ALL_LAYERS, blur_weight=0.0).crop == 64
    assert DeblurConfiguration.resolve(crop=64).crop == 64
    assert DeblurConfiguration.resolve(injection="none").injection == "none"
    assert ReblurConfiguration.resolve("small", synthesize="camera", synthetic_share=1.0)
    assert get_args(get_type_hints(ReblurConfiguration)["synthesize"]) == ("none", *BLUR_KINDS)


def test_a_run_checks_its_own_numbers() -> None:
    for wrong in ({"log_every": 0}, {"validate_every": -1}, {"save_minutes": -1.0}):
        with pytest.raises(UsageError, match="must be at least"):
            Run("x.pt", **wrong)
