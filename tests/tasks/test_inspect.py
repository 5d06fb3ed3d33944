"""Parameters and multiply-accumulates, against counts by hand and the published networks'."""

from pathlib import Path

import pytest
import torch
from torch import nn

from blurkit.engine.torch_runner import fold_spectral_norm
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    MSDINet,
    PriorUpsampling,
)
from blurkit.tasks.inspect import macs, parameters, seed_groups
from tests.io.scenes import PEAK_MEGABYTES

PHOTO = (1, 3, 256, 256)


def test_a_small_network_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 16x20 from 32x40: 8 * 3 * 9 each
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=4),  # 8 * 2 * 9 each
        nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8 * 4 * 4 per input pixel
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 10),
    )
    per_image = 16 * 20 * (8 * 3 * 9 + 8 * 2 * 9 + 8 * 4 * 4) + 4 * 10
    assert macs(network, (2, 3, 32, 40)) == 2 * per_image
    assert parameters(network) == (216 + 8) + (144 + 8) + (128 + 4) + (40 + 10)


def test_the_encoder_costs_the_same_for_every_size() -> None:
    encoder = DegradationEncoder(1, 8)
    assert macs(encoder, (1, 3, 100, 720)) == macs(encoder, PHOTO)


def test_a_network_in_use_stays_as_it_is() -> None:
    network = MSDINet(DegradationEncoder(1, 4), PriorUpsampling(1, 4), width=4, hidden=4).train()
    network(torch.rand(2, 3, 64, 64))  # from here on its normalised weights are computed tensors
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weight = network.net_prior.layer1[0].weight
    cost = macs(network, PHOTO)
    assert network.training and network.net_prior.layer1[0].weight is weight
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(parameter.device.type == "cpu" for parameter in network.parameters())
    assert macs(fold_spectral_norm(network.eval()), PHOTO) == cost


def test_checkpoints_that_differ_in_their_seed(tmp_path: Path) -> None:
    def save(name: str, seed: int, **options: object) -> None:
        """A checkpoint; options other than `data` are those of its configuration."""
        data = options.pop("data", "abc")
        about = {"seed": seed, "data": data, "date": name, "iterations": 10 + seed}
        chosen = {"seed": seed, "learning_rate": 0.1, "width": 8} | options
        network = {"conv.weight": torch.zeros(1)}
        files[name] = str(tmp_path / f"{name}.pt")
        save_checkpoint(Checkpoint({"deblur": network}, "nafnet", chosen, about), files[name])

    files: dict[str, str] = {}
    for seed in (1, 2):
        save(f"high{seed}", seed)
    high, low = ["high1", "high2"], ["low1", "low2", "low3"]
    assert seed_groups(files) == {"nafnet": high}
    for seed in (1, 2, 3):
        save(f"low{seed}", seed, learning_rate=0.01)
    save("wide", 3, width=16)
    save("other data", 4, data="def")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    (tmp_path / "net.onnx").write_bytes(b"")
    files |= {name: str(tmp_path / name) for name in ("foreign.pth", "net.onnx")}
    assert seed_groups(files) == {"learning_rate 0.1": high, "learning_rate 0.01": low}
    save("low3 again", 3, learning_rate=0.01)  # which of them counts is unknown
    assert seed_groups(files) == {"nafnet": high}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="measures as Linux does")
def test_no_memory_is_taken() -> None:
    with torch.device("meta"):
        network = MSDINet(DegradationEncoder(2), PriorUpsampling(2))
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is held now
    before = eval(PEAK_MEGABYTES)
    macs(network, (1, 3, 2048, 2048))
    assert eval(PEAK_MEGABYTES) - before < 300  # the weights alone, or one map, would be more


def test_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(BlurkitError, match=r"Linear does not accept inputs .*\(1, 5\)"):
        macs(nn.Linear(4, 2), (1, 5))
    with pytest.raises(BlurkitError, match="JointGenerator does not accept inputs"):
        macs(JointGenerator(4, 4), (1, 5, 64, 64))
