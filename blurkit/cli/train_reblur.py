"""`blurkit train-reblur`: learn blur."""

from __future__ import annotations

from blurkit.cli.training import (
    Options,
    configurations,
    input_options,
    start_training,
    training_command,
)


@training_command(configurations("train-reblur"), "enc.pt", input_options("train-reblur"))
def train_reblur(inputs: Options, overrides: Options, running: Options) -> None:
    """Learn blur: what it is in a pair of images, how to put it onto another, or to make new one.

    --system msdi: a degradation encoder, a reblurring and a deblurring network and a discriminator,
    stage 1 of MSDI-Net. --system kernel-space: F and G of the encoded blur kernel space, which blur
    by a code and find it. --system bgan: a generator that blurs sharp photos like unrelated blurry
    ones. Defaults are the papers'; --preset official is the released code's, --preset small trains
    on a CPU in minutes.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt;
    blurkit train-reblur shards/ --system bgan --blurry rwbi/ --preset small -o bgan.pt
    """
    start_training("train-reblur", inputs, overrides, running)
