"""Kernel files against each other, and the properties of random shakes."""

import base64
import warnings
from collections.abc import Callable
from pathlib import Path

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
import scipy.io
import skimage.data

from blurkit.errors import BlurkitError
from blurkit.synthesis.kernels import random_trajectory_kernel, read_kernels
from tests.shared import shared_folder


@pytest.fixture
def kernels(shared_data: Path) -> Path:
    return shared_data / "kernels"


def test_levins_kernels_from_matlab_and_png(kernels: Path) -> None:
    matlab = read_kernels(kernels / "Levin09.mat")
    images = read_kernels(kernels / "levin_png")
    assert [name for name, _ in matlab] == [f"Levin09-{n}" for n in range(1, 9)]
    assert [name for name, _ in images] == [f"kernel{n}" for n in range(1, 9)]
    assert [kernel.shape[0] for _, kernel in matlab] == [19, 17, 15, 27, 13, 21, 23, 23]
    for number, ((_, one), (_, other)) in enumerate(zip(matlab, images, strict=True), 1):
        if number in (4, 8):  # these two are published turned round
            other = other[::-1, ::-1]
        np.testing.assert_allclose(one, other, atol=one.max() / 200)
        assert one.dtype == np.float64
        assert one.sum() == pytest.approx(1) and other.sum() == pytest.approx(1)


def test_levins_scenes_hold_one_kernel(kernels: Path, shared_data: Path) -> None:
    levin = dict(read_kernels(kernels / "Levin09.mat"))
    scenes = read_kernels(shared_data / "pairs/levin_mat")
    assert [name for name, _ in scenes] == ["im05_flit01", "im06_flit03"]
    for (_, kernel), number in zip(scenes, (1, 3), strict=True):
        np.testing.assert_allclose(kernel, levin[f"Levin09-{number}"], atol=1e-12)


@pytest.mark.parametrize(
    ("name", "count"), [("kernels_12.mat", 12), ("kernels_bicubicx234.mat", 3)]
)
def test_cells_of_older_matlab_files(name: str, count: int, kernels: Path) -> None:
    read = read_kernels(kernels / name)
    assert len(read) == count
    for _, kernel in read:
        assert kernel.shape == (25, 25) and kernel.sum() == pytest.approx(1)


def test_numpy_files(kernels: Path, tmp_path: Path) -> None:
    levin = [kernel for _, kernel in read_kernels(kernels / "Levin09.mat")]
    np.savez(tmp_path / "three.npz", *[kernel * 5 for kernel in levin[:3]])
    np.save(tmp_path / "one.npy", levin[3])
    read = read_kernels(tmp_path)
    assert [name for name, _ in read] == ["one", "three-1", "three-2", "three-3"]
    for (_, kernel), expected in zip(read, [levin[3], *levin[:3]], strict=True):
        np.testing.assert_allclose(kernel, expected, atol=1e-15)


def test_sixteen_bit_png(kernels: Path, tmp_path: Path) -> None:
    (_, kernel), *_ = read_kernels(kernels / "Levin09.mat")
    imageio.imwrite(tmp_path / "k.png", (kernel / kernel.max() * 65535).round().astype(np.uint16))
    ((_, read),) = read_kernels(tmp_path / "k.png")
    np.testing.assert_allclose(read, kernel, atol=2e-6)


def test_what_is_no_kernel_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.ones((2, 3, 4)))
    np.save(tmp_path / "zero.npy", np.zeros((3, 3)))
    np.save(tmp_path / "infinite.npy", np.diag([np.inf, -np.inf]))
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20)
    (tmp_path / "text.txt").write_text("1 2 3")
    imageio.imwrite(tmp_path / "colour.png", skimage.data.astronaut()[:9, :9])
    (tmp_path / "empty").mkdir()
    for name, message in {
        "cube.npy": r"cube.npy: .* found float64 of shape \(2, 3, 4\)",
        "zero.npy": "zero.npy: a kernel's sum is above 0, found 0",
        "infinite.npy": "infinite.npy: a kernel's sum is above 0, found nan",
        "broken.mat": "broken.mat: cannot read this kernel file",
        "text.txt": "text.txt: not a kernel file; use one of",
        "colour.png": "colour.png: is a colour image",
        "empty": "empty: holds no kernel file",
        "none.mat": "none.mat: no such file",
    }.items():
        with pytest.raises(BlurkitError, match=message), warnings.catch_warnings():
            warnings.simplefilter("error")
            read_kernels(tmp_path / name)


