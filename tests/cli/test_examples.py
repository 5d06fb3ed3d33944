"""The scripts of the papers' tables and figures, really run at the smallest budget."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.images import read_image
from blurkit.reports.pictures import GAP
from tests.cli.command import Ran, piped, records
from tests.cli.kernel_spaces import saved
from tests.cli.pictures import blurred, photo, plant_pair, plant_photos, write
from tests.cli.test_kernel_space import convolved
from tests.cli.test_msfs import plant_realblur
from tests.shared import ROOT, vgg11
from tests.systems.kernel_space.searches import search_config

pytestmark = pytest.mark.slow

STEPS = "--width 8 --crop 64 --batch 2 --validate-on 0 --device cpu"
TINY = f"--iterations 2 --hidden 8 {STEPS}"
"""Options of both stages that make a step take a second."""
REALBLUR = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"


def script(name: str, arguments: object, folder: Path, **variables: object) -> Ran:
    """An example with variables of the environment, to its end."""
    told = " ".join(f"{key}='{value}'" for key, value in variables.items())
    return piped(f"{told} bash {ROOT}/examples/{name}.sh {arguments}", folder)


def lines_of(folder: Path) -> list[str]:
    """The lines of table.txt below its head."""
    return (folder / "table.txt").read_text().splitlines()[1:]


def table(folder: Path) -> dict[str, list[float]]:
    """Its numbers by name, the paper's and the measured ones."""
    rows = {line[:28].strip(): line[28:].split() for line in lines_of(folder)}
    return {name: [float(cell) for cell in cells if cell != "-"] for name, cells in rows.items()}


def checkpoints(folder: Path) -> dict[str, Checkpoint]:
    """The networks that a script has left, by name."""
    return {path.stem: load_checkpoint(path) for path in folder.glob("*.pt")}


def content(path: Path) -> Any:
    return json.loads(path.read_text())


def times(folder: Path, suffix: str = "") -> dict[str, int]:
    """When the files of a folder were written, or those of a kind."""
    found = (path for path in folder.glob(f"*{suffix}") if path.is_file())
    return {path.name: path.stat().st_mtime_ns for path in found}


def psnr_of(made: Any) -> bool:
    """Some PSNR of what two steps made."""
    return 10 < float(made) < 60


@pytest.fixture(scope="module")
def gopro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoPro tree with two training and two test sequences of one pair each."""
    root = tmp_path_factory.mktemp("gopro") / "GOPRO_Large"
    for number in range(4):
        split = "train" if number % 2 else "test"
        plant_pair(root / split, f"GOPR000{number}/000001", number, height=96, width=112)
    return root


# ---- MSDI-Net ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(gopro: Path) -> Path:
    """What msdi_gopro.sh leaves behind."""
    script("msdi_gopro", f"{gopro} small {TINY}", gopro.parent, FOLDER="out", PROTOCOL="tiles")
    return gopro.parent / "out"


def test_both_stages_on_gopro(gopro: Path, run_folder: Path) -> None:
    """Tables 1 and 2; run again with the paper's protocol, it trains nothing anew."""
    made = times(run_folder, ".pt")
    assert made.keys() == {"enc.pt", "deblur.pt"}
    scores = {"tiles": content(run_folder / "scores.json")}
    script("msdi_gopro", f"{gopro} small {TINY}", gopro.parent, FOLDER="out")
    scores["slices"] = content(run_folder / "scores.json")
    for protocol, found in scores.items():
        assert f"protocol={protocol}" in found["protocol"]["restored"]
        assert found["total"]["images"] == 2 and {"psnr", "ssim_matlab"} < found["total"].keys()
    assert "GMACs" in (run_folder / "scores.md").read_text()
    assert made.items() <= times(run_folder).items()


