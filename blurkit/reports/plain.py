"""Measured values as plain JSON."""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any, indent: int | None = None) -> str:
    """Return nested dicts and lists of plain values as JSON, non-finite numbers as null."""
    return json.dumps(_finite(value), indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
