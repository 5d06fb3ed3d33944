"""`blurkit train-reblur`: learn to find, transfer or generate blur."""

from __future__ import annotations

from blurkit.cli.training import TrainingCommand

train_reblur = TrainingCommand(
    "train-reblur",
    "enc.pt",
    """Train networks that find, transfer or generate blur.

    Defaults are the papers' values; --preset official uses the released code's, and --preset small
    trains on a CPU in minutes.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt;
    blurkit train-reblur shards/ --system bgan --blurry rwbi/ --preset small -o bgan.pt
    """,
)