def test_the_releases_schedule_trains_a_second_encoder(gopro: Path, tmp_path: Path) -> None:
    """The blur-aware loss of version 2 has the features of version 1's encoder."""
    environment = {"FOLDER": "out", "PROTOCOL": "tiles", "BLURKIT_FEATURES": vgg11()}
    script("msdi_gopro", f"{gopro} official {TINY}", tmp_path, **environment)
    made = checkpoints(tmp_path / "out")
    assert made["enc1"].blueprints["encoder"] != made["enc"].blueprints["encoder"]
    assert "deblur" in made


def test_realblur_with_the_encoder_of_gopro(run_folder: Path, tmp_path: Path) -> None:
    """Table 3: aligned scores of the second stage alone."""
    plant_realblur(tmp_path / REALBLUR)
    script("msdi_realblur", f"{tmp_path / REALBLUR} {run_folder}/enc.pt small {TINY}", tmp_path)
    total = content(tmp_path / "realblur/scores.json")["total"]
    assert total["images"] == 2 and "psnr_aligned" in total


def test_a_sweep_of_rates_and_seeds(training_shards: Path, tmp_path: Path) -> None:
    """Two rates, three seeds, one table; run again, it trains nothing anew."""
    options = f"--system nafnet {STEPS}"
    made = []
    for _ in range(2):
        script("sweep", f"{training_shards} 2 out {options}", tmp_path, PAPER="dbgan-1")
        made.append(times(tmp_path / "out", ".pt"))
    assert len(made[0]) == 6 and made[0] == made[1]
    groups = content(tmp_path / "out/table.json")["seeds"]
    assert [*groups] == ["learning_rate 0.001", "learning_rate 0.0003"]
    for rate, group in zip(("1e-3", "3e-4"), groups.values(), strict=True):
        assert group["runs"] == [f"rate{rate}-seed{seed}.pt" for seed in (1, 2, 3)]
        assert psnr_of(group["psnr"]["mean"]) and group["psnr"]["deviation"] > 0
    latex = (tmp_path / "out/table.tex").read_text()
    assert latex.count("(3 seeds)") == 2 and "DBGAN(+)" in latex


def test_every_ablation(training_shards: Path, tmp_path: Path) -> None:
    """Table 4 and the supplement's: every variant is trained with its option and measured."""
    script("msdi_ablation", "'' 2 out", tmp_path, DATA=training_shards)
    found = table(tmp_path / "out")
    papers = {"without degradation": 32.81, "without reblurring": 33.09, "full": 33.28}
    papers |= {"without blur loss": 33.21, "injection at lowest scale": 32.80}
    papers |= {"concatenation at the input": 32.98, "concatenation at all scales": 33.05}
    assert found.keys() == {*papers, "1-D code", "reblurring with L1 only"}
    assert {name: found[name][0] for name in papers} == papers
    assert all(psnr_of(number) for numbers in found.values() for number in numbers)
    options = {name: made.configuration for name, made in checkpoints(tmp_path / "out").items()}
    assert not options["enc-without-reblurring"]["reblurring"]
    assert options["enc-1d"]["code"] == "1d"
    assert options["enc-l1"]["reblur_loss"] == "l1"
    injections = {"without-degradation": "none", "lowest": "lowest", "input": "input"}
    for name, injection in (injections | {"concat": "concat", "full": "multi-scale"}).items():
        assert options[name]["injection"] == injection
    assert options["without-blur-loss"]["blur_weight"] == 0


def test_methods_side_by_side(gopro: Path, run_folder: Path, tmp_path: Path) -> None:
    """Fig. 3 and 4: a checkpoint, which deblurs first, beside a folder of results."""
    for scene in (gopro / "test").iterdir():
        shutil.copytree(scene / "blur", tmp_path / "other" / scene.name)
    shutil.copy(run_folder / "deblur.pt", tmp_path / "deblur.ckpt")
    runs = f"{gopro}/test deblur.ckpt {ROOT}/blurkit/weights/msdi.onnx other/"
    script("msdi_comparison", runs, tmp_path, PROTOCOL="whole")
    (restored, *_) = records(tmp_path / "comparison/deblur.ckpt.h5")
    assert records(tmp_path / "comparison/msdi.onnx.h5")[0].images.keys() >= {"restored"}
    assert "protocol=whole" in json.dumps(restored.attrs, default=str)
    assert "deblur" in (tmp_path / "comparison/comparison.md").read_text()
    assert list((tmp_path / "comparison/pictures").rglob("*.png"))