def write_new_matlab(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("k", data=TALL, compression="gzip")


TALL, WIDE = np.zeros((5_000_000, 1), np.uint8), np.zeros((9000, 9000), np.uint8)
LARGE: dict[str, Callable[[Path], object]] = {
    "a.npy": lambda path: np.lib.format.open_memmap(path, "w+", np.uint8, (1 << 40, 1)),
    "a.npz": lambda path: np.savez_compressed(path, TALL),
    "a.mat": lambda path: scipy.io.savemat(path, {"k": TALL}, do_compression=True),
    "inflated.mat": lambda path: scipy.io.savemat(path, {"k": WIDE}, do_compression=True),
    "new.mat": write_new_matlab,
    "a.png": lambda path: imageio.imwrite(path, TALL[:40_000]),
}
"""How to write a matrix larger than a kernel, a few kilobytes of zeros, by the file's name."""


@pytest.mark.parametrize("name", LARGE)
def test_a_kernel_has_a_largest_size(name: str, tmp_path: Path) -> None:
    LARGE[name](tmp_path / name)
    words = "more than 67108864 bytes" if "inflated" in name else "has at most 1000 pixels a side"
    with pytest.raises(BlurkitError, match=f"{name}: .*{words}"):
        read_kernels(tmp_path / name)


CRASH = base64.b64decode(
    "DwAAAIgAAAB4nONjYGDYwcTAwAakORggNAiwQvmcUMwIhGDYwcTAwAakORggNAiwQvmcUMwIhNlQdgcTA9WBlTPPDM"
    "lvU+0zOhiND+/bZM8IFj0A5R9C42+yh6lHNwcmD+FdsH82197YP+A2lP8AjX/BHlU9AsDsg6mH0M+h9Gs0/m24+7C7"
    "5xCa/a+h/A9o/Af2qOpp5R7Kw4da8UUpAAAddIaL"
)
"""Damage after the header of a MATLAB file on which SciPy 1.17 crashes, found by fuzzing."""


def test_damage_that_crashes_scipy(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "k.mat", {"k": np.ones((9, 9))})
    header = (tmp_path / "k.mat").read_bytes()[:128]
    (tmp_path / "k.mat").write_bytes(header + CRASH)
    with pytest.raises(BlurkitError, match=r"k\.mat: cannot read this kernel file"):
        read_kernels(tmp_path / "k.mat")


def test_damage_that_crashes_hdf5(tmp_path: Path) -> None:
    """MATLAB's files begin with 512 bytes of its own, in front of HDF5's."""
    crash = shared_folder("campaigns", "BLURKIT_CAMPAIGNS") / "crash175.h5"
    for start in (b"", b"MATLAB 7.3 MAT-file".ljust(512)):
        (tmp_path / "k.mat").write_bytes(start + crash.read_bytes())
        with pytest.raises(BlurkitError, match=r"^[^ ]*k\.mat: damaged; HDF5 crashes on it$"):
            read_kernels(tmp_path / "k.mat")


@pytest.mark.parametrize("size", [1, 3, 9, 31, 65])
def test_random_shakes(size: int) -> None:
    rows, columns = np.mgrid[:size, :size]
    drawn = [random_trajectory_kernel(np.random.default_rng(seed), size) for seed in range(20)]
    for kernel in drawn:
        assert kernel.shape == (size, size) and kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1)
        centroid = (kernel * rows).sum(), (kernel * columns).sum()
        assert centroid == pytest.approx((size // 2, size // 2), abs=1e-9)
        used = np.argwhere(kernel)
        assert np.ptp(used, axis=0).max() >= size // 2  # it is as large as it was asked for
    again = random_trajectory_kernel(np.random.default_rng(3), size)
    np.testing.assert_array_equal(again, drawn[3])
    assert size == 1 or not np.array_equal(drawn[0], drawn[1])
    with pytest.raises(ValueError, match="odd"):
        random_trajectory_kernel(np.random.default_rng(0), size + 1)
