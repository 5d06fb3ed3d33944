"""`blurkit train-reblur`: learn degradation representations."""

from __future__ import annotations

from blurkit.cli.training import (
    Options,
    check_output,
    option,
    print_dry_run,
    run_training,
    shard_paths,
    training_command,
)
from blurkit.training.configuration import ReblurConfiguration, Run

FEATURES = option(
    "features", str | None, None, "Feature network file: VGG-19, VGG-11-BN or SqueezeNet."
)


@training_command(ReblurConfiguration, "enc.pt", [FEATURES])
def train_reblur(reading: Options, overrides: Options, running: Options) -> None:
    """Learn blur, by reblurring and deblurring jointly.

    A degradation encoder, a reblurring and a deblurring network and a discriminator:
    stage 1 of MSDI-Net. Defaults are the paper's; --preset official is the released code's,
    --preset small trains on a CPU in minutes.

    Example: blurkit train-reblur shards/ --preset small -o enc.pt
    """
    from blurkit.models.features import FeatureTrunk, find_trunk
    from blurkit.models.trunks import TRUNKS
    from blurkit.reports.progress import say
    from blurkit.training.estimate import estimate
    from blurkit.training.msdi import ReblurRecipe
    from blurkit.training.start import start_training

    configuration = ReblurConfiguration.resolve(reading["preset"], **overrides)
    run = Run(**running)
    check_output(run)
    perceptual = configuration.adversarial and configuration.perceptual_weight
    wanted = configuration.perceptual if perceptual else "none"
    if reading["dry_run"]:
        trunk = find_trunk("none" if wanted == "none" else "auto", reading["features"])
        if wanted == "features" and trunk is None:
            trunk = FeatureTrunk(TRUNKS[0])  # VGG-19, which a run would download
        print_dry_run(
            configuration, estimate(lambda: ReblurRecipe(configuration, trunk)), run.quiet
        )
        return
    trunk = find_trunk(wanted, reading["features"], lambda text: say(text, run.quiet))
    run_training(
        lambda: start_training(
            configuration, run, shard_paths(reading), lambda: ReblurRecipe(configuration, trunk)
        )
    )
