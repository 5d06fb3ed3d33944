"""BGAN under the engine, one noise vector for the whole photo, and in training batches."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from blurkit.engine.engine import Engine
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import Record
from blurkit.options import Placement
from blurkit.systems.dbgan.inference import BlurMixing, NoisyBlur
from blurkit.systems.dbgan.networks import BGAN
from blurkit.systems.kernel_space.inference import CodedBlur
from blurkit.systems.uses import network_for
from blurkit.tasks.reblur import random_blur
from tests.cli import kernel_spaces
from tests.cli.bgans import REACH, bgan, noise_of, saved
from tests.cli.pictures import photo


def engine(**options: int) -> Engine:
    return torch_engine(NoisyBlur(bgan()), Placement("cpu", "fp32", **options), warn=pytest.fail)


def sharp(name: str, image: np.ndarray) -> Record:
    return Record(name, {"sharp": image}, {"reblurred_psnr": 1.0, "split": "val"})


@torch.inference_mode()
def whole(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The network on the whole image in one piece, not padded, not clamped."""
    values = torch.from_numpy(image.astype(np.float32).transpose(2, 0, 1)[None] / 255)
    return bgan()(values, torch.from_numpy(noise[None]))[0].permute(1, 2, 0).numpy()


def test_all_tiles_of_a_photo_get_the_same_noise() -> None:
    image, noise = photo(3, 96, 96), noise_of(5, "a")
    tiled = engine(tile=64)
    made = tiled(image.astype(np.float32) / 255, noise=torch.from_numpy(noise))
    wanted = whole(image, noise)
    # Tiles start at 0 and 32. Where no tile has its border in sight, they are the whole.
    clean = [*range(32), *range(32 + REACH, 64 - REACH), *range(64, 96)]
    there = np.ix_(clean, clean)
    np.testing.assert_allclose(made[there], wanted[there], atol=1e-5)
    assert np.abs(made - wanted)[32 : 32 + REACH].max() > 1e-3, "borders are in sight there"
    assert np.abs(wanted - whole(image, noise_of(6, "a"))).mean() > 0.01, "the noise matters"


@pytest.mark.parametrize("size", [(1, 1), (7, 90), (64, 64), (130, 65)])
def test_noise_is_the_same_whatever_the_tiles_and_batches(size: tuple[int, int]) -> None:
    image = photo(2, *size)
    for tile in (64, 96, 160):
        one, three = engine(tile=tile), engine(tile=tile)
        three._batch = 3  # as on a GPU
        first, second = (random_blur(sharp("x", image), each) for each in (one, three))
        for record in (first, second):
            np.testing.assert_array_equal(record.attrs["reblurred_noise"], noise_of(0, "x"))
            assert record.images["reblurred"].shape == image.shape
        levels = first.images["reblurred"].astype(int) - second.images["reblurred"]
        assert np.abs(levels).max() <= 1  # rounding


def test_which_network_draws(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path / "b.pt"))
    for found in (checkpoint, Checkpoint({"network": checkpoint.networks["bgan"]}, "")):
        for use in ("noise", ("noise", "random")):
            network = network_for(use, found)
            assert isinstance(network, NoisyBlur) and not network.training
            torch.testing.assert_close(network.network.state_dict(), bgan().state_dict())
    space = load_checkpoint(kernel_spaces.saved(tmp_path / "k.pt", variational=True))
    assert isinstance(network_for(("noise", "random"), space), CodedBlur)
    with pytest.raises(BlurkitError, match=r"k.pt: holds kernel_space \(KernelSpace\); .* BGAN"):
        network_for("noise", space)
    plain = load_checkpoint(kernel_spaces.saved(tmp_path / "p.pt"))
    with pytest.raises(BlurkitError, match="new blurs can only be drawn from a variational"):
        network_for(("noise", "random"), plain)


# ---- blur in training batches: where the draw says so, and nothing else changes ------------------

SIZE = 8


@pytest.fixture(scope="module")
def network() -> BGAN:
    torch.manual_seed(3)
    return BGAN(8, 1, 4)


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255
    sharp = torch.stack([photo[:, 40 * i : 40 * i + 32, 100:132] for i in range(SIZE)])
    return {"sharp": sharp, "blur": sharp.flip(2)}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(before["blur"], after["blur"], strict=True)]


def test_a_share_of_the_blur_is_made_anew(network: BGAN, batch: dict[str, Tensor]) -> None:
    mixing = BlurMixing(network, 0.25)
    kept = {name: images.clone() for name, images in batch.items()}
    share = []
    for step in range(100):
        mixed = mixing(batch, 5, step, SIZE, slice(None))
        assert mixed["sharp"] is batch["sharp"]
        share += changed(batch, mixed)
    assert 0.2 < np.mean(share) < 0.3
    assert all(torch.equal(batch[name], kept[name]) for name in kept)  # the batch itself stays
    assert BlurMixing(network, 0.0)(batch, 5, 0, SIZE, slice(None)) is batch
    assert all(changed(batch, BlurMixing(network, 1.0)(batch, 5, 0, SIZE, slice(None))))


def test_what_is_made_is_the_networks_and_depends_on_seed_and_step(
    network: BGAN, batch: dict[str, Tensor]
) -> None:
    mixing = BlurMixing(network, 1.0)
    whole = mixing(batch, 5, 2, SIZE, slice(None))["blur"]
    assert torch.equal(whole, mixing(batch, 5, 2, SIZE, slice(None))["blur"])
    for seed, step in ((6, 2), (5, 3)):
        assert not torch.equal(whole, mixing(batch, seed, step, SIZE, slice(None))["blur"])
    generator = np.random.default_rng([5, 7, 2])
    generator.random(SIZE)
    noise = torch.from_numpy(generator.standard_normal((SIZE, 4), np.float32))
    with torch.no_grad():
        wanted = network(batch["sharp"], noise).clamp(0, 1)
    torch.testing.assert_close(whole, wanted)
    # Two processes with half of the batch each make what one makes.
    for part in (slice(0, 4), slice(4, 8)):
        half = {name: images[part] for name, images in batch.items()}
        torch.testing.assert_close(mixing(half, 5, 2, SIZE, part)["blur"], whole[part])
    assert not any(p.requires_grad for p in network.parameters()) and not whole.requires_grad
