"""`blurkit train-reblur`: learn blur."""

from __future__ import annotations

from blurkit.cli.training import TrainingCommand

train_reblur = TrainingCommand(
    "train-reblur",
    "enc.pt",
    """Learn blur: find it in pairs, put it onto others, or make new one.

    Defaults are the papers'; --preset official is the released code's, --preset small trains on a
    CPU in minutes.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt;
    blurkit train-reblur shards/ --system bgan --blurry rwbi/ --preset small -o bgan.pt
    """,
)
