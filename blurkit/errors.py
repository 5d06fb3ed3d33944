"""The errors that users see: a one-line message, an exit status, and how a batch continues."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn


class BlurkitError(Exception):
    """An error in the input. Its message is all that is shown: what is wrong, where, what to do."""

    exit_status = 1


class UsageError(BlurkitError):
    """An error in the command line or call; its exit status is 2."""

    exit_status = 2


class DiskFull(BlurkitError):
    """No space is left for output, so a batch ends instead of continuing with the next item."""


OnError = Callable[[str, BlurkitError], None]
"""Called with (what failed, why) for each bad item of a batch, which then continues."""


def raise_error(where: str, error: BlurkitError) -> NoReturn:
    """Raise `error`: the default `OnError` of Python calls, which stop at the first bad item."""
    raise error


def one_line(error: BaseException) -> str:
    """Return a library's exception as a single line, without its traceback or line breaks."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
