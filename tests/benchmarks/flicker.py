"""How much a film of a scene that stands still flickers before and after deblurring.

python -m tests.benchmarks.flicker             measures and prints the table (some minutes)
    --frames N       frames of each film, 6 by default

A photo is repeated with noise of its own in every frame: sharp, or with a camera shake that stays
the same. *Flicker* is the root mean square of the difference between a frame and the next, in grey
levels of 255. Frames are deblurred one by one, as `blurkit deblur film.mp4` does.
"""

from collections.abc import Sequence

import numpy as np
import skimage.data
import torch

import blurkit
from blurkit.metrics.psnr import psnr
from blurkit.reports.progress import track
from blurkit.reports.tables import print_table
from blurkit.synthesis.rendering import convolve
from tests.benchmarks import pages
from tests.systems.deconvolution.photos import shake

PHOTOS = {
    "astronaut": skimage.data.astronaut()[:256, 120:376],
    "coffee": skimage.data.coffee()[80:336, 170:426],
}
NOISE = 2.0
"""The standard deviation of the noise in grey levels, as of a phone in daylight."""

SCENES = {"sharp, no noise": (0, 0.0), "sharp": (0, NOISE), "shaken": (15, NOISE)}
"""By name, the side of the kernel in pixels, 0 for none, and the noise."""


def flicker(frames: Sequence[np.ndarray]) -> float:
    """Return the root mean square of the differences between consecutive frames, grey levels."""
    return float(np.sqrt(np.mean(np.diff(np.float64(frames), axis=0) ** 2)))


def still_film(photo: np.ndarray, side: int, noise: float, frames: int) -> list[np.ndarray]:
    """Return frames (H, W, 3) uint8 of a photo that is blurred once and noisy in every frame."""
    generator = np.random.default_rng(0)
    scene = photo / 255
    if side:
        image = torch.from_numpy(scene).permute(2, 0, 1).float()
        scene = convolve(image, shake(1, side)).permute(1, 2, 0).numpy()
    noisy = (255 * scene + generator.normal(0, noise, scene.shape) for _ in range(frames))
    return [np.clip(np.rint(frame), 0, 255).astype(np.uint8) for frame in noisy]


def main() -> None:
    count = pages.options(__doc__, write=False, frames=6).parse_args().frames
    model = blurkit.load()
    cases = [(s, p, m) for s in SCENES for p in PHOTOS for m in ("network", "auto")]
    rows = []
    for scene, name, method in track(cases, "flicker", len(cases), "film"):
        film = still_film(PHOTOS[name], *SCENES[scene], count)
        made = [model.deblur(frame, method=method) for frame in film]
        before, after = flicker(film), flicker(made)
        kept = psnr(made[0], film[0])
        quality = psnr(film[0], PHOTOS[name]), psnr(made[0], PHOTOS[name])
        ratio = after / before if before else None
        rows.append((scene, name, method, before, after, ratio, kept, *quality))
    print_table(
        "flicker of films of still scenes",
        [
            *("scene", "photo", "method", "flicker before", "after", "ratio"),
            *("after against before, dB", "before against sharp, dB", "after against sharp, dB"),
        ],
        rows,
        note=f"{count} frames of 256x256; noise of {NOISE} grey levels",
    )


if __name__ == "__main__":
    main()
