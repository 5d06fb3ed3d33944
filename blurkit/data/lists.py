"""List files: the text files in which public loaders list a dataset's images, line by line."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from blurkit.data.places import BLUR_WORDS, SHARP_WORDS, SPLITS, locate
from blurkit.errors import BlurkitError
from blurkit.io.formats import IMAGE_SUFFIXES

_LIST_WORDS = {"list", "set", "data", "files", "names", "images", "sequences", "scenes", "clips"}
_BETWEEN = " \t,;\"'"
_SUFFIX = "|".join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))
_IMAGE = re.compile(rf"[^{_BETWEEN}].*?(?:{_SUFFIX})(?=[{_BETWEEN}]|$)", re.IGNORECASE)
"""The path of an image in a line of a list."""

Row = tuple[str, list[str]]
"""A location (`list.txt, line 3`), and the one or two paths there as written, with `/`."""


@dataclass(frozen=True)
class Listed:
    """One line of a list: what it names (paths, a clip or a file name) and the list's split.

    `source` is the list. `files` are the paths by role; a line with one field has none, because it
    selects what it names.
    """

    source: Path
    where: str
    names: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    split: str | None = None


def read_lists(lists: Sequence[Path]) -> list[Listed]:
    """Read every line of some list files, in order.

    A line holds the two files of a pair in either order; their roles follow from folder and file
    names. The same path twice is a blurred image without a sharp one. A line with one field
    selects: a clip number (also BasicSR's `000 100 (720,1280,3)`), a file name or a path. Two lists
    of this kind whose names differ only in `blur` and `sharp` are the columns of one list of pairs.
    The split is the `train`, `val` or `test` in the list's name.

    Raises BlurkitError if a list cannot be read, a line has another form, the roles of two files
    are unclear, or the two columns differ in length.
    """
    listed: list[Listed] = []
    columns: dict[tuple[str, ...], dict[str, list[Listed]]] = {}
    for path in lists:
        words = _words(path.stem)
        single: list[Listed] = []
        for line in read_names(path):
            if len(line.names) == 1:
                single.append(line)
            else:
                listed.append(replace(line, files=_pair_roles(line.where, *line.names)))
        role = _role_of_words(words)
        rest = tuple(word for word in words if _role_of_words((word,)) is None)
        if single and role and role not in columns.setdefault(rest, {}):
            columns[rest][role] = single
        else:
            listed += single
    for sides in columns.values():
        listed += _joined(sides)
    return listed


def read_names(path: Path) -> list[Listed]:
    """Read every line of one list file, whatever the roles of its files.

    Raises BlurkitError if the list is empty or cannot be read, or if a line has another form.
    """
    split = split_of_list(path)
    return [Listed(path, where, tuple(names), split=split) for where, names in _read_rows(path)]


def split_of_list(path: Path) -> str | None:
    """Return the one split in a list's name (`trainlist.txt`), or None for none or several."""
    splits = {SPLITS[word] for word in _split_words(path) if word in SPLITS}
    return splits.pop() if len(splits) == 1 else None


def is_plain_list(path: Path) -> bool:
    """Return whether a list's name says only its split: `test.txt`, `train_list.txt`."""
    return all(word in SPLITS or word in _LIST_WORDS for word in _split_words(path))


def _split_words(path: Path) -> list[str]:
    return [re.sub(r"(?<=.)(?:list|set|data)$", "", word) for word in _words(path.stem)]


def first_image(path: Path) -> str:
    """Return the path in the first line of a text file that is not blank, "" if it is no image."""
    try:
        with path.open("rb") as file:
            lines = _decoded(file.read(4096), errors="ignore").splitlines()
    except OSError:
        return ""
    line = next((line for line in lines if line.strip()), "")
    return next(iter(_IMAGE.findall(line.replace("\\", "/"))), "")


def _joined(sides: dict[str, list[Listed]]) -> list[Listed]:
    """Join lists of one column each: two are paired line by line, a single one selects scenes."""
    if len(sides) == 1:
        return next(iter(sides.values()))
    blurred, sharp = sides["blur"], sides["sharp"]
    if len(blurred) != len(sharp):
        raise BlurkitError(
            f"{blurred[0].source} has {len(blurred)} lines and {sharp[0].source} has {len(sharp)}; "
            "they must name the same images line by line"
        )
    pairs = [(line, line.names + other.names) for line, other in zip(blurred, sharp, strict=True)]
    return [
        replace(line, names=(blur, sharp), files={"blur": blur, "sharp": sharp})
        for line, (blur, sharp) in pairs
    ]


def _read_rows(path: Path) -> list[Row]:
    try:
        text = _decoded(path.read_bytes())
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BlurkitError(f"{path}: is not a readable text file") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = _fields(line.replace("\\", "/"))
        if len(fields) > 2:
            raise BlurkitError(
                f"{path}, line {number}: {len(fields)} fields; a list has one or two paths per line"
            )
        if fields:
            rows.append((f"{path}, line {number}", fields))
    if not rows:
        raise BlurkitError(f"{path}: the list is empty")
    return rows


def _decoded(data: bytes, errors: str = "strict") -> str:
    """Return the text of a list in UTF-8 or, as Windows' shell writes it, in UTF-16 with a mark."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return data.decode("utf-16" if wide else "utf-8-sig", errors)


def _fields(line: str) -> list[str]:
    """Return the paths of a line; names of image files may contain blanks."""
    if not _IMAGE.sub("", line).strip(_BETWEEN):
        return [os.path.normpath(text) for text in _IMAGE.findall(line)]
    fields = line.split()
    if any(text.startswith("(") for text in fields):  # counts and a shape follow the name
        return fields[:1]
    return fields


def _pair_roles(where: str, first: str, second: str) -> dict[str, str]:
    if first == second:
        return {"blur": first}
    roles = role_of(first), role_of(second)
    if roles[0] == roles[1]:
        raise BlurkitError(
            f"{where}: cannot tell which of {first!r} and {second!r} is blurred; "
            "name it in a folder (blur/, sharp/) or in the file names"
        )
    if roles[0] == "blur" or roles[1] == "sharp":
        return {"blur": first, "sharp": second}
    return {"blur": second, "sharp": first}


def role_of(text: str) -> str | None:
    """Return `blur` or `sharp` from the folders of a path, or else from words in its file name."""
    path = PurePosixPath(text)
    return locate(Path(text), path.parts).role or _role_of_words(_words(path.stem))


def _words(stem: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+", stem.lower()))


def _role_of_words(words: Sequence[str]) -> str | None:
    """Return the one role that `words` name, or None if they name none or both."""
    roles = {"blur" for word in words if word in BLUR_WORDS}
    roles |= {"sharp" for word in words if word in SHARP_WORDS}
    return roles.pop() if len(roles) == 1 else None
