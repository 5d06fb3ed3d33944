"""List files: the text files in which public loaders list a dataset's images, line by line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from blurkit.data.places import BLUR_WORDS, SHARP_WORDS, SPLITS, locate
from blurkit.errors import BlurkitError

Row = tuple[str, str]
"""A location (`list.txt, line 3`) and a path as written."""


@dataclass(frozen=True)
class Listed:
    """One line: its paths by role as written, or what it selects (a clip, a file name, a path)."""

    where: str
    files: dict[str, str]
    selects: str | None = None
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
    columns: dict[tuple[str, ...], dict[str, tuple[Path, list[Row]]]] = {}
    for path in lists:
        words = _words(path.stem)
        split = _split(words)
        single: list[Row] = []
        for where, fields in _read_fields(path):
            if len(fields) == 1:
                single.append((where, fields[0]))
            else:
                listed.append(Listed(where, _pair_roles(where, *fields), split=split))
        role = _role_of_words(words)
        rest = tuple(word for word in words if _role_of_words((word,)) is None)
        if single and role and role not in columns.setdefault(rest, {}):
            columns[rest][role] = path, single
        else:
            listed += [Listed(where, {}, text, split) for where, text in single]
    for sides in columns.values():
        listed += _joined(sides)
    return listed


def _joined(sides: dict[str, tuple[Path, list[Row]]]) -> list[Listed]:
    """Join lists of one column each: two are paired line by line, a single one selects scenes."""
    path, rows = next(iter(sides.values()))
    split = _split(_words(path.stem))
    if len(sides) == 1:
        return [Listed(where, {}, text, split) for where, text in rows]
    (blur_path, blurred), (sharp_path, sharp) = sides["blur"], sides["sharp"]
    if len(blurred) != len(sharp):
        raise BlurkitError(
            f"{blur_path} has {len(blurred)} lines and {sharp_path} has {len(sharp)}; "
            "they must name the same images line by line"
        )
    return [
        Listed(where, {"blur": text, "sharp": partner}, split=split)
        for (where, text), (_, partner) in zip(blurred, sharp, strict=True)
    ]


def _read_fields(path: Path) -> list[tuple[str, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such list file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BlurkitError(f"{path}: is not a readable text file") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.replace("\\", "/").split()
        if any(field.startswith("(") for field in fields):  # counts and a shape follow the name
            fields = fields[:1]
        if len(fields) > 2:
            raise BlurkitError(
                f"{path}, line {number}: {len(fields)} fields; a list has one or two paths per line"
            )
        if fields:
            rows.append((f"{path}, line {number}", fields))
    if not rows:
        raise BlurkitError(f"{path}: the list is empty")
    return rows


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


def _split(words: Sequence[str]) -> str | None:
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _role_of_words(words: Sequence[str]) -> str | None:
    """Return the one role that `words` name, or None if they name none or both."""
    roles = {"blur" for word in words if word in BLUR_WORDS}
    roles |= {"sharp" for word in words if word in SHARP_WORDS}
    return roles.pop() if len(roles) == 1 else None
