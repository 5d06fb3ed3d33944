"""Random blur of a kernel space that comes with codes: motion of many lengths and directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

import blurkit
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.records import Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.nn.blocks import blueprints
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import DRAWN_FROM, DRAWN_LENGTHS, BlurCodes
from blurkit.systems.registry import load_networks
from tests.benchmarks.random_blur import BINS, along, fringes, histogram, weave
from tests.tools.pack import stored

pytestmark = pytest.mark.usefixtures("one_thread")


def codes(count: int = 100, length: int = 6) -> BlurCodes:
    """Codes whose values are their numbers, of lengths from 1 to `count` pixels."""
    numbers = torch.arange(count, dtype=torch.float32)
    return stored([n.expand(length, 2, 2) for n in numbers], [float(n) + 1 for n in numbers])


def test_the_length_that_is_drawn_suits_the_size_of_the_photo() -> None:
    for height, width in ((300, 400), (1000, 700)):
        drawn = [codes().draw(height, width, np.random.default_rng(n)) for n in range(300)]
        assert all(code.shape == (6, 2, 2) and np.ptp(code) == 0 for code in drawn)
        lengths = np.array([code[0, 0, 0] + 1 for code in drawn])
        shortest, longest = (fraction * max(height, width) for fraction in DRAWN_LENGTHS)
        reach = DRAWN_FROM / 2 + 1
        assert shortest - reach < lengths.min() < shortest + reach + 1
        assert longest - reach - 1 < lengths.max() < longest + reach
        assert len(set(lengths)) > 10


def saved(path: Path, bank: BlurCodes) -> Path:
    torch.manual_seed(2)
    space = LightKernelSpace(8, 6, 2).eval()
    torch.nn.init.normal_(space.last.weight, std=0.05)
    networks = {"kernel_space": space, "codes": bank}
    states = {
        role: {k: v.clone() for k, v in n.state_dict().items()} for role, n in networks.items()
    }
    save_checkpoint(Checkpoint(states, "kernel-space", blueprints=blueprints(networks)), path)
    return path


def test_random_blur_is_that_of_one_of_the_codes(tmp_path: Path) -> None:
    """Also of a network without deviations; a scale asks for normal codes, as before."""
    path = saved(tmp_path / "kernel.pt", codes())
    networks = load_networks(load_checkpoint(path))
    network = networks["kernel_space"]
    assert isinstance(network, LightKernelSpace) and isinstance(networks["codes"], BlurCodes)
    photo = skimage.data.astronaut()[:256, :256]
    record = blurkit.load(path, precision="fp32").random_blur(Record("a", {"sharp": photo}), seed=4)
    assert record.attrs["reblurred_seed"] == 4 and "reblurred_scale" not in record.attrs
    image = torch.from_numpy(to_float(photo)).permute(2, 0, 1)[None]
    with torch.no_grad():
        each = [network.blur(image, code[None]).clamp(0, 1)[0] for code in networks["codes"].codes]
    made = torch.from_numpy(to_float(record.image("reblurred"))).permute(2, 0, 1)
    assert min((image - made).abs().max() for image in each) < 0.51 / 255
    scaled = tmp_path / "normal.pt"
    save_checkpoint(Checkpoint({"kernel_space": network.state_dict()}, "kernel-space"), scaled)
    with pytest.raises(blurkit.BlurkitError, match="can only be drawn from a variational"):
        blurkit.load(scaled).random_blur(photo)


def test_random_blur_of_the_shipped_weights_is_motion_without_fringes() -> None:
    """Normal codes blurred all alike, without direction: within 3.2 dB, colours from 7 on."""
    weights = blurkit.load(system="kernel-space", precision="fp32")
    photo = skimage.data.coffee()[:256, 150:406]
    gray = np.repeat(photo.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    made = [weights.random_blur(gray, seed=seed) for seed in range(12)]
    strengths = [psnr(image, gray) for image in made]
    assert np.ptp(strengths) > 6 and min(strengths) > 18 and max(strengths) < 45
    shapes = [along(to_float(image), to_float(gray)) for image in made]
    assert max(anisotropy for anisotropy, _ in shapes) > 0.4
    directions = histogram([direction for _, direction in shapes], BINS["direction"])
    assert sum(percent > 0 for percent in directions) >= 3
    assert max(fringes(image) for image in made) <= 5
    assert max(weave(to_float(image)) for image in made) < 0.03


def test_the_direction_of_a_blur_is_measured() -> None:
    photo = to_float(np.repeat(skimage.data.gravel()[:180, :320, None], 3, axis=2))
    for step, wanted in (((0, 1), 0), ((1, 1), 45), ((1, 0), 90), ((-1, 1), 135)):
        moved = [np.roll(photo, (n * step[0], n * step[1]), (0, 1)) for n in range(7)]
        anisotropy, direction = along(np.mean(moved, axis=0), photo)
        assert anisotropy > 0.4 and direction == pytest.approx(wanted, abs=8)
    assert along(photo, photo)[0] == pytest.approx(0, abs=1e-6)
