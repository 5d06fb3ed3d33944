"""Blind deblurring of a photo by the blur that a search finds in one region of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from blurkit.engine.device import Precision
from blurkit.errors import BlurkitError
from blurkit.io.records import Image, Record
from blurkit.systems.system import load_shipped
from blurkit.tasks.blind_deblur import BlindSearch
from blurkit.tasks.deblur import deblur_by_kernel

Region = tuple[int, int, int, int]
"""Left and top corner, width and height of a rectangle in pixels."""


class RegionJob:
    """The search of one region of a record's `blur`; its result is the whole photo.

    The region is searched whole. The photo is restored by non-blind deconvolution with the kernel
    that was found, or with the kernel nearest to the code that was found, by the network that comes
    with blurkit. `warn` is called with a message if that kernel hardly explains the region. Raises
    BlurkitError if the region is not inside the photo.
    """

    def __init__(
        self,
        record: Record,
        search: BlindSearch,
        region: Region,
        device: str = "auto",
        precision: Precision = "auto",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.record, self._region, self._warn = record, region, warn
        self._search, self._hardware = search, (device, precision)
        blur = record.image("blur")
        x, y, width, height = region
        if x + width > blur.shape[1] or y + height > blur.shape[0]:
            raise BlurkitError(
                f"{record.name}: is {blur.shape[1]}x{blur.shape[0]}, "
                f"but --region ends at {x + width},{y + height}"
            )
        cut = Record(record.name, {"blur": blur[y : y + height, x : x + width]}, record.attrs)
        self._job = search.job(cut, None, None, whole=True)

    @property
    def searches(self) -> Sequence[Any]:
        """The search of the region, in a list."""
        return self._job.searches

    @property
    def finished(self) -> bool:
        """Whether the search is finished."""
        return self._job.finished

    @property
    def iteration(self) -> int:
        """The number of image steps so far."""
        return self._job.iteration

    def check_one_blur(self) -> None:
        """Do nothing: a region has one blur."""

    def picture(self) -> Image:
        """Return the current image of the region."""
        return self._job.picture()

    def kernel_picture(self) -> Image:
        """Return a picture of the blur that was found."""
        return self._job.kernel_picture()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the search can be resumed."""
        return self._job.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the saved state of a search of the same region."""
        self._job.load_state_dict(state)

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record with the whole photo as `restored`.

        The attributes are those of the search, `blind_region`, and `blind_kernel_reproduced`, the
        PSNR in dB with which the kernel makes the region's photo of its picture. If the search
        diverged, the photo stays as it is.
        """
        found = self._job.result(by, 1.0, keep_kernel)
        about = {k: v for k, v in found.attrs.items() if k not in self.record.attrs}
        about |= {"blind_region": np.array(self._region), "restored_strength": float(strength)}
        if self.searches[0].diverged:
            images = {**self.record.images, "restored": self.record.image("blur")}
            return Record(self.record.name, images, self.record.attrs | about)
        started = time.perf_counter()
        kernel, reproduced = self._job.convolution()
        enough = self._search.options.enough
        if reproduced < enough:
            self._warn(
                f"{self.record.name}: one kernel explains the region with only {reproduced:.1f} dB "
                f"(--enough {enough:g}); the photo deblurred by it may be wrong"
            )
        # The search blurs pixel values, not linear light.
        undo = deblur_by_kernel(
            load_shipped(use="deconvolving"),
            *self._hardware,
            kernel=kernel,
            gamma=1.0,
            strength=strength,
        )
        whole = undo(self.record)
        region = "region=" + ",".join(map(str, self._region))
        about |= {
            "restored_with": f"{found.attrs['restored_with']} {region}; by its kernel: "
            f"{whole.attrs['restored_with']}",
            "restored_seconds": round(
                found.attrs["restored_seconds"] + time.perf_counter() - started, 4
            ),
            "blind_kernel_reproduced": round(reproduced, 2),
        }
        return Record(self.record.name, whole.images, self.record.attrs | about)
