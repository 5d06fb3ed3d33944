"""What `blurkit prepare` writes: rotated, compressed, continued, rebuilt; and blur it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_same_records,
    files,
    photo,
    plant_tree,
    records,
    run,
    shard_records,
    write,
)


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs of 480x480, 1.4 MB each: one fits into a shard of 1 MB at a time."""
    return plant_tree(tmp_path_factory.mktemp("large"), 5, height=480, width=480)


@pytest.fixture(scope="module")
def uninterrupted(large_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "shards"
    assert_done(run("prepare", large_tree, "-o", f"{folder}/", "--shard-size", 1, "-q"))
    return folder


def test_shards_rotate(uninterrupted: Path) -> None:
    names = [path.name for path in sorted(uninterrupted.iterdir())]
    assert names == [f"test-{i:05d}.h5" for i in range(5)]
    assert [len(records(path)) for path in sorted(uninterrupted.iterdir())] == [1] * 5


def test_compressed_shards_hold_the_same(
    large_tree: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    assert_done(run("prepare", large_tree, "-o", tmp_path / "small.h5", "--compress", "-q"))
    assert_same_records(records(tmp_path / "small.h5"), shard_records(uninterrupted))
    whole = sum(path.stat().st_size for path in uninterrupted.iterdir())
    assert (tmp_path / "small.h5").stat().st_size < 0.8 * whole


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_resume_makes_what_is_missing(
    large_tree: Path, uninterrupted: Path, tmp_path: Path, missing: int
) -> None:
    for path in sorted(uninterrupted.iterdir())[: 5 - missing]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ran = run(
        "prepare", large_tree, "-o", f"{tmp_path}/", "--shard-size", 1, "--resume", "--json", "-q"
    )
    assert_done(ran)
    assert_same_records(shard_records(tmp_path), shard_records(uninterrupted))
    assert ran.json[0]["already"] == 5 - missing
    assert ran.json[0]["splits"]["test"]["records"] == missing


def test_resume_of_a_finished_run_changes_nothing(large_tree: Path, uninterrupted: Path) -> None:
    before = files(uninterrupted)
    assert_done(run("prepare", large_tree, "-o", f"{uninterrupted}/", "--resume", "-q"))
    assert files(uninterrupted) == before


def test_resume_cut_between_tiles(large_tree: Path, tmp_path: Path) -> None:
    """Shards that end in the middle of a photo's tiles are continued with the next tile."""
    options = ["--crop", 320, "--stride", 160, "--shard-size", 1, "-q"]
    assert_done(run("prepare", large_tree, "-o", f"{tmp_path}/whole/", *options))
    whole = sorted((tmp_path / "whole").iterdir())
    assert len(whole) > 12
    (tmp_path / "cut").mkdir()
    for path in whole[:7]:
        (tmp_path / "cut" / path.name).write_bytes(path.read_bytes())
    assert_done(run("prepare", large_tree, "-o", f"{tmp_path}/cut/", *options, "--resume"))
    assert_same_records(shard_records(tmp_path / "cut"), shard_records(tmp_path / "whole"))


@pytest.mark.parametrize(("missing", "whole"), [(15_000, 3), (40_000, 2)])
def test_a_truncated_shard_is_rebuilt(
    shard: Path, tmp_path: Path, missing: int, whole: int
) -> None:
    broken, rebuilt = tmp_path / "broken.h5", tmp_path / "rebuilt.h5"
    broken.write_bytes(shard.read_bytes()[:-missing])
    ran = run("prepare", broken, "-o", rebuilt, "-q")
    told = f"{missing} bytes are missing; {whole} records are whole; rebuild with: blurkit prepare"
    assert_failed(ran, "broken.h5", "broken.h5: truncated", told)
    assert_same_records(records(rebuilt), records(shard)[:whole])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        write(folder / f"{number}.png", photo(number))
    return folder


def test_synthesized_blur_is_the_same_however_it_is_made(photos: Path, tmp_path: Path) -> None:
    options = ["--synthesize", "shake", "--copies", 2, "--noise", 0.01, "-q"]
    backwards = sorted(photos.iterdir(), reverse=True)
    for name, inputs, more in (
        ("one", [photos], ["--jobs", 1]),
        ("two", [photos], ["--jobs", 2]),
        ("backwards", backwards, ["--jobs", 2]),
        ("other", [photos], ["--jobs", 1, "--seed", 7]),
    ):
        assert_done(run("prepare", *inputs, "-o", tmp_path / f"{name}.h5", *options, *more))
    one, two, backwards_, other = (
        sorted(records(tmp_path / f"{name}.h5"), key=lambda record: record.name)
        for name in ("one", "two", "backwards", "other")
    )
    assert [record.name for record in one] == [
        f"{number}{copy}" for number in range(4) for copy in ("", "-copy1")
    ]
    assert_same_records(one, two)
    assert_same_records(one, backwards_)
    for record, changed in zip(one, other, strict=True):
        assert not np.array_equal(record.images["blur"], changed.images["blur"])
        np.testing.assert_array_equal(record.images["sharp"], changed.images["sharp"])
    assert len({record.images["blur"].tobytes() for record in one}) == 8


@pytest.mark.parametrize(
    ("kernels", "name", "count"),
    [
        ("Levin09.mat", "Levin09-", 8),  # MATLAB 7.3
        ("kernels_12.mat", "kernels_12-", 12),  # MATLAB 5
        ("levin_png", "kernel", 8),
    ],
)
def test_kernel_files(
    shared_data: Path, photos: Path, tmp_path: Path, kernels: str, name: str, count: int
) -> None:
    options = ["--synthesize", "shake", "--copies", 3, "--jobs", 1, "-q"]
    path = shared_data / "kernels" / kernels
    assert_done(run("prepare", photos, "-o", tmp_path / "k.h5", "--kernels", path, *options))
    made = records(tmp_path / "k.h5")
    known = {f"{name}{number}" for number in range(1, count + 1)}
    assert len(made) == 12
    assert {record.attrs["kernel_name"] for record in made} <= known
    for record in made:
        assert record.attrs["kernel"].sum() == pytest.approx(1)


def test_photos_as_they_lie_in_a_package(tmp_path: Path) -> None:
    """scikit-image's own folder: photos of every kind, among other files."""
    folder = Path(skimage.data.__file__).parent
    ran = run("prepare", folder, "-o", tmp_path / "p.h5", "--as", "sharp", "-q")
    assert_done(ran)
    photos = {record.name: record.images for record in records(tmp_path / "p.h5")}
    assert set(photos) >= {"astronaut", "camera", "rocket", "horse", "multipage_rgb/000000"}
    assert all(images.keys() - {"alpha"} == {"sharp"} for images in photos.values())
