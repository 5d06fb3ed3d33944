"""How well the shipped weights work, measured on real pairs that training never saw.

python -m tests.benchmarks.quality            measures and prints the tables (about 20 minutes)
    --write          also writes docs/benchmarks/quality.json, the tables made of it in
                     docs/benchmarks.md and README.md, and the pictures
    -c FILE          measures the network of other weights alone; not with --write
    --set SET        one set of pairs alone; not with --write
    --quick          the first pair of each set alone; not with --write
    --default        only scores of `blurkit deblur`: all other figures, times too, stay; not
                     with -c, --set or --quick
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch

import blurkit
from blurkit.engine.torch_runner import choose_device
from blurkit.errors import BlurkitError
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Image, Record, central_crop
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
from blurkit.metrics.psnr import psnr
from blurkit.metrics.ssim import ssim
from blurkit.model import Model
from blurkit.reports.pictures import side_by_side
from blurkit.systems.system import WEIGHTS, shipped_file
from blurkit.systems.uses import start_engine
from blurkit.tasks.deblur import SCORES
from blurkit.tasks.decoupling import decouple, summary
from tests.benchmarks import pages, shake
from tests.benchmarks.classical import METHODS, MIDDLE, best, restored
from tests.benchmarks.measure import command, machine, run, synthesized
from tests.benchmarks.quality_pages import DEFAULT, FREE, NETWORK, benchmarks, tables, write_pages
from tests.benchmarks.real_pairs import HELD_OUT, OTHERS, TRAINED_ON, held_out, others, trained_on
from tests.shared import shared_folder, vgg11

THREADS = 2
STEPS = 7
PHOTOS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
    *("retina.jpg", "grass.png", "gravel.png", "brick.png"),
)
"""Sharp photos that come with scikit-image; training had none of them."""

DIRECTED = ("sharp", "blur", "reblurred")
"""The images of a pair whose gradients' directions are compared."""

Numbers = dict[str, Any]
Models = Mapping[str, Model]
"""What deblurs, by the name that tables give it."""

# ---- deblurring ----------------------------------------------------------------------------------


def deblurring(records: Sequence[Record], models: Models, classical: bool = False) -> Numbers:
    """The scores of every pair, blurry and restored by each method, and seconds each has taken.

    The methods take turns, pair by pair, so that a busy machine slows all of them. `settings` has
    what was best of each classical one, if these are wanted.
    """
    blurs, sharps = ([record.images[role] for record in records] for role in ("blur", "sharp"))
    banks = {name: bank() for name, bank in METHODS.items()} if classical else {}
    settings = {name: best(bank, blurs, sharps) for name, bank in banks.items()}
    rows = []
    for record, blur, sharp in zip(records, blurs, sharps, strict=True):
        images, seconds = {"blurry": blur}, {}
        for name, setting in settings.items():
            started = time.perf_counter()
            images[name] = restored(blur, banks[name][setting])
            seconds[name] = time.perf_counter() - started
        for name, model in models.items():
            made = model.deblur(record)
            images[name] = made.images["restored"]
            seconds[name] = made.attrs["restored_seconds"]
        row = {"name": record.name, "megapixels": blur[..., 0].size / 1e6, "seconds": seconds}
        rows.append(row | {"scores": {n: score(image, sharp) for n, image in images.items()}})
    return {"settings": settings, "pairs": rows}


def score(image: Image, sharp: Image) -> Numbers:
    """PSNR in dB and SSIM, as `blurkit eval` gives them."""
    return {"psnr": psnr(image, sharp), "ssim": ssim(image, sharp)}


def untouched(photos: Mapping[str, Image], models: Models) -> Numbers:
    """By model and name of sharp photos, the PSNR of what deblurring makes of each to the photo."""
    return {
        model: {name: psnr(weights.deblur(photo), photo) for name, photo in photos.items()}
        for model, weights in models.items()
    }


# ---- cost ----------------------------------------------------------------------------------------


def cost(sizes: Sequence[tuple[int, int]], options: Sequence[str]) -> Numbers:
    """By WxH, seconds and peak MiB of `blurkit deblur` on a sharp JPEG, starting included."""
    found = {}
    photo = skimage.data.astronaut()
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            path = Path(folder) / f"{width}x{height}.jpg"
            tiles = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
            write_image(path, np.tile(photo, tiles)[:height, :width])
            seconds, memory = run(command("deblur", path, *options))
            found[path.stem] = {"seconds": seconds, "peak_mib": memory}
    return found


# ---- reblurring ----------------------------------------------------------------------------------


