"""Windows of pairs with the kernels estimated there: training data of the network.

python -m blurkit.systems.deconvolution.windows PAIRS... -o windows.h5

A network that only ever saw true kernels believes wrong ones. So each window keeps the kernels that
the estimation finds in its blurry image at every size, right or wrong, as attribute `estimates`
(sizes, size, size), in addition to `kernel`, the true one, if the pairs have it. With --refine each
estimate is followed by what a trained network makes of it. With --sharp the windows are not blurred
at all, and every kernel is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from blurkit.data.sources import read_records
from blurkit.data.workers import in_order
from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.records import Record, from_float, to_float
from blurkit.io.streams import ShardWriter
from blurkit.reports.progress import program, track
from blurkit.synthesis.drawing import seeds
from blurkit.systems.deconvolution.choice import Choice, Undoing
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.estimation import estimate_kernels
from blurkit.systems.deconvolution.fourier import padded
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.photo import in_colour
from blurkit.systems.uses import network_for


def estimated(
    record: Record,
    side: int,
    count: int,
    seed: int,
    options: Shake,
    choice: Choice | None = None,
) -> list[Record]:
    """Return `count` windows of a pair, at most `side` pixels each way, with their estimates.

    Their positions and gammas are drawn from the seed and the record's name. `choice` refines the
    estimates.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(seeds(seed, record.name))
    blur, sharp = record.image("blur"), record.image("sharp")
    height, width = (min(side, length) // 16 * 16 for length in blur.shape[:2])
    windows = []
    for number in range(count):
        top, left = (
            int(rng.integers(length - part + 1))
            for length, part in zip(blur.shape[:2], (height, width), strict=True)
        )
        place = (slice(top, top + height), slice(left, left + width))
        images = {"blur": blur[place], "sharp": sharp[place]}
        photo, gamma = in_colour(to_float(images["blur"])), float(rng.choice(options.gammas))
        grey = (torch.from_numpy(photo) ** gamma).mean(2)[None]
        weight, sizes = torch.tensor([options.weight]), options.sizes((height, width))
        kernels = [estimate_kernels(grey, size, weight, options) for size in sizes]
        if choice is not None:  # the smallest ones with the space that `Choice` gives them
            known = [padded(kernel, max(kernel.shape[-1], sizes[-2:][0])) for kernel in kernels]
            kernels += [choice.sought(photo, kernel[0], gamma)[None] for kernel in known]
        kernels = [padded(kernel, sizes[0]) for kernel in kernels]
        attrs = {"estimates": torch.cat(kernels).numpy()}
        if isinstance(record.attrs.get("kernel"), np.ndarray):
            attrs["kernel"] = record.attrs["kernel"].astype(np.float32)
        windows.append(Record(f"{record.name}-{number}", images, attrs))
    return windows


def unblurred(record: Record, seed: int) -> Record:
    """Return a record whose `blur` is its sharp image with noise of up to 2/255.

    The noise is drawn from the seed and the record's name.
    """
    sharp = record.image("sharp")
    rng = np.random.default_rng(seeds(seed, record.name))
    noise = rng.uniform(0, 2) / 255 * rng.standard_normal(sharp.shape)
    blur = from_float(to_float(sharp) + noise, sharp.dtype)
    return Record(record.name, {"blur": blur, "sharp": sharp}, {})


@program
def main(arguments: Sequence[str]) -> None:
    """Run the estimation that the command line describes."""
    parser = argparse.ArgumentParser(__spec__.name, description=__doc__)
    parser.add_argument("pairs", nargs="+", help="datasets or shards of pairs")
    parser.add_argument(
        "--refine", help="checkpoint that deconvolves, to refine the estimates with"
    )
    parser.add_argument("--sharp", action="store_true", help="windows of the sharp pictures")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the shard to write")
    parser.add_argument("--count", type=int, default=1, help="windows per pair")
    parser.add_argument("--limit", type=int, default=0, help="largest number of pairs; 0: all")
    parser.add_argument("--side", type=int, default=256, help="side of a window, pixels")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    o = parser.parse_args(arguments)
    choice = None
    if o.refine:
        network = network_for("deconvolving", load_checkpoint(o.refine))
        assert isinstance(network, Deconvolver)
        choice = Choice(Undoing(network, "cpu", "auto"), Shake())
    work = partial(
        estimated, side=o.side, count=o.count, seed=o.seed, options=Shake(), choice=choice
    )
    if o.sharp:
        records = [unblurred(r, o.seed) for r in read_records(o.pairs, image="sharp")]
    else:
        records = [r for r in read_records(o.pairs) if {"blur", "sharp"} <= {*r.images}]
    records = records[: o.limit or None]
    with ShardWriter(o.output, o.force) as writer:
        for windows in track(in_order(work, records, o.jobs), "estimate", len(records), "pair"):
            for window in windows:
                writer.write(window)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
