"""Operations on files fail, one after another, as in SQLite's tests.

`just torture` lets every one fail, in trainings and streams as well, and kills commands.
"""

from pathlib import Path

import pytest
import torch

from blurkit.systems.nafnet.networks import NAFNet
from tests.torture.commands import commands
from tests.torture.faults import FAULTS, every_fault

STEPS = dict(zip(FAULTS, (4, 55, 9, 2, 4), strict=True))
"""Every so many operations fail: there are 40, 371, 54, 15 and 26."""


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str, tmp_path: Path) -> None:
    torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, tmp_path / "small.pth")
    quick = ("-c", tmp_path / "small.pth", "--tile", 64, "--device", "cpu", "-q")
    assert every_fault(commands(tmp_path, network=quick)[name], tmp_path / "runs", STEPS[name]) > 5
