"""`blurkit eval` of several runs or networks: one table, whose wins scikit-image confirms."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

import blurkit
from blurkit.cli import scoring
from blurkit.cli.evaluate import shipped_networks
from blurkit.engine.onnx_runner import ONNX_METADATA, Exported
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import Record
from blurkit.options import Placement
from blurkit.systems.dbgan.networks import DBGAN
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.nafnet.networks import NAFNet
from blurkit.systems.system import shipped_file
from blurkit.systems.uses import start_engine
from blurkit.tasks.inspect import macs, parameters
from tests.cli.command import ENVIRONMENT, WARM, assert_failed, files, start, warm_environment
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.cli.test_html import Page
from tests.cli.test_interrupts import wait_for
from tests.metrics.oracle import noisy

IMAGES = 12


def speckled(number: int) -> np.ndarray:
    """A photo with noise that grows with its number."""
    noise = np.random.default_rng(number).normal(0, 2 + 2 * number, photo(number).shape)
    return np.clip(photo(number) + noise, 0, 255).astype(np.uint8)


RUNS = {
    "noisy": lambda n: noisy(photo(n)),
    "speckled/": speckled,
    "blurred": lambda n: blurred(photo(n)) if n != 4 else photo(n),
}


@pytest.fixture
def folder(inside: None) -> None:
    """The current folder: each run's folder, blur/ and sharp/."""
    sides = RUNS | {"sharp": photo, "blur": lambda n: blurred(photo(n))}
    for name, image in sides.items():
        for number in range(IMAGES):
            write(f"{name}/s/{number}.png", image(number))


def known() -> dict[str, dict[str, float]]:
    with np.errstate(divide="ignore"):
        return {
            run: {f"s/{n}": peak_signal_noise_ratio(photo(n), image(n)) for n in range(IMAGES)}
            for run, image in RUNS.items()
        }


