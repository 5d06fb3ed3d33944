"""Compare blur from interpolated frames with blur from the real frames of a fast camera.

    python -m tests.benchmarks.interpolation

prints the table of docs/commands/prepare.md. Of a video of 240 frames per second, every second to
sixteenth frame is kept, the dropped ones are interpolated, and the mean is compared with that of
all real frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from blurkit.io.images import read_image
from blurkit.io.records import Image
from blurkit.metrics.psnr import psnr
from blurkit.synthesis.averaging import Averaging, average_frames, interpolated_average
from tests.benchmarks import pages
from tests.shared import shared_folder

SPAN = 16
"""Gaps between the frames of each blur: 17 frames, 1/15 s at 240 frames per second."""

KEPT = {2: "every 2nd", 4: "every 4th", 8: "every 8th", 16: "every 16th"}

GAMMA = 2.2


def main() -> None:
    """Measure and print the table, in Markdown."""
    folder = shared_folder("data", "BLURKIT_DATA") / "video/gopr0477_240fps"
    frames = [read_image(path).pixels for path in sorted(folder.glob("*.png"))]
    clips = [frames[start : start + SPAN + 1] for start in range(0, len(frames) - SPAN, SPAN)]
    rows = []
    for every, name in KEPT.items():
        means = np.mean([scores(clip, every) for clip in clips], axis=0)
        options = f"`--average {SPAN // every + 1} --interpolate {every}`"
        numbers = [f"{value:.1f}" for value in means[:3]]
        rows.append((f"{name}, {240 / every:g} fps", options, *numbers, f"{means[3]:.3f}"))
    head = ("kept", "options", "kept frames alone", "cross-dissolve", "`--interpolate`")
    pages.tell(pages.table((*head, "agreement"), rows))


def scores(frames: Sequence[Image], every: int) -> tuple[float, float, float, float]:
    """Return how close three blurs made of every `every`-th frame are to the blur of all `frames`.

    PSNR in dB of the mean of the kept frames alone, with cross-dissolved frames between them, and
    with interpolated ones; and the fraction of pixels where the flow agrees.
    """
    real, kept = average_frames(frames), frames[::every]
    averaging = Averaging(len(kept), gamma=GAMMA, interpolate=every)
    made, attrs = interpolated_average(kept, averaging)
    blurs = (average_frames(kept), cross_dissolve(kept, every), made)
    alone, dissolved, flow = (psnr(blur, real) for blur in blurs)
    return alone, dissolved, flow, attrs["flow_agreement"]


def cross_dissolve(frames: Sequence[Image], steps: int) -> Image:
    """Return the mean of uint8 frames and of `steps - 1` mixtures of each two of them."""
    light = [(frame / 255) ** GAMMA for frame in frames]
    total = np.sum(light, axis=0)
    for first, second in pairwise(light):
        total += (steps - 1) / 2 * (first + second)
    mean = total / ((len(frames) - 1) * steps + 1)
    return np.floor(255 * mean ** (1 / GAMMA)).astype(np.uint8)


if __name__ == "__main__":
    main()
