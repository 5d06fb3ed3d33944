"""Progress on standard error: a bar in a terminal, elsewhere a plain line every 15 seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from blurkit.errors import printable
from blurkit.interrupts import deferred

if TYPE_CHECKING:
    from tqdm import tqdm

_Item = TypeVar("_Item")


class Progress:
    """Counts finished items and shows the rate and the time left, unless `quiet`.

    `total` is the number of items, None if unknown; `done` of them were finished before.
    """

    def __init__(
        self, label: str, total: int | None, unit: str, done: int = 0, quiet: bool = False
    ) -> None:
        self._label, self._total, self._unit, self._quiet = label, total, unit, quiet
        self._first = self._done = done
        self._note = ""
        self._started = self._said = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, desc=label, unit=unit, file=sys.stderr, leave=False
            )

    def advance(self, items: int = 1) -> None:
        """Count `items` more as finished."""
        self._done += items
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(items)
        elif not self._quiet and now - self._said >= 15:
            from tqdm import tqdm

            self._said = now
            elapsed, about = now - self._started, self._note or None
            how = {"initial": self._first, "prefix": self._label, "unit": self._unit, "ncols": 0}
            say(tqdm.format_meter(self._done, self._total, elapsed, postfix=about, **how))

    def note(self, text: str) -> None:
        """Show a few words after the bar, such as the current loss."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """Return a time span in words, such as 3.2 s or 5 min 12 s."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def rough_duration(seconds: float) -> str:
    """Return a time span in words, to two digits at most: 40 seconds, 9 minutes, 2 h 10 min."""
    if seconds < 55:
        number, unit = max(1, round(seconds) if seconds < 10 else 5 * round(seconds / 5)), "second"
    elif seconds < 3600:
        number, unit = max(1, round(seconds / 60)), "minute"
    else:
        return duration(600 * round(seconds / 600))
    return f"{number} {unit}{'s' * (number != 1)}"


class Stages:
    """Shows the progress of a task that runs in stages, unless `quiet`."""

    def __init__(self, unit: str, quiet: bool = False) -> None:
        self._unit, self._quiet, self._done = unit, quiet, 0
        self._bar: Progress | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a stage are finished."""
        if self._bar is None:
            self._bar = Progress(stage, total, self._unit, quiet=self._quiet)
        self._bar.advance(done - self._done)
        self._done = done
        if done >= total:
            self._bar.close()
            self._bar, self._done = None, 0


def track(
    items: Iterable[_Item], label: str, total: int | None, unit: str, quiet: bool = False
) -> Iterator[_Item]:
    """Yield `items` and show progress; an item counts when the next is requested."""
    progress = Progress(label, total, unit, quiet=quiet)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()


def say_warning(text: str) -> None:
    """Print a warning on standard error."""
    say(f"warning: {text}")


def say(text: str, quiet: bool = False) -> None:
    """Print a line on standard error, above the progress bar if there is one, unless `quiet`."""
    if not quiet:
        from tqdm import tqdm  # only now, so that help does without it

        with deferred():  # within it, a signal would leave half a line, or tqdm's lock unmade
            tqdm.write(printable(text), file=sys.stderr)