def compared(*options: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    *rows, last = done("eval", *RUNS, "--reference", "sharp", *options, "--json", "-q").json
    return rows, last


def test_three_runs(folder: None) -> None:
    rows, last = compared("--confidence", 0.95)
    expected = known()
    wins = dict.fromkeys(RUNS, 0)
    for row in rows:
        by_run = {name: expected[name][row["name"]] for name in RUNS}
        for name, score in by_run.items():
            told = row["runs"][name]["psnr"]
            assert told == (pytest.approx(score) if np.isfinite(score) else None)
        best = max(by_run, key=by_run.__getitem__)
        assert row["best"] == [best]
        wins[best] += 1
    assert {name: told["wins"] for name, told in last["runs"].items()} == wins
    assert sum(count > 0 for count in wins.values()) > 1
    for name, told in last["runs"].items():
        finite = [score for score in expected[name].values() if np.isfinite(score)]
        assert told["total"]["psnr"] == pytest.approx(np.mean(finite))
        low, high = told["confidence"]["psnr"]
        assert low < np.mean(finite) < high
    assert "1 blurred" in last["protocol"]["infinite"]
    assert len(last["worst"]) == len(last["best"]) == 3


def test_the_table(folder: None) -> None:
    ran = done("eval", *RUNS, "--reference", "sharp", "--blurry", "blur", "--by-sequence")
    assert ran.out == b""
    for words in ("eval: 12 images", "wins", "psnr blurriest 10 %", "worst: s/", "best: s/4"):
        assert words in ran.err
    assert f"{np.mean([*known()['noisy'].values()]):.2f}" in ran.err


def test_what_is_paired_by_other_names_is_said(folder: None) -> None:
    for number in range(IMAGES):
        write(f"published/s-{number}_ours.png", noisy(photo(number)))
    command = ("eval", "published", "noisy", "--reference", "sharp")
    ran = done(*command)
    assert ran.lines[0] == "published: 12 paired by names that differ, such as s-0_ours with s/0"
    runs = done(*command, "--json").json[-1]["runs"].values()
    assert len({run["total"]["psnr"] for run in runs}) == 1
    assert done(*command, "-q").err == ""


def test_two_runs_against_two_folders(folder: None) -> None:
    """With a reference two folders are two runs, without they are restored and sharp."""
    told = done("eval", "noisy", "sharp", "--reference", "sharp", "--json", "-q").json[-1]["runs"]
    assert told["sharp"]["total"]["infinite"] == told["sharp"]["wins"] == IMAGES
    pairs = done("eval", "noisy", "sharp", "--json", "-q").out
    assert done("eval", "noisy", "--reference", "sharp", "--json", "-q").out == pairs


def test_shards(folder: None) -> None:
    done("prepare", "noisy", "-o", "noisy.h5", "-q", "--jobs", 1)
    done("prepare", "sharp", "--as", "sharp", "-o", "sharp.h5", "-q", "--jobs", 1)
    ran = done("eval", "noisy.h5", "blurred", "--reference", "sharp.h5", "--json", "-q")
    expected = np.mean([*known()["noisy"].values()])
    assert ran.json[-1]["runs"]["noisy.h5"]["total"]["psnr"] == pytest.approx(expected)


def test_reports(folder: None) -> None:
    rows, last = compared("-o", "s.csv", "-o", "s.json", "-o", "s.md", "--confidence", 0.9)
    assert json.loads(Path("s.json").read_text()) == last | {"images": rows}
    with Path("s.csv").open(newline="") as file:
        told = {(line["row"], line["run"], line["name"]): line for line in csv.DictReader(file)}
    for name, scores in known().items():
        for image, score in scores.items():
            assert float(told["image", name, image]["psnr"]) == pytest.approx(score)
        of_run = last["runs"][name]
        assert int(told["wins", name, "all"]["images"]) == of_run["wins"]
        assert float(told["mean", name, "all"]["ssim"]) == of_run["total"]["ssim"]
        assert float(told["low", name, "all"]["psnr"]) == of_run["confidence"]["psnr"][0]
    page = Path("s.md").read_text()
    for words in ("## 12 images\n", "| run | psnr |", "| s/4 | ", "| blurred |", "- wins: "):
        assert words in page


def test_means_over_seeds_beside_a_papers_rows(folder: None) -> None:
    """Merging keeps the groups of runs; best and second are marked in every kind of table."""
    total = compared("-o", "runs.json")[1]["runs"]
    report = json.loads(Path("runs.json").read_text())
    report["seeds"] = {"learning_rate 0.1": {"runs": ["noisy", "speckled/"]}}
    Path("runs.json").write_text(json.dumps(report))
    outputs = [word for kind in ("tex", "csv", "json", "md") for word in ("-o", f"all.{kind}")]
    ran = done("eval", "--merge", "runs.json", "--paper", "dbgan-1", *outputs)
    assert "mean and standard deviation over seeds" in ran.err and "DBGAN(+)" in ran.err

    both = [total[run]["total"]["psnr"] for run in ("noisy", "speckled/")]
    mean, deviation = np.mean(both), np.std(both, ddof=1)
    spread = json.loads(Path("all.json").read_text())["seeds"]["learning_rate 0.1"]
    assert spread["psnr"] == pytest.approx({"mean": mean, "deviation": deviation})
    page = Path("all.md").read_text()
    assert f"| learning_rate 0.1 (2 seeds) | {mean:.2f} ± {deviation:.2f} |" in page
    assert "| DBGAN(+) (dbgan-1) | **31.10** | - | **0.9424** |" in page
    assert "| Gao et al. (dbgan-1) | _30.92_ | - | _0.9421_ |" in page
    table = Path("all.tex").read_text()
    assert rf"learning\_rate 0.1 (2 seeds) & {mean:.2f} $\pm$ {deviation:.2f} &" in table
    assert r"DBGAN(+) (dbgan-1) & \textbf{31.10} & - & \textbf{0.9424} \\" in table
    assert r"\underline{30.92} & - & \underline{0.9421}" in table
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + 1 + 1 + 8 and {line.count("&") for line in body} == {3}
    lines = csv.reader(Path("all.csv").read_text().splitlines())
    told = {tuple(line[:2]): line[4] for line in lines}
    assert float(told["seeds deviation", "learning_rate 0.1"]) == pytest.approx(deviation)
    assert told["paper", "DBGAN (dbgan-1)"] == "30.43"


def test_pictures(folder: None) -> None:
    _, last = compared("--pictures", "shown", "--blurry", "blur")
    names = {case["name"] for case in [*last["worst"], *last["best"]]}
    assert sorted(files("shown")) == sorted(f"{name}.png" for name in names)
    picture = imageio.imread("shown/s/4.png")
    shown = [blurred(photo(4)), *(image(4) for image in RUNS.values()), photo(4)]
    assert picture.shape == (48, 5 * 64 + 4 * 8, 3)
    for place, image in enumerate(shown):
        np.testing.assert_array_equal(picture[:, 72 * place : 72 * place + 64], image)


def test_images_that_are_left_out_of_all_runs(folder: None) -> None:
    """A run lacks one, one is damaged, one has another size, and one has no reference."""
    Path("noisy/s/3.png").unlink()
    write("blurred/s/extra.png", photo(0))
    Path("noisy/s/7.png").write_bytes(b"none")
    write("blurred/s/5.png", photo(5, 32, 32))
    ran = invoke("eval", *RUNS, "--reference", "sharp", "--json", "-q")
    for name in ("s/3", "s/extra"):
        assert_failed(ran, name, f"{name}: no image of that name in noisy")
    assert_failed(ran, "s/7", "noisy/s/7.png")
    assert_failed(ran, "s/5", "s/5: sizes differ: 32x32x3 and 64x48x3")
    *rows, last = ran.json
    assert not {"s/3", "s/5", "s/7"} & {row["name"] for row in rows}
    assert len(rows) == IMAGES - 3
    assert {t["total"]["images"] for t in last["runs"].values()} == {IMAGES - 3}


def test_runs_that_cannot_be(folder: None) -> None:
    write("elsewhere/x.png", photo(0))
    Path("cut.h5").write_bytes(b"no shard")
    Path("empty").mkdir()
    wrong = {
        ("-", "blurred"): "a stream cannot be paired by name",
        ("sharp", "-"): "a stream cannot be paired by name",
        ("sharp", "noisy"): "a run is named twice",
    }
    assert_each_refused(wrong, "eval", "noisy", "-q", "--reference")
    bad = {
        ("sharp", "none"): "none: no such file or folder",
        ("none", "blurred"): "none: no such file or folder",
        ("sharp", "elsewhere"): "elsewhere has x",
        ("empty", "blurred"): "empty: holds no image and no shard",
        ("sharp", "cut.h5"): "cut.h5: is not a shard",
    }
    assert_each_refused(bad, "eval", "noisy", "-q", "--reference", status=1)


# ---- networks ------------------------------------------------------------------------------------

PAIRS = 4


@pytest.fixture
def pairs(inside: None) -> None:
    """The current folder: pairs of blurry/ and sharp/."""
    for number in range(PAIRS):
        write(f"blurry/{number}.png", blurred(photo(number)))
        write(f"sharp/{number}.png", photo(number))


def onnx_network(path: Path, *nodes: Any) -> Path:
    """An ONNX file with a network of these nodes from "image" to "restored"."""
    image, restored = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("image", "restored")
    )
    graph = helper.make_graph(nodes, "network", [image], [restored])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {ONNX_METADATA: Exported("deblurring", tile=64).text()})
    onnx.save(model, path)
    return path


