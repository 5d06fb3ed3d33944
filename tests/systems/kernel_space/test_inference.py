"""Codes under the engine: every tile sees its own part of a code map, whatever the tiles."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn.functional import interpolate

import blurkit
from blurkit.engine.engine import Engine
from blurkit.engine.torch_runner import torch_engine
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.records import Record, to_float
from blurkit.nn.blocks import blueprints
from blurkit.options import Placement, Precision
from blurkit.synthesis.drawing import seeds
from blurkit.systems.kernel_space.inference import CodedBlur, Transfer, map_size
from blurkit.systems.kernel_space.networks import (
    CODE_STRIDE,
    DRAWN_FROM,
    DRAWN_LENGTHS,
    BlurCodes,
    EncodedBlur,
    LightKernelSpace,
)
from blurkit.systems.registry import load_networks
from blurkit.tasks.reblur import transferred
from tests.cli.kernel_spaces import CODE, blurred_by, kernel_space
from tests.cli.pictures import photo
from tests.engine.networks import states
from tests.tools.pack import stored


class Shown(EncodedBlur):
    """F paints the code's first three values; G's code is the mean difference of a pair's places,
    with a deviation of 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.options = {"code": 3, "variational": True}

    def _features(self, image: Tensor) -> Tensor:
        return image

    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        means = torch.nn.functional.avg_pool2d(blur - sharp, CODE_STRIDE)
        return torch.cat([means, torch.ones_like(means)], 1)

    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        return interpolate(code, scale_factor=float(CODE_STRIDE), mode="nearest")


def engine(network: torch.nn.Module, precision: Precision = "fp32", **options: int) -> Engine:
    return torch_engine(network, Placement("cpu", precision, **options), warn=pytest.fail)


def apply_code(image: np.ndarray, code: np.ndarray, run: Engine) -> np.ndarray:
    return run(image, **run.runner.network.condition(code, image))


def painted(code: np.ndarray, height: int, width: int) -> np.ndarray:
    """A code map (3, rows, columns) as the picture that `Shown` makes of it."""
    whole = code.transpose(1, 2, 0).repeat(CODE_STRIDE, 0).repeat(CODE_STRIDE, 1)
    return whole[:height, :width]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_place_of_a_large_map_is_found(precision: Precision) -> None:
    image = np.zeros((2500, 2560, 3), np.float32)
    assert map_size(image) == (20, 20)
    code = np.arange(1200, dtype=np.float32).reshape(3, 20, 20)
    made = apply_code(image, code, engine(CodedBlur(Shown()), precision, overlap=0))
    np.testing.assert_array_equal(made, painted(code, 2500, 2560))


@pytest.mark.parametrize("size", [(1, 1), (100, 300), (256, 256), (257, 129), (400, 511)])
def test_one_tile_is_the_network_itself(size: tuple[int, int]) -> None:
    image = photo(3, *size)
    rows, columns = map_size(image)
    code = np.random.default_rng(0).standard_normal((CODE, rows, columns)).astype(np.float32)
    one = engine(CodedBlur(kernel_space()), tile=512)
    made = apply_code(image.astype(np.float32) / 255, code, one).clip(0, 1) * 255
    # The engine pads to the tile; what is further off than F sees changes nothing.
    wanted = blurred_by(reflected(image, 512), grown(code, 4))
    np.testing.assert_allclose(made, wanted[: size[0], : size[1]], atol=0.01)


def reflected(image: np.ndarray, side: int) -> np.ndarray:
    below, right = (side - length for length in image.shape[:2])
    mode = "reflect" if min(image.shape[:2]) > 1 else "edge"
    return np.pad(image, ((0, below), (0, right), (0, 0)), mode=mode)


