"""Trainings on real pairs at equal processor time: MSDI-Net's Table 4, and networks by system.

    python -m tests.benchmarks.ablations FOLDER [--minutes 12] [--seeds 3] [--width 16]
    --backbones      NAFNet, MSDI-Net and MSFS-Net by their small presets instead

Every training gets so many minutes of one processor: the seconds of a step are measured first, and
the steps follow from them; networks that an encoder conditions have it trained for as long before.
It trains on two clips of REDS and scores the frames of a third. The widths of modulation and
discriminator shrink like that of the U-Nets. The perceptual loss has VGG-11's features where
BLURKIT_FEATURES names no others. FOLDER keeps every checkpoint, so that a stopped run goes on; a
training that was stopped starts anew. The last lines are the table of docs/benchmarks.md.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from blurkit.systems.msdi.config import ReblurConfiguration
from tests.benchmarks import pages
from tests.shared import shared_folder, vgg11


class Variant(NamedTuple):
    """A row: the paper's PSNR on GoPro, its encoder, options of stage 2, and how it is scored.

    Each network restores photos of 320x180 by the protocol that it was published with.
    """

    paper: str
    encoder: str | None
    options: tuple[str | int, ...]
    protocol: str = "slices"


ENCODERS: dict[str, tuple[str, ...]] = {"full": (), "without-reblurring": ("--no-reblurring",)}
"""The options of stage 1."""

VARIANTS = {
    "full": Variant("33.28", "full", ()),
    "without degradation": Variant("32.81", "full", ("--injection", "none")),
    "without reblurring": Variant("33.09", "without-reblurring", ()),
    "without blur loss": Variant("33.21", "full", ("--blur-weight", 0)),
    "injection at lowest scale": Variant("32.80", "full", ("--injection", "lowest")),
    "concatenation at the input": Variant("32.98", "full", ("--injection", "input")),
    "concatenation at all scales": Variant("33.05", "full", ("--injection", "concat")),
}

BACKBONES = {
    "NAFNet": Variant("", None, ("--system", "nafnet"), "local"),
    "NAFNet with MSDI-Net's encoder": Variant("", "small", ("--system", "nafnet"), "local"),
    "MSDI-Net": Variant("", "small", ("--system", "msdi")),
    "MSFS-Net": Variant("", None, ("--system", "msfs"), "local"),
}


def seconds(command: list[str]) -> float:
    """The processor seconds of a command, in its only thread."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare_items(folder: Path) -> Path:
    """Prepare the clips of REDS in a folder, unless they are there; the folder of their shards."""
    os.environ.setdefault("BLURKIT_FEATURES", str(vgg11()))
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


def score(checkpoint: Path, pairs: Path, protocol: str) -> float:
    """The mean PSNR (dB) of the frames that a checkpoint restores."""
    deblur = f"{sys.executable} -m blurkit deblur {pairs} -c {checkpoint} -q -o -"
    deblur += f" --protocol {protocol}"
    line = f"{deblur} | {sys.executable} -m blurkit eval - --json -q"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, capture_output=True)
    return float(json.loads(done.stdout.splitlines()[-1])["total"]["psnr"])


def train_seed(
    folder: Path,
    encoders: Mapping[str, list[object]],
    variants: Mapping[str, Variant],
    common: list[object],
    minutes: float,
) -> dict[str, tuple[float, int]]:
    """Train and score every variant in a folder; return its PSNR (dB) and steps.

    `encoders` are all options of stage 1, `common` those of stage 2 that the variants share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, options in encoders.items():
        train(folder / f"enc-{name}.pt", "train-reblur", options, minutes)
    for name, variant in variants.items():
        output = folder / f"{name.replace(' ', '-')}.pt"
        encoder = ["--encoder", folder / f"enc-{variant.encoder}.pt"] if variant.encoder else []
        steps = train(output, "train-deblur", [*common, *encoder, *variant.options], minutes)
        found[name] = score(output, folder.parent / "shards/val-00000.h5", variant.protocol), steps
        pages.tell(f"{folder.name}, {name}: {found[name][0]:.3f} dB")
    return found


def main() -> None:
    parser = pages.options(__doc__, write=False, minutes=12.0, seeds=3, width=16)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbones", action="store_true", help="compare networks by system")
    o = parser.parse_args()
    shards = prepare_items(o.folder)
    found = []
    for seed in range(1, o.seeds + 1):
        own = [shards, "--seed", seed, "--preset"]
        if o.backbones:
            own, variants = [*own, "small"], BACKBONES
            encoders = {"small": own}
        else:
            whole = ReblurConfiguration.resolve("paper")  # whose proportions narrow networks have
            own += ["paper", "--width", o.width, "--hidden", whole.hidden * o.width // whole.width]
            own += ["--crop", 128, "--batch", 4, "--precision", "auto"]
            judged = whole.discriminator_width * o.width // whole.width
            stage_1 = [*own, "--discriminator-width", judged]
            encoders, variants = {n: [*stage_1, *e] for n, e in ENCODERS.items()}, VARIANTS
        found.append(train_seed(o.folder / f"seed{seed}", encoders, variants, own, o.minutes))
    rows = []
    for name, variant in (BACKBONES if o.backbones else VARIANTS).items():
        values, steps = zip(*(of_seed[name] for of_seed in found), strict=True)
        each = ", ".join(f"{value:.2f}" for value in values)
        mean = f"{statistics.mean(values):.2f}"
        rows.append((name, variant.paper, mean, each, round(statistics.mean(steps))))
    pages.tell(pages.table(("variant", "paper, GoPro", "here, mean", "by seed", "steps"), rows))


if __name__ == "__main__":
    main()
