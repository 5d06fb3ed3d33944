"""Archives of images, read as the folders they stand for: LMDB of BasicSR, tar files of WebDataset.

The images in an archive have paths below it, such as `train/blur_crops.lmdb/0001.png`, so that one
rule pairs and names them as it does files in folders.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from blurkit.data.places import ROLE_FOLDER
from blurkit.errors import BlurkitError, one_line
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import IMAGE_SUFFIXES, is_image
from blurkit.io.images import Picture, decode_image, read_image
from blurkit.io.paths import natural_key, walk
from blurkit.io.records import safe_name

DATABASE, META = "data.mdb", "meta_info.txt"
"""The files of an LMDB folder: the images, and a line for each of them."""

META_LINE = re.compile(r"(\S.*?) \(\d+,\d+,\d+\) \d+")
"""A line of meta_info.txt: `0001.png (720,1280,3) 1`, name, shape and level of compression."""


def is_archive(path: Path) -> bool:
    """Return whether `path` is a tar file or the folder of an LMDB."""
    if path.suffix.lower() == ".tar":
        return path.is_file()
    return path.suffix.lower() == ".lmdb" and (path / DATABASE).is_file()


def image_files(root: Path, on_loop: Callable[[Path], None] = lambda _: None) -> list[Path]:
    """Return every image and film below `root`, a folder or an archive, and in archives below it.

    They are in natural order. `on_loop` is as for `walk`. Raises BlurkitError if a folder or an
    archive cannot be read.
    """
    files = members(root) if is_archive(root) else _files_below(root, on_loop)
    return sorted(files, key=lambda path: natural_key(path.relative_to(root)))


def _files_below(root: Path, on_loop: Callable[[Path], None]) -> list[Path]:
    files: list[Path] = []
    for path in walk(root, IMAGE_SUFFIXES | FILM_SUFFIXES | {".tar", ".mdb"}, on_loop):
        archive = path.parent if path.name == DATABASE else path
        if is_archive(archive):
            files += members(archive)
        elif path.suffix.lower() in IMAGE_SUFFIXES | FILM_SUFFIXES:
            files.append(path)
    return files


def members(archive: Path) -> list[Path]:
    """Return the paths of an archive's images. Raises BlurkitError if it cannot be read."""
    index = _tar_index(archive) if archive.suffix.lower() == ".tar" else _lmdb_index(archive)
    paths = [archive / safe_name(name) for name in index]
    return [path for path in paths if is_image(path)]


def read_picture(path: Path) -> Picture:
    """Return the image in a file or in an archive. Raises BlurkitError if it cannot be read."""
    archive = next((above for above in path.parents if is_archive(above)), None)
    if archive is None:
        return read_image(path)
    name = path.relative_to(archive).as_posix()
    data = (_tar_member if archive.suffix.lower() == ".tar" else _lmdb_value)(archive, name)
    return decode_image(io.BytesIO(data), path)


# ---- tar -----------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _tar_index(archive: Path) -> dict[str, tuple[int, int]]:
    """Return where each member's data starts and how long it is, in bytes.

    `a/0001.blur.png`, as WebDataset names the images of the sample a/0001, is a/blur/0001.png here.
    """
    index: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                if member.isreg():
                    index[_as_path(member.name)] = member.offset_data, member.size
    except OSError as error:
        raise BlurkitError(f"{archive}: cannot be read ({error.strerror})") from error
    except tarfile.TarError as error:
        reason = f"damaged or truncated after {len(index)} members ({one_line(error)})"
        raise BlurkitError(f"{archive}: {reason}") from error
    return index


def _as_path(member: str) -> str:
    """Return a member's name with the role, if that is a part of its suffix, as a folder."""
    folder, _, file = member.removeprefix("./").rpartition("/")
    sample, *role, suffix = file.rsplit(".", 2)
    if role and ROLE_FOLDER.fullmatch(role[0].lower()):
        file = f"{role[0]}/{sample}.{suffix}"
    return f"{folder}/{file}" if folder else file


def _tar_member(archive: Path, name: str) -> bytes:
    offset, size = _tar_index(archive)[name]
    try:
        with archive.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise BlurkitError(f"{archive}: cannot be read ({error.strerror})") from error
    if len(data) < size:
        raise BlurkitError(f"{archive / name}: truncated after {len(data)} of {size} bytes")
    return data


# ---- LMDB ----------------------------------------------------------------------------------------


def _lmdb_index(archive: Path) -> list[str]:
    """Return the names in meta_info.txt, which the keys are without their suffixes."""
    meta = archive / META
    try:
        lines = meta.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = f"{META} cannot be read ({one_line(error)}); BasicSR writes it beside {DATABASE}"
        raise BlurkitError(f"{archive}: {reason}") from error
    names = []
    for number, line in enumerate(lines, 1):
        match = META_LINE.fullmatch(line.strip())
        if match is None and line.strip():
            raise BlurkitError(
                f"{meta}: line {number} is {line[:60]!r}, not NAME.png (HEIGHT,WIDTH,3) LEVEL"
            )
        names += [match[1]] if match else []
    return names


def _lmdb_value(archive: Path, name: str) -> bytes:
    lmdb, key = _lmdb(archive), name.rpartition(".")[0]
    try:
        with _opened(archive, os.getpid()).begin(buffers=False) as transaction:
            data = transaction.get(key.encode())
    except lmdb.Error as error:
        raise BlurkitError(f"{archive}: damaged ({one_line(error)})") from error
    if data is None:
        raise BlurkitError(f"{archive / name}: {META} names it, but {DATABASE} has no key {key!r}")
    return bytes(data)


@lru_cache(maxsize=16)
def _opened(archive: Path, process: int) -> Any:
    """Return the database, opened once by each process because none may use another's."""
    return _lmdb(archive).open(
        str(archive), readonly=True, lock=False, readahead=False, meminit=False
    )


def _lmdb(archive: Path) -> ModuleType:
    """Return the module lmdb. Raises BlurkitError if it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise BlurkitError(
            f"{archive}: reading it needs lmdb, which is not installed: pip install 'blurkit[lmdb]'"
        ) from error
    module: ModuleType = lmdb
    return module