@pytest.fixture
def square(pairs: None) -> Path:
    """A network that makes the square of an image."""
    return onnx_network(Path("square.onnx"), helper.make_node("Mul", ["image"] * 2, ["restored"]))


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of networks have imported torch before they are started."""
    for name, value in warm_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(WARM))


@pytest.fixture
def picky(pairs: None) -> Path:
    """A network that divides by the largest value, and so fails on a black image."""
    most = helper.make_node("ReduceMax", ["image"], ["most"])
    divided = helper.make_node("Div", ["image", "most"], ["restored"])
    return onnx_network(Path("picky.onnx"), most, divided)


@pytest.mark.slow
def test_the_table_is_that_of_separate_runs(checkpoint: Path, square: Path) -> None:
    torch.manual_seed(0)
    torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, "naf.pth")
    networks = {"tiny.pt": checkpoint, "square.onnx": square, "naf.pth": "naf.pth"}
    given = "eval", "--networks", *networks.values(), "blurry", "sharp", "--json"
    *rows, last = done(*given, "-o", "scores.md", "--html", "page", "--pictures", "rows").json
    assert [*last["runs"]] == [*networks] and len(rows) == PAIRS
    for name, file in networks.items():
        done("deblur", "blurry", "-c", file, "-o", f"made/{name}/", "-q", "--precision", "fp32")
        for row in rows:
            made = imageio.imread(f"made/{name}/{row['name']}.png")
            expected = peak_signal_noise_ratio(photo(int(row["name"])), made)
            assert row["runs"][name]["psnr"] == pytest.approx(expected)
            assert 0 < row["runs"][name]["seconds"] < 60
        total = last["runs"][name]["total"]
        seconds = [row["runs"][name]["seconds"] for row in rows]
        assert total["seconds"] == pytest.approx(np.mean(seconds))
        assert total["memory"] == max(row["runs"][name]["memory"] for row in rows)
    memory = {name: last["runs"][name]["total"]["memory"] for name in networks}
    assert 30 < memory["square.onnx"] < memory["tiny.pt"] - 50  # it needs no torch
    assert "own process" in last["protocol"]["memory"]
    table = [line.split(" | ") for line in Path("scores.md").read_text().splitlines()[2:7]]
    for column, pick in (("psnr", max), ("seconds", min), ("memory", min)):
        best = pick(networks, key=lambda name: last["runs"][name]["total"][column])
        cells = {line[0][2:]: line[table[0].index(column)] for line in table[2:]}
        assert [name for name, cell in cells.items() if cell.startswith("**")] == [best]
    page = Page(Path("page/index.html"))
    captions = [picture["caption"] for picture in page.data["images"][0]["pictures"]]
    assert captions == ["before", *networks, "reference"]
    assert ("b", {}) in page.tags
    assert imageio.imread("rows/0.png").shape == (48, 5 * 64 + 4 * 8, 3)


@pytest.mark.usefixtures("warm")
def test_networks_and_pairs_in_any_order(square: Path, picky: Path, shard: Path) -> None:
    scores = []
    for given in (
        ["--networks", square, picky, shard, "--json"],
        ["--networks", square, "--networks", picky, shard, "--json"],
        [shard, "--networks", square, "--json", picky],
    ):
        runs = done("eval", *given, "-q").json[-1]["runs"]
        scores.append({name: run["total"]["psnr"] for name, run in runs.items()})
    assert scores[0] == scores[1] == scores[2] and [*scores[0]] == ["square.onnx", "picky.onnx"]


@pytest.mark.usefixtures("warm")
def test_parts_of_networks_are_merged(square: Path, picky: Path) -> None:
    given = "eval", "--networks", square, picky, "blurry", "sharp", "-q"
    for part in ("1/2", "2/2"):
        done(*given, "--part", part, "-o", f"{part[0]}.json")
    done("eval", "--merge", "1.json", "2.json", "-o", "merged.json", "-q")
    *parts, merged = (json.loads(Path(f"{name}.json").read_text()) for name in (1, 2, "merged"))
    for name in ("square.onnx", "picky.onnx"):
        peaks = [part["runs"][name]["total"]["memory"] for part in parts]
        assert merged["runs"][name]["total"]["memory"] == max(peaks)
        assert merged["runs"][name]["total"]["images"] == PAIRS


@pytest.mark.usefixtures("warm")
def test_what_comes_with_blurkit_has_names(square: Path) -> None:
    assert [*shipped_networks()] == ["auto", "shake", "network", "msdi"]
    side = "blurry/0.png", "sharp/0.png"
    ran = done("eval", "--networks", square, "network", *side, "--json")
    assert [*ran.json[-1]["runs"]] == ["square.onnx", "network"]
    done("deblur", side[0], "--method", "network", "-o", "0.png", "--precision", "fp32")
    expected = peak_signal_noise_ratio(photo(0), imageio.imread("0.png"))
    assert ran.json[0]["runs"]["network"]["psnr"] == pytest.approx(expected)


@pytest.mark.usefixtures("warm")
def test_networks_run_as_asked(square: Path) -> None:
    """By the protocol of their papers, in float32; MACs are of --input-size."""
    torch.manual_seed(0)
    network = NAFNet(8, (1,), 1, (1,))
    torch.save({"params": network.state_dict()}, "naf.pth")
    side = "blurry/0.png", "sharp/0.png"
    options = ("--protocol", "own", "--tile", 32, "--input-size", "48x32", "-o", "scores.md")
    given = ("eval", "--networks", "naf.pth", square, *side, "--json", "-q")
    row, last = done(*given, *options).json
    made = row["restored_with"]
    assert made["naf.pth"].startswith("protocol=local tile=32")
    assert made["square.onnx"].startswith("protocol=tiles tile=32")
    assert all("precision=float32" in how for how in made.values())
    totals = {name: run["total"] for name, run in last["runs"].items()}
    assert totals["naf.pth"]["parameters"] == pytest.approx(parameters(network) / 1e6)
    assert totals["naf.pth"]["gmacs"] == pytest.approx(macs(network, (1, 3, 32, 48)) / 1e9)
    assert totals["square.onnx"].get("gmacs") is None  # known of torch's networks alone
    assert last["protocol"]["gmacs"].endswith("for an image of 48x32")
    assert "| gmacs |" in Path("scores.md").read_text()
    assert_each_refused({side: "--protocol requires --networks"}, "eval", "--protocol", "own")


@pytest.mark.parametrize(
    ("network", "protocol"),
    [
        (NAFNet(8, (1,), 1, (1,)), "local"),
        (MSFSNet(8, 1, 1, 1), "whole"),
        (DBGAN(8, 1), "whole"),
        (None, "slices"),
    ],
    ids=["NAFNet", "MSFS-Net", "DBGAN", "MSDI-Net"],
)
def test_the_protocols_of_papers(network: nn.Module | None, protocol: str) -> None:
    known = network and Checkpoint({"deblur": network.state_dict()})
    known = known or load_checkpoint(shipped_file("msdi"))
    engine = start_engine("deblurring", known, placement=Placement("cpu", protocol="own"))
    assert engine.protocol == protocol and engine.describe()["precision"] == "float32"


@pytest.mark.usefixtures("warm")
def test_a_network_that_fails_is_left_out(square: Path, picky: Path) -> None:
    Path("junk.onnx").write_bytes(b"junk")
    nought = helper.make_node("Sub", ["image"] * 2, ["nought"])
    divided = helper.make_node("Div", ["image", "nought"], ["restored"])
    onnx_network(Path("never.onnx"), nought, divided)
    given = "junk.onnx", "never.onnx", square, picky
    ran = invoke("eval", "--networks", *given, "blurry", "sharp", "--json", "-q")
    assert_failed(ran, "junk.onnx, never.onnx", "junk.onnx", "damaged")
    assert any("never.onnx: left out: " in line and "not finite" in line for line in ran.lines)
    assert [*ran.json[-1]["runs"]] == ["square.onnx", "picky.onnx"]
    assert ran.json[-1]["runs"]["picky.onnx"]["total"]["images"] == PAIRS
    alone = invoke("eval", "--networks", "junk.onnx", "blurry", "sharp")
    assert_failed(alone, "0 evaluated: junk.onnx", "damaged")


@pytest.mark.usefixtures("warm")
def test_a_pair_that_a_network_fails_on_is_left_out(square: Path, picky: Path) -> None:
    write("blurry/2.png", 0 * photo(2))
    write("blurry/9.png", photo(9))
    ran = invoke("eval", "--networks", square, picky, "blurry", "sharp", "--json", "-q")
    assert_failed(ran, "9, 2", "2: picky.onnx: ", "not finite")
    assert [row["name"] for row in ran.json[:-1]] == ["0", "1", "3"]
    assert {of_run["total"]["images"] for of_run in ran.json[-1]["runs"].values()} == {3}
    ran = invoke("eval", "--networks", square, "blurry/0.png")
    assert_failed(ran, "0 evaluated: 0", "sharp is needed")


@pytest.fixture
def streaming(square: Path, picky: Path) -> Iterable[subprocess.Popen[bytes]]:
    """A run of two networks that has evaluated the first pair of its standard input."""
    for number in range(2):
        images = {"blur": blurred(photo(number)), "sharp": photo(number)}
        blurkit.write_records([Record(str(number), images)], f"{number}.h5")
    given = "--networks", square, picky, "-", "--json"
    started = start("eval", *given, env=ENVIRONMENT, stdin=subprocess.PIPE)
    started.stdin.write(Path("0.h5").read_bytes())
    started.stdin.flush()
    assert [*json.loads(started.stdout.readline())["runs"]] == ["square.onnx", "picky.onnx"]
    yield started
    started.kill()
    started.communicate()


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a process has started, the first one first."""
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, started.read_text().split()))


