"""Parameters and multiply-accumulates, against counts by hand and the published networks'."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from blurkit.engine.torch_runner import fold_spectral_norm
from blurkit.errors import BlurkitError
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    MSDINet,
    PriorUpsampling,
)
from blurkit.tasks.inspect import macs, parameters
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


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measures as Linux does")
def test_no_memory_is_taken() -> None:
    script = (
        "import torch; from blurkit.tasks.inspect import macs; "
        "from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling\n"
        "with torch.device('meta'): network = MSDINet(DegradationEncoder(2), PriorUpsampling(2))\n"
        f"macs(network, (1, 3, 2048, 2048)); print({PEAK_MEGABYTES})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert int(done.stdout) < 1000, done.stderr  # the weights alone, or one map, would be more


def test_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(BlurkitError, match=r"Linear does not accept inputs .*\(1, 5\)"):
        macs(nn.Linear(4, 2), (1, 5))
    with pytest.raises(BlurkitError, match="JointGenerator does not accept inputs"):
        macs(JointGenerator(4, 4), (1, 5, 64, 64))
