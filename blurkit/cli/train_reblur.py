"""`blurkit train-reblur`: learn degradation representations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from blurkit.cli.training import (
    Options,
    check_output,
    option,
    print_dry_run,
    run_training,
    shard_paths,
    training_command,
)
from blurkit.errors import UsageError
from blurkit.training.configuration import Configuration, Run
from blurkit.training.kernel_space_configuration import KernelSpaceConfiguration
from blurkit.training.msdi_configuration import ReblurConfiguration

if TYPE_CHECKING:
    from blurkit.training.recipe import Recipe

FEATURES = option(
    "features", str | None, None, "Feature network file: VGG-19, VGG-11-BN or SqueezeNet."
)


@training_command([ReblurConfiguration, KernelSpaceConfiguration], "enc.pt", [FEATURES])
def train_reblur(reading: Options, overrides: Options, running: Options) -> None:
    """Learn blur: what it is in a pair of images, and how to put it onto another.

    --system msdi: a degradation encoder, a reblurring and a deblurring network and a discriminator,
    stage 1 of MSDI-Net. --system kernel-space: F and G of the encoded blur kernel space, which blur
    by a code and find it. Defaults are the papers'; --preset official is the released code's,
    --preset small trains on a CPU in minutes.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt
    """
    from blurkit.training.estimate import estimate
    from blurkit.training.start import start_training

    run = Run(**running)
    check_output(run)
    configuration: Configuration
    if reading["system"] == "kernel-space":
        from blurkit.training.kernel_space import KernelSpaceRecipe

        if reading["features"]:
            raise UsageError("--features is no option of --system kernel-space")
        configuration = KernelSpaceConfiguration.resolve(reading["preset"], **overrides)
        build: Callable[[], Recipe] = partial(KernelSpaceRecipe, configuration)
    else:
        configuration = ReblurConfiguration.resolve(reading["preset"], **overrides)
        build = _msdi(configuration, reading, run.quiet)
    if reading["dry_run"]:
        print_dry_run(configuration, estimate(build), run.quiet)
        return
    run_training(lambda: start_training(configuration, run, shard_paths(reading), build))


def _msdi(c: ReblurConfiguration, reading: Options, quiet: bool) -> Callable[[], Recipe]:
    """What builds stage 1 of MSDI-Net, its feature network at hand."""
    from blurkit.models.features import FeatureTrunk, find_trunk
    from blurkit.models.trunks import TRUNKS
    from blurkit.reports.progress import say
    from blurkit.training.msdi import ReblurRecipe

    wanted = c.perceptual if c.adversarial and c.perceptual_weight else "none"
    if reading["dry_run"]:
        trunk = find_trunk("none" if wanted == "none" else "auto", reading["features"])
        if wanted == "features" and trunk is None:
            trunk = FeatureTrunk(TRUNKS[0])  # VGG-19, which a run would download
    else:
        trunk = find_trunk(wanted, reading["features"], lambda text: say(text, quiet))
    return partial(ReblurRecipe, c, trunk)
