"""NAFNet gives the released network's outputs: images, blocks, local statistics, losses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from blurkit.engine.torch_runner import with_local_statistics
from blurkit.systems import from_state_dict
from blurkit.systems.msdi.losses import psnr_loss
from blurkit.systems.nafnet.networks import NAFBlock, NAFNet
from tests.systems.test_parity import Fixture

NETWORKS = ("nafnet_32", "nafnet_32_sidd", "nafnet_64_small")


def fixture(name: str) -> Fixture:
    return Fixture(f"nafnet/{name}")


def network(of: Fixture) -> NAFNet:
    found = from_state_dict({"params": of.weights(of.json["state_dict"])})
    assert isinstance(found, NAFNet)
    assert {key: list(tensor.shape) for key, tensor in found.state_dict().items()} == of.json[
        "state_dict"
    ]
    assert list(found.state_dict()) == list(of.json["state_dict"])
    return found.eval()


def given(of: Fixture, name: str) -> Tensor:
    return torch.from_numpy(of.arrays[name])


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_official_outputs(name: str) -> None:
    official = fixture(name)
    ours = network(official)
    official.compare("output", ours(given(official, "input")))
    middle: list[Tensor] = []
    ours.middle_blks.register_forward_hook(lambda module, inputs, output: middle.append(output))
    official.compare("output_odd", ours(given(official, "input_odd")))
    official.compare("output_odd_middle", middle[0])


@pytest.mark.parametrize("name", ["nafnet_local", "nafnet_local_small", "nafnet_local_fast"])
@torch.no_grad()
def test_local_statistics(name: str) -> None:
    official = fixture(name)
    ours, image = network(official), given(official, "input")
    official.compare("output_global", ours(image))
    options = official.json["kwargs"]
    crop = tuple(options["train_size"][2:])
    official.compare("output", with_local_statistics(ours, crop, options["fast_imp"])(image))


def test_a_block_and_its_gradients() -> None:
    official = fixture("nafnet_block")
    block = NAFBlock(official.json["kwargs"]["c"])
    block.load_state_dict(official.weights(official.json["state_dict"]))
    x = given(official, "input").requires_grad_()
    official.compare("output_norm1", block.norm1(x))
    output = block(x)
    official.compare("output", output)
    (output * given(official, "input_direction")).sum().backward()
    gradients = {name.replace(".", "_"): p.grad for name, p in block.named_parameters()}
    gradients["input"] = x.grad
    wanted = [name for name in official.arrays if name.startswith("output_grad_")]
    assert len(wanted) == 7
    for name in wanted:
        gradient = gradients[name.removeprefix("output_grad_")]
        assert gradient is not None
        official.compare(name, gradient)


def test_losses() -> None:
    official = fixture("nafnet_losses")
    restored = given(official, "input_pred").requires_grad_()
    sharp = given(official, "input_target")
    loss = psnr_loss(restored, sharp)
    loss.backward()
    official.compare("output_psnr_rgb", loss)
    assert restored.grad is not None
    official.compare("output_grad_rgb", restored.grad)
    equal = psnr_loss(sharp, sharp)
    assert equal.item() == pytest.approx(official.arrays["output_psnr_rgb_equal"][0], abs=1e-3)


@pytest.mark.parametrize(
    ("width", "parameters", "gmacs"), [(32, 17_111_907, 15.956), (64, 67_888_835, 63.055)]
)
def test_parameters_and_multiply_accumulates_are_the_papers(
    width: int, parameters: int, gmacs: float
) -> None:
    from blurkit.tasks.inspect import macs
    from blurkit.tasks.inspect import parameters as count

    with torch.device("meta"):
        ours = NAFNet(width)
    assert count(ours) == parameters
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
