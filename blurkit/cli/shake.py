"""`blurkit deblur --method shake` and `auto`: what undoes the blur that it estimates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blurkit.cli.common import PrecisionName, load_checkpoints, start_engine
from blurkit.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from blurkit.io.records import Record
    from blurkit.systems.deconvolution.deblurring import ShakeDeblurring


def shake_deblurring(
    checkpoint: str | None,
    network: bool,
    kernel: np.ndarray | None,
    gamma: float,
    strength: float,
    keep_kernel: bool,
    device: str,
    precision: PrecisionName,
    quiet: bool,
) -> ShakeDeblurring:
    """Return what deblurs records by their own blur, or by `kernel` (h, w) in light `gamma`.

    `checkpoint` holds a deconvolution network (None: the one that comes with blurkit). With
    `network` MSDI-Net restores what no estimate explains. Raises BlurkitError for a bad file.
    """
    from blurkit.reports.progress import Stages
    from blurkit.systems.deconvolution.config import Shake
    from blurkit.systems.deconvolution.deblurring import ShakeDeblurring, deconvolution_network
    from blurkit.systems.deconvolution.inference import Deconvolution
    from blurkit.tasks.deblur import deblurring_network

    (loaded,) = load_checkpoints(checkpoint, (), quiet, "deconvolution")
    deconvolution = Deconvolution(deconvolution_network(loaded), Shake(), device, precision)
    otherwise = None
    if network:
        (other,) = load_checkpoints(None, (), quiet=True)
        otherwise = start_engine(deblurring_network(other), other, None, None, device, precision)
    return ShakeDeblurring(
        deconvolution,
        loaded.name,
        kernel,
        otherwise,
        gamma,
        strength,
        keep_kernel,
        Stages("window", quiet),
    )


def read_one_kernel(path: Path) -> np.ndarray:
    """Return the kernel (h, w) in a file.

    Raises UsageError for a file of several kernels, or for values below 0.
    """
    from blurkit.synthesis.kernels import read_kernels

    kernels = read_kernels(path)
    if len(kernels) > 1:
        names = ", ".join(name for name, _ in kernels[:3])
        raise UsageError(
            f"--kernel {path}: holds {len(kernels)} ({names}, ...); give a file of one"
        )
    kernel = kernels[0][1]
    if (kernel < 0).any():
        raise UsageError(f"--kernel {path}: holds values below 0, which no blur has")
    return kernel


def print_summary(record: Record, network: bool, quiet: bool) -> None:
    """Print which blur of a photo was found and undone, by the `network` where none was."""
    from blurkit.reports.progress import say
    from blurkit.systems.deconvolution.deblurring import windows_summary

    say(f"{record.name}: {windows_summary(record, network)}", quiet)
