"""`blurkit train-deblur`: learn to remove blur with a trained encoder."""

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
from blurkit.errors import BlurkitError, UsageError
from blurkit.training.configuration import Run
from blurkit.training.msdi_configuration import DeblurConfiguration

ENCODER = option(
    "encoder",
    list[str],
    [],
    "Checkpoint with encoder and latents, from train-reblur; several files add up. With "
    "--injection none it is for the blur-aware loss alone.",
)
BLUR_ENCODER = option(
    "blur_encoder", str | None, None, "Another encoder for the blur-aware loss (released v2)."
)


@training_command([DeblurConfiguration], "deblur.pt", [ENCODER, BLUR_ENCODER])
def train_deblur(reading: Options, overrides: Options, running: Options) -> None:
    """Learn to deblur, steered by a trained encoder.

    Stage 2 of MSDI-Net. Defaults are the paper's; --preset official is the released code's,
    --preset small trains on a CPU in minutes. Widths are the encoder's.

    Example: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt
    """
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.models.msdi import PriorUpsampling
    from blurkit.models.roles import held, load_networks
    from blurkit.training.estimate import estimate
    from blurkit.training.msdi import DeblurRecipe
    from blurkit.training.start import start_training

    files = reading["encoder"]
    if not files and overrides["injection"] != "none":
        raise UsageError("--encoder FILE: name the checkpoint that train-reblur wrote")
    run = Run(**running)
    check_output(run)
    pretrained = load_networks(*map(load_checkpoint, files))
    if reading["blur_encoder"]:
        other = load_networks(load_checkpoint(reading["blur_encoder"]))
        encoder = other.get("blur_encoder", other.get("encoder"))
        if encoder is None:
            raise BlurkitError(f"{reading['blur_encoder']}: holds {held(other)}, but no encoder")
        pretrained["blur_encoder"] = encoder
    latents = pretrained.get("latents")
    if overrides["width"] is None and isinstance(latents, PriorUpsampling):
        overrides["width"] = latents.options["width"]
    configuration = DeblurConfiguration.resolve(reading["preset"], **overrides)
    where = ", ".join(files)
    if reading["dry_run"]:
        needs = estimate(lambda: DeblurRecipe(configuration, pretrained, where))
        print_dry_run(configuration, needs, run.quiet)
        return
    run_training(
        lambda: start_training(
            configuration,
            run,
            shard_paths(reading),
            lambda: DeblurRecipe(configuration, pretrained, where),
        )
    )
