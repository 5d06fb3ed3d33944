"""Make pictures like walls, pieces of photos side by side, to train the deconvolution on.

python -m tests.tools.walls PHOTOS... -o walls.h5

Where a picture repeats itself, an estimated kernel often contains one copy of the blur per
repetition, and all estimates agree on it. Photos contain few such places, so networks that were
trained on photos alone expect much of these kernels.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blurkit.data.sources import read_records
from blurkit.io.opencv import opencv
from blurkit.io.records import Record, from_float, to_float
from blurkit.io.streams import ShardWriter
from blurkit.reports.progress import track
from tests.tools.program import program

WALL_SIDE = 448
"""Side of the pictures, pixels."""


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


@program
def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.tools.walls")
    parser.add_argument("photos", nargs="+", help="folders of sharp photos, or shards")
    parser.add_argument("--count", type=int, default=160, help="number of pictures")
    parser.add_argument("-o", "--output", required=True, type=Path, help="the shard to write")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    o = parser.parse_args(arguments)
    photos = [record.image("sharp") for record in read_records(o.photos, image="sharp")]
    with ShardWriter(o.output, o.force) as writer:
        for number in track(range(o.count), "make walls", o.count, "picture"):
            rng = np.random.default_rng([o.seed, number])
            photo = to_float(photos[int(rng.integers(len(photos)))])
            made = wall(rng, np.repeat(photo, 3 // photo.shape[2], axis=2))
            sharp = from_float(made, np.dtype(np.uint8))
            writer.write(Record(f"wall{number:04}", {"sharp": sharp}, {}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
