"""The scripts of MSDI-Net's and MSFS-Net's tables and figures, run at the smallest budget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.images import read_image
from tests.cli.command import Ran, assert_done, plant_pair, records, shell
from tests.cli.test_ablation_examples import table
from tests.cli.test_msfs import plant_realblur
from tests.shared import ROOT, shared_folder

pytestmark = pytest.mark.slow

TINY = "--iterations 2 --width 8 --hidden 8 --crop 64 --batch 2 --validate-on 0 --device cpu"
"""Options of both stages that make a step take a second."""


def script(name: str, arguments: object, folder: Path, **variables: object) -> Ran:
    """An example with variables of the environment, to its end."""
    told = " ".join(f"{key}={value}" for key, value in variables.items())
    ran = shell(f"{told} bash {ROOT}/examples/{name}.sh {arguments}", folder)
    assert_done(ran)
    return ran


@pytest.fixture(scope="module")
def gopro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoPro tree with two training and two test sequences of one pair each."""
    root = tmp_path_factory.mktemp("gopro") / "GOPRO_Large"
    for number in range(4):
        split = "train" if number % 2 else "test"
        plant_pair(root / split, f"GOPR000{number}/000001", number, height=96, width=112)
    return root


@pytest.fixture(scope="module")
def run_folder(gopro: Path) -> Path:
    """What msdi_gopro.sh leaves behind."""
    arguments = f"{gopro} small {TINY}"
    script("msdi_gopro", arguments, gopro.parent, FOLDER="out", PROTOCOL="tiles")
    return gopro.parent / "out"


def test_both_stages_on_gopro(gopro: Path, run_folder: Path) -> None:
    """Tables 1 and 2; run again with the paper's protocol, it trains nothing anew."""
    made = {path.name: path.stat().st_mtime_ns for path in run_folder.glob("*.pt")}
    assert made.keys() == {"enc.pt", "deblur.pt"}
    scores = {"tiles": json.loads((run_folder / "scores.json").read_text())}
    script("msdi_gopro", f"{gopro} small {TINY}", gopro.parent, FOLDER="out")
    scores["slices"] = json.loads((run_folder / "scores.json").read_text())
    for protocol, found in scores.items():
        assert f"protocol={protocol}" in found["protocol"]["restored"]
        total = found["total"]
        assert total["images"] == 2 and {"psnr", "ssim_matlab"} < total.keys()
    assert "GMACs" in (run_folder / "scores.md").read_text()
    assert {path.name: path.stat().st_mtime_ns for path in run_folder.glob("*.pt")} == made


def test_the_releases_schedule_trains_a_second_encoder(gopro: Path, tmp_path: Path) -> None:
    """The blur-aware loss of version 2 has the features of version 1's encoder."""
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    environment = {"FOLDER": "out", "PROTOCOL": "tiles", "BLURKIT_FEATURES": features}
    script("msdi_gopro", f"{gopro} official {TINY}", tmp_path, **environment)
    first, second = (load_checkpoint(tmp_path / f"out/{name}.pt") for name in ("enc1", "enc"))
    assert first.blueprints["encoder"] != second.blueprints["encoder"]
    assert (tmp_path / "out/deblur.pt").exists()


def test_realblur_with_the_encoder_of_gopro(run_folder: Path, tmp_path: Path) -> None:
    """Table 3: aligned scores of the second stage alone."""
    root = tmp_path / "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    plant_realblur(root)
    script("msdi_realblur", f"{root} {run_folder}/enc.pt small {TINY}", tmp_path)
    total = json.loads((tmp_path / "realblur/scores.json").read_text())["total"]
    assert total["images"] == 2 and "psnr_aligned" in total


