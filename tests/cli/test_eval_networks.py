"""`blurkit eval --networks`: several networks in one run, in one table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skimage.metrics import peak_signal_noise_ratio

import blurkit
from blurkit.cli.eval_networks import shipped_networks
from blurkit.engine.onnx_runner import ONNX_METADATA, Exported
from blurkit.io.records import Record
from tests.cli.command import (
    ENVIRONMENT,
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    photo,
    run,
    start,
    write,
)
from tests.cli.invoke import invoke
from tests.cli.test_html import Page

PAIRS = 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: pairs of blurry/ and sharp/, and the shard pairs.h5 of them."""
    monkeypatch.chdir(tmp_path)
    for number in range(PAIRS):
        write(tmp_path / f"blurry/{number}.png", blurred(photo(number)))
        write(tmp_path / f"sharp/{number}.png", photo(number))
    return tmp_path


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
def square(folder: Path) -> Path:
    """A network that makes the square of an image."""
    return onnx_network(
        folder / "square.onnx", helper.make_node("Mul", ["image"] * 2, ["restored"])
    )


@pytest.fixture
def picky(folder: Path) -> Path:
    """A network that divides by the largest value, and so fails on a black image."""
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["most"]),
        helper.make_node("Div", ["image", "most"], ["restored"]),
    ]
    return onnx_network(folder / "picky.onnx", *nodes)


@pytest.fixture(scope="module")
def nafnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny NAFNet under official keys."""
    import torch

    from blurkit.systems.nafnet.networks import NAFNet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("nafnet") / "naf.pth"
    torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, path)
    return path


def children(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a process has started, the first one first."""
    started = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(map(int, started.read_text().split()))


def test_the_table_is_that_of_separate_runs(
    checkpoint: Path, nafnet: Path, square: Path, folder: Path
) -> None:
    networks = {"tiny.pt": checkpoint, "square.onnx": square, "naf.pth": nafnet}
    given = "eval", "--networks", *networks.values(), "blurry", "sharp", "--json"
    ran = run(*given, "-o", "scores.md", "--html", "page", "--pictures", "rows")
    assert_done(ran)
    *rows, last = ran.json
    assert [*last["runs"]] == [*networks] and len(rows) == PAIRS
    for name, file in networks.items():
        assert_done(invoke("deblur", "blurry", "-c", file, "-o", f"made/{name}/", "-q"))
        for row in rows:
            made = imageio.imread(folder / "made" / name / f"{row['name']}.png")
            expected = peak_signal_noise_ratio(photo(int(row["name"])), made)
            assert row["runs"][name]["psnr"] == pytest.approx(expected)
            assert 0 < row["runs"][name]["seconds"] < 60
        total = last["runs"][name]["total"]
        means = [row["runs"][name]["seconds"] for row in rows]
        assert total["seconds"] == pytest.approx(np.mean(means))
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
    assert imageio.imread(folder / "rows/0.png").shape == (48, 5 * 64 + 4 * 8, 3)


def test_networks_and_pairs_in_any_order(square: Path, picky: Path, shard: Path) -> None:
    spellings = [
        ["--networks", square, picky, shard, "--json"],
        ["--networks", square, "--networks", picky, shard, "--json"],
        [shard, "--networks", square, "--json", picky],
    ]
    results = [invoke("eval", *given, "-q") for given in spellings]
    scores = []
    for ran in results:
        assert_done(ran)
        runs = ran.json[-1]["runs"]
        scores.append({name: run["total"]["psnr"] for name, run in runs.items()})
    assert scores[0] == scores[1] == scores[2] and [*scores[0]] == ["square.onnx", "picky.onnx"]


def test_parts_are_merged(square: Path, picky: Path, folder: Path) -> None:
    given = "eval", "--networks", square, picky, "blurry", "sharp", "-q"
    for part in ("1/2", "2/2"):
        assert_done(invoke(*given, "--part", part, "-o", f"{part[0]}.json"))
    assert_done(invoke("eval", "--merge", "1.json", "2.json", "-o", "merged.json", "-q"))
    parts, merged = (
        [json.loads(Path(f"{name}.json").read_text()) for name in names]
        for names in ("12", ["merged"])
    )
    for name in ("square.onnx", "picky.onnx"):
        peaks = [part["runs"][name]["total"]["memory"] for part in parts]
        assert merged[0]["runs"][name]["total"]["memory"] == max(peaks)
        assert merged[0]["runs"][name]["total"]["images"] == PAIRS


