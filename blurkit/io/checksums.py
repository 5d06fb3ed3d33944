"""Checksums of records and tensors: XXH3, which takes less time than reading from memory."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash


def array_checksum(array: np.ndarray) -> str:
    """Return the checksum of an array's type, shape and values, in C order: 32 hex digits."""
    digest = xxhash.xxh3_128(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def record_checksum(
    number: int, name: str, attrs: Mapping[str, Any], images: Mapping[str, str]
) -> str:
    """Return the checksum of a record: of its number, its name, attributes and images.

    `images` are the checksums of its images by their names. Attributes are compared by type and
    value, as they come back from a file: numpy's scalars are plain numbers.
    """
    digest = xxhash.xxh3_128()
    for text in (str(number), name):
        _add(digest, text.encode(errors="surrogateescape"))
    for attribute, value in sorted(attrs.items()):
        _add(digest, attribute.encode(errors="surrogateescape"))
        _add(digest, value_bytes(value))
    for image, checksum in sorted(images.items()):
        _add(digest, f"{image} {checksum}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little") + data)


def value_bytes(value: Any) -> bytes:
    """Return the bytes of a plain value or array, which differ if its type or value does."""
    if isinstance(value, np.ndarray) and value.ndim:
        return array_checksum(value).encode()
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, float):
        return b"float" + struct.pack("<d", value)
    return f"{type(value).__name__} {value}".encode(errors="surrogateescape")
