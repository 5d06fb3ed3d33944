"""How much the versions of a photo differ from each other, and how close they stay to the photo.

A blur generator that ignores its noise produces identical versions; one that loses the content
produces versions far from the photo.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

from blurkit.errors import BlurkitError
from blurkit.io.records import Image
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import Scores, eight_bit
from blurkit.metrics.statistics import Scored, mean_scores


def pairwise_psnr(versions: Sequence[Image]) -> float:
    """Return the mean PSNR in dB over all pairs of versions of a photo; lower is more diverse.

    The images (H, W, C) are rounded to 8 bits; the mean is infinite if two of them are identical.
    Raises BlurkitError if there are fewer than two images or their sizes differ.
    """
    if len(versions) < 2:
        raise BlurkitError(f"diversity needs at least two versions of a photo; got {len(versions)}")
    rounded = [eight_bit(version) for version in versions]
    return fmean(psnr(first, second) for first, second in combinations(rounded, 2))


class Diversity:
    """Measures the versions of many photos; only those of one photo are in memory at a time."""

    def __init__(self) -> None:
        self._rows: list[Scored] = []
        self._sharp: Image | None = None
        self._versions: list[Image] = []

    def add(self, version: Image, sharp: Image) -> None:
        """Add a `version` of the photo `sharp`, the same array object for all versions of it."""
        if sharp is not self._sharp:
            self._close()
            self._sharp = sharp
        self._versions.append(eight_bit(version))

    def _close(self) -> None:
        """Measure the versions of the current photo, unless there is only one."""
        if self._sharp is not None and len(self._versions) > 1:
            sharp = eight_bit(self._sharp)
            scores: Scores = {
                "pairwise_psnr": pairwise_psnr(self._versions),
                "psnr_sharp": fmean(psnr(version, sharp) for version in self._versions),
            }
            self._rows.append(Scored("", scores, "."))
        self._sharp, self._versions = None, []

    def summary(self) -> dict[str, float | int | None]:
        """Return the means over all photos with at least two versions; empty if there are none.

        `photos` is the number of these photos, `identical` the number of those with identical
        versions. `pairwise_psnr` and `psnr_sharp`, the mean PSNR of the versions against their
        photo, are in dB on 8-bit values; like other means, they leave out infinite values.
        """
        self._close()
        if not self._rows:
            return {}
        means = mean_scores(self._rows)
        identical = sum(row.scores["pairwise_psnr"] == math.inf for row in self._rows)
        counts = {"photos": len(self._rows), "identical": identical}
        return counts | {key: means[key] for key in ("pairwise_psnr", "psnr_sharp")}
