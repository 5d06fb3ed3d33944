"""`blurkit train-deblur`: learn to remove blur."""

from __future__ import annotations

from blurkit.cli.training import TrainingCommand

train_deblur = TrainingCommand(
    "train-deblur",
    "deblur.pt",
    """Train networks that deblur.

    With --bgan, any of them also trains on the blur of a BGAN. Defaults are the papers' values;
    --preset official uses the released code's, and --preset small trains on a CPU in minutes.

    Examples: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt;
    blurkit train-deblur shards/ --system msfs --preset small -o msfs.pt;
    blurkit train-deblur shards/ --system dbgan --variant plus --bgan bgan.pt -o dbgan.pt
    """,
)
