"""The log of a training run as TensorBoard events: `pip install 'blurkit[tensorboard]'`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blurkit.io.images import read_image
from blurkit.metrics.scores import eight_bit


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
        for name, value in _flat("", fields):
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


def _flat(prefix: str, fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}/", value)
        else:
            yield prefix + name, value
