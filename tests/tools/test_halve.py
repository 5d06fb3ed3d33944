"""Half the size: of checkpoints, and of what a training has learned so far."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint, with_checksums
from blurkit.systems.msdi.networks import JointGenerator
from blurkit.systems.registry import load_networks
from blurkit.training.state import STATE_VERSION
from tests.tools.convert import main

OPTIONS = {"width": 8, "injection": "none", "unshuffle": 2}


def generator() -> JointGenerator:
    torch.manual_seed(0)
    return JointGenerator(**OPTIONS)


def test_a_checkpoint_and_a_state_give_the_same_network(tmp_path: Path) -> None:
    weights = generator().state_dict()
    save_checkpoint(Checkpoint({"deblur": weights}, "msdi", OPTIONS), tmp_path / "x.pt")
    state = {"version": STATE_VERSION, "system": "msdi", "step": 7, "configuration": OPTIONS}
    state |= {"networks": {"deblur": {}}, "averaged": {"deblur": weights}, "optimizers": {}}
    torch.save(with_checksums(state | {"blueprints": {}}), tmp_path / "x.state.pt")
    found = []
    for name in ("x.pt", "x.state.pt"):
        output = tmp_path / f"half-{name.replace('.', '-')}.pt"
        assert main(["halve", str(tmp_path / name), "-o", str(output)]) == 0
        assert output.stat().st_size < 0.6 * (tmp_path / "x.pt").stat().st_size
        found.append(load_checkpoint(output))
    assert found[1].provenance["iterations"] == 7 and found[1].system == "msdi"
    photo = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        wanted = generator().eval()(photo, [])
        for checkpoint in found:
            made = load_networks(checkpoint)["deblur"].eval()(photo, [])
            torch.testing.assert_close(made, wanted, atol=2e-3, rtol=0)


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"step": 1}, tmp_path / "y.state.pt")
    for name, words in (("no.state.pt", "no such file"), ("y.state.pt", "is not the saved state")):
        assert main(["halve", str(tmp_path / name), "-o", str(tmp_path / "out.pt")]) == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
