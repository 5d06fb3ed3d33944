"""A training run's log: JSON lines, whole and in order however often it was resumed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from blurkit.io.paths import replacing


class TrainingLog:
    """Appends one JSON object per line: `step`, `time` (seconds since the epoch) and what is said.

    Only the first of several processes writes.
    """

    def __init__(self, path: Path, enabled: bool = True) -> None:
        self.path = path
        self.enabled = enabled

    def start(self) -> None:
        """Begin an empty log."""
        if self.enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")

    def resume(self, step: int, **of: Any) -> None:
        """Remove log lines after `step`; resuming writes them again.

        With `of`, only those that have its values. A line that was cut off is removed in any case.
        """
        if not self.enabled or not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = []
        for line in lines:
            if not line.endswith("\n"):
                continue
            said = json.loads(line)
            if said["step"] <= step or any(said.get(key) != of[key] for key in of):
                kept.append(line)
        with replacing(self.path) as partial:
            partial.write_text("".join(kept))

    def write(self, step: int, **said: Any) -> None:
        """Append a line."""
        if self.enabled:
            line = {"step": step, "time": round(time.time(), 3), **said}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
