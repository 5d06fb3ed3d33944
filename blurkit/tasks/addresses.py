"""Files that users name by an address. Imports nothing of the network until one is given."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeGuard, TypeVar

from blurkit.errors import UsageError

_Name = TypeVar("_Name")


def is_address(name: object) -> TypeGuard[str]:
    """Return whether `name` is an address of http, https or the Hugging Face Hub, not a file."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://", "hf://"))


def refuse_unused(digests: Collection[str], names: Iterable[object]) -> None:
    """Raise UsageError if there are digests, but no address that they could belong to."""
    if digests and not any(map(is_address, names)):
        raise UsageError("--sha256 is for files from addresses (https://...); name one")


def local_file(name: _Name, digests: Collection[str], quiet: bool = False) -> _Name | Path:
    """Return the cached file of an address, as `fetched` does; any other name unchanged."""
    if not is_address(name):
        return name
    from blurkit.tasks.fetch import fetched

    return fetched(name, digests, quiet)
