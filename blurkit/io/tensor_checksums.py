"""Checksums of everything in a checkpoint or in the state of a training, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
import xxhash

from blurkit.errors import BlurkitError
from blurkit.io.checksums import value_bytes

KEY = "checksums"
"""Where a table holds the checksums of all else in it, by place."""


def with_checksums(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of tensors and plain values together with their checksums, in `KEY`."""
    return {**content, KEY: dict(leaf_checksums(content))}


def verify(content: Mapping[str, Any], where: str, needed: bool) -> None:
    """Raise BlurkitError, which names the first place, if a table differs from its checksums.

    A table without checksums is accepted unless they are `needed`. `where` names the file.
    """
    stated = content.get(KEY)
    if stated is None and not needed:
        return
    found = dict(leaf_checksums({name: value for name, value in content.items() if name != KEY}))
    if stated == found:
        return
    if not isinstance(stated, Mapping):
        raise BlurkitError(f"{where}: damaged, its checksums are missing")
    places = [*found, *stated]
    changed = next((p for p in places if stated.get(p) != found.get(p)), KEY)
    raise BlurkitError(f"{where}: damaged, {str(changed)[:100]!r} has changed")


def leaf_checksums(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and checksum of every tensor and value in nested tables and lists.

    Places are keys and numbers, joined by slashes.
    """
    if isinstance(content, Mapping):
        children: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, (list, tuple)):
        children = enumerate(content)
    else:
        yield where, _checksum(content)
        return
    for key, value in children:
        yield from leaf_checksums(value, f"{where}/{key}" if where else str(key))


def _checksum(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        digest = xxhash.xxh3_128(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return str(digest.hexdigest())
    return str(xxhash.xxh3_128_hexdigest(value_bytes(value)))
