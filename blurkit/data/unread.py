"""Pictures and films in folders that no command reads: what they are, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.formats import UNREAD_SUFFIXES, why_unread
from blurkit.io.paths import walk


def unread_files(inputs: Iterable[str], but: Iterable[str] = ()) -> set[Path]:
    """Return the pictures and films in and below the folders among `inputs` that are not read.

    Files with a suffix in `but` (in lower case, with its dot) are left out. Folders that cannot be
    read are passed over: whoever reads them reports that.
    """
    suffixes = UNREAD_SUFFIXES.difference(but)
    files: set[Path] = set()
    for text in inputs:
        with suppress(BlurkitError, OSError):
            if text and Path(text).is_dir():
                files.update(path.resolve() for path in walk(Path(text), suffixes))
    return files


def summary_of_unread(files: Iterable[Path]) -> str:
    """Return how many files were skipped, by suffix and with the reasons, in one line."""
    counts = Counter(path.suffix.lower() for path in files)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {suffix} ({why_unread(suffix)})" for suffix, count in ordered]
    return f"skipped {counts.total()}: {', '.join(parts)}"
