"""Values as JSON, and as an indented outline for people."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from blurkit.errors import printable

LINE = 100
"""The longest line of a table that contains no tables, or of a list of texts."""


def outline(values: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield the lines of `values`, with nested tables indented and empty values left out.

    A long list of texts has a line for each. A range {"min": 1, "max": 2} becomes `1 to 2`.
    """
    for key, value in values.items():
        name = " " * indent + printable(str(key))
        if value is None or value in ({}, [], ""):
            continue
        line = f"{name}: {_flat(value)}"
        if isinstance(value, Mapping) and (len(line) > LINE or any(map(_is_deep, value.values()))):
            yield f"{name}:"
            yield from outline(value, indent + 2)
        elif isinstance(value, list) and len(line) > LINE and {*map(type, value)} == {str}:
            yield f"{name}:"
            yield from (f"{' ' * (indent + 2)}{printable(item)}" for item in value)
        else:
            yield line


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values with their names, those in a nested table as TABLE/NAME."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _is_deep(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) != {"min", "max"}


def _flat(value: Any) -> str:
    """Return a value, or a table of values, on one line."""
    if not isinstance(value, Mapping):
        return _shown(value)
    if not _is_deep(value):
        low, high = _shown(value["min"]), _shown(value["max"])
        return low if low == high else f"{low} to {high}"
    return "; ".join(f"{printable(str(key))} {_flat(item)}" for key, item in value.items())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return "-" if value is None else printable(str(value))


# ---- JSON ----------------------------------------------------------------------------------------


def to_json(value: Any, indent: int | None = None) -> str:
    """Return nested dicts and lists of plain values as JSON, non-finite numbers as null."""
    finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
    return json.dumps(finite, indent=indent)
