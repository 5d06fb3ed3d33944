"""Deblurring without torch: a network in an ONNX file, run by ONNX Runtime.

Importing torch takes longer than deblurring a photo of a megapixel.
"""

from __future__ import annotations

import platform
import sys
from functools import partial
from pathlib import Path

from blurkit.cli.batch import Work
from blurkit.cli.deblur import DeblurOptions
from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.reports.progress import say
from blurkit.systems.system import introduction, shipped_file
from blurkit.tasks.deblur import deblur

GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""What Linux shows of a GPU that torch may use."""

CPU_INFO = Path("/proc/cpuinfo")


def onnx_file(options: DeblurOptions) -> Path | None:
    """Return the ONNX file that deblurs, or None if torch is to do it.

    It is the one of `-c`. Without `-c`, --method network uses the file that comes with blurkit
    where that gives the same result sooner: on a processor without bfloat16. Raises
    UsageError for options that only networks of torch have.
    """
    given = options.checkpoint or ""
    plain = options.precision in ("auto", "fp32") and not options.encoder
    plain = plain and options.protocol != "local"
    if given.endswith(".onnx"):
        if not plain:
            raise UsageError(
                "an ONNX file takes no --encoder, no --protocol local and no --precision but fp32"
            )
        return Path(given) if options.way == "network" else None
    if given or options.way != "network" or not plain or not _suits(options):
        return None
    file = shipped_file().with_suffix(".onnx")
    return file if file.exists() else None


def restoring_by_onnx(file: Path, options: DeblurOptions) -> tuple[Work, Engine]:
    """Return the function that deblurs records with the network of an ONNX file, and its engine.

    Raises BlurkitError if the file is damaged or its network does not deblur.
    """
    from blurkit.engine.onnx_runner import OnnxRunner, onnx_engine

    values = None if options.value_range == "auto" else options.value_range
    engine = onnx_engine(file, *options.cut, options.device, options.protocol, _warn, values)
    assert isinstance(engine.runner, OnnxRunner)
    if engine.runner.layout:
        say(f"{file.name}: {engine.runner.layout.summary()}", options.quiet)
    if options.checkpoint is None:
        about = engine.runner.about
        say(introduction(about.title, about.date), options.quiet)
    return partial(deblur, engine=engine, checkpoint=file.name, strength=options.strength), engine


def _warn(text: str) -> None:
    say(f"warning: {text}")


def _suits(options: DeblurOptions) -> bool:
    """Return whether ONNX Runtime is the faster: on a processor that computes in float32."""
    apple = sys.platform == "darwin" and platform.machine() == "arm64"
    gpu = options.device == "auto" and (apple or any(Path(gpu).exists() for gpu in GPUS))
    if gpu or options.device not in ("auto", "cpu"):
        return False
    if options.precision == "fp32":
        return True
    return not (CPU_INFO.exists() and "avx512_bf16" in CPU_INFO.read_text())