def test_msfs_net_on_gopro(gopro: Path) -> None:
    """Table 1 of MSFS-Net: training, then whole images."""
    tiny = "--iterations 2 --width 8 --crop 64 --batch 2 --validate-on 0 --device cpu"
    blocks = "--encoder-blocks 1 --latent-blocks 1 --decoder-blocks 1"
    ran = script("msfs_gopro", f"'' '' {tiny} {blocks}", gopro.parent, DATA=gopro, PRESET="small")
    found = json.loads((gopro.parent / "msfs/GOPRO_Large.json").read_text())
    assert found["total"]["images"] == 2 and {"psnr", "ssim_matlab"} < found["total"].keys()
    assert "protocol=whole" in found["protocol"]["restored"]
    assert b"32.73 dB" in ran.out


def test_every_ablation(training_shards: Path, tmp_path: Path) -> None:
    """Table 4 and the supplement's: every variant is trained with its option and measured."""
    script("msdi_ablation", "'' 2 out", tmp_path, DATA=training_shards)
    found = table(tmp_path / "out")
    papers = {
        **{"without degradation": 32.81, "without reblurring": 33.09, "without blur loss": 33.21},
        **{"injection at lowest scale": 32.80, "concatenation at the input": 32.98},
        **{"concatenation at all scales": 33.05, "full": 33.28},
    }
    assert found.keys() == {*papers, "1-D code", "reblurring with L1 only"}
    assert {name: found[name][0] for name in papers} == papers
    assert all(10 < number < 60 for numbers in found.values() for number in numbers)
    configurations = {
        path.stem: load_checkpoint(path).configuration for path in (tmp_path / "out").glob("*.pt")
    }
    assert not configurations["enc-without-reblurring"]["reblurring"]
    assert configurations["enc-1d"]["code"] == "1d"
    assert configurations["enc-l1"]["reblur_loss"] == "l1"
    injections = {"without-degradation": "none", "lowest": "lowest", "input": "input"}
    for name, injection in (injections | {"concat": "concat", "full": "multi-scale"}).items():
        assert configurations[name]["injection"] == injection
    assert configurations["without-blur-loss"]["blur_weight"] == 0


def test_methods_side_by_side(gopro: Path, run_folder: Path, tmp_path: Path) -> None:
    """Fig. 3 and 4: a checkpoint, which deblurs first, beside a folder of results."""
    for scene in (gopro / "test").iterdir():
        shutil.copytree(scene / "blur", tmp_path / "other" / scene.name)
    runs = f"{gopro}/test {run_folder}/deblur.pt other/"
    script("msdi_comparison", runs, tmp_path, PROTOCOL="whole")
    (restored, *_) = records(tmp_path / "comparison/deblur.h5")
    assert "protocol=whole" in json.dumps(restored.attrs, default=str)
    assert "deblur" in (tmp_path / "comparison/comparison.md").read_text()
    assert list((tmp_path / "comparison/pictures").rglob("*.png"))


def test_decoupling(run_folder: Path, tmp_path: Path) -> None:
    """Section 4.3: the distances of every pair and their averages."""
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    shards = " ".join(map(str, (run_folder / "shards").glob("test-*.h5")))
    arguments = f"{shards} {run_folder}/enc.pt"
    ran = script("msdi_decoupling", arguments, tmp_path, BLURKIT_FEATURES=features)
    lines = (tmp_path / "decoupling/numbers.jsonl").read_text().splitlines()
    assert ran.out.decode().strip() == lines[-1]
    *pairs, total = map(json.loads, lines)
    assert len(pairs) == 1 and "total" in total


def test_interpolation(gopro: Path, run_folder: Path, tmp_path: Path) -> None:
    """Fig. 5: contact sheets, frames and energies."""
    script("msdi_interpolation", f"{gopro}/test {run_folder}/enc.pt", tmp_path, COUNT=1)
    folder = tmp_path / "interpolation"
    *frames, total = map(json.loads, (folder / "energies.jsonl").read_text().splitlines())
    assert len(frames) == 7 and total["total"]["pairs"] == 1
    (sheet,) = (folder / "sheets").rglob("*.png")
    assert read_image(sheet).pixels.shape[2] == 3
