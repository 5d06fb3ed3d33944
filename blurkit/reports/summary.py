"""The final table of `prepare`: the number of records, their size and how blurry they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from blurkit.io.records import Record
from blurkit.reports.progress import say
from blurkit.reports.tables import print_table

_IN_WORDS = {"none": "default", "input": "the input"}


class Prepared:
    """Counts finished records by split; a resumed run found `already` records finished.

    `split` is the only one that is prepared, if not "".
    """

    def __init__(self, already: int = 0, split: str = "") -> None:
        self.already, self.split = already, split
        self.shards: list[str] = []
        self._records: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._sources: dict[str, Counter[str]] = defaultdict(Counter)
        self._sizes: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)
        self._psnr: dict[str, list[float]] = defaultdict(list)

    @property
    def records(self) -> int:
        """The number of records counted so far."""
        return sum(self._records.values())

    def add(self, record: Record) -> None:
        """Count one record."""
        split = str(record.attrs.get("split") or "train")
        self._records[split] += 1
        self._bytes[split] += record.bytes
        self._sources[split][_source(record)] += 1
        height, width = next(iter(record.images.values())).shape[:2]
        self._sizes[split][width, height] += 1
        if np.isfinite(record.attrs.get("psnr_blur", np.nan)):
            self._psnr[split].append(record.attrs["psnr_blur"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the counts of each split, `already`, `only_split` and the shards.

        A split has its records, what stated the split for how many of them (a list file, `folder
        name`, `--validation`, `input`, or `none`), bytes, image sizes (width x height), and the
        mean PSNR in dB of the blurry images.
        """
        splits = {
            split: {
                "records": count,
                "split_from": dict(self._sources[split].most_common()),
                "bytes": self._bytes[split],
                "sizes": {f"{w}x{h}": n for (w, h), n in self._sizes[split].most_common()},
                "psnr_blur": self._mean(split),
            }
            for split, count in self._records.items()
        }
        told = {"splits": splits, "already": self.already, "shards": self.shards}
        return told | {"only_split": self.split or None}

    def print(self, output: str, left_out: Sequence[str]) -> None:
        """Print the table, what was left out, and the source of each split."""
        rows = [
            (
                split,
                count,
                self._told_sizes(split),
                f"{self._bytes[split] / 1e6:.1f} MB",
                self._mean(split),
            )
            for split, count in self._records.items()
        ]
        note = f"left out: {len(left_out)} (named above)" if left_out else "nothing left out"
        if self.already:
            note += f"; {self.already} records already existed"
        columns = ["split", "records", "sizes", "images", "PSNR(blur, sharp) dB"]
        print_table(f"prepared to {output}", columns, rows, note)
        for split, sources in self._sources.items():
            told = ", ".join(f"{n} by {_IN_WORDS.get(s, s)}" for s, n in sources.most_common())
            say(f"split {split}: {told}" + (f"; only {split} by --split" if self.split else ""))

    def _mean(self, split: str) -> float | None:
        values = self._psnr[split]
        return float(np.mean(values)) if values else None

    def _told_sizes(self, split: str) -> str:
        sizes = self._sizes[split].most_common()
        text = ", ".join(f"{w}x{h}" for (w, h), _ in sizes[:2])
        return text + (f" and {len(sizes) - 2} more" if len(sizes) > 2 else "")


def _source(record: Record) -> str:
    """Return what stated a record's split; records of older shards only have the split."""
    unknown = "input" if record.attrs.get("split") else "none"
    return str(record.attrs.get("split_source", unknown))
