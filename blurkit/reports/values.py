"""Values as JSON, as an indented outline for people, and as a model card for the Hub."""

from __future__ import annotations

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


# ---- A model card --------------------------------------------------------------------------------

HUB_NAMES = {"deblur": "deblurring", "reblur": "blur-synthesis"}
"""The tags of networks by the role that they have."""

CARD = """---
license: {licence}
library_name: blurkit
pipeline_tag: image-to-image
tags:
{tags}{metrics}---

# {title}

| role | network | parameters | GMACs |
| --- | --- | ---: | ---: |
{networks}

## Use

```sh
pip install blurkit
blurkit deblur photo.jpg -c {file}
```

`{file}` is this file, or its address on the Hub: `hf://OWNER/NAME/{file}`.

## Training

{training}
"""


def model_card(about: Mapping[str, Any], file: str, licence: str = "other") -> str:
    """Return the model card of a checkpoint, as the Hugging Face Hub reads it: Markdown with YAML.

    `about` is what `info` returns for the checkpoint, `file` its name, and `licence` one of the
    Hub's names. Commands of trainings are left out, since they name files of their author.
    """
    networks, system = about["networks"], about["system"] or "image restoration"
    tags = ["motion-blur", "image-restoration", "pytorch", system]
    tags += [HUB_NAMES[role] for role in networks if role in HUB_NAMES]
    provenance = about["provenance"]
    runs = {k: v for k, v in provenance.items() if isinstance(v, Mapping) and "iterations" in v}
    scores = dict.fromkeys(
        name for run in (runs or {"": provenance}).values() for name in run.get("metrics") or {}
    )
    rows = (
        f"| {role} | {network.get('network', 'unknown')} | {_cell(network.get('parameters'))} "
        f"| {_cell(network.get('gmacs'))} |"
        for role, network in networks.items()
    )
    made = [line for role, run in (runs or {"": provenance}).items() for line in _made(role, run)]
    data = [f"- trained on: {printable(str(text))}" for text in provenance.get("trained_on") or ()]
    return CARD.format(
        licence=licence,
        tags="".join(f"- {json.dumps(printable(tag))}\n" for tag in tags),
        metrics="metrics:\n" * bool(scores)
        + "".join(f"- {json.dumps(printable(name))}\n" for name in scores),
        title=f"{printable(system)}: {', '.join(map(printable, networks))}",
        networks="\n".join(printable(row) for row in rows),
        file=printable(file),
        training="\n".join([*made, *data]) or "Nothing is known of it.",
    )


def _cell(value: Any) -> str:
    return "" if value is None else _shown(value)


def _made(role: str, run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a card on how a network was trained."""
    for name in ("date", "iterations", "records", "seed", "metrics", "blurkit", "torch"):
        if value := run.get(name):
            yield f"- {f'{printable(role)}, ' if role else ''}{name}: {_flat(value)}"
