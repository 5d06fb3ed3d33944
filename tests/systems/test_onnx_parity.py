"""Official networks exported to ONNX give the official outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurkit.engine.onnx_runner import Exported, open_session
from blurkit.nn.size import SizeRequirement
from blurkit.systems import from_state_dict
from blurkit.tasks.export import write_onnx
from tests.systems.test_parity import RUN, Fixture

EXPORTED = {
    "msdi_encoder": (),
    "msdi_encoder_v2": (),
    "msdi_prior_upsampling": (),
    "msdi_prior_upsampling_v2": (),
    "msdi_discriminator": (),
    "msdi_net_v1": (),
    "msdi_net_v2": (),
    "dbgan_G": ("input", "output"),
    "msfs_net": ("input_blur", "output_predict"),
}
"""Fixtures of networks, with the names of the input and the output if `RUN` does not know them."""

QUICK = ("msfs_net",)
SMALL = 32
"""Tiles have so many pixels, so that comparing takes little time; MSFS-Net knows no other size."""


class InSession(nn.Module):
    """A network run by ONNX Runtime: its outputs as `network` groups them."""

    def __init__(self, session: Any, network: nn.Module) -> None:
        super().__init__()
        self.session, self.network = session, network

    def forward(self, *inputs: Tensor) -> Any:
        names = [node.name for node in self.session.get_inputs()]
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        found = iter(map(torch.from_numpy, self.session.run(None, given)))
        return _grouped(self.network(*inputs), found)


def _grouped(like: Any, found: Any) -> Any:
    return next(found) if isinstance(like, Tensor) else [_grouped(part, found) for part in like]


def parameter(name: str) -> Any:
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*map(parameter, EXPORTED)])
@torch.no_grad()
def test_an_exported_network_gives_the_official_outputs(name: str, tmp_path: Path) -> None:
    fixture = Fixture(name)
    network = from_state_dict(fixture.weights(fixture.json["state_dict"])).eval()
    size = getattr(network, "size", SizeRequirement())
    tile = size.padded(SMALL, SMALL)[0]
    dynamic = name != "msfs_net"
    least = (size.minimum, size.multiple) if dynamic else (tile, tile)
    write_onnx(network, Exported("network", "", "", tile, *least), False, tmp_path / "net.onnx")
    exported = InSession(open_session(tmp_path / "net.onnx"), network)
    if EXPORTED[name]:
        given, wanted = EXPORTED[name]
        fixture.compare(wanted, exported(torch.from_numpy(fixture.arrays[given])))
        return
    outputs = fixture.outputs()[1]
    for output, value in zip(outputs, RUN[name](exported, fixture), strict=True):
        fixture.compare(output, value)
