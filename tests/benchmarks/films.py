"""Films under a shaking camera: frame by frame, and each frame with the help of its neighbours.

python -m tests.benchmarks.films             measures and prints the tables (about an hour)
    --write          also writes docs/benchmarks/films.json and the tables of docs/benchmarks.md
    --frames N       the first so many frames of each film
    --width N        the width of the films in pixels
    --only NAME      one film alone: drawn, still, growing or slight

Each frame of a sharp film is blurred in linear light (gamma 2.2) by a path of its own, and noise of
1.5/255 is added: *drawn* paths have lengths from 2 to 30 pixels, a *still* path is the same in all
frames, *growing* ones have 1 to 18 pixels, and *slight* ones less than 4. The blurry film is H.264,
and so is the result. Scores are those of decoded frames, *before* those of the blurry film written
again as the result is: the gain in PSNR after alignment by whole pixels, and *flicker*, the mean
change from frame to frame that is not the sharp film's, of 255. Seconds are those of one processor,
without the first frame.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

import blurkit
from blurkit.io.image_sinks import open_sink
from blurkit.io.records import Record, from_float, to_float
from blurkit.synthesis.kernels import random_trajectory, scaled_path, splat
from tests.benchmarks import pages
from tests.benchmarks.estimate import aligned_psnr
from tests.benchmarks.shake import GAMMA, shaken
from tests.io.films import make_video
from tests.shared import shared_folder

NOISE = 1.5
ENCODER = {"crf": "18", "x264-params": "mbtree=0"}
"""With macroblock trees, x264 encodes differently each time on processors with AVX-512."""

WAYS = ("alone", "film")
"""Each frame alone, and with the help of its neighbours."""

STEADY = {"film": "alone"}
"""Attributes of a frame that is shown where the others of its film are, and begins none."""

FILMS = {
    "drawn": ("more/video/davis_car-shadow", 1),
    "still": ("more/video/vipseg_market", 1),
    "growing": ("more/video/dvp_bedroom_pan", 1),
    "slight": ("video/gopr0477_240fps", 2),
}
"""By name, the folder of the sharp frames in the shared data, and the step between them."""


def sharp_frames(name: str, width: int, count: int) -> list[np.ndarray]:
    """Return the first sharp frames (H, W, 3) uint8 of a film, no wider than `width`."""
    folder, step = FILMS[name]
    files = sorted((shared_folder("data", "BLURKIT_DATA") / folder).iterdir())[::step][:count]
    frames = []
    for file in files:
        with PIL.Image.open(file) as image:
            factor = min(1.0, width / image.width)
            size = [round(side * factor) // 8 * 8 for side in image.size]
            frames.append(np.asarray(image.convert("RGB").resize(size, PIL.Image.LANCZOS)))
    return frames


def lengths(name: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return the lengths of the paths of a film's frames, pixels."""
    return {
        "drawn": np.clip(12 * np.exp(0.7 * rng.standard_normal(count)), 2, 30),
        "still": np.full(count, 12.0),
        "growing": np.linspace(1, 18, count),
        "slight": rng.uniform(0, 4, count),
    }[name]


def blurry_frames(name: str, sharp: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the frames (H, W, 3) uint8 of a film under its paths, their mean in the middle."""
    rng = np.random.default_rng(len(name))
    same = random_trajectory(rng)
    for frame, length in zip(sharp, lengths(name, len(sharp), rng), strict=True):
        path = same if name == "still" else random_trajectory(rng)
        side = 2 * int(length) + 5
        path = scaled_path(path, 1)
        path *= length / max(np.ptp(path.real), np.ptp(path.imag))
        kernel = splat(path.imag + side // 2, path.real + side // 2, side)
        light = torch.from_numpy(to_float(frame)).permute(2, 0, 1) ** GAMMA
        yield from_float(shaken(light, kernel, NOISE, rng), np.uint8)


def restored(film: Path, result: Path, way: str) -> tuple[list[np.ndarray], list[float]]:
    """Return the frames that are read of `result`, a film restored, and the seconds of each.

    The `way` is one of `WAYS`, or "before", which restores nothing.
    """
    work, _ = blurkit.load(device="cpu").deblurring("auto")
    seconds = []

    def begun(record: Record) -> Record | Callable[[], Record]:
        if way == "film":
            return work.begun(record)
        return record if way == "before" else work(Record("alone", record.images, STEADY))

    with open_sink(str(result), ("restored", "blur"), "deblurred") as sink:
        waiting = list[tuple[Record, Any]]()
        for record in [*blurkit.read_records(film), None]:
            started = time.process_time()
            if record is not None:
                waiting.append((record, begun(record)))
            if len(waiting) > (record is not None):
                shown, made = waiting.pop(0)
                made = made if isinstance(made, Record) else made()
                seconds.append(time.process_time() - started)
                sink.write(Record(shown.name, made.images, shown.attrs))
    return decoded(result), seconds


def decoded(film: Path) -> list[np.ndarray]:
    return [record.image("blur") for record in blurkit.read_records(film)]


def flicker(frames: Sequence[np.ndarray], sharp: Sequence[np.ndarray]) -> float:
    """Return the mean change from frame to frame that is not the sharp film's, of 255."""
    made, true = (np.diff(np.stack(film).astype(np.float32), axis=0) for film in (frames, sharp))
    return float(np.abs(made - true).mean())


def measure(name: str, width: int, count: int) -> dict[str, Any]:
    """Return the figures of a film, and of both ways to restore it."""
    sharp = sharp_frames(name, width, count)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / f"{name}.mp4"
        make_video(film, [*blurry_frames(name, sharp)], encoder=ENCODER, audio=False)
        true = [to_float(frame) for frame in sharp]
        figures: dict[str, Any] = {"name": name, "size": sharp[0].shape[1::-1]}
        before = []
        for way in ("before", *WAYS):
            made, seconds = restored(film, Path(folder) / f"{way}.mp4", way)
            scores = [aligned_psnr(m, s) for m, s in zip(made, true, strict=True)]
            before = before or scores
            gains = [a - b for a, b in zip(scores, before, strict=True)]
            figures[way] = {"gains": gains, "flicker": flicker(made, sharp), "seconds": seconds}
    return figures


def table(films: Sequence[dict[str, Any]]) -> str:
    head = [
        *("film", "size", "frames", "way", "gain, dB", "least", "worse by 0.1"),
        *("flicker before", "after", "s a frame"),
    ]
    rows = []
    for film in films:
        for way in WAYS:
            own = film[way]
            about = film["name"], "x".join(map(str, film["size"])), len(own["gains"]), way
            times = film["before"]["flicker"], own["flicker"], np.mean(own["seconds"][1:])
            rows.append((*about, *pages.gained(own["gains"]), *(f"{n:.1f}" for n in times)))
    return pages.table(head, rows)


def main() -> None:
    parser = pages.options(__doc__, frames=16, width=1280)
    parser.add_argument("--only", choices=tuple(FILMS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    films = []
    for name in [given.only] if given.only else FILMS:
        films.append(measure(name, given.width, given.frames))
        for way in WAYS:
            pages.tell(f"{name} {way}: {' '.join(f'{g:+.2f}' for g in films[-1][way]['gains'])}")
    pages.publish(given.write, "films", films, table(films))


if __name__ == "__main__":
    main()
