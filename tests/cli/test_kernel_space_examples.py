"""The scripts that redo the kernel space's tables, really run at the smallest budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics

from tests.cli.command import assert_done, photo, records, shell, write
from tests.cli.kernel_spaces import saved
from tests.shared import ROOT

KERNELS = {"a": np.eye(7)[::-1] + 0.1, "b": np.ones((3, 9))}


def table(ran_in: Path, rows: int) -> dict[str, list[str]]:
    """The lines of table.txt below its head by their first word."""
    _, *lines = (ran_in / "table.txt").read_text().splitlines()
    assert len(lines) == rows
    return {name: rest for name, *rest in map(str.split, lines)}


def mean_psnr(images: list[np.ndarray], targets: list[np.ndarray]) -> float:
    scores = map(skimage.metrics.peak_signal_noise_ratio, targets, images)
    return float(np.mean([*scores]))


@pytest.mark.slow
def test_levin(tmp_path: Path) -> None:
    """Table 1 with networks that are there: what stands beside the transfer, made again by hand."""
    saved(tmp_path / "kernel.pt")
    (tmp_path / "kernels").mkdir()
    for name, kernel in KERNELS.items():
        np.save(tmp_path / f"kernels/{name}.npy", kernel)
    for number in range(4):
        write(tmp_path / f"test/{number}.png", photo(number, 256, 260))
    script = ROOT / "examples/kernel_space_levin.sh"
    ran = shell(f"CHECKPOINT=kernel.pt bash {script} '' kernels test 1 out", tmp_path)
    assert_done(ran)
    found = table(tmp_path / "out", 2)
    sharp = [record.images["sharp"] for record in records(tmp_path / "out/sharp2.h5")]
    assert len(sharp) == 4 and sharp[0].shape == (256, 256, 3)

    def blurred(kernel: np.ndarray) -> list[np.ndarray]:
        weights = (kernel / kernel.sum())[:, :, None]
        return [
            np.rint(scipy.ndimage.convolve(image.astype(float), weights, mode="reflect"))
            .clip(0, 255)
            .astype(np.uint8)
            for image in sharp
        ]

    images = {name: blurred(kernel) for name, kernel in KERNELS.items()}
    for (name, other), paper in zip((("a", "b"), ("b", "a")), ("49.48", "51.93"), strict=True):
        told, transferred, unchanged, wrong = found[f"{name}.npy"]
        assert told == paper and 0 < float(transferred) < 60
        assert float(unchanged) == pytest.approx(mean_psnr(sharp, images[name]), abs=0.03)
        assert float(wrong) == pytest.approx(mean_psnr(images[other], images[name]), abs=0.03)


@pytest.mark.slow
def test_curves(tmp_path: Path) -> None:
    """Fig. 6: three searches, one plot; run again, nothing is made anew."""
    pytest.importorskip("matplotlib")
    saved(tmp_path / "kernel.pt")
    write(tmp_path / "blurry.png", photo(0, 64, 64))
    script = ROOT / "examples/kernel_space_curves.sh"
    environment = "CHECKPOINT=kernel.pt OPTIONS='--kernel-warm-up 1 --prior-width 8'"
    command = f"{environment} bash {script} blurry.png '' 2 out"
    assert_done(shell(command, tmp_path))
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    operators = ("convolution", "downsampling", "kernel-space")
    assert made.keys() == {f"{o}.{end}" for o in operators for end in ("h5", "jsonl")} | {
        "curves.png"
    }
    assert_done(shell(command, tmp_path))
    for name in made.keys() - {"curves.png"}:
        assert (tmp_path / "out" / name).stat().st_mtime_ns == made[name]
