"""`blurkit prepare --synthesize`: every kind, its options, and the contact sheet."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from tests.cli.command import (
    assert_done,
    assert_refused,
    assert_same_records,
    files,
    photo,
    records,
    run,
    write,
)
from tests.cli.invoke import invoke


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        write(folder / f"{number}.png", photo(number))
    return folder


def test_realistic_blur_is_the_same_in_one_process_and_in_two(photos: Path, tmp_path: Path) -> None:
    options = ["--synthesize", "realistic", "--copies", 6, "-q"]
    for jobs in (1, 2):
        output = tmp_path / f"{jobs}.h5"
        assert_done(run("prepare", photos, "-o", output, *options, "--jobs", jobs))
    one, two = records(tmp_path / "1.h5"), records(tmp_path / "2.h5")
    assert len(one) == 24
    assert_same_records(one, two)
    assert len({record.attrs["blur_kind"] for record in one}) >= 3
    assert len({record.images["blur"].tobytes() for record in one}) >= 23


@pytest.mark.parametrize("kind", ["shake", "camera", "linear", "objects", "defocus"])
def test_kinds(photos: Path, tmp_path: Path, kind: str) -> None:
    options = ["--synthesize", kind, "--kernel-size", 5, 9, "--copies", 2, "--jobs", 1, "-q"]
    assert_done(invoke("prepare", photos, "-o", tmp_path / "k.h5", *options))
    made = records(tmp_path / "k.h5")
    assert len(made) == 8
    for record in made:
        assert record.attrs["blur_kind"] == kind
        assert 4 <= record.attrs["blur_extent"] <= 10
        assert 10 < record.attrs["psnr_blur"] < 50
        assert not {"blur_jpeg", "noise", "blur_shot", "blur_highlights"} & record.attrs.keys()


def test_light_noise_and_compression_as_asked_for(photos: Path, tmp_path: Path) -> None:
    options = ["--highlights", 4, "--noise", 0.01, "--shot", 0.001, "--jpeg", 50, 60, "-q"]
    options += ["--synthesize", "camera", "--gamma", 2.0, "--scale", 0.5, 0.5, "--jobs", 1]
    assert_done(invoke("prepare", photos, "-o", tmp_path / "k.h5", *options))
    for record in records(tmp_path / "k.h5"):
        told = {"blur_highlights": 4, "noise": 0.01, "blur_shot": 0.001, "gamma": 2.0, "scale": 0.5}
        assert {key: record.attrs[key] for key in told} == told
        assert 50 <= record.attrs["blur_jpeg"] <= 60
        assert record.images["blur"].shape == record.images["sharp"].shape == (24, 32, 3)


def test_a_response_curve_is_kept(photos: Path, tmp_path: Path) -> None:
    curve = np.linspace(0, 1, 256) ** 2
    np.savetxt(tmp_path / "curve.txt", curve)
    options = ["--synthesize", "camera", "--response", tmp_path / "curve.txt", "--jobs", 1, "-q"]
    assert_done(invoke("prepare", photos, "-o", tmp_path / "r.h5", *options))
    assert_done(
        invoke("prepare", photos, "-o", tmp_path / "g.h5", *options[:2], "--gamma", 2, "-q")
    )
    for by_curve, by_gamma in zip(
        records(tmp_path / "r.h5"), records(tmp_path / "g.h5"), strict=True
    ):
        np.testing.assert_allclose(by_curve.attrs["blur_response"], curve)
        difference = by_curve.images["blur"].astype(int) - by_gamma.images["blur"]
        assert np.abs(difference).max() <= 1  # the curve is a table of that gamma
    (tmp_path / "none.txt").write_text("1 2 3")
    ran = invoke("prepare", photos, *options[:3], tmp_path / "none.txt", "-o", tmp_path / "x.h5")
    assert_refused(ran, "none.txt: a response curve has 256 increasing values")


def test_contact_sheet(photos: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    options = ["--synthesize", "realistic", "--copies", 2, "--sheet", sheet, "--jobs", 1, "-q"]
    assert_done(invoke("prepare", photos, "-o", tmp_path / "a.h5", *options))
    made = records(tmp_path / "a.h5")
    picture = imageio.imread(sheet)
    assert picture.shape[2] == 3
    for number, record in enumerate(made[:2]):  # the first pairs, side by side, as they are
        left = number * (2 * 64 + 8 + 8)
        np.testing.assert_array_equal(picture[:48, left : left + 64], record.images["sharp"])
        blur = picture[:48, left + 72 : left + 136]
        np.testing.assert_array_equal(blur, record.images["blur"])
        assert picture[48:64, left : left + 136].min() < 128  # a caption below
    before = files(tmp_path)
    ran = invoke("prepare", photos, "-o", tmp_path / "b.h5", *options)
    assert_refused(ran, "sheet.png: exists already")
    ran = invoke("prepare", photos, "-o", tmp_path / "b.h5", *options[:4], "--sheet", "s.txt")
    assert_refused(ran, "--sheet s.txt: name an image file", status=2)
    assert files(tmp_path) == before
    assert_done(invoke("prepare", photos, "-o", tmp_path / "b.h5", *options, "--force"))


def test_wrong_usage(photos: Path, tmp_path: Path) -> None:
    shake = ["--synthesize", "shake"]
    for options, words in (
        (["--highlights", 2], "require --synthesize"),
        (["--jpeg", 60, 90], "require --synthesize"),
        (["--kernel-size", 3, 9], "require --synthesize"),
        (["--scale", 0.5, 2], "require --synthesize"),
        ([*shake, "--jpeg", 90, 60], "the lower first"),
        ([*shake, "--scale", 2, 1], "the smaller first"),
        ([*shake, "--highlights", 0.5], "highlights"),
        (["--synthesize", "spin"], "spin"),
    ):
        ran = invoke("prepare", photos, "-o", tmp_path / "x.h5", *options, "-q")
        assert ran.status == 2 and words in ran.err, ran.err
    assert files(tmp_path) == {}
