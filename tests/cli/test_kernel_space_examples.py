"""The scripts that redo the kernel space's tables, really run at the smallest budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from tests.cli.command import assert_done, blurred, photo, plant_pair, records, shell, write
from tests.cli.kernel_spaces import saved
from tests.shared import ROOT
from tests.systems.kernel_space.searches import search_config

pytestmark = pytest.mark.slow

TINY = "--batch 1 --width 8 --validate-on 0 --device cpu"
"""Options with which a step of any preset takes a second."""

KERNELS = {"a": np.eye(7)[::-1] + 0.1, "b": np.ones((3, 9))}


def table(ran_in: Path, rows: int) -> dict[str, list[str]]:
    """The lines of table.txt below its head by their first word."""
    _, *lines = (ran_in / "table.txt").read_text().splitlines()
    assert len(lines) == rows
    return {name: rest for name, *rest in map(str.split, lines)}


def checkpoints(folder: Path) -> dict[str, Checkpoint]:
    """The networks that a script has left, by name."""
    return {path.stem: load_checkpoint(path) for path in folder.glob("*.pt")}


@pytest.fixture(scope="module")
def gopro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoPro tree with one training pair, which the crops fit into, and one test pair."""
    root = tmp_path_factory.mktemp("gopro") / "GOPRO_Large"
    for number, split in enumerate(("train", "test")):
        name = f"GOPR000{number}/000001"
        plant_pair(root / split, name, number, height=256, width=272)
    return root


@pytest.fixture(scope="module")
def pairs(gopro: Path) -> Path:
    """Its shards."""
    folder = gopro.parent / "shards"
    assert_done(shell(f"blurkit prepare {gopro} -o {folder}/ --jobs 1 -q", gopro.parent))
    return folder


def mean_psnr(images: list[np.ndarray], targets: list[np.ndarray]) -> float:
    scores = map(skimage.metrics.peak_signal_noise_ratio, targets, images)
    return float(np.mean([*scores]))


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


def test_curves(tmp_path: Path) -> None:
    """Fig. 6: three searches, one plot; run again, nothing is made anew."""
    pytest.importorskip("matplotlib")
    saved(tmp_path / "kernel.pt")
    write(tmp_path / "blurry.png", photo(0, 64, 64))
    script = ROOT / "examples/kernel_space_curves.sh"
    (tmp_path / "out").mkdir()
    search_config(tmp_path / "out", kernel_warm_up=1, patience=0)
    command = f"CHECKPOINT=kernel.pt bash {script} blurry.png '' 2 out"
    assert_done(shell(command, tmp_path))
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    operators = ("convolution", "downsampling", "kernel-space")
    assert made.keys() == {f"{o}.{end}" for o in operators for end in ("h5", "jsonl")} | {
        "curves.png",
        "search.json",
    }
    assert_done(shell(command, tmp_path))
    for name in made.keys() - {"curves.png"}:
        assert (tmp_path / "out" / name).stat().st_mtime_ns == made[name]


def test_swap_with_the_papers_preset_and_protocol(pairs: Path, tmp_path: Path) -> None:
    """Table 2: every training has the preset, restored images are scored whole."""
    photographs = tmp_path / "shards"
    photographs.mkdir()
    (photographs / "test-00000.h5").symlink_to(pairs / "test-00000.h5")
    for number in range(2):  # two photos can exchange their blur
        (photographs / f"train-0000{number}.h5").symlink_to(pairs / "train-00000.h5")
    environment = f"DATA=shards PRESET=paper PROTOCOL=tiles OPTIONS='{TINY}'"
    script = ROOT / "examples/kernel_space_swap.sh"
    ran = shell(f"{environment} bash {script} '' 2 out", tmp_path)
    assert_done(ran)
    found = table(tmp_path / "out", 2)
    assert found["original"][:2] == ["30.70", "30.20"] and 10 < float(found["swapped"][2]) < 60
    made = checkpoints(tmp_path / "out")
    assert made.keys() == {"kernel", "original", "swapped"}
    assert made["kernel"].configuration["network"] == "paper"
    for name in ("original", "swapped"):
        assert made[name].configuration["learning_rate"] == 3e-4  # small has another one
    assert {m.provenance["iterations"] for m in made.values()} == {2}


