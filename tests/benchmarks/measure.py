"""How the benchmarks measure: side by side in one run, alternating, medians of ratios."""

import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np
import skimage.data

import blurkit
from blurkit.io.records import Record


class Result(NamedTuple):
    """One line of the table: what, ratio (median and spread), goal, how it came about."""

    what: str
    ratio: str
    goal: str
    how: str


class Medians(NamedTuple):
    """Median seconds of two things, and median, least and largest ratio second/first."""

    first: float
    second: float
    ratio: float
    least: float
    most: float

    def told(self, digits: int = 2) -> str:
        """The ratios in words."""
        ratio, least, most = (f"{value:.{digits}f}" for value in self[2:])
        return f"{ratio}x ({least}-{most})"


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> Medians:
    """Measure two things in turn; the ratios are those of pairs."""
    times = [(first(), second()) for _ in range(rounds)]
    ratios = [b / a for a, b in times]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Medians(*medians, statistics.median(ratios), min(ratios), max(ratios))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "blurkit", *map(str, arguments)]


# A process begins with the peak of the one that started it, so a small one has to.
_LAUNCHER = """
import resource, subprocess, sys, time
nothing = subprocess.DEVNULL
started = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdin=nothing, stdout=nothing, stderr=nothing).returncode
elapsed = time.perf_counter() - started
print(elapsed, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
sys.exit(status)
"""


def run(arguments: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MiB) of a command, whose output is thrown away."""
    command = [sys.executable, "-S", "-c", _LAUNCHER, *arguments]
    elapsed, memory = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.split()
    return float(elapsed), float(memory)


def shell(line: str) -> float:
    pipe = ["bash", "-o", "pipefail", "-c", line]
    return seconds(lambda: subprocess.run(pipe, check=True, stderr=subprocess.DEVNULL))


def synthesized(inputs: list[Path], *blur: str) -> list[Record]:
    """Photos with the blur that these arguments of `blurkit prepare --synthesize` make."""
    with tempfile.TemporaryDirectory() as folder:
        shard = f"{folder}/pairs.h5"
        run(command("prepare", *inputs, "--synthesize", *blur, "--quiet", "-o", shard))
        return list(blurkit.read_records(shard))


def make_pairs(folder: Path, count: int) -> Path:
    """A GoPro-like tree of `count` 1280x720 PNG pairs from a photograph of scikit-image."""
    image = imageio.imread(Path(skimage.data.__file__).with_name("retina.jpg"))
    rows = np.arange(720) + 300
    for number in range(count):
        columns = np.arange(1280) + number % 100
        sharp = image[np.ix_(rows, columns)]
        blur = ((sharp.astype(np.uint16) + np.roll(sharp, 5, axis=1)) // 2).astype(np.uint8)
        noise = np.random.default_rng(number).integers(0, 3, sharp.shape, dtype=np.uint8)
        for role, pixels in (("blur", blur), ("sharp", np.minimum(sharp, 252) + noise)):
            path = folder / "train" / "scene" / role / f"{number:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            imageio.imwrite(path, pixels, plugin="pillow", compress_level=1)
    return folder


def make_photos(folder: Path) -> None:
    """Write photo.jpg, large.jpg and photos/ with 20 photos, parts of one in scikit-image."""
    photo = imageio.imread(Path(skimage.data.__file__).with_name("retina.jpg"))
    (folder / "photos").mkdir()
    parts = {f"photos/{n:02}": photo[20 * n : 20 * n + 480, 300:940] for n in range(20)}
    parts |= {"photo": photo[:720, :1280], "large": np.tile(photo, (3, 3, 1))[:3000, :4000]}
    for name, pixels in parts.items():
        imageio.imwrite(folder / f"{name}.jpg", pixels, quality=95)


def machine() -> str:
    """The machine in words: processor, processors this may use, Python, torch."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists() and (names := re.findall(r"model name\s*: (.*)", info.read_text())):
        cpu = names[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{cpu}, {cores} processors, {gpu}, {versions}"
