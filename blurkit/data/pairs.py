"""Pairs of images in two folders or files, such as restored images and their sharp references."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blurkit.data.archives import image_files
from blurkit.data.parts import WHOLE, WorkPart
from blurkit.data.places import Scene
from blurkit.data.sources import Records, find_items
from blurkit.errors import BlurkitError, OnError, raise_error
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import is_image
from blurkit.io.paths import names_below, without_results
from blurkit.io.shards import is_shard


def are_two_sides(inputs: Sequence[str]) -> bool:
    """Return whether `inputs` are two folders without shards, two images or two films."""
    if len(inputs) != 2 or "-" in inputs:
        return False
    first, second = map(Path, inputs)
    if first.is_dir() and second.is_dir():
        return not any(is_shard(path) for path in [*first.iterdir(), *second.iterdir()])
    return all(is_image(path) or path.suffix.lower() in FILM_SUFFIXES for path in (first, second))


def find_two_sides(
    first: str, second: str, roles: tuple[str, str], on_error: OnError = raise_error
) -> list[Scene]:
    """Find the scenes with the image `roles[0]` in `first` and `roles[1]` in `second`.

    Both are folders or both are files. Images in folders are paired by relative path without
    suffix, never by position; those without a partner are reported to `on_error`. Raises
    BlurkitError if one of two files does not exist.
    """
    for side in (first, second):
        if not Path(side).exists():
            raise BlurkitError(f"{side}: no such file or folder")
    first_images, second_images = _images(Path(first)), _images(Path(second))
    if Path(first).is_file():
        pairs = {Path(first).stem: (Path(first), Path(second))}
    else:
        pairs = {
            name: (path, second_images[name])
            for name, path in first_images.items()
            if name in second_images
        }
        for name, path in (first_images | second_images).items():
            if name not in pairs:
                where = second if name in first_images else first
                on_error(name, BlurkitError(f"{path}: no partner of that name in {where}"))
    return [Scene(name, dict(zip(roles, files, strict=True))) for name, files in pairs.items()]


def refuse_unpaired(inputs: Sequence[str], image: str, needed: str, remedy: str) -> None:
    """Raise BlurkitError if no record of the inputs can hold an image with the role `needed`.

    `image` is as for `find_items`; `remedy` says what to do.
    """
    found = find_items(inputs, image=image)
    lacking = [item for item in found.items if isinstance(item, Scene) and needed not in item.files]
    if found.items and not found.left_out and len(lacking) == len(found.items):
        raise BlurkitError(
            f"{' '.join(inputs)}: holds no pair of a sharp and a blurry image{remedy}"
        )


def read_two_sides(
    first: str,
    second: str,
    part: WorkPart = WHOLE,
    on_error: OnError = raise_error,
    roles: tuple[str, str] = ("restored", "sharp"),
) -> Records:
    """Return a record for each pair of images in two folders or two files, films frame by frame.

    Images are paired by `find_two_sides`, and `part` takes those that `in_part` does. Images that
    cannot be read and pairs of different sizes are reported to `on_error` too.
    """
    return Records(find_two_sides(first, second, roles, on_error), part, on_error)


def _images(path: Path) -> dict[str, Path]:
    """Return the images below a folder by name, which is the relative path without suffix."""
    if path.is_file():
        return {}
    files = without_results(image_files(path))
    return dict(zip(names_below(path, files), files, strict=True))