def reblurring(records: Sequence[Record], weights: Model) -> list[Numbers]:
    """Per pair, how near its reblurred sharp image comes to its blur, in dB, and how near the sharp
    one was; the `direction` of all three; and the gradient energies of its interpolation, of its
    middle pixels.
    """
    rows = []
    for record in records:
        made = weights.reblur(record, record)
        middle = {role: central_crop(i, MIDDLE, MIDDLE) for role, i in record.images.items()}
        pair = Record(record.name, middle)
        frames = weights.interpolate(pair, pair, steps=STEPS)
        energies = [frame.attrs["gradient_energy"] for frame in frames]
        directions = {role: direction(made.images[role]) for role in DIRECTED}
        row = {"name": record.name, "energies": energies, "directions": directions}
        rows.append(row | {key: made.attrs[key] for key in SCORES})
    return rows


def direction(image: Image) -> tuple[float, float]:
    """The gradients' anisotropy times the cosine and sine of twice the angle of most of them.

    Anisotropy is the difference of the structure tensor's eigenvalues by their sum: 0 where
    gradients have all directions alike, 1 where they have one. Blur takes gradients along it away.
    """
    rows, columns = np.gradient(image.mean(2), axis=(0, 1))
    gradients = columns + 1j * rows
    mean = np.mean(gradients**2) / np.mean(np.abs(gradients) ** 2)
    return float(mean.real), float(mean.imag)


def decoupling(first: Sequence[Record], second: Sequence[Record], weights: Model) -> Numbers:
    """The averages of the decoupling experiment over pairs of the two sets, in both directions."""
    engine = start_engine("reblurring", weights.checkpoint("deblurring"))
    contextual = ContextualSimilarity(contextual_network(vgg11(), (), choose_device("auto")))
    both = [pair for a, b in zip(first, second, strict=False) for pair in ((a, b), (b, a))]
    return summary([decouple(a, b, engine, contextual).distances for a, b in both])


# ---- pictures ------------------------------------------------------------------------------------
#
# They are of photos that scikit-image carries (CC0 or public domain), blurred by `blurkit prepare`:
# those that the tables are measured on may not be passed on.

BLUR = ("--kernel-size", "9", "17", "--seed", "1")
BLURRED = {
    "shake": ("chelsea.png", 30, 110),
    "camera": ("astronaut.png", 20, 130),
    "objects": ("coffee.png", 70, 200),
}
"""By kind of blur, a photo, and the top and left of the part that is shown."""
LIMITS = (
    ("coffee.png", 60, 175, "realistic", "--kernel-size", "45", "60", "--seed", "3"),
    ("rocket.jpg", 187, 235, "realistic", "--kernel-size", "25", "35", "--highlights", "5"),
    ("astronaut.png", 20, 100, "objects", "--kernel-size", "35", "45", "--seed", "1"),
    ("chelsea.png", 0, 100, "defocus", "--kernel-size", "15", "21", "--noise", "0.004"),
)
"""What the weights cannot undo, likewise: a photo, top and left, the blur and its options."""
SHARP = ("rocket.jpg", 225, 260)
SHOWN = 200
"""The side of what is shown."""


def part(image: Image, top: int, left: int, side: int = SHOWN) -> Image:
    return image[top : top + side, left : left + side]


def row(record: Record, weights: Model, top: int, left: int) -> Image:
    """Blurry, sharpened, Richardson-Lucy, deblurred and sharp: a part of each, side by side."""
    blur, sharp = record.images["blur"], record.images["sharp"]
    images = [blur]
    for name in ("unsharp masking", "Richardson-Lucy"):
        bank = METHODS[name]()
        images.append(restored(blur, bank[best(bank, [blur], [sharp])]))
    images += [weights.deblur(blur), sharp]
    return side_by_side([part(image, top, left) for image in images])


def blurred(photo: str, *blur: str) -> Record:
    """A photo with the blur that these arguments of `blurkit prepare --synthesize` make."""
    return synthesized([Path(skimage.data.__file__).with_name(photo)], *blur)[0]


def write_pictures(folder: Path, weights: Model) -> None:
    """Write quality_KIND.jpg for every kind of blur, limits.jpg, quality_sharp.jpg."""
    for kind, (photo, top, left) in BLURRED.items():
        record = blurred(photo, kind, *BLUR)
        write_image(folder / f"quality_{kind}.jpg", row(record, weights, top, left))
    rows = []
    for photo, top, left, *blur in LIMITS:
        images = blurred(photo, *blur).images
        shown = [images["blur"], weights.deblur(images["blur"]), images["sharp"]]
        rows.append(side_by_side([part(image, top, left, side=220) for image in shown]))
    write_image(folder / "limits.jpg", np.concatenate(rows), quality=85)
    name, top, left = SHARP
    sharp = read_image(Path(skimage.data.__file__).with_name(name)).pixels
    shown = [part(image, top, left) for image in (sharp, weights.deblur(sharp))]
    write_image(folder / "quality_sharp.jpg", side_by_side(shown))


# ---- all of it -----------------------------------------------------------------------------------


