"""Copy training data to a folder small enough to send to a machine with a GPU.

python -m tests.tools.bundle DATA/ -o FOLDER --pairs pairs/x --frames video/y --photos sharp/z

Folders are named relative to DATA and keep their paths in FOLDER. Pairs are added first, then
folders of frames, each whole or not at all, then photos, one from each folder in turn. Files that
exceed the limit are left out: the number of files taken from each folder is printed, and the names
of the others are written to FOLDER/left_out.txt.
"""

import argparse
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from blurkit.data.sources import Scene, find_items
from blurkit.errors import BlurkitError, one_line
from blurkit.io.formats import IMAGE_SUFFIXES
from blurkit.io.paths import walk
from blurkit.io.writing import refuse_existing, replacing
from blurkit.reports.progress import say, track
from tests.tools.program import program

JPEG = frozenset({".jpg", ".jpeg"})

GOLDEN = 0.6180339887498949
"""The fractional parts of its first n multiples are spread evenly over 0 to 1, for any n."""


@dataclass(frozen=True)
class FileGroup:
    """Files in a folder of the data that are taken together or not at all."""

    folder: str
    files: tuple[Path, ...]


def units(data: Path, folder: str, kind: str) -> list[FileGroup]:
    """Return the units in a folder of the data.

    `kind` is `pairs`, `photos` or `frames`; the frames of a folder are a single unit. Pairs and
    photos are ordered so that the first n are spread evenly over the folder, for any n.
    Raises BlurkitError if the folder is missing or holds nothing of the kind.
    """
    path = data / folder
    if not path.is_dir():
        raise BlurkitError(f"{path}: no such folder")
    if kind == "pairs":
        scenes = [item for item in find_items([path]).items if isinstance(item, Scene)]
        groups = [tuple(scene.files.values()) for scene in scenes if len(scene.files) > 1]
    else:
        files = walk(path, IMAGE_SUFFIXES)
        groups = [(file,) for file in files] if kind == "photos" else [tuple(files)]
    if not any(groups):
        raise BlurkitError(f"{path}: holds no {kind}")
    order = sorted(range(len(groups)), key=lambda number: number * GOLDEN % 1)
    return [FileGroup(folder, groups[number]) for number in order]


def coded(path: Path, longest: int, quality: int) -> tuple[bytes, str]:
    """Return an image file's bytes for the bundle, and their suffix.

    JPEGs whose sides are at most `longest` pixels are kept. Other images become JPEG of `quality`,
    without chroma subsampling, unless the original file is smaller. Larger images are first shrunk
    until no side exceeds `longest` pixels, which makes photos sharp at the pixel level.
    Raises BlurkitError if the file cannot be read.
    """
    try:
        with PIL.Image.open(path) as image:
            large = max(image.size) > longest
            if path.suffix.lower() in JPEG and not large:
                return path.read_bytes(), path.suffix
            upright = PIL.ImageOps.exif_transpose(image)
            upright = upright.convert("L" if upright.mode in ("1", "L") else "RGB")
    except OSError as error:
        raise BlurkitError(f"{path}: {one_line(error)}") from error
    upright.thumbnail((longest, longest), PIL.Image.Resampling.LANCZOS)
    file = io.BytesIO()
    upright.save(file, "JPEG", quality=quality, subsampling=0)
    if large or len(file.getvalue()) < path.stat().st_size:
        return file.getvalue(), ".jpg"
    return path.read_bytes(), path.suffix


def in_turn(folders: Sequence[Sequence[FileGroup]]) -> Iterator[FileGroup]:
    """Yield one unit of each folder in turn, until all folders are exhausted."""
    return (unit for round in zip_longest(*folders) for unit in round if unit is not None)


def bundle(o: argparse.Namespace) -> None:
    """Fill the folder by the options `o`. Raises BlurkitError or OSError."""
    refuse_existing(o.output, o.force)
    folders = {
        kind: [units(o.data, folder, kind) for folder in getattr(o, kind)]
        for kind in ("pairs", "frames", "photos")
    }
    order = [*chain(*folders["pairs"], *folders["frames"]), *in_turn(folders["photos"])]
    left, counts, dropped = int(o.limit * 2**20), dict[str, list[int]](), list[str]()
    for unit in track(order, "bundle", len(order), "unit"):
        files = [(path, *coded(path, o.longest, o.quality)) for path in unit.files]
        size = sum(len(data) for _, data, _ in files)
        taken, total, folder_size = counts.get(unit.folder, [0, 0, 0])
        fits = size <= left
        counts[unit.folder] = [taken + fits, total + 1, folder_size + fits * size]
        if not fits:
            dropped += [str(path.relative_to(o.data)) for path in unit.files]
            continue
        left -= size
        for path, data, suffix in files:
            with replacing(o.output / path.relative_to(o.data).with_suffix(suffix)) as partial:
                partial.write_bytes(data)
    report(o, counts, dropped)


def report(o: argparse.Namespace, counts: dict[str, list[int]], dropped: Sequence[str]) -> None:
    """Print how many units of each folder were taken, and write the names of all other files."""
    for folder, (taken, total, size) in counts.items():
        say(f"{folder}: {taken} of {total}, {size / 2**20:.1f} MiB")
    whole = sum(size for *_, size in counts.values()) / 2**20
    note = f"; {len(dropped)} files left out, see left_out.txt" if dropped else ""
    say(f"{o.output}: {whole:.1f} of {o.limit:g} MiB{note}")
    with replacing(o.output / "left_out.txt") as partial:
        partial.write_text("".join(f"{name}\n" for name in dropped))


@program
def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.tools.bundle", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder that holds all others")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder to fill")
    for kind in ("pairs", "frames", "photos"):
        parser.add_argument(f"--{kind}", nargs="+", default=[], help=f"folders of {kind}")
    parser.add_argument("--limit", type=float, default=45, help="maximum total size, MiB")
    parser.add_argument("--longest", type=int, default=1600, help="maximum side of images, pixels")
    parser.add_argument("--quality", type=int, default=95, help="JPEG quality, 1 to 100")
    parser.add_argument("--force", action="store_true", help="write into an existing folder")
    bundle(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