def test_what_comes_with_blurkit_has_names(square: Path) -> None:
    assert [*shipped_networks()] == ["auto", "shake", "network", "msdi"]
    side = "blurry/0.png", "sharp/0.png"
    ran = invoke("eval", "--networks", square, "network", *side, "--json")
    assert_done(ran)
    assert [*ran.json[-1]["runs"]] == ["square.onnx", "network"]
    assert_done(invoke("deblur", side[0], "--method", "network", "-o", "0.png"))
    expected = peak_signal_noise_ratio(photo(0), imageio.imread("0.png"))
    assert ran.json[0]["runs"]["network"]["psnr"] == pytest.approx(expected)


def test_a_network_that_fails_is_left_out(square: Path, picky: Path, folder: Path) -> None:
    (folder / "junk.onnx").write_bytes(b"junk")
    nodes = [helper.make_node("Sub", ["image"] * 2, ["nought"])]
    nodes += [helper.make_node("Div", ["image", "nought"], ["restored"])]
    onnx_network(folder / "never.onnx", *nodes)
    given = "junk.onnx", "never.onnx", square, picky
    ran = invoke("eval", "--networks", *given, "blurry", "sharp", "--json", "-q")
    assert_failed(ran, "junk.onnx, never.onnx", "junk.onnx", "damaged")
    assert any("never.onnx: left out: " in line and "not finite" in line for line in ran.lines)
    assert [*ran.json[-1]["runs"]] == ["square.onnx", "picky.onnx"]
    assert ran.json[-1]["runs"]["picky.onnx"]["total"]["images"] == PAIRS
    alone = invoke("eval", "--networks", "junk.onnx", "blurry", "sharp")
    assert_failed(alone, "0 evaluated: junk.onnx", "damaged")


def test_a_pair_that_a_network_fails_on_is_left_out(
    square: Path, picky: Path, folder: Path
) -> None:
    write(folder / "blurry/2.png", 0 * photo(2))
    write(folder / "blurry/9.png", photo(9))
    ran = invoke("eval", "--networks", square, picky, "blurry", "sharp", "--json", "-q")
    assert_failed(ran, "9, 2", "2: picky.onnx: ", "not finite")
    assert [row["name"] for row in ran.json[:-1]] == ["0", "1", "3"]
    for of_run in ran.json[-1]["runs"].values():
        assert of_run["total"]["images"] == 3


@pytest.fixture
def streaming(square: Path, picky: Path, folder: Path) -> Iterable[subprocess.Popen[bytes]]:
    """A run of two networks that has evaluated the first pair of its standard input."""
    for number in range(2):
        images = {"blur": blurred(photo(number)), "sharp": photo(number)}
        blurkit.write_records([Record(str(number), images)], f"{number}.h5")
    given = "--networks", square, picky, "-", "--json"
    started = start("eval", *given, env=ENVIRONMENT, stdin=subprocess.PIPE, cwd=folder)
    started.stdin.write(Path("0.h5").read_bytes())
    started.stdin.flush()
    first = json.loads(started.stdout.readline())
    assert [*first["runs"]] == ["square.onnx", "picky.onnx"]
    yield started
    started.kill()
    started.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


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
    error = streaming.communicate(timeout=60)[1]
    assert b"Traceback" not in error
    wait_for(lambda: not any(Path(f"/proc/{child}").exists() for child in started))


def test_wrong_usage_is_refused(square: Path, shard: Path) -> None:
    def refused(*given: object, status: int = 2) -> str:
        ran = invoke("eval", "--networks", *given)
        assert_refused(ran, status=status)
        return ran.err

    assert "name pairs of blurry and sharp images" in refused(square, square.with_name("b.onnx"))
    assert "name each network once" in refused(square, square, shard)
    assert "name each network once" in refused("-", shard)
    assert "none.h5: no such file or folder" in refused(square, "none.h5", status=1)
    assert "no such checkpoint" in refused("none.pt", shard, status=1)
    for option in ("--reference", "--checkpoint", "--encoder", "--image"):
        value = "restored" if option == "--image" else str(shard)
        assert f"--networks excludes {option}" in refused(square, shard, option, value)
    assert "--networks excludes --resume" in refused(square, shard, "--resume", "-o", "a.json")


def test_a_pair_without_its_sharp_image_is_reported(square: Path) -> None:
    ran = invoke("eval", "--networks", square, "blurry/0.png")
    assert_failed(ran, "0 evaluated: 0", "sharp is needed")
