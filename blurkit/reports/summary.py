"""The final table of `prepare`: the number of records, their size and how blurry they are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.io.records import Record
from blurkit.reports.tables import print_table


class Prepared:
    """Counts finished records by split; a resumed run found `already` records finished."""

    def __init__(self, already: int = 0) -> None:
        self.already = already
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
        """Return plain values: the counts of each split, `already` and the names of the shards.

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
        return {"splits": splits, "already": self.already, "shards": self.shards}

    def print(self, output: str, left_out: Sequence[str]) -> None:
        """Print the table, with a note on the images that were left out."""
        rows = [
            (
                split,
                count,
                self._told_sizes(split),
                f"{self._bytes[split] / 1e6:.1f} MB",
                self._mean(split),
                self._told_sources(split),
            )
            for split, count in self._records.items()
        ]
        note = f"left out: {len(left_out)} (named above)" if left_out else "nothing left out"
        if self.already:
            note += f"; {self.already} records already existed"
        columns = ["split", "records", "sizes", "images", "PSNR(blur, sharp) dB", "split from"]
        print_table(f"prepared to {output}", columns, rows, note)

    def _mean(self, split: str) -> float | None:
        values = self._psnr[split]
        return float(np.mean(values)) if values else None

    def _told_sources(self, split: str) -> str:
        sources = self._sources[split].most_common()
        if len(sources) == 1:
            return Path(sources[0][0]).name
        return ", ".join(f"{Path(source).name} ({count})" for source, count in sources)

    def _told_sizes(self, split: str) -> str:
        sizes = self._sizes[split].most_common()
        text = ", ".join(f"{w}x{h}" for (w, h), _ in sizes[:2])
        return text + (f" and {len(sizes) - 2} more" if len(sizes) > 2 else "")


def _source(record: Record) -> str:
    """Return what stated a record's split; records of shards have it from there."""
    return str(record.attrs.get("split_source", "input" if record.attrs.get("split") else "none"))
