"""Every operation on files fails once, one after another, as in SQLite's tests.

`just torture` does the same to trainings, and kills commands.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.commands import commands
from tests.torture.faults import FAULTS, every_fault


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault(name: str, tmp_path: Path) -> None:
    assert every_fault(commands(tmp_path)[name], tmp_path / "runs") > 10
