"""The log of a training run, complete and in order even if resumed: JSON lines, TensorBoard."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError
from blurkit.io.images import read_image
from blurkit.io.writing import replacing
from blurkit.metrics.scores import eight_bit
from blurkit.reports.values import flat


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
            except (ValueError, TypeError, KeyError, RecursionError) as error:
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


# ---- TensorBoard ---------------------------------------------------------------------------------


class Events:
    """Writes the scalars, warnings and sample pictures of a run to a folder of event files.

    An object of the log, such as `losses`, becomes a scalar for each of its values, `losses/NAME`.
    A run that is resumed at `step` hides what was written after it; one that begins, at step 0,
    removes the events of an earlier run.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        if not step:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, step: int, fields: Mapping[str, Any]) -> None:
        """Write the fields of a line of the log."""
        for name, value in flat(fields):
            if isinstance(value, str):
                self._writer.add_text(name, value, step)
            else:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, step: int, pictures: Iterable[Path]) -> None:
        """Write the sample pictures of a step, files that are named after step and record."""
        for path in pictures:
            pixels = eight_bit(read_image(path).pixels)
            self._writer.add_image(path.stem.partition("-")[2], pixels, step, dataformats="HWC")
        self._writer.flush()
