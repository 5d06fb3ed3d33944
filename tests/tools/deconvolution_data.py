"""Make training data of the deconvolution network: windows with estimated kernels, and walls.

python -m tests.tools.deconvolution_data windows PAIRS... -o windows.h5
python -m tests.tools.deconvolution_data walls PHOTOS... -o walls.h5
"""

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
from blurkit.io.opencv import opencv
from blurkit.io.records import Record, from_float, to_float
from blurkit.io.streams import ShardWriter
from blurkit.reports.progress import program, track
from blurkit.synthesis.drawing import seeds
from blurkit.systems.deconvolution.choice import KernelSelection, NonBlindDeconvolution
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimation import estimate_kernels
from blurkit.systems.deconvolution.fourier import padded
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.photo import in_colour, shipped_estimator
from blurkit.systems.uses import network_for

SIZES = (41, 27)
"""Sides of the kernels that are estimated in a window, pixels."""

ROUNDS = 3
"""Rounds in which each is sought further, with a network to refine them."""

WALL_SIDE = 448
"""Side of the pictures of walls, pixels."""


# ---- Windows with the kernels estimated there ----------------------------------------------------


def estimated(
    record: Record,
    side: int,
    count: int,
    seed: int,
    options: WindowOptions,
    choice: KernelSelection | None = None,
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
        weight = torch.tensor([options.weight])
        sizes = [min(size, (min(height, width) // 3 - 1) | 1) for size in SIZES]
        kernels = [estimate_kernels(grey, size, weight, options) for size in sizes]
        if choice is not None:  # the smallest ones with the space that `KernelSelection` gives them
            known = [padded(kernel, max(kernel.shape[-1], sizes[0])) for kernel in kernels]
            kernels += [choice.sought(photo, kernel[0], gamma, ROUNDS)[None] for kernel in known]
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


def windows(o: argparse.Namespace) -> None:
    """Write the windows that the arguments describe."""
    choice = None
    if o.refine:
        network = network_for("deconvolving", load_checkpoint(o.refine))
        assert isinstance(network, Deconvolver)
        choice = KernelSelection(
            NonBlindDeconvolution(network, "cpu", "auto"), shipped_estimator(), WindowOptions()
        )
    work = partial(
        estimated, side=o.side, count=o.count, seed=o.seed, options=WindowOptions(), choice=choice
    )
    if o.sharp:
        records = [unblurred(r, o.seed) for r in read_records(o.pairs, image="sharp")]
    else:
        records = [r for r in read_records(o.pairs) if {"blur", "sharp"} <= {*r.images}]
    records = records[: o.limit or None]
    with ShardWriter(o.output, o.force) as writer:
        for made in track(in_order(work, records, o.jobs), "estimate", len(records), "pair"):
            for window in made:
                writer.write(window)


# ---- Walls: pictures that repeat themselves ------------------------------------------------------


def wall(rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """Return a wall (WALL_SIDE, WALL_SIDE, 3), float32 in [0, 1], of pieces of a photo (H, W, 3).

    It is `laid` at twice the size, seen at an angle, and lit unevenly.
    """
    cv2 = opencv("making pictures of walls")
    top, left = (int(rng.integers(max(1, length - WALL_SIDE))) for length in photo.shape[:2])
    part = np.ascontiguousarray(photo[top : top + WALL_SIDE, left : left + WALL_SIDE])
    plane = laid(rng, cv2.resize(part, (WALL_SIDE, WALL_SIDE)))
    side = 2 * WALL_SIDE
    angle = float(rng.choice([rng.uniform(-45, 45), rng.normal(0, 4)]))
    turn = cv2.getRotationMatrix2D((WALL_SIDE, WALL_SIDE), angle, rng.uniform(0.8, 1.1))
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    moved = corners + rng.normal(0, 0.05 * side, (4, 2)).astype(np.float32)
    view = cv2.getPerspectiveTransform(corners, moved) @ np.vstack([turn, [0, 0, 1]])
    seen = cv2.warpPerspective(
        plane, view, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
    )
    middle = slice(WALL_SIDE // 2, WALL_SIDE // 2 + WALL_SIDE)
    coarse = rng.normal(0, 1, (4, 4)).astype(np.float32)
    light = cv2.resize(coarse, (WALL_SIDE, WALL_SIDE), interpolation=cv2.INTER_CUBIC)
    light = cv2.GaussianBlur(light, (0, 0), 20)
    lit: np.ndarray = seen[middle, middle] * np.exp(0.15 * light)[..., None]
    return lit.clip(0, 1)


def laid(rng: np.random.Generator, photo: np.ndarray) -> np.ndarray:
    """Return a plane (2 S, 2 S, 3) covered by copies of one piece of a photo (S, S, 3).

    Copies differ in brightness and in texture; most walls have joints between them, and in half of
    the walls every second row is shifted by half a piece.
    """
    most, side = len(photo), 2 * len(photo)
    height, width = (int(np.exp(rng.uniform(np.log(8), np.log(end)))) for end in (70, 110))
    top, left = (int(rng.integers(most - length)) for length in (height, width))
    piece = photo[top : top + height, left : left + width].copy()
    if rng.random() < 0.6:
        joint = int(rng.integers(1, 4))
        colour = (piece.mean((0, 1)) + rng.normal(0, 0.25)).clip(0, 1)
        piece[:joint] = piece[:, :joint] = colour
    shift, texture = width // 2 * (rng.random() < 0.5), rng.uniform(0, 0.6)
    plane = np.zeros((side, side, 3), np.float32)
    for row, y in enumerate(range(0, side, height)):
        for x in range(shift * (row % 2) - width, side, width):
            top, left = (int(rng.integers(most - length)) for length in (height, width))
            other = photo[top : top + height, left : left + width]
            brick = piece * np.exp(rng.normal(0, 0.12)) + texture * (other - other.mean((0, 1)))
            place = plane[y : y + height, max(0, x) : max(0, x + width)]
            place[:] = brick[: place.shape[0], max(0, -x) :][:, : place.shape[1]]
    return plane


def walls(o: argparse.Namespace) -> None:
    """Write the pictures of walls that the arguments describe."""
    photos = [record.image("sharp") for record in read_records(o.photos, image="sharp")]
    with ShardWriter(o.output, o.force) as writer:
        for number in track(range(o.count), "make walls", o.count, "picture"):
            rng = np.random.default_rng([o.seed, number])
            photo = to_float(photos[int(rng.integers(len(photos)))])
            made = wall(rng, np.repeat(photo, 3 // photo.shape[2], axis=2))
            sharp = from_float(made, np.dtype(np.uint8))
            writer.write(Record(f"wall{number:04}", {"sharp": sharp}, {}))


# ---- The command ---------------------------------------------------------------------------------

ABOUT = {
    "windows": "Write windows of pairs with the kernels estimated there. A network that only ever "
    "saw true kernels believes wrong ones. So each window keeps the kernels that the estimation "
    "finds in its blurry image at every size, right or wrong, as attribute `estimates` (sizes, "
    "size, size), in addition to `kernel`, the true one, if the pairs have it. With --refine each "
    "estimate is followed by what a trained network makes of it. With --sharp the windows are not "
    "blurred at all, and every kernel is wrong.",
    "walls": "Write pictures like walls, pieces of photos side by side. Where a picture repeats "
    "itself, an estimated kernel often contains one copy of the blur per repetition, and all "
    "estimates agree on it. Photos contain few such places, so a network that was trained on "
    "photos alone expects much of these kernels.",
}


@program
def main(arguments: Sequence[str]) -> None:
    """Make the data that the command line describes."""
    parser = argparse.ArgumentParser("python -m tests.tools.deconvolution_data")
    subparsers = parser.add_subparsers(required=True)
    commands = {
        name: subparsers.add_parser(name, help=about.partition(".")[0], description=about)
        for name, about in ABOUT.items()
    }
    add = commands["windows"].add_argument
    add("pairs", nargs="+", help="datasets or shards of pairs")
    add("--refine", help="checkpoint that deconvolves, to refine the estimates with")
    add("--sharp", action="store_true", help="windows of the sharp pictures")
    add("--count", type=int, default=1, help="windows per pair")
    add("--limit", type=int, default=0, help="largest number of pairs; 0: all")
    add("--side", type=int, default=256, help="side of a window, pixels")
    add("--jobs", type=int, default=2, help="number of processes")
    commands["windows"].set_defaults(make=windows)
    add = commands["walls"].add_argument
    add("photos", nargs="+", help="folders of sharp photos, or shards")
    add("--count", type=int, default=160, help="number of pictures")
    commands["walls"].set_defaults(make=walls)
    for command in commands.values():
        command.add_argument("-o", "--output", required=True, type=Path, help="the shard to write")
        command.add_argument("--seed", type=int, default=0, help="random seed")
        command.add_argument("--force", action="store_true", help="overwrite existing output")
    o = parser.parse_args(arguments)
    o.make(o)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
