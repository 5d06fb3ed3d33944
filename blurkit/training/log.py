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

    def resume(self, step: int) -> None:
        """Drop the lines after `step`, which are about to be written again."""
        if not self.enabled or not self.path.exists():
            return
        lines = self.path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(kept))

    def write(self, step: int, **said: Any) -> None:
        """Append a line."""
        if self.enabled:
            line = {"step": step, "time": round(time.time(), 3), **said}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
