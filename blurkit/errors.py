"""The errors that users see: a one-line message, an exit status, and how a batch continues."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

ENDLESS = re.compile(r"(\S{150})\S{200,}(\S{50})")
"""A word of 400 characters and more, of which a message shows the ends."""

_OTHER = r"[^\s\"'<>?#"
_START = r"\b(?:[a-z][a-z0-9+.-]*://|(?:https?|ftp):/)"
USER = re.compile(rf"({_START}){_OTHER}/]*@", re.IGNORECASE)
QUERY = re.compile(rf"({_START}{_OTHER}]*)[?#](?:[^\s\"'<>]*[^\s\"'<>:;,.)])?", re.IGNORECASE)
"""The user and password of an address in a text; the address, and its query and fragment, which
end before punctuation. Where a path is expected, pathlib has left one slash of two."""


class BlurkitError(Exception):
    """An error in the input. Its message is all that is shown: what is wrong, where, what to do."""

    exit_status = 1

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(BlurkitError):
    """An error in the command line or call; its exit status is 2."""

    exit_status = 2


class NoOutput(BlurkitError):
    """Nothing more can be written where output belongs, so a batch ends instead of going on."""


OnError = Callable[[str, BlurkitError], None]
"""Called with (what failed, why) for each bad item of a batch, which then continues."""


Say = Callable[[str], None]
"""Called with a line for the user, such as a warning."""


def raise_error(where: str, error: BlurkitError) -> NoReturn:
    """Raise `error`: the default `OnError` of Python calls, which stop at the first bad item."""
    raise error


def printable(text: str) -> str:
    """Return a text with control characters and the like escaped, as names of files may have them.

    A terminal would obey them; a line break would make two lines of one. Endless words are cut, and
    addresses are shown without secrets.
    """
    text = ENDLESS.sub(r"\1...\2", without_secrets(text))
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, as torch and oneDNN do in several ways."""
    texts = "out of memory|not enough memory|can't allocate memory|could not create a primitive"
    return isinstance(error, MemoryError) or re.search(texts, str(error)) is not None


@contextmanager
def memory_errors(advice: str = "") -> Iterator[None]:
    """Turn a lack of memory in a block into a BlurkitError, with advice after it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BlurkitError(f"out of memory{advice}") from error


def one_line(error: BaseException) -> str:
    """Return a library's exception as a single line, without traceback, line breaks and colours."""
    text = " ".join(re.sub("\x1b\\[[0-9;]*m", "", str(error)).split())
    return text or type(error).__name__


@contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """Discard what libraries write to standard output (1) or standard error (2) in a block."""
    kept, nowhere = os.dup(descriptor), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)
        os.close(nowhere)


def without_secrets(text: str) -> str:
    """Return a text in which no address has a user, password, query or fragment."""
    return QUERY.sub(r"\1", USER.sub(r"\1", text))