def test_methods_side_by_side_on_real_photos(run_folder: Path, tmp_path: Path) -> None:
    """DBGAN's Fig. 8: photos without sharp ones, results of others, and a checkpoint's."""
    for number in range(2):
        write(tmp_path / f"RWBI/s/{number}.png", photo(number, 64, 64))
        write(tmp_path / f"other/s-{number}_NAH.png", 255 - photo(number, 64, 64))
    runs = f"RWBI/ other/ {run_folder}/deblur.pt"
    script("msdi_comparison", runs, tmp_path, SHARP=0, PROTOCOL="whole")
    folder = tmp_path / "comparison"
    for number in range(2):
        row = read_image(folder / f"pictures/s/{number}.png").pixels
        restored = read_image(folder / f"deblur.pt.images/s/{number}.png").pixels
        shown = photo(number, 64, 64), 255 - photo(number, 64, 64), restored
        for place, image in enumerate(shown):
            assert (row[:, place * (64 + GAP) :][:, :64] == image).all()


def test_decoupling_and_interpolation(gopro: Path, run_folder: Path, tmp_path: Path) -> None:
    """Section 4.3: the distances of every pair and their averages; Fig. 5: sheets and energies."""
    shards = " ".join(map(str, (run_folder / "shards").glob("test-*.h5")))
    arguments = f"{shards} {run_folder}/enc.pt"
    ran = script("msdi_decoupling", arguments, tmp_path, BLURKIT_FEATURES=vgg11())
    lines = (tmp_path / "decoupling/numbers.jsonl").read_text().splitlines()
    assert ran.out.decode().strip() == lines[-1]
    assert len(lines) == 2 and "total" in json.loads(lines[-1])
    script("msdi_interpolation", f"{gopro}/test {run_folder}/enc.pt", tmp_path, COUNT=1)
    folder = tmp_path / "interpolation"
    *frames, total = map(json.loads, (folder / "energies.jsonl").read_text().splitlines())
    assert len(frames) == 7 and total["total"]["pairs"] == 1
    (sheet,) = (folder / "sheets").rglob("*.png")
    assert read_image(sheet).pixels.shape[2] == 3


def test_datasets_make_one_file_like_the_shipped_one(gopro: Path, tmp_path: Path) -> None:
    """The script that trains the networks that ship on datasets of the user's own, rehearsed."""
    plant_realblur(tmp_path / REALBLUR)
    more = tmp_path / "more"  # without pairs to score
    plant_pair(more / "train", "GOPR0009/000001", 9, height=96, width=112)
    card = tmp_path / "card.tsv"
    card.write_text("data\tnumber\tuse\tterms\nGoPro\t2 pairs\tunchanged\tmine\n")
    arguments = f"{gopro} {tmp_path / REALBLUR} {more} -- {TINY}"
    script("weights_datasets", arguments, tmp_path, FOLDER="out", CARD=card)
    made = load_checkpoint(tmp_path / "out/msdi.pt")
    assert set(made.networks) == {"encoder", "latents", "reblur", "deblur"}
    assert made.provenance["trained_on"] == ["GoPro (2 pairs): unchanged; terms: mine"]
    assert made.provenance["deblur"]["records"] == 4  # of all three
    for name in ("GOPRO_Large", REALBLUR):
        assert "psnr" in (tmp_path / f"out/{name}.md").read_text().lower()


# ---- MSFS-Net ------------------------------------------------------------------------------------


