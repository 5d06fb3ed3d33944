"""MSDI-Net's Table 4 on real pairs at equal processor time: the full model and its ablations.

    python -m tests.benchmarks.ablations FOLDER [--minutes 12] [--seeds 3] [--width 16]

Every training gets so many minutes of one processor: the seconds of a step are measured first, and
the steps follow from them. It trains on two clips of REDS and scores the frames of a third, in
slices. The widths of modulation and discriminator shrink like that of the U-Nets. The perceptual
loss has VGG-11's features where BLURKIT_FEATURES names no others. FOLDER
keeps every checkpoint, so that a stopped run goes on; a training that was stopped starts anew. The
last lines are the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from blurkit.systems.msdi.config import ReblurConfiguration
from tests.shared import shared_folder


class Variant(NamedTuple):
    """A row of Table 4: the paper's PSNR on GoPro, its encoder, and options of stage 2."""

    paper: float
    encoder: str
    options: tuple[str | int, ...]


ENCODERS: dict[str, tuple[str, ...]] = {
    "full": (),
    "without-reblurring": ("--no-reblurring",),
}
"""The options of stage 1."""

VARIANTS = {
    "full": Variant(33.28, "full", ()),
    "without degradation": Variant(32.81, "full", ("--injection", "none")),
    "without reblurring": Variant(33.09, "without-reblurring", ()),
    "without blur loss": Variant(33.21, "full", ("--blur-weight", 0)),
    "injection at lowest scale": Variant(32.80, "full", ("--injection", "lowest")),
    "concatenation at the input": Variant(32.98, "full", ("--injection", "input")),
    "concatenation at all scales": Variant(33.05, "full", ("--injection", "concat")),
}


def seconds(command: list[str]) -> float:
    """The processor seconds of a command, in its only thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


WHOLE = ReblurConfiguration.resolve("paper")
"""The paper's widths, whose proportions the narrow networks have."""


def prepare_items(folder: Path) -> Path:
    """Prepare the clips of REDS in a folder, unless they are there; the folder of their shards."""
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    os.environ.setdefault("BLURKIT_FEATURES", str(features))
    shards = folder / "shards"
    if not shards.exists():
        reds = shared_folder("data", "BLURKIT_DATA") / "pairs/reds_180p"
        prepare = [sys.executable, "-m", "blurkit", "prepare", reds, "-o", f"{shards}/"]
        subprocess.run(prepare, check=True)
    return shards


def train(output: Path, stage: str, options: list[object], minutes: float) -> int:
    """Train a checkpoint for so many minutes of one processor, unless it exists; its steps."""
    command = [sys.executable, "-m", "blurkit", stage, *map(str, options)]
    command += ["--device", "cpu", "--jobs", "0", "--validate-on", "0", "--force", "-q"]
    if not output.exists():
        trial = [*command, "-o", str(output.with_suffix(".trial.pt")), "--iterations"]
        few, more = (seconds([*trial, str(steps)]) for steps in (2, 8))
        steps = max(1, round(60 * minutes / ((more - few) / 6)))
        partial = output.with_suffix(".partial.pt")
        seconds([*command, "-o", str(partial), "--iterations", str(steps)])
        partial.rename(output)
    log = output.with_suffix(".partial.log.jsonl").read_text().splitlines()
    return int(json.loads(log[-1])["step"])


def score(checkpoint: Path, pairs: Path, protocol: str = "slices") -> float:
    """The mean PSNR (dB) of the frames that a checkpoint restores."""
    deblur = f"{sys.executable} -m blurkit deblur {pairs} -c {checkpoint} -q -o -"
    deblur += f" --protocol {protocol}"
    line = f"{deblur} | {sys.executable} -m blurkit eval - --json -q"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, capture_output=True)
    return float(json.loads(done.stdout.splitlines()[-1])["total"]["psnr"])


def main() -> None:
    """Train and score every variant with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    given = parser.parse_args()
    shards = prepare_items(given.folder)
    common = [shards, "--preset", "paper", "--width", given.width, "--crop", 128, "--batch", 4]
    common += ["--precision", "auto"]
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    steps: dict[str, list[int]] = {name: [] for name in VARIANTS}
    common += ["--hidden", WHOLE.hidden * given.width // WHOLE.width]
    judged = WHOLE.discriminator_width * given.width // WHOLE.width
    for seed in range(1, given.seeds + 1):
        folder = given.folder / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        own = [*common, "--seed", seed]
        for name, changed in ENCODERS.items():
            options = [*own, "--discriminator-width", judged, *changed]
            train(folder / f"enc-{name}.pt", "train-reblur", options, given.minutes)
        for name, variant in VARIANTS.items():
            output = folder / f"{name.replace(' ', '-')}.pt"
            options = [*own, "--encoder", folder / f"enc-{variant.encoder}.pt", *variant.options]
            steps[name].append(train(output, "train-deblur", options, given.minutes))
            found[name].append(score(output, shards / "val-00000.h5"))
            sys.stdout.write(f"seed {seed}, {name}: {found[name][-1]:.3f} dB\n")
            sys.stdout.flush()
    rows = ["| variant | paper, GoPro | here, mean | by seed | steps |", "|---|---:|---:|---|---:|"]
    for name, variant in VARIANTS.items():
        each = ", ".join(f"{value:.2f}" for value in found[name])
        mean, count = statistics.mean(found[name]), round(statistics.mean(steps[name]))
        rows.append(f"| {name} | {variant.paper:.2f} | {mean:.2f} | {each} | {count} |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
