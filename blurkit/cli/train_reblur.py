"""`blurkit train-reblur`: learn blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from blurkit.cli.training import (
    FEATURES,
    Options,
    check_output,
    perceptual_trunk,
    pre_activation_trunk,
    print_dry_run,
    refuse_options,
    run_training,
    shard_paths,
    training_command,
)
from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.systems.dbgan.config import BGANConfiguration
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.msdi.config import ReblurConfiguration
from blurkit.training.configuration import Configuration, Run

if TYPE_CHECKING:
    from blurkit.training.recipe import Recipe


@dataclass(frozen=True)
class Inputs:
    """The files that trainings read beside their shards."""

    features: str | None = FEATURES
    blurry: tuple[str, ...] = option(
        (),
        "Shards of blurry photos, or folders of them, whose blur --system bgan is to learn; they "
        "need not show what the sharp ones show.",
    )


@training_command("train-reblur", "enc.pt", Inputs)
def train_reblur(reading: Options, overrides: Options, running: Options) -> None:
    """Learn blur: find it in pairs, put it onto others, or make new one.

    Defaults are the papers'; --preset official is the released code's, --preset small trains on a
    CPU in minutes.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt;
    blurkit train-reblur shards/ --system bgan --blurry rwbi/ --preset small -o bgan.pt
    """
    from blurkit.training.estimate import estimate
    from blurkit.training.start import start_training

    run = Run(**running)
    check_output(run)
    configuration: Configuration
    build: Callable[[], Recipe]
    photos = [Path(path) for path in reading["blurry"]]
    if reading["system"] != "bgan":
        refuse_options(reading, ["blurry"])
    if reading["system"] == "kernel-space":
        from blurkit.systems.kernel_space.recipe import KernelSpaceRecipe

        refuse_options(reading, ["features"])
        configuration = KernelSpaceConfiguration.resolve(reading["preset"], **overrides)
        build = partial(KernelSpaceRecipe, configuration)
    elif reading["system"] == "bgan":
        from blurkit.systems.dbgan.recipe import BGANRecipe

        configuration = BGANConfiguration.resolve(reading["preset"], **overrides)
        _check_photos(configuration, run, photos)
        trunk = pre_activation_trunk(configuration, reading, run.quiet)
        build = partial(BGANRecipe, configuration, trunk)
    else:
        configuration = ReblurConfiguration.resolve(reading["preset"], **overrides)
        build = _msdi(configuration, reading, run.quiet)
    if reading["dry_run"]:
        print_dry_run(configuration, estimate(build), run.quiet)
        return
    run_training(lambda: start_training(configuration, run, shard_paths(reading), build, photos))


def _msdi(c: ReblurConfiguration, reading: Options, quiet: bool) -> Callable[[], Recipe]:
    """What builds stage 1 of MSDI-Net, its feature network at hand."""
    from blurkit.systems.msdi.recipe import ReblurRecipe

    wanted = c.perceptual if c.adversarial and c.perceptual_weight else "none"
    return partial(ReblurRecipe, c, perceptual_trunk(wanted, reading, quiet))


def _check_photos(c: BGANConfiguration, run: Run, photos: list[Path]) -> None:
    """Raises UsageError where photos are missing, or of no use."""
    if run.bgan:
        raise UsageError("--bgan is no option of --system bgan")
    only_own = c.warm_up >= c.iterations or c.real_share == 0
    if not photos and not only_own:
        raise UsageError(
            "--blurry SHARDS: name the blurry photos to learn from (blurkit prepare photos/ -o "
            "blurry/), or give --real-share 0 to learn the records' own blur alone"
        )
    if photos and only_own:
        raise UsageError("--blurry: never used, with --real-share 0 or so long a --warm-up")
