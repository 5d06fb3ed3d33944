"""Training MSFS-Net: the losses of Eq. 5-7 written out, the schedule, ablations, real runs."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.msfs.networks import MSFSNet, Separated
from blurkit.systems.msfs.recipe import MSFSRecipe
from blurkit.systems.registry import load_networks
from tests.cli.invoke import done
from tests.systems.oracle import l1, step, trained_by
from tests.training.runs import batch

TINY: dict[str, Any] = {
    **{"width": 8, "encoder_blocks": 1, "latent_blocks": 1, "decoder_blocks": 1, "crop": 64},
    **{"batch": 2, "identity_start": False},
}
OPTIONS = [*("--system", "msfs", "--preset", "small", "--device", "cpu", "--width", 8)]
OPTIONS += [*("--crop", 64, "--batch", 2, "--decoder-blocks", 1, "--latent-blocks", 1, "-q")]
pytestmark = pytest.mark.usefixtures("one_thread")


def recipe(preset: str = "paper", **changed: Any) -> MSFSRecipe:
    torch.manual_seed(4)
    made = MSFSRecipe(MSFSConfiguration.resolve(preset, **(TINY | changed)))
    made.network.train()
    return made


@pytest.fixture(scope="module")
def crops(training_shards: Path) -> dict[str, Tensor]:
    return batch(training_shards)


def equation_5(
    anchor: list[Separated], positive: list[Separated], negative: list[Separated]
) -> float:
    scales = zip(anchor, positive, negative, strict=True)
    return sum(l1(a.high, p.high) / (l1(a.high, n.high) + 1e-7) for a, p, n in scales)


def equation_6(encoder: list[Separated], positive: list[Separated]) -> float:
    return sum(l1(e.low, p.low) for e, p in zip(encoder, positive, strict=True))


@pytest.mark.parametrize("positive", ["restored", "sharp"])
def test_losses_and_total_are_the_papers(positive: str, crops: dict[str, Tensor]) -> None:
    made = recipe(positive=positive, contrastive_weight=0.03, consistency_weight=0.07)
    network = copy.deepcopy(made.network)
    with torch.no_grad():
        images, encoder, decoder = network.restore(crops["blur"])
        seen = network.separate(images[0] if positive == "restored" else crops["sharp"])
    losses, totals = step(made, crops)
    expected = {
        "l1": l1(images[0], crops["sharp"]),
        "contrastive": equation_5(decoder, seen, encoder),
        "consistency": equation_6(encoder, seen),
    }
    assert losses == pytest.approx(expected, rel=1e-4)
    weighted = expected["l1"] + 0.03 * expected["contrastive"] + 0.07 * expected["consistency"]
    assert totals == pytest.approx({"deblur": weighted}, rel=1e-5)


def test_what_only_the_released_network_is_trained_with(crops: dict[str, Tensor]) -> None:
    weights = {"edge_weight": 0.05, "scales_weight": 2.0, "image_loss": "charbonnier"}
    made = recipe("official", **weights, contrastive_weight=0.0, consistency_weight=0.0)
    network = copy.deepcopy(made.network)
    with torch.no_grad():
        full, half, quarter = network.restore(crops["blur"]).images

    def charbonnier(image: Tensor, factor: int) -> float:
        target = crops["sharp"][..., ::factor, ::factor].double().numpy()
        return float(np.sqrt((image.double().numpy() - target) ** 2 + 1e-6).mean())

    losses, totals = step(made, crops)
    assert losses.keys() == {"charbonnier", "edge", "scales"}
    assert losses["charbonnier"] == pytest.approx(charbonnier(full, 1), rel=1e-5)
    smaller = charbonnier(half, 2) + charbonnier(quarter, 4)
    assert losses["scales"] == pytest.approx(smaller, rel=1e-5)
    weighted = losses["charbonnier"] + 0.05 * losses["edge"] + 2 * losses["scales"]
    assert totals == pytest.approx({"deblur": weighted}, rel=1e-5)


def test_references_learn_only_where_that_is_asked(crops: dict[str, Tensor]) -> None:
    """The released network's first residual blocks see sharp images alone."""
    for fixed in (True, False):
        made = recipe("official", fixed_references=fixed)
        step(made, crops)
        assert trained_by(made.network, "Encoder.0.") is not fixed
        for part in ("conv.", "Encoder.2.", "Decoder.1.", "octblock.5.", "changeChannel_.", "mix1"):
            assert trained_by(made.network, part)


@pytest.mark.parametrize(
    ("changed", "left", "missing"),
    [
        ({"frequency_separation": False}, {"l1"}, ("changeChannel_", "octblock.0.oct1")),
        ({"cross_scale": False}, {"l1", "contrastive", "consistency"}, ("mix",)),
        ({"contrastive_weight": 0.0}, {"l1", "consistency"}, ()),
        ({"consistency_weight": 0.0}, {"l1", "contrastive"}, ()),
    ],
)
def test_each_ablation_leaves_out_its_part(
    changed: dict[str, Any], left: set[str], missing: tuple[str, ...], crops: dict[str, Tensor]
) -> None:
    made = recipe(**changed)
    losses, _ = step(made, crops)
    assert losses.keys() == left
    assert not any(key.startswith(missing) for key in made.network.state_dict())
    own, full = (sum(p.numel() for p in r.network.parameters()) for r in (made, recipe()))
    assert (own == full) == (not missing)


def test_the_defaults_are_the_papers() -> None:
    c = MSFSConfiguration.resolve()
    with torch.device("meta"):
        made, text = MSFSRecipe(c), MSFSRecipe(MSFSConfiguration.resolve("text"))
    sizes = [sum(p.numel() for p in r.network.parameters()) for r in (made, text)]
    assert sizes == [21_586_291, 20_977_133]
    rates = [made.learning_rate("deblur", c.halve_every * n + 7) for n in range(6)]
    np.testing.assert_allclose(rates, 1e-4 / 2 ** np.arange(6.0))
    for adam, betas, decay in ((made, (0.9, 0.999), 1e-6), (text, (0.9, 0.9), 0)):
        (group,) = adam.optimizers["deblur"].param_groups
        assert (group["betas"], group["weight_decay"], group["eps"]) == (betas, decay, 1e-8)
    small = recipe("small")
    assert small.learning_rate("deblur", 1200) == pytest.approx(1e-6)  # a cosine to its end


def test_small_begins_by_changing_nothing(crops: dict[str, Tensor]) -> None:
    made = recipe("small", identity_start=True)
    assert torch.equal(made.network(crops["blur"]), crops["blur"])
    assert step(made, crops)[0]["l1"] == pytest.approx(l1(crops["blur"], crops["sharp"]), rel=1e-5)


@pytest.mark.parametrize("layers", ["paper", "official"])
def test_a_run_validates(layers: str, training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    command = ["train-deblur", training_shards, *OPTIONS, "--layers", layers, "--no-cross-scale"]
    done(*command, "--iterations", 2, "-o", output)
    checkpoint = load_checkpoint(output)
    assert checkpoint.system == "msfs" and checkpoint.configuration["cross_scale"] is False
    network = load_networks(checkpoint)["deblur"]
    assert isinstance(network, MSFSNet)
    assert (network.options["layers"], network.options["cross_scale"]) == (layers, False)
    validation = checkpoint.provenance["metrics"]
    assert validation.keys() == {"psnr_blur", "psnr", "ssim_matlab"}
    assert abs(validation["psnr"] - validation["psnr_blur"]) < 3
