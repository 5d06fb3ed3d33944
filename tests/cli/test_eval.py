"""`blurkit eval`: the numbers it prints are those that scikit-image finds."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.cli.command import (
    assert_done,
    assert_failed,
    blurred,
    files,
    photo,
    records,
    run,
    write,
)
from tests.cli.invoke import invoke


def expected(image: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM by scikit-image."""
    ssim = structural_similarity(
        image,
        sharp,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return peak_signal_noise_ratio(sharp, image), ssim


@pytest.fixture
def two_folders(tmp_path: Path) -> Path:
    """restored/ and sharp/ with three pairs of one name, one of them in another format."""
    for number, suffix in enumerate((".png", ".bmp", ".png")):
        sharp = photo(number)
        write(tmp_path / f"sharp/nested/{number}.png", sharp)
        write(tmp_path / f"restored/nested/{number}{suffix}", blurred(sharp))
    return tmp_path


def test_a_shard_and_a_stream(tree: Path, shard: Path) -> None:
    ran = invoke("eval", shard, "--json", "-q")
    assert_done(ran)
    assert ran.err == ""
    *rows, last = ran.json
    found = []
    for row, record in zip(rows, records(shard), strict=True):
        assert row["name"] == record.name
        psnr, ssim = expected(record.images["blur"], record.images["sharp"])
        assert row["psnr"] == row["psnr_blur"] == pytest.approx(psnr, abs=1e-6)
        assert row["ssim"] == pytest.approx(ssim, abs=1e-6)
        found.append((psnr, ssim))
    mean = np.mean(found, axis=0)
    assert last["total"]["images"] == 4
    assert last["total"]["psnr"] == pytest.approx(mean[0], abs=1e-6)
    assert last["total"]["ssim"] == pytest.approx(mean[1], abs=1e-6)
    assert "8 bits" in last["protocol"]["values"]

    assert run("eval", "-", "--json", "-q", input=shard.read_bytes()).out == ran.out
    assert invoke("eval", tree, "--json", "-q").out == ran.out
    table = invoke("eval", shard)
    assert_done(table)
    assert table.out == b""
    assert "mean of 4" in table.err
    assert f"{mean[0]:.2f}" in table.err


def test_real_pairs(shared_data: Path, tmp_path: Path) -> None:
    levin = shared_data / "pairs/reds_180p/val"
    ran = invoke("eval", levin / "val_blur/000", levin / "val_sharp/000", "--json", "-q")
    assert_done(ran)
    *rows, last = ran.json
    told = [24.53, 28.10, 29.16, 25.73, 27.62, 28.73, 25.17, 23.51, 25.16, 27.14]
    assert [row["psnr"] for row in rows] == pytest.approx(told, abs=0.0051)
    assert last["total"]["psnr"] == pytest.approx(np.mean(told), abs=0.0051)


def test_two_folders_are_paired_by_name(two_folders: Path) -> None:
    sides = [two_folders / "restored", two_folders / "sharp"]
    ran = invoke("eval", *sides, "--json", "-q")
    assert_done(ran)
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["nested/0", "nested/1", "nested/2"]
    for number, row in enumerate(rows):
        psnr, ssim = expected(blurred(photo(number)), photo(number))
        assert (row["psnr"], row["ssim"]) == pytest.approx((psnr, ssim), abs=1e-6)

    (sides[1] / "nested/1.png").unlink()
    write(sides[1] / "alone.png", photo(7))
    ran = invoke("eval", *sides, "--json", "-q")
    assert_failed(ran, "nested/1", "nested/1.bmp: no partner", str(sides[1]))
    assert_failed(ran, "alone", "alone.png: no partner", str(sides[0]))
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["nested/0", "nested/2"]
    assert last["total"]["images"] == 2


def test_two_files(two_folders: Path) -> None:
    arguments = ["restored/nested/0.png", "sharp/nested/2.png"]
    ran = invoke("eval", *arguments, "--json", "-q", cwd=two_folders)
    assert_done(ran)
    psnr, ssim = expected(blurred(photo(0)), photo(2))
    assert (ran.json[0]["psnr"], ran.json[0]["ssim"]) == pytest.approx((psnr, ssim), abs=1e-6)


def test_the_current_folder_is_named(two_folders: Path) -> None:
    ran = invoke("eval", "restored", "sharp", "-o", "a.csv", "-o", "b.md", cwd=two_folders)
    assert_done(ran)
    assert ran.lines[-1] == "wrote 2 files to ./"


def test_an_identical_pair_leaves_the_mean_finite(two_folders: Path) -> None:
    write(two_folders / "restored/nested/1.bmp", photo(1))
    ran = invoke("eval", two_folders / "restored", two_folders / "sharp", "--json")
    assert_done(ran)
    *rows, last = ran.json
    assert rows[1]["psnr"] is None
    assert rows[1]["ssim"] == pytest.approx(1)
    finite = [expected(blurred(photo(n)), photo(n))[0] for n in (0, 2)]
    assert last["total"]["psnr"] == pytest.approx(np.mean(finite))
    assert (last["total"]["images"], last["total"]["infinite"]) == (3, 1)


def test_pictures(two_folders: Path) -> None:
    arguments = ["eval", "restored", "sharp", "--pictures", "shown"]
    assert_done(invoke(*arguments, cwd=two_folders))
    shown = files(two_folders / "shown")
    assert list(shown) == [f"nested/{number}.png" for number in range(3)]
    picture = imageio.imread(two_folders / "shown/nested/0.png")
    assert picture.shape == (48, 64 + 8 + 64, 3)
    np.testing.assert_array_equal(picture[:, :64], blurred(photo(0)))
    np.testing.assert_array_equal(picture[:, -64:], photo(0))
    assert_failed(invoke(*arguments, cwd=two_folders), "nested/0", "exists already", "--force")
    assert files(two_folders / "shown") == shown
    assert_done(invoke(*arguments, "--force", cwd=two_folders))


def test_pairs_that_cannot_be_scored(two_folders: Path) -> None:
    write(two_folders / "restored/nested/0.png", photo(0, 40, 64))
    write(two_folders / "restored/nested/1.bmp", photo(1)[:, :, 0])
    ran = invoke("eval", two_folders / "restored", two_folders / "sharp", "--json", "-q")
    assert_failed(ran, "nested/0", "restored is 64x40, sharp is 64x48")
    assert_failed(ran, "nested/1", "sizes differ: 64x48x1 and 64x48x3")
    assert [row.get("name") for row in ran.json] == ["nested/2", None]


def test_parts_together_are_the_whole(shard: Path) -> None:
    whole = invoke("eval", shard, "--json", "-q").json[:-1]
    parts = [invoke("eval", shard, "--json", "-q", "--part", f"{i}/2").json[:-1] for i in (1, 2)]
    assert sorted((row for part in parts for row in part), key=lambda row: row["name"]) == whole