def test_a_network_whose_process_ends_is_left_out(streaming: subprocess.Popen[bytes]) -> None:
    first, second = children(streaming)
    os.kill(first, signal.SIGKILL)
    out, error = streaming.communicate(Path("1.h5").read_bytes(), timeout=60)
    assert streaming.returncode == 1
    assert b"square.onnx: left out: its process ended with status -9" in error
    assert b"1 failed, 2 evaluated: square.onnx" in error and b"Traceback" not in error
    assert json.loads(out.splitlines()[-1])["total"]["images"] == 2
    assert not Path(f"/proc/{second}").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(how: signal.Signals, streaming: subprocess.Popen[bytes]) -> None:
    started = children(streaming)
    assert len(started) == 2
    os.killpg(streaming.pid, how)
    assert b"Traceback" not in streaming.communicate(timeout=60)[1]
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in started))


def test_networks_that_are_refused(square: Path, shard: Path) -> None:
    excluded = ("--reference", shard), ("--checkpoint", shard), ("--encoder", shard)
    excluded += ("--image", "restored"), ("--resume", "-o", "a.json")
    words = {(square, shard, *option): f"--networks excludes {option[0]}" for option in excluded}
    words[square, square.with_name("b.onnx")] = "name pairs of blurry and sharp images"
    words |= dict.fromkeys([(square, square, shard), ("-", shard)], "name each network once")
    assert_each_refused(words, "eval", "--networks")
    missing = {(square, "none.h5"): "none.h5: no such file", ("none.pt", shard): "no such checkp"}
    assert_each_refused(missing, "eval", "--networks", status=1)


def test_memory_that_a_system_does_not_tell_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "status").write_text("Name:\tpython\nVmRSS:\t1000 kB\n")
    monkeypatch.setattr(scoring, "STATUS", tmp_path / "status")
    assert scoring._peak_memory() == 0
    (tmp_path / "status").write_text("VmHWM:\t    1000 kB\n")
    assert scoring._peak_memory() == 1024000
