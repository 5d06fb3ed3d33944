"""Saved configurations: what `--dry-run` printed, or the configuration in a checkpoint.

Importing this module must not import torch, because the command line reads `--config` first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError
from blurkit.training.configuration import Configuration

NOT_OPTIONS = ("system", "estimate")
"""What `--dry-run` prints besides the options."""


@dataclass(frozen=True)
class SavedConfiguration:
    """The options of one training of `system` by name; `where` names their file in messages."""

    system: str
    values: Mapping[str, Any]
    where: str

    def options(self, kind: type[Configuration]) -> dict[str, Any]:
        """Return the value of every option of `kind`; those not saved have their defaults.

        Raises BlurkitError if a saved name or type is none of `kind`.
        """
        known = {f.name: f.default for f in fields(kind)}
        if unknown := [name for name in self.values if name not in known]:
            names = ", ".join(map(repr, unknown[:5]))
            raise BlurkitError(
                f"{self.where}: not options of this training of --system {self.system}: {names}"
            )
        for name, value in self.values.items():
            if not _fits(value, type(known[name])):
                wanted = type(known[name]).__name__
                raise BlurkitError(f"{self.where}: {name} is {str(value)[:40]!r}, not {wanted}")
        return {**known, **self.values}


def _fits(value: Any, kind: type) -> bool:
    """Return whether a value has an option's type; a whole number is also a float."""
    return type(value) is kind or (kind is float and type(value) is int)


def read_configuration(file: str | Path) -> SavedConfiguration:
    """Return the configuration in a checkpoint, or in a file with the JSON that `--dry-run` prints.

    Raises BlurkitError if the file is missing or holds no configuration.
    """
    path = Path(file)
    if path.suffix in (".pt", ".pth", ".safetensors"):
        from blurkit.io.checkpoints import load_checkpoint

        checkpoint = load_checkpoint(path)
        system, values = checkpoint.system, checkpoint.configuration
    else:
        printed = _read_json(path)
        system = str(printed.get("system", ""))
        values = {key: value for key, value in printed.items() if key not in NOT_OPTIONS}
    if not system or not values:
        raise BlurkitError(f"{path}: holds no configuration of a training")
    return SavedConfiguration(system, values, str(path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such file (from --config)") from error
    except ValueError as error:  # not JSON, or not text
        content = error
    if not isinstance(content, dict):
        raise BlurkitError(f"{path}: is neither what --dry-run prints nor a checkpoint")
    return content