def grown(code: np.ndarray, side: int) -> Tensor:
    """The code map mirrored as the engine mirrors the places: by pixels."""
    pixels = code.transpose(1, 2, 0).repeat(CODE_STRIDE, 0).repeat(CODE_STRIDE, 1)
    mirrored = reflected(pixels, CODE_STRIDE * side)[64::CODE_STRIDE, 64::CODE_STRIDE]
    return torch.from_numpy(mirrored.transpose(2, 0, 1).copy()[None])


def test_a_smaller_map_is_stretched() -> None:
    code = np.array([0, 1, 2], np.float32).reshape(3, 1, 1)
    made = apply_code(np.zeros((300, 256, 3), np.float32), code, engine(CodedBlur(Shown())))
    np.testing.assert_allclose(made, np.broadcast_to([0, 1, 2], (300, 256, 3)), atol=1e-6)


def test_the_deviation_comes_with_the_photos_places() -> None:
    black = np.zeros((300, 300, 3), np.uint8)
    pair = Record("pair", {"sharp": black, "blur": black + np.uint8(51)})
    sharp = np.zeros((384, 640, 3), np.float32)
    record = Record("r", {"sharp": sharp, "blur": sharp}, {"blur_kind": "shake", "split": "val"})
    run = engine(Transfer(Shown()), tile=256, overlap=0)
    run.name = "c.pt"
    made = transferred(record, 2, [pair], run, 9)
    generator = np.random.default_rng(seeds(9, "r", 2))
    generator.integers(1)  # which pair
    noise = generator.standard_normal((3, 3, 5), np.float32)
    assert made.name == "r-copy2"
    wanted = painted(noise, 384, 640).clip(-0.2, 0.8) + 0.2
    # Tiles start at 0, 128 and at 0, 192, 384, so the second column's lie across two places.
    for columns in (slice(0, 192), slice(512, 640)):
        np.testing.assert_allclose(made.images["blur"][:, columns], wanted[:, columns], atol=1e-4)
    assert made.attrs == {
        "split": "val", "blur_from": "pair", "transferred_by": "c.pt", "seed": 9,
        "transferred_with": "protocol=tiles tile=256 overlap=0 precision=float32 device=cpu",
    }  # fmt: skip


def codes() -> BlurCodes:
    """Codes whose values are their numbers, of lengths from 1 to 100 pixels."""
    return stored([torch.full((6, 2, 2), float(n)) for n in range(100)], [*range(1, 101)])


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


def test_random_blur_is_that_of_one_of_the_codes(tmp_path: Path) -> None:
    """Also of a network without deviations; a scale asks for normal codes, as before."""
    torch.manual_seed(2)
    path, space = tmp_path / "kernel.pt", LightKernelSpace(8, 6, 2).eval()
    torch.nn.init.normal_(space.last.weight, std=0.05)
    given = {"kernel_space": space, "codes": codes()}
    save_checkpoint(Checkpoint(states(given), "kernel-space", blueprints=blueprints(given)), path)
    networks = load_networks(load_checkpoint(path))
    network = networks["kernel_space"]
    assert isinstance(network, LightKernelSpace) and isinstance(networks["codes"], BlurCodes)
    image = skimage.data.astronaut()[:256, :256]
    record = blurkit.load(path, precision="fp32").random_blur(Record("a", {"sharp": image}), seed=4)
    assert record.attrs["reblurred_seed"] == 4 and "reblurred_scale" not in record.attrs
    sharp = torch.from_numpy(to_float(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        each = [network.blur(sharp, code[None]).clamp(0, 1)[0] for code in networks["codes"].codes]
    made = torch.from_numpy(to_float(record.image("reblurred"))).permute(2, 0, 1)
    assert min((blurry - made).abs().max() for blurry in each) < 0.51 / 255
    scaled = tmp_path / "normal.pt"
    save_checkpoint(Checkpoint({"kernel_space": network.state_dict()}, "kernel-space"), scaled)
    with pytest.raises(blurkit.BlurkitError, match="can only be drawn from a variational"):
        blurkit.load(scaled).random_blur(image)
