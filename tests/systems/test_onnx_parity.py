"""Official networks exported to ONNX give the official outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurkit.engine.onnx_runner import Exported, open_session
from blurkit.nn.size import SizeRequirement
from blurkit.tasks.export import write_onnx
from tests.systems.dbgan.parity import built
from tests.systems.test_parity import RUN, Fixture

EXPORTED = {
    "msdi_encoder": (),
    "msdi_encoder_v2": (),
    "msdi_prior_upsampling": (),
    "msdi_prior_upsampling_v2": (),
    "msdi_discriminator": (),
    "msdi_net_v1": (),
    "msdi_net_v2": (),
    "dbgan_G": (["input"], ["output"]),
    "dbgan_D": (["input"], ["output"]),
    "dbgan_D_96": (["input"], ["output"]),
    "dbgan_D_192": (["input"], ["output"]),
    "dbgan_D_128SN": (["input"], ["output_eval"]),
    "kernel_wizard": (["input_x", "input_y"], ["output_y", "output_k"]),
    "kernel_wizard_vae": (["input_x", "input_y"], ["output_y_mean", "output_k", "output_sigma"]),
    "msfs_net": (["input_blur"], ["output_predict"]),
}
"""Fixtures of networks, with the names of inputs and outputs if `RUN` does not know them."""

FIXED = {
    "msfs_net": 32,
    "dbgan_D": 128,
    "dbgan_D_96": 96,
    "dbgan_D_192": 192,
    "dbgan_D_128SN": 128,
}
"""Sides of the images of networks that are exported for one size."""

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


def _leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else value


def parameter(name: str) -> Any:
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*map(parameter, EXPORTED)])
@torch.no_grad()
def test_an_exported_network_gives_the_official_outputs(name: str, tmp_path: Path) -> None:
    fixture = Fixture(name)
    network = built(fixture).eval()
    size = getattr(network, "size", SizeRequirement())
    tile = FIXED.get(name) or size.padded(SMALL, SMALL)[0]
    least = (tile, tile) if name in FIXED else (size.minimum, size.multiple)
    write_onnx(network, Exported("network", "", "", tile, *least), False, tmp_path / "net.onnx")
    exported = InSession(open_session(tmp_path / "net.onnx"), network)
    if EXPORTED[name]:
        given, outputs = EXPORTED[name]
        arrays = {key: torch.from_numpy(array) for key, array in fixture.arrays.items()}
        images = fixture.inputs() | arrays if "input" in fixture.json else arrays
        each = zip(*(images[entry].split(1) for entry in given), strict=True)
        parts = [_leaves(exported(*inputs)) for inputs in each]
        values = [torch.cat(part) for part in zip(*parts, strict=True)][: len(outputs)]
    else:
        outputs, values = fixture.outputs()[1], RUN[name](exported, fixture)
    for output, value in zip(outputs, values, strict=True):
        fixture.compare(output, value)
