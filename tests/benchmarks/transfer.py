"""How well blur is transferred: every real pair, its sharp image given its own blur.

By both systems, and by `reblur --like`, which estimates the blur as a kernel and uses MSDI-Net only
where no estimate is believed.

python -m tests.benchmarks.transfer            measures and prints the table (some minutes)
    --write          also writes docs/benchmarks/transfer.json and the table in docs/benchmarks.md

PSNR is that of `transfer`: 8 bits, all pixels and channels, against the real blurry image.
"""

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

import blurkit
from blurkit.io.records import Record, from_float
from blurkit.options import Placement
from blurkit.reports.tables import print_table
from blurkit.systems.system import load_shipped
from blurkit.tasks.deblur import window_deblurring
from blurkit.tasks.reblur import reproduction, with_estimated_blur
from tests.benchmarks import levin, pages, shake
from tests.benchmarks.measure import machine
from tests.benchmarks.quality import DIRECTED, direction
from tests.benchmarks.quality_pages import direction_table
from tests.benchmarks.real_pairs import HELD_OUT, TRAINED_ON, held_out, others, trained_on
from tests.shared import shared_folder

SYSTEMS = ("msdi", "kernel-space")
WAYS = (*SYSTEMS, "estimate")
MORE = ("aligned_ab", "large", "realblur_crop")

Numbers = dict[str, Any]


def sets() -> Iterator[tuple[str, list[Record]]]:
    """Yield all real pairs by set, those that training may have seen last."""
    yield from ((name, held_out(name)) for name in HELD_OUT)
    yield from ((name, others(name)) for name in MORE)
    shaken = shake.pairs(shared_folder("data", "BLURKIT_DATA"))
    yield "shaken, noise 1/255", [pair for pair in shaken if pair.attrs["noise"] == 1]
    yield "levin", [*map(_grey, levin.pairs(shared_folder("data", "BLURKIT_DATA")))]
    yield from ((f"{name}, seen in training", trained_on(name)) for name in TRAINED_ON)


def _grey(pair: levin.Pair) -> Record:
    name, blur, sharp, _ = pair
    images = {"blur": blur[:, :, None], "sharp": sharp[:, :, None]}
    return Record(name, {role: from_float(image, np.uint8) for role, image in images.items()})


def measure() -> dict[str, list[Numbers]]:
    """Return, by set and pair, the PSNR in dB of the sharp image and of every way's transfer.

    `believed` says whether the blur was estimated; `directions` are those of the sharp image, the
    blurry one, and the one blurred by the estimate.
    """
    models = {system: blurkit.load(system=system) for system in SYSTEMS}
    estimated = with_estimated_blur(
        window_deblurring(load_shipped(use="deconvolving"), Placement()).estimated,
        lambda record, like: models["msdi"].transfer(record, like),
    )
    found: dict[str, list[Numbers]] = {}
    for name, records in sets():
        rows = found.setdefault(name, [])
        for record in records:
            row: Numbers = {"name": record.name}
            for system, model in models.items():
                attrs = model.transfer(record, record).attrs
                row |= {"sharp": attrs["reblurred_psnr_sharp"], system: attrs["reblurred_psnr"]}
            made = estimated(record, record)
            images = record.images["sharp"], record.images["blur"]
            row |= {
                "estimate": reproduction(made.images["reblurred"], *images)["reblurred_psnr"],
                "believed": "reblurred_trust" in made.attrs,
                "directions": {role: direction(made.images[role]) for role in DIRECTED},
            }
            rows.append(row)
    return found


HEAD = (
    *("PSNR to the blurry image, dB", "sharp", "MSDI-Net", "its worst gain"),
    *("kernel space", "its worst gain", "`reblur --like`", "its worst gain", "estimates believed"),
)


def rows(found: dict[str, list[Numbers]]) -> list[tuple[str, ...]]:
    """Return the rows of the table: means, and the least gain over the sharp image of a pair."""
    table = []
    for name, pairs in found.items():
        cells = [f"{statistics.mean(pair['sharp'] for pair in pairs):.2f}"]
        for way in WAYS:
            cells.append(f"{statistics.mean(pair[way] for pair in pairs):.2f}")
            cells.append(f"{min(pair[way] - pair['sharp'] for pair in pairs):+.2f}")
        believed = sum(pair["believed"] for pair in pairs)
        table.append((f"{name} ({len(pairs)})", *cells, f"{believed} of {len(pairs)}"))
    return table


def main() -> None:
    options = pages.options(__doc__).parse_args()
    torch.set_num_threads(1)
    found = measure()
    print_table("transfer of real blur", HEAD, rows(found), note=machine())
    if options.write:
        pages.keep("transfer", found, indent=1)
        text = f"{pages.table(HEAD, rows(found))}\n\n{direction_table(found).strip()}"
        pages.fill("transfer", text)


if __name__ == "__main__":
    main()
