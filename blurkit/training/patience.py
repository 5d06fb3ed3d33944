"""When a sign of collapse in the log is worth a warning: once, and not at its first line."""

from __future__ import annotations

COLLAPSED_LINES = 3
"""Consecutive log lines that count as a collapse; a single batch of four shows little."""


class Patience:
    """Counts consecutive log lines with a bad sign."""

    def __init__(self) -> None:
        self._lines = 0

    def ends(self, bad: bool) -> bool:
        """Count a line; return whether it is the one at which bad lines become a collapse."""
        self._lines = self._lines + 1 if bad else 0
        return self._lines == COLLAPSED_LINES
