"""Progress on standard error: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts finished items, with rate and time left. Nothing is shown when `quiet`."""

    def __init__(
        self, label: str, total: int | None, unit: str, done: int = 0, quiet: bool = False
    ) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._first = self._done = done
        self._quiet = quiet
        self._note = ""
        self._started = self._said = time.monotonic()
        self._bar = None
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(
                total=total, initial=done, desc=label, unit=unit, file=sys.stderr, leave=False
            )

    def advance(self, items: int = 1) -> None:
        """Count `items` more."""
        self._done += items
        if self._bar is not None:
            self._bar.update(items)
        elif not self._quiet and time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._said = time.monotonic()
            say(self._line())

    def note(self, text: str) -> None:
        """A few words behind the bar, like the current loss."""
        self._note = text
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> str:
        return tqdm.format_meter(
            n=self._done,
            total=self._total,
            elapsed=time.monotonic() - self._started,
            initial=self._first,
            prefix=self._label,
            unit=self._unit,
            ncols=0,
            postfix=self._note or None,
        )


class Stages:
    """Shows how far each stage of one work is: told of a stage, what is done of it, and its size.

    Nothing is shown when `quiet`.
    """

    def __init__(self, unit: str, quiet: bool = False) -> None:
        self._unit, self._quiet = unit, quiet
        self._done = 0
        self._bar: Progress | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show that `done` of `total` units of a stage are."""
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
    """Yield `items`, counting each when the next is asked for."""
    progress = Progress(label, total, unit, quiet=quiet)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()


def say(text: str, quiet: bool = False) -> None:
    """One line for people, on standard error, above a bar if one is there."""
    if not quiet:
        tqdm.write(text, file=sys.stderr)