def test_msfs_net_on_gopro(gopro: Path) -> None:
    """Table 1 of MSFS-Net: training, then whole images."""
    blocks = "--encoder-blocks 1 --latent-blocks 1 --decoder-blocks 1"
    arguments = f"'' '' --iterations 2 {STEPS} {blocks}"
    ran = script("msfs_gopro", arguments, gopro.parent, DATA=gopro, PRESET="small")
    found = content(gopro.parent / "msfs/GOPRO_Large.json")
    assert found["total"]["images"] == 2 and {"psnr", "ssim_matlab"} < found["total"].keys()
    assert "protocol=whole" in found["protocol"]["restored"]
    assert b"32.73 dB" in ran.out


def test_msfs_net_in_variants(training_shards: Path, tmp_path: Path) -> None:
    """Table 4: every variant is trained with its option, and measured."""
    script("msfs_ablation", f"{training_shards} 2 out", tmp_path)
    found = table(tmp_path / "out")
    papers = {"without FSM": 29.80, "without CSFFM": 30.22, "without CLM": 31.08}
    papers |= {"without consistency": 31.54, "full": 32.73}
    assert found.keys() == {*papers, "blurry"}
    for name, paper in papers.items():
        assert found[name][0] == paper and len(found[name]) == 4
        assert abs(found[name][2] - found["blurry"][0]) < 1  # two steps change little
    options = {name: made.configuration for name, made in checkpoints(tmp_path / "out").items()}
    assert not options["without-fsm"]["frequency_separation"]
    assert not options["without-csffm"]["cross_scale"]
    assert options["without-clm"]["contrastive_weight"] == 0
    assert options["without-consistency"]["consistency_weight"] == 0
    made = times(tmp_path / "out", ".pt")
    script("msfs_ablation", f"{training_shards} 2 out", tmp_path)  # nothing is trained anew
    assert made.items() <= times(tmp_path / "out").items()


# ---- DBGAN ---------------------------------------------------------------------------------------

DBGAN_TINY = "--width 8 --blocks 1 --discriminator-width 8 --crop 64 --batch 2 --device cpu"


@pytest.fixture(scope="module")
def dbgan_run(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dbgan.sh leaves behind with its own preset and two steps."""
    folder = tmp_path_factory.mktemp("dbgan")
    for number in range(3):
        write(folder / f"real/{number}.jpg", blurred(photo(number, 96, 128)))
    script("dbgan", f"'' real/ 2 out {DBGAN_TINY}", folder, DATA=training_shards)
    return folder / "out"


def test_dbgan(training_shards: Path, dbgan_run: Path) -> None:
    """From unpaired photos to DBGAN(+): samples, and the three variants at equal budget."""
    found = table(dbgan_run)
    assert list(found) == ["DBGAN(-)", "DBGAN", "DBGAN(+)", "blurry"]
    assert (found["DBGAN"][0], found["DBGAN(+)"][0]) == (30.43, 31.10)
    samples = records(dbgan_run / "samples.h5")
    assert len(samples) == 4 * len(records(*training_shards.glob("val-*.h5")))
    made = checkpoints(dbgan_run)
    variants = {"bgan": None, "minus": "minus", "plain": "plain", "half": "plain", "plus": "plus"}
    steps = {"bgan": 2, "minus": 2, "plain": 2, "half": 1, "plus": 1}
    for name, variant in variants.items():
        assert made[name].configuration.get("variant") == variant
        assert made[name].provenance["iterations"] == steps[name]
    assert made["plus"].provenance["bgan"] and made["plus"].provenance["start"]
    # As in the released test script, whole images are scored in float32.
    for name, label in (("minus", "DBGAN(-)"), ("plain", "DBGAN"), ("plus", "DBGAN(+)")):
        scores = content(dbgan_run / f"{name}.json")
        how = scores["protocol"]["restored"]
        assert "protocol=whole" in how and "precision=float32" in how
        assert found[label][-2] == pytest.approx(scores["total"]["psnr"], abs=0.006)


def test_dbgan_by_another_preset(training_shards: Path, dbgan_run: Path, tmp_path: Path) -> None:
    """Without ITERATIONS the preset's own would do; here two, and PROTOCOL is another one."""
    environment = {"PRESET": "paper", "PROTOCOL": "tiles", "BLURKIT_FEATURES": vgg11()}
    arguments = f"{training_shards} {dbgan_run.parent}/real 2 out {DBGAN_TINY}"
    script("dbgan", arguments, tmp_path, **environment)
    for name in ("bgan", "minus", "plain", "half", "plus"):
        made = load_checkpoint(tmp_path / f"out/{name}.pt").configuration
        assert made["learning_rate"] == 1e-4 and made["orientations"] == "flip"
        assert made["initial_deviation"] == 0.01 and made["perceptual"] == "features"
    assert "protocol=tiles" in content(tmp_path / "out/plain.json")["protocol"]["restored"]


def test_the_recipe_of_figure_5_shows_the_three_variants(dbgan_run: Path, tmp_path: Path) -> None:
    """The line of docs/papers.md, on what the script wrote."""
    page = (ROOT / "docs/papers.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| Fig. 5: DBGAN(-)"))
    command = line.split("`")[1].replace("examples/", f"bash {ROOT}/examples/")
    plant_pair(tmp_path / "GOPRO_Large/test", "GOPR0001/000001", 1, height=96, width=112)
    (tmp_path / "dbgan").symlink_to(dbgan_run)
    piped(command, tmp_path)
    compared = (tmp_path / "comparison/comparison.md").read_text()
    assert all(name in compared for name in ("minus", "plain", "plus"))
    assert list((tmp_path / "comparison/pictures").rglob("*.png"))


