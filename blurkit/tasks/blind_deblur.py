"""Blind deblurring: the result of a search, of a whole photo or of a region of it."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from blurkit.io.records import Record
from blurkit.options import Placement, Precision
from blurkit.systems.blind_search import TiledSearch
from blurkit.systems.system import load_shipped
from blurkit.tasks.deblur import deblur_by_kernel


def deblur_by_search(
    search: TiledSearch,
    by: str,
    strength: float = 1.0,
    keep_kernel: bool = False,
    device: str = "auto",
    precision: Precision = "auto",
    warn: Callable[[str], None] = lambda text: None,
) -> Record:
    """Return the record of a finished search with `restored`, and attributes that describe it.

    After the search of a region, the whole photo is restored by non-blind deconvolution with the
    kernel that was found, or with the kernel nearest to the code that was found, by the network
    that comes with blurkit. `blind_region` and `blind_kernel_reproduced` are then stored, too: the
    PSNR in dB between the region and its picture blurred by the kernel. `warn` is called with a
    message if that is low. If the search diverged, the photo stays as it is.

    `by` is stored as the name of what restored the record, `strength`, 0 to 1, is the fraction of
    the change that is kept, and `keep_kernel` stores the blur as the attribute `kernel`. Raises as
    `TiledSearch.result` does.
    """
    if search.region is None:
        return search.result(by, strength, keep_kernel)
    record = search.record
    about = search.result(by, 1.0, keep_kernel).attrs
    about |= {"blind_region": np.array(search.region), "restored_strength": float(strength)}
    if search.searches[0].diverged:
        return Record(record.name, {**record.images, "restored": record.image("blur")}, about)
    started = time.perf_counter()
    kernel, reproduced = search.nearest_kernel()
    least = search.context.options.warn_below
    if reproduced < least:
        warn(
            f"{record.name}: one kernel explains the region with only {reproduced:.1f} dB "
            f"(warn_below {least:g}); the photo deblurred by it may be wrong"
        )
    # The search blurs pixel values, not linear light.
    deblur = deblur_by_kernel(
        load_shipped(use="deconvolving"),
        Placement(device, precision),
        kernel=kernel,
        gamma=1.0,
        strength=strength,
    )
    whole = deblur(record)
    region = ",".join(map(str, search.region))
    about |= {
        "restored_with": f"{about['restored_with']} region={region}; by its kernel: "
        f"{whole.attrs['restored_with']}",
        "restored_seconds": round(about["restored_seconds"] + time.perf_counter() - started, 4),
        "blind_kernel_reproduced": round(reproduced, 2),
    }
    return Record(record.name, whole.images, about)
