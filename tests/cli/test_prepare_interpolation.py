"""`blurkit prepare --average --interpolate`: pairs from frames too few to average as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from tests.cli.command import (
    ENVIRONMENT,
    assert_failed,
    assert_refused,
    assert_same_records,
    files,
    records,
    run,
    write,
)
from tests.cli.invoke import invoke


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of one photo that moves by 5 pixels each, then, after a cut, three of another."""
    folder = tmp_path_factory.mktemp("frames") / "clip"
    photo, other = skimage.data.astronaut(), skimage.data.coffee()
    for number in range(9):
        scene = photo if number < 6 else other
        write(folder / f"{number}.png", scene[100:196, 100 + 5 * number : 228 + 5 * number])
    return folder


def test_pairs_of_a_clip_with_a_cut(clip: Path, tmp_path: Path) -> None:
    options = ["--average", 3, "--stride", 2, "--interpolate", 8, "--json"]
    for jobs in (1, 2):
        ran = run("prepare", clip, "-o", tmp_path / f"{jobs}.h5", *options, "--jobs", jobs)
        assert_failed(ran, "1 failed, 3 prepared: clip/5", "clip/5: left out", "from frame 2 to 3")
        assert "left out: 1 (named above)" in ran.err
        assert ran.json[0]["left_out"] == ["clip/5"]
    made = records(tmp_path / "1.h5")
    assert_same_records(made, records(tmp_path / "2.h5"))
    assert [record.name for record in made] == ["clip/1", "clip/3", "clip/7"]
    for record in made:
        told = {"average": 3, "stride": 2, "interpolate": 8, "samples": 17, "gamma": 2.2}
        assert {key: record.attrs[key] for key in told} == told
        assert 0.8 < record.attrs["flow_agreement"] < 1
    photo = skimage.data.astronaut() / 255.0
    real = [photo[100:196, 100 + step : 228 + step] ** 2.2 for step in range(11)]
    blur = 255 * np.mean(real, axis=0) ** (1 / 2.2)
    inner = np.s_[:, 16:-16]
    assert np.abs(made[0].images["blur"][inner] - blur[inner]).mean() < 2
    np.testing.assert_array_equal(
        made[0].images["sharp"], skimage.data.astronaut()[100:196, 105:233]
    )


def test_a_cut_is_a_matter_of_agreement(clip: Path, tmp_path: Path) -> None:
    options = ["--average", 3, "--stride", 2, "--interpolate", 2, "--agreement", 0, "-q"]
    ran = invoke("prepare", clip, "-o", tmp_path / "all.h5", *options)
    assert ran.status == 0, ran.err
    made = {record.name: record for record in records(tmp_path / "all.h5")}
    assert made["clip/5"].attrs["flow_agreement"] < 0.3


@pytest.mark.parametrize("steps", [0, 1])
def test_one_step_is_no_interpolation(clip: Path, tmp_path: Path, steps: int) -> None:
    options = ["--average", 3, "-q"]
    assert invoke("prepare", clip, "-o", tmp_path / "a.h5", *options).status == 0
    options += ["--interpolate", steps]
    assert invoke("prepare", clip, "-o", tmp_path / "b.h5", *options).status == 0
    assert_same_records(records(tmp_path / "a.h5"), records(tmp_path / "b.h5"))
    assert "interpolate" not in records(tmp_path / "b.h5")[0].attrs


def test_wrong_usage(clip: Path, tmp_path: Path) -> None:
    for options, words in (
        (["--interpolate", 8], "--interpolate requires --average"),
        (["--average", 1, "--interpolate", 8], "--interpolate requires --average of 2 or more"),
        (["--average", 3, "--agreement", 0.9], "--agreement requires --interpolate"),
    ):
        ran = invoke("prepare", clip, "-o", tmp_path / "x.h5", *options)
        assert_refused(ran, words, status=2)
    assert files(tmp_path) == {}


def test_without_opencv(clip: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['cv2'] = None; from blurkit.cli.app import main; main()"
    command = [sys.executable, "-c", script, "prepare", str(clip), "-o", str(tmp_path / "x.h5")]
    options = ["--average", "3", "--interpolate", "8"]
    done = subprocess.run(command + options, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --interpolate needs OpenCV")
    assert line.endswith("pip install 'blurkit[align]'")
    assert files(tmp_path) == {}
