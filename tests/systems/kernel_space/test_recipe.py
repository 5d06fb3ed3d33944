"""Learning F and G: the loss of Eq. 4, its variational form, the released schedule, real runs."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from blurkit.data.sources import read_records
from blurkit.io.checkpoints import load_checkpoint
from blurkit.metrics.psnr import psnr
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.kernel_space.networks import LightKernelSpace
from blurkit.systems.kernel_space.recipe import (
    KernelSpaceRecipe,
    cosine_with_restarts,
    kl_divergence,
)
from blurkit.systems.registry import load_networks
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.shared import shared_folder
from tests.systems.oracle import step

TINY: dict[str, Any] = {
    **{"width": 4, "code_length": 8, "front_blocks": 1, "back_blocks": 1, "code_blocks": 1},
    "batch": 2,
}
OPTIONS = [*("--system", "kernel-space", "--preset", "small", "--batch", 2, "--width", 8)]
OPTIONS += [*("--code-length", 8, "--back-blocks", 2, "--device", "cpu", "-q")]
pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(**changed: Any) -> KernelSpaceRecipe:
    torch.manual_seed(4)
    return KernelSpaceRecipe(KernelSpaceConfiguration.resolve("paper", **(TINY | changed)))


@pytest.fixture(scope="module")
def crops() -> dict[str, Tensor]:
    photos = np.stack([skimage.data.astronaut()[:256, :256], skimage.data.coffee()[:256, :256]])
    sharp = torch.from_numpy(photos).permute(0, 3, 1, 2) / 255
    return {"sharp": sharp, "blur": torch.nn.functional.avg_pool2d(sharp, 5, 1, 2)}


def test_the_loss_is_the_charbonnier_distance_summed(crops: dict[str, Tensor]) -> None:
    made = recipe()
    losses, totals = step(made, crops)
    network = copy.deepcopy(made.network)
    with torch.no_grad():
        code, _ = network.encode(crops["sharp"], crops["blur"])
        fake = network.blur(crops["sharp"], code)
    off = (fake - crops["blur"]).double().numpy()
    assert losses == {"charbonnier": pytest.approx(np.sqrt(off**2 + 1e-6).sum() / 2, rel=1e-5)}
    assert totals["kernel_space"] == pytest.approx(2 * losses["charbonnier"], rel=1e-6)
    for name, expected in (("l1", np.abs(off).sum()), ("l2", (off**2).sum())):
        losses, totals = step(recipe(pixel_loss=name, pixel_weight=3.0), crops)
        assert losses == {name: pytest.approx(expected / 2, rel=1e-5)}
        assert totals["kernel_space"] == pytest.approx(3 * expected, rel=1e-5)


def test_variational_codes_are_drawn_and_pay_their_divergence(crops: dict[str, Tensor]) -> None:
    made = recipe(variational=True)
    made.drawing = 7, slice(0, 2)
    noise = made.noise(8, 2, 2)
    assert noise.shape == (2, 8, 2, 2) and torch.equal(noise, made.noise(8, 2, 2))
    made.drawing = 7, slice(1, 2)
    assert torch.equal(made.noise(8, 2, 2), noise[1:])  # a second process's crop
    made.drawing = 8, slice(0, 2)
    assert not torch.equal(made.noise(8, 2, 2), noise)
    made.drawing = 7, slice(0, 2)
    losses, totals = step(made, crops)
    with torch.no_grad():
        mean, deviation = made.network.encode(crops["sharp"], crops["blur"])
        fake = made.network.blur(crops["sharp"], mean + deviation * noise)
    m, s = mean.double().numpy(), deviation.double().numpy()
    divergence = (m**2 + s**2 - np.log(1e-8 + s**2) - 1).sum()
    distance = np.sqrt((fake - crops["blur"]).double().numpy() ** 2 + 1e-6).sum()
    assert losses["kl"] == pytest.approx(divergence / 2, rel=1e-5)
    assert totals["kernel_space"] == pytest.approx(distance + 10 * divergence, rel=1e-5)


def test_kl_divergence_at_its_limits() -> None:
    """Its values are compared with the official ones in test_objective.py."""
    assert kl_divergence(torch.zeros(3), -torch.ones(3)).item() == pytest.approx(0, abs=1e-6)
    assert np.isfinite(kl_divergence(torch.zeros(3), torch.zeros(3)).item())


def test_the_cosine_begins_again_as_the_released_one() -> None:
    folder = shared_folder("parity", "BLURKIT_PARITY")
    wanted = np.load(folder / "kernel_losses.npz")["output_cosine_restart_lr"]
    told = json.loads((folder / "kernel_losses.json").read_text())["outputs"]
    assert "restarts [50,150,300,450]" in told["output_cosine_restart_lr"]
    rates = [cosine_with_restarts(s, 1e-4, 1e-8, [50, 150, 300, 450], 600) for s in range(601)]
    np.testing.assert_allclose(rates, wanted, rtol=1e-5)
    single = [cosine_with_restarts(s, 1.0, 0.0, [], 4) for s in range(5)]
    np.testing.assert_allclose(single, [1, 0.853553, 0.5, 0.146447, 0], atol=1e-6)


@pytest.mark.parametrize("preset", ["paper", "official-reds", "small"])
@pytest.mark.parametrize("iterations", [2000, 70_000])
def test_a_short_run_ends_at_the_final_learning_rate(preset: str, iterations: int) -> None:
    """The released schedule was cut off: 2000 steps ended at 99.6% of the first rate."""
    c = KernelSpaceConfiguration.resolve(preset, iterations=iterations)
    with torch.device("meta"):
        made = KernelSpaceRecipe(c)
    rates = [made.learning_rate("kernel_space", step) for step in range(iterations + 1)]
    assert rates[0] == c.learning_rate
    assert rates[-1] < 1e-5 * c.learning_rate + c.final_learning_rate
    if preset != "small" and iterations > 50_000:  # the first cosine is the released one
        assert rates[50_000] == pytest.approx(c.final_learning_rate)
        assert rates[50_001] == c.learning_rate


def test_a_run_validates(training_shards: Path, tmp_path: Path) -> None:
    given = [*OPTIONS, "--variational", "--iterations", 1, "-o", tmp_path / "x.pt"]
    done("train-reblur", training_shards, *given)
    checkpoint = load_checkpoint(tmp_path / "x.pt")
    assert checkpoint.system == "kernel-space"
    network = load_networks(checkpoint)["kernel_space"]
    assert isinstance(network, LightKernelSpace) and network.options["variational"]
    validation = checkpoint.provenance["metrics"]
    assert validation.keys() == {"psnr_sharp", "psnr", "ssim_matlab"}
    first, *_ = read_records([*training_shards.glob("val-*.h5")])
    known = psnr(first.images["sharp"], first.images["blur"])
    assert abs(validation["psnr_sharp"] - known) < 6  # of three records, near the one's


@pytest.mark.parametrize("network", ["paper", "light"])
def test_a_vae_begins_with_the_network_that_has_no_deviations(
    network: str, training_shards: Path, tmp_path: Path
) -> None:
    """As the released GOPRO/wVAE: of G, the layers that deviations widen start anew."""
    sizes = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    still = [*("--learning-rate", 0, "--final-learning-rate", 0, "--iterations", 1)]
    command = ["train-reblur", training_shards, *OPTIONS, *sizes, *still, "--network", network]
    command += ["--validate-on", 0, "--width", 4, "--ema", 0]
    first, second = tmp_path / "woVAE.pt", tmp_path / "wVAE.pt"
    done(*command, "-o", first)
    done(*command, "--variational", "--start", first, "-o", second)
    given, made = (load_checkpoint(path).networks["kernel_space"] for path in (first, second))
    assert given.keys() == made.keys()
    anew = {key for key in made if given[key].shape != made[key].shape}
    assert anew and all(key.startswith(("kernel_extractor.", "spectral_encoder.")) for key in anew)
    for key in made.keys() - anew:
        assert torch.equal(made[key], given[key]), key
    other = ["--variational", "--code-length", 4, "--start", first]
    for options in (["--start", second], other):
        refused = invoke(*command, *options, "-o", tmp_path / "back.pt")
        assert_refused(refused, "is another network than this training's")
