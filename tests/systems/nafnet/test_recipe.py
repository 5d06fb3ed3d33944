"""NAFNet and its training: the released recipe, with and without MSDI-Net's encoder."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.msdi.encoder import DegradationEncoder, PriorUpsampling
from blurkit.systems.nafnet.config import NAFNetConfiguration
from blurkit.systems.nafnet.networks import GuidedNAFNet, NAFBlock, NAFNet
from blurkit.systems.nafnet.recipe import NAFNetRecipe
from blurkit.systems.uses import network_for
from blurkit.tasks.inspect import macs
from tests.cli.invoke import done, invoke

OPTIONS = [*("--system", "nafnet", "--preset", "small", "--device", "cpu", "--width", 8)]
OPTIONS += ["--iterations", 2, "--batch", 2, "--crop", 64, "--validate-on", 1]


def test_the_released_optimiser() -> None:
    recipe = NAFNetRecipe(NAFNetConfiguration.resolve("small", iterations=10))
    (group,) = recipe.optimizers["deblur"].param_groups
    assert type(recipe.optimizers["deblur"]) is torch.optim.AdamW
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.9), 1e-3)
    assert len(group["params"]) == len([*recipe.network.parameters()])
    halfway = 1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi / 2)) / 2
    assert recipe.learning_rate("deblur", 5) == pytest.approx(halfway)


def test_training_and_deblurring(training_shards: Path, tmp_path: Path) -> None:
    done("train-deblur", training_shards, *OPTIONS, "-o", tmp_path / "net.pt")
    network = network_for("deblurring", load_checkpoint(tmp_path / "net.pt"))
    assert type(network) is NAFNet
    assert network.options["encoder_blocks"] == [1, 1, 2]
    options = ["-c", tmp_path / "net.pt", "--protocol", "local", "-o", f"{tmp_path}/out/"]
    done("deblur", training_shards / "val-00000.h5", *options)


def test_an_encoder_guides_it(training_shards: Path, stage_1: Path, tmp_path: Path) -> None:
    options = [*OPTIONS, "--encoder", stage_1, "-o", tmp_path / "net.pt"]
    done("train-deblur", training_shards, *options)
    checkpoint = load_checkpoint(tmp_path / "net.pt")
    network = network_for("deblurring", checkpoint)
    assert isinstance(network, GuidedNAFNet)
    first = load_checkpoint(stage_1).networks["encoder"]
    for key, tensor in network.net_prior.state_dict().items():
        torch.testing.assert_close(tensor, first[key].to(tensor.dtype))
    bare = Checkpoint({"network": checkpoint.networks["deblur"]})
    recognised = network_for("deblurring", bare)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(recognised(image), network(image))
    options[options.index("--encoder") + 1] = tmp_path / "net.pt"
    ran = invoke("train-deblur", training_shards, *options, "--force")
    assert ran.status == 1 and "--encoder needs encoder and latents" in ran.err


def test_the_map_matters() -> None:
    torch.manual_seed(0)
    encoder, latents = DegradationEncoder(1, 8), PriorUpsampling(1, 8)
    blocks = {"encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
    network = GuidedNAFNet(encoder, latents, 8, width=8, **blocks)
    image = torch.rand(1, 3, 32, 32)
    plain = NAFNet(8, [1], 1, [1])
    plain.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(network(image), plain(image))  # it starts without effect
        for modulation in network.modulations:
            modulation.mlp_beta.weight.normal_(0, 0.1)
        before = network(image)
        for parameter in latents.parameters():
            parameter.mul_(1.5)
        assert not torch.allclose(network(image), before)


# ---- the network; official outputs are in test_parity.py ----


@pytest.mark.parametrize(
    ("width", "parameters", "gmacs"), [(32, 17_111_907, 15.956), (64, 67_888_835, 63.055)]
)
def test_sizes_and_operations_are_the_papers(width: int, parameters: int, gmacs: float) -> None:
    with torch.device("meta"):
        ours = NAFNet(width)
    assert sum(p.numel() for p in ours.parameters()) == parameters
    assert macs(ours, (1, 3, 256, 256)) / 1e9 == pytest.approx(gmacs, abs=1e-3)


def test_half_precision_does_not_lose_a_pixel() -> None:
    """A sum of squares above float16's range, which the released code turns into the bias."""
    norm = NAFBlock(64).norm1
    x = torch.zeros(1, 64, 1, 2)
    x[0, 3] = 600.0
    with torch.autocast("cpu", torch.float16):
        found = norm(x.half())
    torch.testing.assert_close(found.float(), norm(x), atol=1e-2, rtol=1e-2)
    assert found.abs().max() > 5


def test_blocks_start_as_the_identity() -> None:
    x = torch.rand(1, 8, 12, 10)
    assert torch.equal(NAFBlock(8)(x), x)
    assert isinstance(NAFBlock(8).sca[0], nn.AdaptiveAvgPool2d)