def measure_sets(names: Sequence[str], models: Models, count: int | None = None) -> Numbers:
    """What is measured of every set never trained on, or of its first `count` pairs."""
    records = {name: held_out(name)[:count] for name in names}
    return {
        "held_out": {name: deblurring(each, models, True) for name, each in records.items()},
        "sharp": {name: untouched(sharp_images(each), models) for name, each in records.items()},
        "reblurring": {name: reblurring(each, models[NETWORK]) for name, each in records.items()},
    }


def measure_rest(models: Models, options: Sequence[str]) -> Numbers:
    """What is measured once; `options` make `blurkit deblur` use the same network."""
    weights = models[NETWORK]
    shaken = list(shake.pairs(shared_folder("data", "BLURKIT_DATA")))
    commands = {NETWORK: ["--method", "network", *options], DEFAULT: []}
    return {
        "shake": {"shake": deblurring(shaken, models)},
        "shake_reblurring": reblurring(shaken, weights),
        "trained_on": {
            name: deblurring(trained_on(name), {NETWORK: weights}) for name in TRAINED_ON
        },
        "others": {name: deblurring(others(name), models) for name in OTHERS},
        "decoupling": decoupling(held_out("gopro"), held_out("gopro_avg"), weights),
        "cost": {
            name: cost([(1280, 720), (4000, 3000)], given)
            for name, given in commands.items()
            if name in models
        },
    }


def measure_default(models: Models) -> Numbers:
    """The figures of the page with the scores that `blurkit deblur`, the only model, has now."""
    results = pages.known("quality")
    sets: dict[str, dict[str, Sequence[Record]]] = {
        "held_out": {name: held_out(name) for name in HELD_OUT},
        "shake": {"shake": list(shake.pairs(shared_folder("data", "BLURKIT_DATA")))},
        "others": {name: others(name) for name in OTHERS},
    }
    for kind, records in sets.items():
        for name, each in records.items():
            made = deblurring(each, models)["pairs"]
            for old, new in zip(results[kind][name]["pairs"], made, strict=True):
                old["scores"] |= {DEFAULT: new["scores"][DEFAULT]}
    for name, each in sets["held_out"].items():
        results["sharp"][name] |= untouched(sharp_images(each), models)
    results["sharp"]["scikit-image"] |= untouched(scikit_photos(), models)
    return results | {"scored": date.today().isoformat()}


def sharp_images(records: Sequence[Record]) -> dict[str, Image]:
    """The sharp images of pairs, by name."""
    return {record.name: record.images["sharp"] for record in records}


def scikit_photos() -> dict[str, Image]:
    """The middles of `PHOTOS`, by name."""
    folder = Path(skimage.data.__file__).parent
    return {n: central_crop(read_image(folder / n).pixels, 512, 512) for n in PHOTOS}


def fingerprint(file: Path) -> Numbers:
    """The name of a file of weights, its SHA-256, and the bytes of all that come with blurkit."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    others = [path for path in WEIGHTS.iterdir() if path.suffix in {".pt", ".onnx"}]
    size = sum(path.stat().st_size for path in others)
    return {"file": file.name, "sha256": digest, "bytes_in_all": size}


def show(results: Numbers, model: Model, write: bool) -> None:
    """Print the tables of all results; `write` them, and the pictures that the model makes."""
    pages.tell(benchmarks(results))
    if write:
        write_pictures(pages.DOCS / "pictures", model)
        write_pages(results)


def main(arguments: list[str]) -> None:
    parser = pages.options(__doc__)
    parser.add_argument("-c", "--checkpoint", help="weights to measure instead of the shipped ones")
    parser.add_argument("--set", choices=list(HELD_OUT), help="one set of pairs alone")
    parser.add_argument("--quick", action="store_true", help="the first pair of each set alone")
    parser.add_argument("--default", action="store_true", help="only scores of `blurkit deblur`")
    options = parser.parse_args(arguments)
    partial = options.set or options.quick
    if (options.write or options.default) and (partial or options.checkpoint):
        what = "--write" if options.write else "--default"
        parser.error(f"{what} wants everything measured: leave -c, --set and --quick out")
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # of the commands that are started
    torch.set_num_threads(THREADS)
    given = [options.checkpoint] if options.checkpoint else []
    try:
        if options.default:
            models = {DEFAULT: blurkit.load()}
            show(measure_default(models), models[DEFAULT], options.write)
            return
        weights = blurkit.load(*given or [shipped_file()])
        models = {NETWORK: weights}
        if not given:
            models |= {FREE: blurkit.load(WEIGHTS / "free.pt"), DEFAULT: blurkit.load()}
        names = [options.set] if options.set else list(HELD_OUT)
        results = measure_sets(names, models, 1 if options.quick else None)
        if partial:
            pages.tell("\n".join(tables(results)))
            return
        about: Numbers = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "weights": fingerprint(Path(weights.checkpoint("deblurring").where)),
        }
        results = about | results | measure_rest(models, [f"-c{file}" for file in given])
        results["sharp"]["scikit-image"] = untouched(scikit_photos(), models)
        show(results, models.get(DEFAULT, weights), options.write)
    except BlurkitError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
