"""The log of a training run: JSON lines, complete and in order even if the run is resumed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurkit.errors import BlurkitError
from blurkit.io.writing import replacing

if TYPE_CHECKING:
    from blurkit.training.events import Events


class TrainingLog:
    """Appends JSON objects, one per line: `step`, `time` (seconds since the epoch) and fields.

    Only the first of several processes writes: the log of the others is not `enabled`. `events`, if
    given, gets the same fields.
    """

    def __init__(self, path: Path, enabled: bool = True) -> None:
        self.path = path
        self.enabled = enabled
        self.events: Events | None = None

    def start(self) -> None:
        """Start an empty log."""
        if self.enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")

    def resume(self, step: int, **fields: Any) -> None:
        """Remove log lines after `step`; resuming writes them again.

        If `fields` are given, only lines with these values are removed. An incomplete last line is
        always removed. Raises BlurkitError if another line is not one of a log.
        """
        if not self.enabled or not self.path.exists():
            return
        lines = self.path.read_text(errors="replace").splitlines(keepends=True)
        kept = []
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                continue
            try:
                entry = json.loads(line)
                late = entry["step"] > step
            except (ValueError, TypeError, KeyError) as error:
                raise BlurkitError(
                    f"{self.path}: line {number} is no line of a log; remove it, or move the file"
                ) from error
            if not late or any(entry.get(key) != fields[key] for key in fields):
                kept.append(line)
        with replacing(self.path) as partial:
            partial.write_text("".join(kept))

    def write(self, step: int, **fields: Any) -> None:
        """Append a line with these fields."""
        if self.enabled:
            line = {"step": step, "time": round(time.time(), 3), **fields}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self.events:
                self.events.write(step, fields)
