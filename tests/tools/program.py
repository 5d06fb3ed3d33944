"""What the programs in this folder share: their exit status, and errors in one line."""

from collections.abc import Callable, Sequence
from functools import wraps

from blurkit.errors import BlurkitError, one_line
from blurkit.reports.progress import say


def program(work: Callable[[Sequence[str]], None]) -> Callable[[Sequence[str]], int]:
    """Return a program that gives its exit status: what its files lack is told in one line."""

    @wraps(work)
    def main(arguments: Sequence[str]) -> int:
        try:
            work(arguments)
        except (BlurkitError, OSError) as error:
            say(f"error: {one_line(error)}")
            return 1
        return 0

    return main
