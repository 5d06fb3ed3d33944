"""The commands that faults and kills strike, and what is in their outputs."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np
import PIL.Image
import skimage.data

from blurkit.io.checkpoints import leaf_checksums, load_checkpoint
from blurkit.io.films import is_film, read_film
from blurkit.io.records import Record
from blurkit.io.shards import read_shard, verify_shard
from tests.training.runs import SHORT, TINY, make_shards, plain, read_log

Arguments = Callable[[Path], list[object]]
"""A command's arguments, given the folder for its output."""


class Command(NamedTuple):
    """A command as it is first given, and as it is given again after it was stopped."""

    first: Arguments
    again: Arguments


NETWORK = ("--method", "network", "--device", "cpu", "-q")


def commands(
    folder: Path, count: int = 3, side: int = 64, network: tuple[object, ...] = NETWORK
) -> dict[str, Command]:
    """Commands by name, with `count` photos of `side` rows in a folder, and shards to train on.

    `network` are the options of the network that deblurs.
    """
    photos, shards = folder / "photos", folder / "training" / "shards"
    photos.mkdir()
    for number in range(count):
        part = skimage.data.astronaut()[7 * number :][:side, : side * 3 // 2]
        imageio.imwrite(photos / f"{number:03d}.png", part)
    films, kernel = folder / "films", folder / "kernel.npy"
    films.mkdir()
    for name in ("a.gif", "b.tif", "c.gif"):
        first, *others = (PIL.Image.open(path).convert("RGB") for path in sorted(photos.iterdir()))
        first.save(films / name, save_all=True, append_images=others, duration=40)
    np.save(kernel, np.full((1, 3), 1 / 3))
    (folder / "training").mkdir()
    make_shards(folder / "training")
    split = ("--synthesize", "shake", "--kernel-size", 9, 9, "--validation", 0.34)
    small = (*split, "--shard-size", 1, "--crop", side // 2, "--jobs", 1, "-q")
    pair = shards / "val-00000.h5"
    blind = ("--operator", "convolution", "--iterations", 8, "--device", "cpu", "-q")
    return {
        "prepare, a shard": forced("x.h5", "prepare", photos, "--jobs", 1, "-q"),
        "prepare, a folder": resumed("", "prepare", photos, *small),
        "prepare, two processes": resumed("", "prepare", photos, *small[:-2], 2, "-q"),
        "deblur, a shard": forced("x.h5", "deblur", photos, *network),
        "deblur, a folder": forced("", "deblur", photos, *network),
        "reblur, films": forced("", "reblur", films, "--kernel", kernel, "-q"),
        "reblur": forced("x.h5", "reblur", pair, "--device", "cpu", "-q"),
        "transfer": forced("x.png", "transfer", *[photos / "000.png"] * 3, "--device", "cpu", "-q"),
        "interpolate": forced("", "interpolate", pair, "--steps", 3, "--device", "cpu", "-q"),
        "blind-deblur": forced("", "blind-deblur", photos / "000.png", *blind),
        "train-deblur": training(lambda output: plain(shards, output, 3)),
        "train-reblur": training(lambda output: stage_1(shards, output, 3)),
    }


def forced(name: str, *arguments: object) -> Command:
    """A command that is given again with --force; `name` is its output in the folder."""

    def first(folder: Path) -> list[object]:
        return [*arguments, "-o", f"{folder}/{name}"]

    return Command(first, lambda folder: [*first(folder), "--force"])


def resumed(name: str, *arguments: object) -> Command:
    """A command that is given again with --resume."""
    first = forced(name, *arguments).first
    return Command(first, lambda folder: [*first(folder), "--resume"])


def stage_1(shards: Path, output: Path, iterations: int) -> list[object]:
    """A training of stage 1 that takes a second."""
    plain = ("--generator", "single", "--perceptual", "none", "--width", 4, "--hidden", 4)
    more = ("--reblur-loss", "l1", "--validate-on", 0, "--iterations", iterations, "-o", output)
    return ["train-reblur", shards, *TINY, *plain, *SHORT, "--log-every", 1, *more]


def training(arguments: Callable[[Path], list[object]]) -> Command:
    """A training, which is resumed if it has left a state, and else started."""

    def first(folder: Path) -> list[object]:
        return [*arguments(folder / "x.pt"), "--save-minutes", 0, "--no-samples", "--jobs", 0]

    return Command(first, lambda folder: [*first(folder), "--resume"])


# ---- outputs -------------------------------------------------------------------------------------


def contents(path: Path) -> str:
    """What a file holds, apart from dates and seconds; shards and checkpoints must be whole."""
    if path.suffix == ".pt" and not path.name.endswith(".state.pt"):
        return str(sorted(leaf_checksums(load_checkpoint(path).networks)))
    if path.suffix == ".jsonl":
        return str(read_log(path.with_name("x.pt")))
    if path.suffix == ".mkv" or (path.suffix == ".avif" and is_film(path)):
        # They have a random number, and the time when they were made.
        return str([hashlib.sha256(frame.pixels).hexdigest() for frame in read_film(path)])
    if path.suffix != ".h5":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    verify_shard(path)
    return " ".join(record_digest(record) for record in read_shard(path))


def record_digest(record: Record) -> str:
    """A digest of the name and the images of a record."""
    digest = hashlib.sha256(record.name.encode())
    for key, image in sorted(record.images.items()):
        digest.update(key.encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def found(folder: Path) -> dict[str, str]:
    """The contents of all files in a folder, by name, hidden ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): contents(path) for path in files}


RESUMABLE = ("x.state.pt", "x.log.jsonl")
"""What a training that was stopped leaves to go on from."""


def check_left(folder: Path, wanted: dict[str, str], hidden: bool) -> None:
    """Assert that every output that a stopped command has left is one of the whole run.

    `hidden` files may be left by a process that was killed.
    """
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        concealed = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not path.is_file() or name in RESUMABLE or (hidden and concealed):
            continue
        assert name in wanted, f"{name} is left"
        assert contents(path) == wanted[name], f"{name} is left half-written"
