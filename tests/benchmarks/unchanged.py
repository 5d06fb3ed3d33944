"""What deblurring had better leave unchanged: what is sharp, or out of focus, saturated lights.

python -m tests.benchmarks.unchanged        measures and prints the table (a few minutes)
    --write          also writes it into docs/deconvolution.md

The photos are Set5's and scikit-image's. Sharp ones get noise of 1/255; the others are blurred by
`blurkit prepare --synthesize`, one kind but for what is in their middle.
"""

from pathlib import Path

import numpy as np

import blurkit
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.systems.system import shipped_file
from tests.benchmarks import pages
from tests.benchmarks.measure import synthesized
from tests.shared import shared_folder
from tests.systems.deconvolution.photos import ellipse

SETS = ("set5", "skimage")
FOLLOWED = "sharp in the middle"
BLURS: dict[str, tuple[str, ...]] = {
    "out of focus": ("defocus", "--noise", "0.002", "--seed", "1"),
    "saturated lights": ("realistic", "--highlights", "4", "--seed", "2"),
    FOLLOWED: ("shake", "--noise", "0.004", "--seed", "3"),
}
"""By what the photos are, the arguments of `prepare --synthesize`."""


def noisy(folders: list[Path]) -> list[Record]:
    """The photos, as `sharp`, and with noise of 1/255, as `blur`."""
    rng = np.random.default_rng(0)
    records = []
    for record in blurkit.read_records(*folders, image="sharp"):
        sharp = record.image("sharp")
        noise = rng.standard_normal(sharp.shape, dtype=np.float32) / 255
        blur = from_float(to_float(sharp) + noise, np.dtype(np.uint8))
        records.append(Record(record.name, {"blur": blur, "sharp": sharp}))
    return records


def followed(record: Record) -> Record:
    """A photo of a camera that followed what is in the middle, an ellipse: with noise, not blur."""
    sharp, blur = (record.image(role) for role in ("sharp", "blur"))
    middle = ellipse(*sharp.shape[:2])[..., None]
    rng = np.random.default_rng(0)
    clear = from_float(to_float(sharp) + 0.004 * rng.standard_normal(sharp.shape), np.uint8)
    return Record(record.name, {"blur": np.where(middle, clear, blur), "sharp": sharp})


def table(folder: Path) -> str:
    """The mean gains of the network and of the default on each kind of photos, as Markdown."""
    folders = [folder / "sharp" / name for name in SETS]
    kinds = {"sharp": noisy(folders)}
    kinds |= {kind: synthesized(folders, *blur) for kind, blur in BLURS.items()}
    kinds[FOLLOWED] = [followed(record) for record in kinds[FOLLOWED]]
    models = blurkit.load(shipped_file()), blurkit.load()
    head = (
        *("", "photos", "unchanged, dB", "`network`", "`auto`", "worst of `auto`"),
        "photos that `auto` returns as they are",
        "`auto` worse by 0.1 than the better of the others",
    )
    rows = []
    for kind, records in kinds.items():
        scores = []
        for record in records:
            sharp, blur = record.image("sharp"), record.image("blur")
            results = [blur, *(model.deblur(blur) for model in models)]
            scores.append([psnr(image, sharp) for image in results])
        before, network, auto = np.array(scores).T
        worse = auto < np.maximum(before, network) - 0.1
        gains = (network - before).mean(), (auto - before).mean(), (auto - before).min()
        numbers = f"{before.mean():.2f}", *(f"{gain:+.2f}" for gain in gains)
        rows.append((kind, len(records), *numbers, (auto == before).sum(), worse.sum()))
    return pages.table(head, rows)


def main() -> None:
    options = pages.options(__doc__).parse_args()
    text = table(shared_folder("data", "BLURKIT_DATA"))
    pages.tell(text)
    if options.write:
        pages.fill("unchanged", text, pages.DOCS / "deconvolution.md")


if __name__ == "__main__":
    main()
