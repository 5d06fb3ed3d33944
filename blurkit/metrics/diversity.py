"""How much the versions of a photo differ from each other, and how near they stay to the photo.

A generator of blur whose noise does nothing gives versions that are alike; one that loses the
content gives such that are far from the photo.
"""

from __future__ import annotations

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
    """The mean PSNR in dB over all pairs of versions of a photo; lower is more diverse.

    Images (H, W, C), rounded to 8 bits; infinite when two of them are identical. Raises
    BlurkitError for fewer than two and for images of different sizes.
    """
    if len(versions) < 2:
        raise BlurkitError(f"diversity needs two versions of a photo at least; got {len(versions)}")
    rounded = [eight_bit(version) for version in versions]
    return fmean(psnr(first, second) for first, second in combinations(rounded, 2))


class Diversity:
    """The versions of many photos, one photo after another. Only one photo's are held at a time."""

    def __init__(self) -> None:
        self._rows: list[Scored] = []
        self._name = ""
        self._sharp: Image | None = None
        self._versions: list[Image] = []

    def add(self, name: str, version: Image, sharp: Image) -> None:
        """A `version` of the photo `sharp`.

        Versions of one photo share that very array, by which they are known to belong together.
        """
        if sharp is not self._sharp:
            self._close()
            self._name, self._sharp = name, sharp
        self._versions.append(eight_bit(version))

    def _close(self) -> None:
        """Measure the versions of the photo at hand; a single one tells nothing."""
        if self._sharp is not None and len(self._versions) > 1:
            sharp = eight_bit(self._sharp)
            to_sharp = fmean(psnr(version, sharp) for version in self._versions)
            scores: Scores = {
                "pairwise_psnr": pairwise_psnr(self._versions),
                "psnr_sharp": to_sharp,
            }
            self._rows.append(Scored(self._name, scores, "."))
        self._sharp, self._versions = None, []

    def summary(self) -> dict[str, float | int | None]:
        """What all photos of two versions or more come to; empty where there is none.

        How many `photos` there are, and the means over them of `pairwise_psnr` and `psnr_sharp`,
        the mean PSNR of a photo's versions to the photo, in dB on 8-bit values. As in other means
        infinite values are left out; `identical` photos are those with identical versions.
        """
        self._close()
        if not self._rows:
            return {}
        means = mean_scores(self._rows)
        alike = sum(row.scores["pairwise_psnr"] == math.inf for row in self._rows)
        return {
            "photos": len(self._rows),
            "identical": alike,
            "pairwise_psnr": means["pairwise_psnr"],
            "psnr_sharp": means["psnr_sharp"],
        }
