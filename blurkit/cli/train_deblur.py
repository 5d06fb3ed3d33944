"""`blurkit train-deblur`: learn to remove blur."""

from __future__ import annotations

from blurkit.cli.training import TrainingCommand

train_deblur = TrainingCommand(
    "train-deblur",
    "deblur.pt",
    """Learn to deblur.

    With --bgan, each of them learns from the blur of a BGAN too. Defaults are the papers'; --preset
    official is the released code's, --preset small trains on a CPU in minutes.

    Examples: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt;
    blurkit train-deblur shards/ --system msfs --preset small -o msfs.pt;
    blurkit train-deblur shards/ --system dbgan --variant plus --bgan bgan.pt -o dbgan.pt
    """,
)
