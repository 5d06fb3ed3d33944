"""DBGAN's three variants (Section 4.3) on real pairs with several seeds, at equal numbers of steps.

    python -m tests.benchmarks.variants FOLDER [--steps 1200] [--seeds 3] [--write]

DBGAN(+) is DBGAN after half the steps, trained for the other half with blur of a BGAN, which all
seeds share and which is trained for as many steps. It trains by `--preset small` on the pairs of
GoPro and REDS that training may use, the BGAN also on the photos of ../shared/data/real_blur, and
scores whole frames of another clip of REDS. The perceptual loss has VGG-11's features where
BLURKIT_FEATURES names no others. FOLDER keeps every checkpoint and state, so that a run that was
stopped continues; options after `--` go to the trainings of DBGAN. `--write` puts the table into
docs/benchmarks.md.
"""

from functools import partial
from pathlib import Path
from statistics import fmean, stdev

from blurkit.data.sources import read_records
from blurkit.metrics.psnr import psnr
from tests.benchmarks import bgan, pages
from tests.benchmarks.ablations import score

VARIANTS = {"minus": ("DBGAN(-)", ""), "plain": ("DBGAN", "30.43"), "plus": ("DBGAN(+)", "31.10")}
"""By the name of the checkpoint, a row of the table: its name and the paper's PSNR on GoPro."""


def train(folder: Path, output: Path, steps: int, command: str, *options: object) -> None:
    """Train a checkpoint of `--preset small` for some steps, unless it exists."""
    shards = folder / "shards"
    bgan.train(output, command, shards, "--preset", "small", "--iterations", steps, *options)


def train_variants(folder: Path, seed: int, steps: int, options: list[str]) -> Path:
    """Train all variants with a seed; return the folder of their checkpoints."""
    own = folder / f"seed{seed}-{steps}"
    half = steps // 2
    common = ("--system", "dbgan", "--seed", seed, *options)
    dbgan = partial(train, folder)
    dbgan(own / "minus.pt", steps, "train-deblur", *common, "--variant", "minus")
    dbgan(own / "plain.pt", steps, "train-deblur", *common)
    dbgan(own / "half.pt", half, "train-deblur", *common)
    plus = ("--variant", "plus", "--bgan", folder / f"bgan-{steps}.pt", "--start", own / "half.pt")
    dbgan(own / "plus.pt", steps - half, "train-deblur", *common, *plus)
    return own


def table(found: dict[str, list[float]], blurry: float) -> str:
    """Return the table: each variant's scores by seed, and how they differ from DBGAN's."""
    rows = [("blurry", "", f"{blurry:.2f}", "", "", "")]
    for file, (name, paper) in VARIANTS.items():
        values, against = found[file], ""
        if file != "plain":
            differences = [a - b for a, b in zip(values, found["plain"], strict=True)]
            least, most = min(differences), max(differences)
            against = f"{fmean(differences):+.2f} ({least:+.2f} to {most:+.2f})"
        each = ", ".join(f"{value:.2f}" for value in values)
        deviation = f"{stdev(values):.2f}" if len(values) > 1 else ""
        rows.append((name, paper, f"{fmean(values):.2f}", each, deviation, against))
    head = ("variant", "paper, GoPro", "mean, dB", "by seed", "deviation", "against DBGAN")
    return pages.table(head, rows)


def main() -> None:
    parser = pages.options(__doc__, steps=1200, seeds=3)
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", nargs="*")
    o = parser.parse_args()
    bgan.prepare(o.folder)
    own = ("--system", "bgan", "--blurry", o.folder / "blurry", "--warm-up", o.steps // 2)
    train(o.folder, o.folder / f"bgan-{o.steps}.pt", o.steps, "train-reblur", *own)
    found: dict[str, list[float]] = {file: [] for file in VARIANTS}
    pairs = o.folder / "measured.h5"
    for seed in range(1, o.seeds + 1):
        folder = train_variants(o.folder, seed, o.steps, o.options)
        for file, (name, _) in VARIANTS.items():
            found[file].append(score(folder / f"{file}.pt", pairs, "whole"))
            pages.tell(f"seed {seed}, {name}: {found[file][-1]:.3f} dB")
    blurry = fmean(psnr(r.image("blur"), r.image("sharp")) for r in read_records([pairs]))
    text = f"{o.steps} steps:\n\n{table(found, blurry)}"
    pages.tell(text)
    if o.write:
        pages.fill("variants", text)


if __name__ == "__main__":
    main()
