"""The script for a lent GPU, rehearsed on the CPU: packed, trained in pieces, unpacked."""

import json
import shutil
from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint, load_tensors
from blurkit.systems.registry import load_networks
from tests.cli.command import assert_done, shell
from tests.cli.pictures import blurred, photo, write
from tests.shared import ROOT

pytestmark = pytest.mark.slow

SCRIPT = ROOT / "examples/weights_gpu.sh"
TINY = "--batch 2 --crop 64 --precision fp32 --device cpu"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ as for weights.sh, packed, and a Python without what a GPU lacks."""
    work = tmp_path_factory.mktemp("campaign")
    data, size = work / "data", (128, 144)
    for number in range(2):
        for name in ("bsds500_train", "bsds500_val", "bsds500_test", "urban100"):
            write(data / f"sharp/{name}/{number}.png", photo(3 * number, *size))
        write(data / f"more/sharp/gb82/{number}.png", photo(9, *size))
        write(data / f"sharp/set5/{number}.png", photo(9, *size))
    write(data / "more/sharp/detectron_demo/0.jpg", photo(20, *size))
    for number in range(14):
        write(data / f"video/gopr0477_240fps/{number:06}.png", photo(0, *size))
    for role in ("blur", "sharp"):
        image = blurred(photo(5, *size)) if role == "blur" else photo(5, *size)
        write(data / f"pairs/gopro_avg/train/GOPR0477_11_00/{role}/000001.png", image)
        write(data / f"pairs/reds_180p/train/train_{role}/000/00000000.png", image)
    lacking = 'import sys\nsys.modules["av"] = sys.modules["imagecodecs"] = None\n'
    (work / "bare").mkdir()
    (work / "bare/sitecustomize.py").write_text(lacking)
    assert_done(shell(f"bash {SCRIPT} pack data/", work))
    return work


def train(work: Path, network: str, options: str, **variables: object) -> None:
    """One call of `train` on the bare machine."""
    given = {"PYTHONPATH": work / "bare", "JOBS": 2, "WIDTH": 8, "MINUTES": 0.001, "WALLS": 2}
    given |= variables
    told = " ".join(f"{name}={value}" for name, value in given.items())
    assert_done(shell(f"{told} bash {SCRIPT} train {network} {TINY} {options}", work, 1500))


def test_what_is_measured_on_is_not_packed(work: Path) -> None:
    folders = {path.parent.name for path in (work / "weights-gpu/data").rglob("*.*")}
    assert {"bsds500_val", "detectron_demo", "gopr0477_240fps", "000", "sharp"} < folders
    assert not folders & {"gb82", "set5"}


def test_deblurring_goes_on_from_what_came_back(work: Path) -> None:
    train(work, "deblur", "--iterations 3 --log-every 1", OUT="first")
    names = {path.name for path in (work / "first").iterdir()}
    assert names == {f"deblur.{ending}.part00" for ending in ("half.pt", "log.jsonl", "state.pt")}
    # Another machine knows the packed data and what came back, nothing else.
    (work / "weights-gpu").rename(work / "last")
    shutil.copytree(work / "last/data", work / "weights-gpu/data")
    assert_done(shell(f"bash {SCRIPT} unpack first", work))
    train(work, "deblur", "--iterations 3 --log-every 1", MINUTES=1)
    lines = [json.loads(line) for line in (work / "weights-gpu/deblur.log.jsonl").open()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert all(line["crops_per_second"] > 0 for line in lines)
    made = load_checkpoint(work / "weights-gpu/deblur.half.pt")
    assert made.provenance["iterations"] == 3 and "deblur" in load_networks(made)


def test_deconvolution_and_its_pieces(work: Path) -> None:
    train(work, "deconvolution", "--iterations 2 --minutes 1e-9", OUT="second")
    pieces = sorted((work / "second").iterdir())
    assert max(piece.stat().st_size for piece in pieces) <= 15 * 2**20
    assert len(pieces) > 1 and all(piece.name.startswith("both.") for piece in pieces)
    assert_done(shell(f"FOLDER=back bash {SCRIPT} unpack second", work))
    with (work / "back/both.state.pt").open("rb") as file:
        assert load_tensors(file, "state")["step"] == 1
    train(work, "deconvolution", "--iterations 2", MINUTES=20)
    made = load_checkpoint(work / "weights-gpu/deconvolution.pt")
    assert made.provenance["iterations"] == 2 and "deconvolution" in load_networks(made)


def test_wrong_usage_is_one_line(work: Path) -> None:
    for arguments in ("", "train", "train both", "fly"):
        ran = shell(f"bash {SCRIPT} {arguments}", work)
        assert (ran.status, ran.out, len(ran.lines)) == (2, b"", 1)
        assert ran.err.startswith("usage: ")