def test_augmentation(pairs: Path, tmp_path: Path) -> None:
    """Table 4: photos with drawn and with transferred blur, tested on three kinds of blur."""
    saved(tmp_path / "kernel.pt")
    for number in range(2):
        write(tmp_path / f"photos/{number}.png", photo(number, 256, 272))
    environment = f"CHECKPOINT=kernel.pt PRESET=official OPTIONS='{TINY} --crop 128'"
    script = ROOT / "examples/kernel_space_augmentation.sh"
    command = f"{environment} bash {script} photos photos {pairs} {pairs} 2 out"
    assert_done(shell(command, tmp_path))
    lines = (tmp_path / "out/table.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in lines[3:]] == ["synthetic", "both"]
    assert all(10 < float(cell) < 60 for line in lines[3:] for cell in line.split()[-3:])
    made = checkpoints(tmp_path / "out")
    assert made["deblur-both"].configuration["learning_rate"] == 3e-4


@pytest.mark.parametrize(("options", "drawn"), [("", False), (" --variational", True)])
def test_retrieval_with_the_papers_networks(
    options: str, drawn: bool, pairs: Path, tmp_path: Path
) -> None:
    """Table 3: F and G are not variational in the paper, so no codes can be drawn."""
    tiny = f"{TINY} --code-length 8 --front-blocks 1 --back-blocks 1 --code-blocks 1"
    environment = f"PRESET=official COPIES=2 OPTIONS='{tiny}{options}'"
    script = ROOT / "examples/kernel_space_retrieval.sh"
    assert_done(shell(f"{environment} bash {script} {pairs} {pairs} 2 out", tmp_path))
    _, *lines = map(str.split, (tmp_path / "out/table.txt").read_text().splitlines())
    assert [line[:3] for line in lines] == [
        ["a", "a", "34.35"], ["a", "b", "30.67"], ["b", "a", "31.38"], ["b", "b", "35.13"]
    ]  # fmt: skip
    for *_, searched, sharp, random in lines:
        assert 10 < float(searched) < 60 and 10 < float(sharp) < 60
        assert 10 < float(random) < 60 if drawn else random == "-"
    made = checkpoints(tmp_path / "out")
    assert made["kernel-a"].configuration["final_learning_rate"] == 1e-6  # REDS/woVAE
    assert made["kernel-b"].configuration["final_learning_rate"] == 1e-8
    assert made["kernel-b"].configuration["variational"] is drawn


def test_the_four_released_networks(gopro: Path, tmp_path: Path) -> None:
    """REDS without REDS4, GoPro, its VAE from the network before, and both, GoPro ten times."""
    reds = tmp_path / "REDS"
    for number, clip in enumerate(("000", "001", "011", "015", "020")):
        for split in ("train", "val"):  # clip numbers of the splits overlap
            sharp = photo(number, 256, 256)
            write(reds / f"{split}/{split}_sharp/{clip}/00000000.png", sharp)
            write(reds / f"{split}/{split}_blur/{clip}/00000000.png", blurred(sharp))
    tiny = f"{TINY} --code-length 8 --front-blocks 1 --back-blocks 1 --code-blocks 1"
    script = ROOT / "examples/kernel_space_release.sh"
    command = f"OPTIONS='--iterations 2 {tiny}' FOLDER=out bash {script} {reds} {gopro}"
    assert_done(shell(command, tmp_path))
    held_out = records(*sorted((tmp_path / "out/reds").glob("test-*.h5")))
    assert {record.name.split("/")[-2] for record in held_out} == {"000", "011", "015", "020"}
    (learned,) = records(*sorted((tmp_path / "out/reds").glob("train-*.h5")))
    assert learned.name.split("/")[-2] == "001"
    made = checkpoints(tmp_path / "out")
    assert made.keys() == {"reds_woVAE", "gopro_woVAE", "gopro_wVAE", "mix_woVAE"}
    assert made["gopro_wVAE"].configuration["variational"]
    assert made["gopro_wVAE"].provenance["start"] == made["gopro_woVAE"].provenance
    rates = {name: m.configuration["final_learning_rate"] for name, m in made.items()}
    assert rates == {name: 1e-6 if "reds" in name else 1e-8 for name in made}
    assert made["mix_woVAE"].provenance["records"] == 11
