"""Compressed checkpoints: smaller files of the same content."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.system import WEIGHTS
from tests.tools.convert import main


def test_a_compressed_checkpoint_is_smaller_and_the_same(tmp_path: Path) -> None:
    file = Path(shutil.copy(WEIGHTS / "kernel_space.pt", tmp_path))
    before, size = load_checkpoint(file), file.stat().st_size
    assert main(["compress", str(file)]) == 0
    after = load_checkpoint(file)
    assert file.stat().st_size < 0.95 * size
    assert after.provenance == before.provenance and after.networks.keys() == before.networks.keys()
    for role, state in before.networks.items():
        for key, values in state.items():
            assert torch.equal(after.networks[role][key], values), key
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt"] == [file.name]


def test_what_is_no_checkpoint_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.pt"
    file.write_bytes(b"no archive")
    assert main(["compress", str(file)]) == 1
    assert str(file) in capsys.readouterr().err and file.read_bytes() == b"no archive"
