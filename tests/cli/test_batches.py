"""Batches: names, parts, and what was finished before, with files as people have them."""

from __future__ import annotations

import os
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from tests.cli.command import assert_done, assert_refused, files, photo, run, write


def test_files_of_one_stem_have_a_result_each(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(("b.png", "b.tif", "b.bmp", "c.png")):
        write(folder / name, photo(number))
    results = ["b.bmp", "b.png", "b.tif", "c.png"]
    assert_done(run("deblur", folder, "-c", checkpoint, "-o", f"{tmp_path}/out/", "-q"))
    assert [*files(tmp_path / "out")] == results
    named = [folder / name for name in ("c.png", "b.tif", "b.png", "b.bmp")]
    assert_done(run("deblur", *named, "-c", checkpoint, "-o", f"{tmp_path}/other/", "-q"))
    assert files(tmp_path / "other") == files(tmp_path / "out")
    assert_done(run("deblur", folder, "-c", checkpoint, "-q"))
    beside = [f"{name[0]}.deblurred{name[1:]}" for name in results]
    assert {*files(folder)} == {*results, *beside}
    ran = run("eval", tmp_path / "out", folder, "--json", "-q")
    assert_done(ran)
    assert {line["name"] for line in ran.json[:-1]} == {"b.bmp", "b.png", "b.tif", "c"}
    assert min(line["psnr"] for line in ran.json[:-1]) > 30


def test_parts_make_the_files_of_one_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    for number in range(6):
        write(folder / f"{number}.png", photo(number))
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    assert_done(run(*options, f"{tmp_path}/whole/"))
    for part in (1, 2, 3):
        assert_done(run(*options, f"{tmp_path}/parts/", "--part", f"{part}/3"))
        if part == 1:
            write(folder / "another.png", photo(9)).unlink()
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
