"""The errors a user meets: one clear line, an exit status, and how a batch goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class BlurkitError(Exception):
    """A wrong input. The message is the whole line shown: what was wrong, where, what to do."""

    exit_status = 1


class UsageError(BlurkitError):
    """A wrong command line or call: exit status 2."""

    exit_status = 2


class DiskFull(BlurkitError):
    """No space is left for output: nothing more can come of a batch, so it ends."""


OnError = Callable[[str, BlurkitError], None]
"""Called with (what failed, why) for each bad item of a batch; the batch then goes on."""


def raise_error(where: str, error: BlurkitError) -> NoReturn:
    """The `OnError` of a plain Python call: the first bad item ends it."""
    raise error


def one_line(error: BaseException) -> str:
    """A library's exception as a single line, without its traceback or line breaks."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