# ---- the kernel space ----------------------------------------------------------------------------

QUICK = "--batch 1 --width 8 --validate-on 0 --device cpu"
"""Options with which a step of any preset takes a second."""
SHORT = f"{QUICK} --code-length 8 --front-blocks 1 --back-blocks 1 --code-blocks 1"
KERNELS = {"a": np.eye(7)[::-1] + 0.1, "b": np.ones((3, 9))}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GoPro tree with one training pair, which the crops fit into, and one test pair."""
    root = tmp_path_factory.mktemp("large") / "GOPRO_Large"
    for number, split in enumerate(("train", "test")):
        plant_pair(root / split, f"GOPR000{number}/000001", number, height=256, width=272)
    return root


@pytest.fixture(scope="module")
def pairs(large: Path) -> Path:
    folder = large.parent / "shards"
    piped(f"blurkit prepare {large} -o {folder}/ --jobs 1 -q", large.parent)
    return folder


def mean_psnr(images: list[np.ndarray], targets: list[np.ndarray]) -> Any:
    return pytest.approx(np.mean([*map(peak_signal_noise_ratio, targets, images)]), abs=0.03)


def test_levin(tmp_path: Path) -> None:
    """Table 1 with networks that are there: what stands beside the transfer, made again by hand."""
    saved(tmp_path / "kernel.pt")
    (tmp_path / "kernels").mkdir()
    for name, kernel in KERNELS.items():
        np.save(tmp_path / f"kernels/{name}.npy", kernel)
    plant_photos(tmp_path / "test", 4, 256, 260)
    script("kernel_space_levin", "'' kernels test 1 out", tmp_path, CHECKPOINT="kernel.pt")
    found = {name: rest for name, *rest in map(str.split, lines_of(tmp_path / "out"))}
    assert len(found) == 2
    sharp = [record.images["sharp"] for record in records(tmp_path / "out/sharp2.h5")]
    assert len(sharp) == 4 and sharp[0].shape == (256, 256, 3)
    images = {
        name: [np.rint(convolved(i, k / k.sum())).astype(np.uint8) for i in sharp]
        for name, k in KERNELS.items()
    }
    for (name, other), paper in zip((("a", "b"), ("b", "a")), ("49.48", "51.93"), strict=True):
        told, transferred, unchanged, wrong = found[f"{name}.npy"]
        assert told == paper and 0 < float(transferred) < 60
        assert float(unchanged) == mean_psnr(sharp, images[name])
        assert float(wrong) == mean_psnr(images[other], images[name])


def test_curves(tmp_path: Path) -> None:
    """Fig. 6: three searches, one plot; run again, nothing is made anew."""
    pytest.importorskip("matplotlib")
    saved(tmp_path / "kernel.pt")
    write(tmp_path / "blurry.png", photo(0, 64, 64))
    (tmp_path / "out").mkdir()
    search_config(tmp_path / "out", kernel_warm_up=1, patience=0)
    command = "kernel_space_curves", "blurry.png '' 2 out", tmp_path
    script(*command, CHECKPOINT="kernel.pt")
    made = times(tmp_path / "out")
    operators = ("convolution", "downsampling", "kernel-space")
    searches = {f"{o}.{end}" for o in operators for end in ("h5", "jsonl")}
    assert made.keys() == {*searches, "curves.png", "search.json"}
    script(*command, CHECKPOINT="kernel.pt")
    assert {name for name, _ in made.items() ^ times(tmp_path / "out").items()} <= {"curves.png"}


def test_swap_with_the_papers_preset_and_protocol(pairs: Path, tmp_path: Path) -> None:
    """Table 2: every training has the preset, restored images are scored whole."""
    photographs = tmp_path / "shards"
    photographs.mkdir()
    (photographs / "test-00000.h5").symlink_to(pairs / "test-00000.h5")
    for number in range(2):  # two photos can exchange their blur
        (photographs / f"train-0000{number}.h5").symlink_to(pairs / "train-00000.h5")
    environment = {"DATA": "shards", "PRESET": "paper", "PROTOCOL": "tiles", "OPTIONS": QUICK}
    script("kernel_space_swap", "'' 2 out", tmp_path, **environment)
    found = {name: rest for name, *rest in map(str.split, lines_of(tmp_path / "out"))}
    assert len(found) == 2
    assert found["original"][:2] == ["30.70", "30.20"] and psnr_of(found["swapped"][2])
    made = checkpoints(tmp_path / "out")
    assert made.keys() == {"kernel", "original", "swapped"}
    assert made["kernel"].configuration["network"] == "paper"
    for name in ("original", "swapped"):
        assert made[name].configuration["learning_rate"] == 3e-4  # small has another one
    assert {m.provenance["iterations"] for m in made.values()} == {2}


def test_augmentation(pairs: Path, tmp_path: Path) -> None:
    """Table 4: photos with drawn and with transferred blur, tested on three kinds of blur."""
    saved(tmp_path / "kernel.pt")
    plant_photos(tmp_path / "photos", 2, 256, 272)
    environment = {"CHECKPOINT": "kernel.pt", "PRESET": "official"}
    environment["OPTIONS"] = f"{QUICK} --crop 128"
    arguments = f"photos photos {pairs} {pairs} 2 out"
    script("kernel_space_augmentation", arguments, tmp_path, **environment)
    lines = lines_of(tmp_path / "out")[2:]
    assert [line.split(",")[0] for line in lines] == ["synthetic", "both"]
    assert all(psnr_of(cell) for line in lines for cell in line.split()[-3:])
    assert checkpoints(tmp_path / "out")["deblur-both"].configuration["learning_rate"] == 3e-4


@pytest.mark.parametrize(("options", "drawn"), [("", False), (" --variational", True)])
def test_retrieval(options: str, drawn: bool, pairs: Path, tmp_path: Path) -> None:
    """Table 3: F and G are not variational in the paper, so no codes can be drawn."""
    environment = {"PRESET": "official", "COPIES": 2, "OPTIONS": f"{SHORT}{options}"}
    script("kernel_space_retrieval", f"{pairs} {pairs} 2 out", tmp_path, **environment)
    lines = [line.split() for line in lines_of(tmp_path / "out")]
    papers = ["a a 34.35", "a b 30.67", "b a 31.38", "b b 35.13"]
    assert [" ".join(line[:3]) for line in lines] == papers
    for *_, searched, sharp, random in lines:
        assert psnr_of(searched) and psnr_of(sharp)
        assert psnr_of(random) if drawn else random == "-"
    made = checkpoints(tmp_path / "out")
    assert made["kernel-a"].configuration["final_learning_rate"] == 1e-6  # REDS/woVAE
    assert made["kernel-b"].configuration["final_learning_rate"] == 1e-8
    assert made["kernel-b"].configuration["variational"] is drawn


def test_the_four_released_networks(large: Path, tmp_path: Path) -> None:
    """REDS without REDS4, GoPro, its VAE from the network before, and both, GoPro ten times."""
    reds = tmp_path / "REDS"
    for number, clip in enumerate(("000", "001", "011", "015", "020")):
        for split in ("train", "val"):  # clip numbers of the splits overlap
            sharp = photo(number, 256, 256)
            write(reds / f"{split}/{split}_sharp/{clip}/00000000.png", sharp)
            write(reds / f"{split}/{split}_blur/{clip}/00000000.png", blurred(sharp))
    environment = {"OPTIONS": f"--iterations 2 {SHORT}", "FOLDER": "out"}
    script("kernel_space_release", f"{reds} {large}", tmp_path, **environment)
    held_out = records(*(tmp_path / "out/reds").glob("test-*.h5"))
    assert {record.name.split("/")[-2] for record in held_out} == {"000", "011", "015", "020"}
    (learned,) = records(*(tmp_path / "out/reds").glob("train-*.h5"))
    assert learned.name.split("/")[-2] == "001"
    made = checkpoints(tmp_path / "out")
    assert made.keys() == {"reds_woVAE", "gopro_woVAE", "gopro_wVAE", "mix_woVAE"}
    assert made["gopro_wVAE"].configuration["variational"]
    assert made["gopro_wVAE"].provenance["start"] == made["gopro_woVAE"].provenance
    rates = {name: m.configuration["final_learning_rate"] for name, m in made.items()}
    assert rates == {name: 1e-6 if "reds" in name else 1e-8 for name in made}
    assert made["mix_woVAE"].provenance["records"] == 11


# ---- a paper of one's own ------------------------------------------------------------------------


def test_a_papers_week(tmp_path: Path) -> None:
    """Own trainings, means over seeds, networks of others, curves and an export; all twice."""
    options = "--crop 64 --batch 2 --validate-on 1 --validate-every 2"
    script("paper_week", f"'' 2 out {options}", tmp_path, BLURKIT_SYNC=0)
    out = tmp_path / "out"
    trained = {f"own-rate{rate}-seed{seed}" for rate in ("1e-3", "3e-4") for seed in (1, 2, 3)}
    report = content(out / "table.json")
    assert report["runs"].keys() >= {"nafnet.pt", "msdi"}
    assert all(psnr_of(run["total"]["psnr"]) for run in report["runs"].values())
    made = checkpoints(out / "runs")
    assert {name for name in made if name.count(".") == 0} == trained | {"nafnet"}
    assert made["own-rate3e-4-seed2"].configuration["learning_rate"] == 3e-4
    assert made["own-rate3e-4-seed2"].configuration["seed"] == 2
    assert {split.stem[:3] for split in (out / "shards").iterdir()} == {"tra", "val"}
    assert r"\toprule" in (out / "table.tex").read_text()
    assert read_image(out / "curves.png").pixels.ndim == 3
    assert (out / "best.onnx").is_file()
    before = times(out / "runs")
    script("paper_week", f"'' 2 out {options}", tmp_path, BLURKIT_SYNC=0)
    assert times(out / "runs") == before
