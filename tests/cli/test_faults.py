"""Operations on files fail, one after another, as in SQLite's tests.

`just torture` lets every one fail, in trainings and streams as well, and kills commands; `just
faults` lets system calls fail.
"""

import builtins
import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurkit import Record, write_records
from blurkit.io.films import read_film
from blurkit.io.images import write_image
from blurkit.systems.nafnet.networks import NAFNet
from tests.cli.invoke import invoke
from tests.io.films import make_animation, make_pages
from tests.torture import system_calls
from tests.torture.campaign import run
from tests.torture.commands import commands
from tests.torture.faults import FAULTS, every_fault

STEPS = dict(zip(FAULTS, (4, 55, 9, 2, 4), strict=True))
"""Every so many operations fail: there are 40, 371, 54, 15 and 26."""


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str, tmp_path: Path) -> None:
    torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, tmp_path / "small.pth")
    quick = ("-c", tmp_path / "small.pth", "--tile", 64, "--device", "cpu", "-q")
    assert every_fault(commands(tmp_path, network=quick)[name], tmp_path / "runs", STEPS[name]) > 5


MAKE = dict.fromkeys((".gif", ".webp", ".apng"), make_animation) | {".tif": make_pages}


@pytest.mark.parametrize("suffix", MAKE)
def test_a_film_that_cannot_be_opened_is_not_taken_for_a_picture(
    suffix: str, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, real = tmp_path / f"a{suffix}", io.open
    MAKE[suffix](film)
    whole, opened, at = len([*read_film(film)]), 0, 0

    def fails(file: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal opened
        opened += isinstance(file, (str, Path)) and Path(file) == film
        if opened == at:
            opened += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(file))
        return real(file, *arguments, **named)

    monkeypatch.setattr(io, "open", fails)
    monkeypatch.setattr(builtins, "open", fails)
    for number in range(1, 20):
        output, opened, at = tmp_path / str(number), 0, number
        ran = invoke("reblur", film, "--kernel", kernel, "-o", f"{output}/")
        at = -1
        made = [*output.glob("*")]
        assert len(made) == (ran.status == 0), ran.err
        assert all(len([*read_film(path)]) == whole for path in made)
        assert ran.status == 0 or "Too many open files" in ran.err
        if opened < number:
            break
    assert number > 4


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("strace"), reason="requires strace")
def test_system_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix  # which Windows lacks

    monkeypatch.setattr(os, "fsync", posix.fsync)  # other tests do without
    (campaign,) = (c for c in system_calls.CAMPAIGNS if c.name == "system calls: deblur, pages")
    result = run(campaign._replace(count=3), seed=1)
    assert not result.failures and sum(result.outcomes.values()) == 3, result.failures


class Unreadable(io.FileIO):
    """A file whose bytes behind the first cannot be read."""

    def readinto(self, buffer: Any) -> int | None:
        if self.tell() >= 64:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(memoryview(buffer)[:64])

    def readall(self) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.avif", "a.tif", "a.jp2", "a.h5", "a.pt"])
def test_what_cannot_be_read_is_not_called_damaged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, photo = tmp_path / name, io.open, np.zeros((48, 64, 3), np.uint8)
    photo[::2, ::3] = 200
    if name == "a.pt":
        torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, path)
    elif name == "a.h5":
        write_records([Record("a", {"blur": photo})], path)
    else:
        write_image(path, photo)

    def opened(file: Any, *arguments: Any, **named: Any) -> Any:
        own = isinstance(file, (str, Path)) and Path(file) == path
        return io.BufferedReader(Unreadable(path)) if own else real(file, *arguments, **named)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr(builtins, "open", opened)
    ran = invoke("info", path)
    assert ran.status == 1 and "cannot be read (Input/output error)" in ran.err, ran.err
