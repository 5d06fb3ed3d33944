"""`blurkit train-deblur`: learn to remove blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from blurkit.cli.training import (
    FEATURES,
    Options,
    check_output,
    pre_activation_trunk,
    print_dry_run,
    refuse_options,
    run_training,
    shard_paths,
    training_command,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.options import option
from blurkit.systems.dbgan.config import DBGANConfiguration
from blurkit.systems.msdi.config import DeblurConfiguration
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.training.configuration import Configuration, Run

if TYPE_CHECKING:
    from blurkit.training.recipe import Recipe


@dataclass(frozen=True)
class Inputs:
    """The files that trainings read beside their shards."""

    encoder: tuple[str, ...] = option(
        (),
        "Checkpoint with encoder and latents, from train-reblur; several files add up. With "
        "--injection none it is for the blur-aware loss alone.",
    )
    blur_encoder: str | None = option(
        None, "Another encoder for the blur-aware loss (released v2)."
    )
    features: str | None = FEATURES


@training_command("train-deblur", "deblur.pt", Inputs)
def train_deblur(reading: Options, overrides: Options, running: Options) -> None:
    """Learn to deblur.

    With --bgan, each of them learns from the blur of a BGAN too. Defaults are the papers'; --preset
    official is the released code's, --preset small trains on a CPU in minutes.

    Examples: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt;
    blurkit train-deblur shards/ --system msfs --preset small -o msfs.pt;
    blurkit train-deblur shards/ --system dbgan --variant plus --bgan bgan.pt -o dbgan.pt
    """
    from blurkit.training.estimate import estimate
    from blurkit.training.start import start_training

    run = Run(**running)
    check_output(run)
    configuration: Configuration
    build: Callable[[], Recipe]
    if reading["system"] != "msdi":
        refuse_options(reading, ["encoder", "blur_encoder"])
    if reading["system"] != "dbgan":
        refuse_options(reading, ["features"])
    if reading["system"] == "msfs":
        from blurkit.systems.msfs.recipe import MSFSRecipe

        configuration = MSFSConfiguration.resolve(reading["preset"], **overrides)
        build = partial(MSFSRecipe, configuration)
    elif reading["system"] == "dbgan":
        from blurkit.systems.dbgan.recipe import DBGANRecipe

        configuration = DBGANConfiguration.resolve(reading["preset"], **overrides)
        if (configuration.variant == "plus") != bool(run.bgan):
            raise UsageError("--variant plus and --bgan FILE go together with --system dbgan")
        trunk = pre_activation_trunk(configuration, reading, run.quiet)
        build = partial(DBGANRecipe, configuration, trunk)
    else:
        configuration, build = _msdi(reading, overrides)
    if reading["dry_run"]:
        print_dry_run(configuration, estimate(build), run.quiet)
        return
    run_training(lambda: start_training(configuration, run, shard_paths(reading), build))


def _msdi(reading: Options, overrides: Options) -> tuple[DeblurConfiguration, Callable[[], Recipe]]:
    """Stage 2 of MSDI-Net, the networks of stage 1 at hand."""
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.systems.msdi.networks import PriorUpsampling
    from blurkit.systems.msdi.recipe import DeblurRecipe
    from blurkit.systems.roles import held, load_networks

    files = reading["encoder"]
    if not files and overrides["injection"] != "none":
        raise UsageError("--encoder FILE: name the checkpoint that train-reblur wrote")
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
    return configuration, partial(DeblurRecipe, configuration, pretrained, ", ".join(files))
