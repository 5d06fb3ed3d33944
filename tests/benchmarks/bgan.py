"""What it takes for BGAN to blur: the paper's recipe with each remedy, all, and all but one.

    python -m tests.benchmarks.bgan FOLDER [--steps 500] [--width 64] [--blocks 9] [--crop 128]
    --only NAME      one recipe instead of all
    --prepare        only write the data to FOLDER, for a machine that has no ../shared
    --write          also put the figures into docs/benchmarks/bgan.json and docs/benchmarks.md

It trains on the pairs of GoPro and REDS that training may use and on the photos of
../shared/data/real_blur, and measures on frames of another clip of REDS. The perceptual loss has
VGG-11's features where BLURKIT_FEATURES names no others. FOLDER keeps checkpoints and figures, so
that a run that was stopped continues. A CPU needs `--width 16 --blocks 3 --crop 64`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from statistics import fmean, median

import numpy as np
import scipy.linalg
import torch

from blurkit.api import write_records
from blurkit.data.sources import read_records
from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.records import Image, to_float
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.reports.values import to_json
from blurkit.systems.dbgan.inference import NoisyBlur
from blurkit.systems.uses import network_for
from tests.benchmarks import pages
from tests.benchmarks.real_pairs import TRAINED_ON, held_out, trained_on
from tests.shared import shared_folder, vgg11

MEASURED = "reds_180p"
DRAWS = 8
"""The noise vectors with which every frame is blurred."""

REMEDIES = {
    "learning rate 0.001": ("--learning-rate", "0.001"),
    "PyTorch's initial weights": ("--initial-deviation", "0"),
    "content of pairs": ("--content-weight", "100", "--content-crops", "paired"),
    "means of others held": ("--content-weight", "100", "--content-crops", "unpaired"),
    "best of six noises": ("--noise-tries", "6"),
    "weights of the losses": ("--perceptual-weight", "0.1", "--adversarial-weight", "0.05"),
}
"""What `--preset small` changes, but for sizes and averaged weights, by what it does."""

BOTH_CONTENTS = ("--content-crops", "all")

Numbers = dict[str, float]


def options_of(*remedies: str) -> list[str]:
    """Return the options of some remedies; the two of the content loss together compare all."""
    options = [value for name in remedies for value in REMEDIES[name]]
    contents = [name for name in remedies if "--content-crops" in REMEDIES[name]]
    return [*options, *(BOTH_CONTENTS if len(contents) == 2 else ())]


def recipes() -> dict[str, list[str]]:
    """Return the options of every row of the table."""
    alone = {name: options_of(name) for name in REMEDIES}
    without = {f"all but {n}": options_of(*(o for o in REMEDIES if o != n)) for n in REMEDIES}
    return {"as in the paper": [], **alone, "all": options_of(*REMEDIES), **without}


def prepare(folder: Path) -> None:
    """Write the pairs to train on and those to measure on, unrelated blurry photos, and features.

    The features of the perceptual loss are these, unless BLURKIT_FEATURES names others.
    """
    os.environ.setdefault("BLURKIT_FEATURES", str(folder / "features.safetensors"))
    if (folder / "blurry").exists():
        return
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    for name in TRAINED_ON:
        write_records(trained_on(name), folder / "shards" / f"train-{name}.h5", force=True)
    write_records(held_out(MEASURED), folder / "measured.h5", force=True)
    shutil.copyfile(vgg11(), folder / "features.safetensors")
    photos = shared_folder("data", "BLURKIT_DATA") / "real_blur"
    blurkit("prepare", photos, "--as", "blur", "--compress", "-o", f"{folder}/blurry/", "-q")


def blurkit(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "blurkit", *map(str, arguments)], check=True)


def train(output: Path, command: str, *options: object) -> None:
    """Train a checkpoint, unless it exists; continue if its state is there."""
    if output.exists():
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if output.with_suffix(".state.pt").exists() else []
    blurkit(command, *options, "--validate-on", 0, "-q", *resume, "-o", output)


def train_recipe(output: Path, o: argparse.Namespace, options: list[str]) -> None:
    """Train a BGAN by the paper's recipe and some options."""
    command = ["train-reblur", o.folder / "shards", "--system", "bgan", "--preset", "paper"]
    command += ["--width", o.width, "--blocks", o.blocks, "--crop", o.crop]
    command += ["--discriminator-width", o.width, "--blurry", o.folder / "blurry"]
    command += ["--iterations", o.steps, "--seed", o.seed, "--warm-up", o.steps // 2]
    train(output, *command, "--device", o.device, *options)


# -- measuring -------------------------------------------------------------------------------------


def kept(made: Image, sharp: Image) -> tuple[float, float, float]:
    """Return how much of its gradient energy a photo keeps along its blur and across it.

    The third value is the direction of the blur in radians, in (-pi/2, pi/2], from the x axis
    towards larger y. Along it the quotient of the energies of `made` and `sharp` (H, W, 3) is
    least: these are the generalised eigenvalues of their two structure tensors. Both are 1 where
    nothing is blurred, and above 1 where detail is added.
    """
    energies, directions = scipy.linalg.eigh(structure(made), structure(sharp))
    x, y = directions[:, 0]
    return float(energies[0]), float(energies[1]), float(np.arctan(y / x) if x else np.pi / 2)


def structure(image: Image) -> np.ndarray:
    """Return the mean products (2, 2) of the horizontal and the vertical derivative of an image."""
    gray = to_float(image).astype(np.float64).mean(axis=2)
    derivatives = np.stack([np.diff(gray, axis=1)[:-1], np.diff(gray, axis=0)[:, :-1]])
    products = np.einsum("ihw,jhw->ij", derivatives, derivatives) / derivatives[0].size
    return products + 1e-8 * np.eye(2)


def spread(angles: list[float]) -> float:
    """Return how far directions differ: 0 if all are the same, 1 if they cancel out."""
    return float(1 - abs(np.exp(2j * np.array(angles)).mean()))


@torch.inference_mode()
def draws(drawer: NoisyBlur, sharp: Image, seed: int, device: str) -> Iterator[Image]:
    """Yield the blurry images of a photo by different noise vectors, 8 bits."""
    photo = torch.from_numpy(to_float(sharp)).permute(2, 0, 1)[None].to(device)
    generator = np.random.default_rng(seed)
    for _ in range(DRAWS):
        noise = drawer.drawn(sharp, generator, 1.0)["noise"].to(device)
        made = drawer(photo, noise)[0].float().clamp(0, 1)
        yield eight_bit(made.permute(1, 2, 0).cpu().numpy())


def measure(checkpoint: Path, pairs: Path, device: str) -> Numbers:
    """Measure the blur that a BGAN gives to frames it has not seen."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    drawer = network_for("noise", load_checkpoint(checkpoint)).eval().to(device)
    rows = []
    for seed, record in enumerate(read_records([pairs])):
        sharp, blur = record.image("sharp"), record.image("blur")
        made = list(draws(drawer, sharp, seed, device))
        along, across, angles = zip(*(kept(image, sharp) for image in made), strict=True)
        row = {"between": fmean(psnr(a, b) for a, b in combinations(made, 2))}
        row["to_photo"] = fmean(psnr(image, sharp) for image in made)
        row |= {"along": median(along), "across": median(across), "spread": spread(list(angles))}
        row["nearest"] = max(psnr(image, blur) for image in made) - psnr(sharp, blur)
        rows.append(row)
    return {name: fmean(row[name] for row in rows) for name in rows[0]}


def real(pairs: Path) -> Numbers:
    """Measure the frames' real blur alike; its directions are those of the different frames."""
    records = list(read_records([pairs]))
    measured = (kept(r.image("blur"), r.image("sharp")) for r in records)
    along, across, angles = zip(*measured, strict=True)
    to_photo = fmean(psnr(r.image("blur"), r.image("sharp")) for r in records)
    means = {"to_photo": to_photo, "along": fmean(along), "across": fmean(across)}
    return means | {"spread": spread(list(angles))}


# -- the table -------------------------------------------------------------------------------------

COLUMNS = {
    **{"between": "two draws, dB", "to_photo": "draw and photo, dB", "along": "energy kept along"},
    **{"across": "across", "spread": "spread of directions", "nearest": "nearest draw, dB"},
}


def table(figures: Mapping[str, Numbers]) -> str:
    rows = []
    for name, numbers in figures.items():
        formats = {column: "+.2f" if column == "nearest" else ".2f" for column in COLUMNS}
        cells = (format(numbers[c], f) if c in numbers else "" for c, f in formats.items())
        rows.append((name, *cells))
    return pages.table(("recipe", *COLUMNS.values()), rows)


def main() -> None:
    parser = pages.options(__doc__, steps=500, width=64, blocks=9, crop=128, seed=10)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", choices=recipes(), nargs="+", default=list(recipes()))
    parser.add_argument("--prepare", action="store_true")
    o = parser.parse_args()
    prepare(o.folder)
    if o.prepare:
        return
    size = f"{o.steps} steps of 4 crops of {o.crop}x{o.crop}, width {o.width}, {o.blocks} blocks"
    pairs = o.folder / "measured.h5"
    rows: dict[str, Numbers] = {"real blur": real(pairs)}
    for name in o.only:
        output = o.folder / f"{name.replace(' ', '-')}-{o.width}-{o.steps}-{o.seed}.pt"
        train_recipe(output, o, recipes()[name])
        file = output.with_suffix(".json")  # what was measured before is kept
        if not file.exists():
            file.write_text(to_json(measure(output, pairs, o.device)))
        rows[name] = json.loads(file.read_text())
        pages.tell(table({name: rows[name]}).splitlines()[-1])
    pages.tell(f"{size}\n{table(rows)}")
    if o.write:
        known = pages.known("bgan")
        known[size] = known.get(size, {}) | rows
        pages.keep("bgan", known, indent=1)
        texts = (f"{size}:\n\n{table(rows)}" for size, rows in known.items())
        pages.fill("bgan", "\n\n".join(texts))


if __name__ == "__main__":
    main()
