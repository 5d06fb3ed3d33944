"""Training of the deconvolution network, on photos and on windows of pairs.

python -m blurkit.systems.deconvolution.training --photos FOLDERS... --windows FILES... -o out.pt

The same command with the same output resumes. With --draft, the step that joins drafts is trained,
and nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from blurkit.data.sources import read_records
from blurkit.data.workers import ahead
from blurkit.engine.device import autocast, channels_last, choose_device, choose_precision
from blurkit.errors import BlurkitError
from blurkit.interrupts import noted
from blurkit.io.checkpoints import (
    Checkpoint,
    half_moments,
    halved,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from blurkit.io.records import to_float
from blurkit.io.writing import refuse_existing
from blurkit.nn.blocks import blueprints
from blurkit.reports.progress import Progress, program, say
from blurkit.systems.deconvolution.fourier import (
    centred,
    irfft2,
    measured_noise,
    padded,
    rfft2,
    transfer_function,
)
from blurkit.systems.deconvolution.networks import Deconvolver, Restored, joining
from blurkit.systems.uses import network_for
from blurkit.version import __version__

EXPECTED_BLOCK = 8
"""Side of the blocks whose errors the network predicts."""


def losses(made: Restored, photos: Tensor, sharp: Tensor) -> dict[str, Tensor]:
    """Return the terms of the loss: the images, their spectra, and the predicted errors.

    `photos` are the images that the result has to improve on.
    """
    spectra = [rfft2(image.float(), norm="ortho") for image in (made.image, sharp)]
    errors = [
        F.avg_pool2d((image.detach().float() - sharp).abs().mean(1, keepdim=True), EXPECTED_BLOCK)
        for image in (photos, made.image)
    ]
    true = torch.cat(errors, 1).clamp_min(1e-3).log()
    return {
        "l1": (made.image - sharp).abs().mean(),
        "first": 0.4 * (made.first - sharp).abs().mean(),
        "spectrum": 0.02 * (spectra[0] - spectra[1]).abs().mean(),
        "judge": 0.02 * (made.errors - true).abs().mean(),
    }


class DeconvolutionTraining:
    """The network, its optimiser and averaged weights, which can be saved and resumed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.o = options
        self.device = choose_device(options.device)
        self.dtype = choose_precision(options.precision, self.device)
        torch.manual_seed(options.seed)
        self.network = Deconvolver()
        self.began: dict[str, Any] = {}
        if options.start:
            initial = load_checkpoint(options.start)
            network = network_for("deconvolving", initial).train()
            assert isinstance(network, Deconvolver)
            self.network = network
            self.began["start"] = initial.provenance
        self.drafting = None
        if options.draft:
            self.network = joining(self.network)
            draft = load_checkpoint(options.draft)
            self.drafting = channels_last(network_for("deblurring", draft).to(self.device))
            self.began["draft"] = {"file": draft.name, "date": draft.provenance.get("date", "")}
        self.initial = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), options.learning_rate, (0.9, 0.99), weight_decay=1e-4
        )
        self.averaged = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.step, self.seconds = 0, 0.0
        self.state = options.output.with_suffix(".state.pt")
        if self.state.exists():
            with self.state.open("rb") as file:
                saved = load_tensors(file, str(self.state))
            self.network.load_state_dict(saved["network"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.averaged = {k: v.to(self.averaged[k]) for k, v in saved["averaged"].items()}
            self.step = saved["step"]
            self.seconds = saved["seconds"]

    def save(self) -> None:
        """Save the state that resuming needs."""
        saved = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": self.averaged,
            "step": self.step,
            "seconds": self.seconds + time.process_time(),
        }
        if self.o.half_state:
            saved |= {
                "network": halved(self.network.state_dict()),
                "optimizer": half_moments(self.optimizer.state_dict()),
                "averaged": halved(self.averaged),
            }
        save_tensors(saved, self.state)

    def take(self, photos: Tensor, sharp: Tensor, kernels: Tensor, gammas: Tensor) -> list[float]:
        """Make one step; return its losses."""
        o = self.o
        fraction = max(0.0, self.step / o.steps - o.constant) / (1 - o.constant)
        rate = o.learning_rate * min(1, (self.step + 1) / 300) * (1 + math.cos(math.pi * fraction))
        for group in self.optimizer.param_groups:
            group["lr"] = max(rate / 2, 1e-6)
        photos, sharp, kernels, gammas = (
            tensor.to(self.device) for tensor in (photos, sharp, kernels, gammas)
        )
        drafts = self.drafts(photos)
        with autocast(self.device, self.dtype):
            made = self.network(photos, kernels, measured_noise(photos), gammas, drafts)
        terms = losses(made, photos if drafts is None else drafts, sharp)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 0.5)
        self.optimizer.step()
        self.step += 1
        decay = min(o.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.averaged[key].lerp_(value, 1 - decay)
        return torch.stack(list(terms.values())).tolist()

    @torch.no_grad()
    def drafts(self, photos: Tensor) -> Tensor | None:
        """Return what the drafting network makes of photos (N, 3, H, W); None without one."""
        if self.drafting is None:
            return None
        with autocast(self.device, self.dtype):
            made = self.drafting(photos)
        image: Tensor = made[-1] if isinstance(made, list) else made
        return image.float()

    def checkpoint(self) -> Checkpoint:
        """Return the averaged weights in half precision, with their provenance.

        The initial weights have the share `keep` in them (WiSE-FT; Wortsman et al., CVPR 2022).
        """
        about: dict[str, Any] = {
            "blurkit": __version__,
            "date": datetime.now(timezone.utc).date().isoformat(),
            "command": " ".join(["training", *sys.argv[1:]]),
            "iterations": self.step,
            "processor_hours": round((self.seconds + time.process_time()) / 3600, 2),
            **self.began,
        }
        weights = {
            k: torch.lerp(v, self.initial[k].to(v), self.o.keep) if v.is_floating_point() else v
            for k, v in self.averaged.items()
        }
        return Checkpoint(
            {"deconvolution": halved(weights)},
            "deconvolution",
            provenance=about,
            blueprints=blueprints({"deconvolution": self.network}),
        )


def train_deconvolution(o: argparse.Namespace) -> None:
    """Train to the last step and write the checkpoint; SIGTERM and SIGINT save and stop."""
    if not o.output.with_suffix(".state.pt").exists():
        refuse_existing(o.output, o.force)
    samples = Samples(o.photos, o.windows, o.seed)
    training = DeconvolutionTraining(o)
    progress = Progress("training", o.steps, "step", training.step)
    began = saved = time.monotonic()
    first = training.step
    log = o.output.with_suffix(".log.jsonl")
    work = partial(samples.arrays, count=o.batch, side=o.crop)
    with noted() as stopped:
        with closing(ahead(work, range(training.step, o.steps), o.jobs)) as batches:
            for batch in batches:
                photos, sharp, kernels, gammas = map(torch.from_numpy, batch)
                terms = training.take(photos, sharp, kernels, gammas)
                progress.advance()
                now = time.monotonic()
                speed = round((training.step - first) * o.batch / (now - began), 2)
                if training.step % 100 == 0:
                    line = {"step": training.step, "losses": terms, "crops_per_second": speed}
                    with log.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                if now - saved > 180:
                    training.save()
                    saved = now
                if stopped() or (o.minutes and now - began > 60 * o.minutes):
                    break
        progress.close()
        training.save()
    if training.step > first:
        say(f"step {training.step} of {o.steps}, {speed} crops/s")
    if stopped():
        say(f"stopped at step {training.step}; the same command resumes")
        raise SystemExit(128 + stopped())
    if training.step < o.steps:
        say("time is up; the state is saved, the same command resumes")
        return
    save_checkpoint(training.checkpoint(), o.output)


@program
def main(arguments: Sequence[str]) -> None:
    """Run the training that the command line describes."""
    parser = argparse.ArgumentParser("training", description=__doc__)
    parser.add_argument("--photos", nargs="+", required=True, help="folders of sharp photos")
    parser.add_argument("--windows", nargs="+", required=True, help="shards of windows")
    parser.add_argument("-o", "--output", required=True, type=Path, help="checkpoint to write")
    parser.add_argument("--start", help="checkpoint to start from")
    parser.add_argument("--draft", help="checkpoint that deblurs: train the step that joins drafts")
    parser.add_argument(
        "--keep", type=float, default=0, help="share of the initial weights in the result"
    )
    parser.add_argument("--steps", type=int, default=100_000, help="total number of steps")
    parser.add_argument("--batch", type=int, default=4, help="samples per step")
    parser.add_argument("--crop", type=int, default=192, help="side of a sample, pixels")
    parser.add_argument("--learning-rate", type=float, default=4e-4, help="peak learning rate")
    parser.add_argument("--constant", type=float, default=0.5, help="fraction before its decay")
    parser.add_argument("--ema", type=float, default=0.999, help="decay of averaged weights")
    parser.add_argument("--seed", type=int, default=11, help="seed of weights and samples")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    parser.add_argument("--minutes", type=float, default=0, help="then save and stop; 0: never")
    parser.add_argument("--jobs", type=int, default=0, help="processes that draw samples ahead")
    parser.add_argument("--half-state", action="store_true", help="save a state of half the size")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    train_deconvolution(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


# ---- Samples -------------------------------------------------------------------------------------
# Samples that the deconvolution network is trained on, drawn from photos and windows of pairs.
#
# Half of them are sharp photos, blurred in every step by true kernels of the windows, in linear
# light or not, with noise, highlights and JPEG; the network gets the true kernel, a disturbed one,
# or the estimate. The other half are windows of pairs, with real blur and their estimates.

MARGIN = 22
"""Pixels around a crop that its blur reaches; kernels are at most twice that plus 1."""

LONGEST_SIDE = 1600
"""Larger photos are shrunk_photo to this side, which makes them sharp down to the pixel."""

REAL = 0.5
"""Fraction of samples that are windows of pairs."""

IDENTITY = 0.05
"""Fraction of samples that are not blurred at all, whatever their kernel is."""


@dataclass
class Sample:
    """A photo (3, S, S), its sharp version, the kernel that the network gets, and its gamma."""

    photo: Tensor
    sharp: Tensor
    kernel: Tensor
    gamma: float


class Samples:
    """Draws training samples from photos and windows; they depend on seed and step alone."""

    def __init__(self, photos: Sequence[str], windows: Sequence[str], seed: int) -> None:
        self.seed = seed
        self.photos = [shrunk_photo(r.image("sharp")) for r in read_records(photos, image="sharp")]
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in self.photos])
        self.chances = np.sqrt(areas) / np.sqrt(areas).sum()
        self.windows = [list(read_records([file])) for file in windows]
        everything = [record for records in self.windows for record in records]
        self.kernels = [
            (record.attrs["kernel"], record.attrs["estimates"])
            for record in everything
            if "kernel" in record.attrs and max(record.attrs["kernel"].shape) <= 2 * MARGIN + 1
        ]
        if not (self.photos and self.kernels):
            raise BlurkitError("training needs sharp photos and windows with their true kernels")

    def batch(self, step: int, count: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return photos and sharp images (N, 3, S, S), kernels (N, K, K) and gammas (N,)."""
        rng = np.random.default_rng([self.seed, step])
        samples = [
            self.window(rng, side) if rng.random() < REAL else self.made(rng, side)
            for _ in range(count)
        ]
        return (
            torch.stack([sample.photo for sample in samples]),
            torch.stack([sample.sharp for sample in samples]),
            torch.stack([padded(sample.kernel.float(), 2 * MARGIN + 1) for sample in samples]),
            torch.tensor([sample.gamma for sample in samples]),
        )

    def arrays(self, step: int, count: int, side: int) -> list[np.ndarray]:
        """Return the tensors of `batch` as arrays, which can be sent between processes."""
        if multiprocessing.parent_process():
            torch.set_num_threads(1)  # a forked process lacks its parent's threads
        return [tensor.numpy() for tensor in self.batch(step, count, side)]

    def window(self, rng: np.random.Generator, side: int) -> Sample:
        """Return a crop of a window with one of its estimates."""
        records = self.windows[int(rng.integers(len(self.windows)))]
        record = records[int(rng.integers(len(records)))]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        blur, sharp = (
            oriented(to_float(record.image(role)), turns, flip) for role in ("blur", "sharp")
        )
        estimates = record.attrs["estimates"]
        kernel = oriented(estimates[int(rng.integers(len(estimates)))], turns, flip)
        place = tuple(
            slice(start := int(rng.integers(max(0, length - side) + 1)), start + side)
            for length in blur.shape[:2]
        )
        photo, target = (channels_first(image[place], side) for image in (blur, sharp))
        if rng.random() < IDENTITY:
            photo = target
        return Sample(photo, target, torch.from_numpy(kernel), float(rng.choice([1.0, 2.2])))

    def made(self, rng: np.random.Generator, side: int) -> Sample:
        """Return a crop of a photo blurred by a true kernel, with it or an inaccurate kernel."""
        true, estimates = self.kernels[int(rng.integers(len(self.kernels)))]
        kernel = true
        if (kind := rng.random()) < 0.5:
            kernel = estimates[int(rng.integers(len(estimates)))]
        elif kind > 0.7:
            kernel = disturbed(rng, true)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        true, kernel = (torch.from_numpy(oriented(k, turns, flip)) for k in (true, kernel))
        wide = channels_first(oriented(self.crop(rng, side + 2 * MARGIN), turns, flip), side)
        light = 2.2 if rng.random() < 0.75 else 1.0
        gamma = light if rng.random() < 0.85 else 3.2 - light
        inside = (..., slice(MARGIN, MARGIN + side), slice(MARGIN, MARGIN + side))
        blur = wide
        if rng.random() >= IDENTITY:
            blur = blurred(rng, wide, true.float(), light)
        return Sample(degraded(rng, blur[inside]), wide[inside], kernel, gamma)

    def crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """Return a square (side, side, 3) of a photo, resized at random."""
        photo = self.photos[int(rng.choice(len(self.photos), p=self.chances))]
        scale = (
            rng.uniform(0.5, 1.1) if max(photo.shape) > LONGEST_SIDE / 2 else rng.uniform(0.8, 1.3)
        )
        cut = min(int(side / scale), *photo.shape[:2])
        top, left = (int(rng.integers(length - cut + 1)) for length in photo.shape[:2])
        part = PIL.Image.fromarray(photo[top : top + cut, left : left + cut])
        return to_float(np.asarray(part.resize((side, side), PIL.Image.Resampling.BICUBIC)))


# ---- pieces of a sample --------------------------------------------------------------------------


def shrunk_photo(photo: np.ndarray) -> np.ndarray:
    """Return an 8-bit RGB photo with no side longer than `LONGEST_SIDE`."""
    image = PIL.Image.fromarray((to_float(photo) * 255 + 0.5).astype(np.uint8).squeeze())
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def oriented(array: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    """Return an image or kernel (H, W, ...) in one of a square's eight orientations."""
    array = np.rot90(array, turns)
    return np.ascontiguousarray(array[:, ::-1] if flip else array)


def channels_first(image: np.ndarray, side: int) -> Tensor:
    """Return (3, H, W) from (H, W, C), mirrored right and below up to `side` pixels."""
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    missing = [(0, max(0, side - length)) for length in colour.shape[:2]]
    whole = np.pad(colour, [*missing, (0, 0)], mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


def disturbed(rng: np.random.Generator, kernel: np.ndarray) -> np.ndarray:
    """Return a slightly wrong kernel: smoother, noisy, shifted or without its faint parts."""
    kind = int(rng.integers(4))
    if kind == 0:
        kernel = ndimage.gaussian_filter(kernel, rng.uniform(0.3, 1))
    elif kind == 1:
        kernel = kernel * np.exp(rng.normal(0, rng.uniform(0.1, 0.5), kernel.shape))
    elif kind == 2:
        kernel = ndimage.shift(kernel, rng.uniform(-0.7, 0.7, 2), order=1)
    else:
        kernel = np.where(kernel < kernel.max() * rng.uniform(0.02, 0.2), 0, kernel)
    kernel = np.maximum(kernel, 0).astype(np.float32)
    return kernel / kernel.sum()


def blurred(rng: np.random.Generator, wide: Tensor, kernel: Tensor, gamma: float) -> Tensor:
    """Return (3, H, W), blurred, sometimes with highlights.

    `gamma` is the exponent from pixel values to the light that is blurred.
    """
    light = wide**gamma
    if rng.random() < 0.2:
        light = torch.where(light > 0.9, light * rng.uniform(1.2, 4), light)
    height, width = light.shape[-2:]
    transfer = centred(transfer_function(kernel, height, width), kernel, width)
    return irfft2(rfft2(light) * transfer, s=(height, width)).clamp(0, 1) ** (1 / gamma)


def degraded(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Return (3, H, W) with noise of up to 5 % and, at times, JPEG; rounded to 8 bits."""
    if rng.random() < 0.9:
        deviation = math.exp(rng.uniform(math.log(0.2), math.log(13))) / 255
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        image = image + deviation * torch.from_numpy(noise)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    if rng.random() < 0.2:
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(70, 97)))
        pixels = np.asarray(PIL.Image.open(file))
    return torch.from_numpy(to_float(np.ascontiguousarray(pixels))).permute(2, 0, 1)
