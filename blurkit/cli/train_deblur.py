"""`blurkit train-deblur`: learn to remove blur."""

from __future__ import annotations

from blurkit.cli.training import (
    Options,
    configurations,
    input_options,
    start_training,
    training_command,
)


@training_command(configurations("train-deblur"), "deblur.pt", input_options("train-deblur"))
def train_deblur(inputs: Options, overrides: Options, running: Options) -> None:
    """Learn to deblur.

    --system msdi: stage 2 of MSDI-Net, steered by the encoder of train-reblur, whose widths it
    takes. --system msfs: MSFS-Net, which parts frequencies and needs no encoder. --system dbgan:
    DBGAN, against a discriminator of sharp photos. With --bgan, each of them learns from the blur
    of a BGAN too. Defaults are the papers'; --preset official is the released code's, --preset
    small trains on a CPU in minutes.

    Examples: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt;
    blurkit train-deblur shards/ --system msfs --preset small -o msfs.pt;
    blurkit train-deblur shards/ --system dbgan --variant plus --bgan bgan.pt -o dbgan.pt
    """
    start_training("train-deblur", inputs, overrides, running)
