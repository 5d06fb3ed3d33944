"""Networks of twice the channels: the same outputs, but copies that learn different things."""

from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.systems.msdi.networks import JointGenerator
from tests.tools.convert import main, widened


def network(width: int) -> JointGenerator:
    torch.manual_seed(3)
    return JointGenerator(width=width, injection="none", unshuffle=2)


def test_a_wider_network_computes_the_same(tmp_path: Path) -> None:
    narrow, wide = network(4), network(8)
    trained, output = tmp_path / "narrow.pt", tmp_path / "wide.pt"
    save_checkpoint(Checkpoint({"deblur": narrow.state_dict()}, "msdi"), trained)
    assert main(["widen", str(trained), "-o", str(output)]) == 0
    wide.load_state_dict(load_checkpoint(output).networks["deblur"])
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(wide(image), narrow(image), atol=1e-5, rtol=1e-5)
    assert main(["widen", str(trained), "-o", str(output)]) == 1  # exists


def test_the_copies_of_a_channel_have_different_gradients() -> None:
    wide = network(8)
    wide.load_state_dict(widened(network(4).state_dict()))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    wide(image).square().mean().backward()
    gradient = wide.get_parameter("down_path_1.0.conv_1.weight").grad
    assert gradient is not None
    first, second = gradient[0::2], gradient[1::2]
    assert (first - second).abs().max() > 0.01 * gradient.abs().max()


def test_what_holds_no_deblurring_network_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.pt"
    save_checkpoint(Checkpoint({"network": {"a": torch.ones(2, 2)}}), other)
    assert main(["widen", str(other), "-o", str(tmp_path / "wide.pt")]) == 1
    assert "holds no deblurring network of MSDI-Net" in capsys.readouterr().err
