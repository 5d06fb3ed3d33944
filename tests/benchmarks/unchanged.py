"""What deblurring had better leave unchanged: sharp photos with noise, focus, saturated lights.

python -m tests.benchmarks.unchanged        measures and prints the table (a few minutes)
    --write          also writes it into docs/deconvolution.md

The photos are Set5's and scikit-image's. Sharp ones get noise of 1/255; the others are blurred by
`blurkit prepare --synthesize`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import blurkit
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.systems.system import shipped_file
from tests.benchmarks.levin import fill
from tests.benchmarks.measure import command, run
from tests.shared import ROOT, shared_folder

PAGE = ROOT / "docs" / "deconvolution.md"
SETS = ("set5", "skimage")
BLURS = {
    "out of focus": ("defocus", "--noise", "0.002", "--seed", "1"),
    "saturated lights": ("realistic", "--highlights", "4", "--seed", "2"),
}
"""By what the photos are, the arguments of `prepare --synthesize`."""


def noisy(folders: list[Path]) -> list[Record]:
    """The photos, as `sharp`, and with noise of 1/255, as `blur`."""
    rng = np.random.default_rng(0)
    records = []
    for record in blurkit.read_records(*folders, image="sharp"):
        sharp = record.image("sharp")
        noise = rng.standard_normal(sharp.shape, dtype=np.float32) / 255
        images: dict[str, Image] = {"blur": from_float(to_float(sharp) + noise, np.dtype(np.uint8))}
        records.append(Record(record.name, images | {"sharp": sharp}))
    return records


def blurred(folders: list[Path], blur: tuple[str, ...]) -> list[Record]:
    """The photos with a blur that `prepare` makes."""
    with tempfile.TemporaryDirectory() as output:
        shard = f"{output}/pairs.h5"
        run(command("prepare", *folders, "--synthesize", *blur, "--quiet", "-o", shard))
        return list(blurkit.read_records(shard))


def table(folder: Path) -> str:
    """The mean gains of the network and of the default on each kind of photos, as Markdown."""
    folders = [folder / "sharp" / name for name in SETS]
    kinds = {"sharp": noisy(folders)} | {kind: blurred(folders, b) for kind, b in BLURS.items()}
    models = blurkit.load(shipped_file()), blurkit.load()
    lines = [
        "| | photos | unchanged, dB | `network` | `auto` | worst of `auto` | photos that `auto` "
        "returns as they are | `auto` worse by 0.1 than the better of the others |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, records in kinds.items():
        scores = []
        for record in records:
            sharp, blur = record.image("sharp"), record.image("blur")
            results = [blur, *(model.deblur(blur) for model in models)]
            scores.append([psnr(image, sharp) for image in results])
        before, network, auto = np.array(scores).T
        worse = auto < np.maximum(before, network) - 0.1
        lines.append(
            f"| {kind} | {len(records)} | {before.mean():.2f} | {(network - before).mean():+.2f} | "
            f"{(auto - before).mean():+.2f} | {(auto - before).min():+.2f} | "
            f"{(auto == before).sum()} | {worse.sum()} |"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Measure, print, and write if wanted."""
    parser = argparse.ArgumentParser("unchanged", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the table into docs/")
    options = parser.parse_args(arguments)
    text = table(shared_folder("data", "BLURKIT_DATA"))
    sys.stdout.write(text + "\n")
    if options.write:
        fill("unchanged", text, PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
