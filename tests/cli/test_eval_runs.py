"""`blurkit eval` of several runs: one table, whose wins and means scikit-image confirms."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    run,
    write,
)
from tests.cli.invoke import invoke
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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each run's folder, and sharp/."""
    monkeypatch.chdir(tmp_path)
    for number in range(IMAGES):
        write(tmp_path / f"sharp/s/{number}.png", photo(number))
        write(tmp_path / f"blur/s/{number}.png", blurred(photo(number)))
        for name, image in RUNS.items():
            write(tmp_path / name / f"s/{number}.png", image(number))
    return tmp_path


def known() -> dict[str, dict[str, float]]:
    """PSNR by run and image, by scikit-image."""
    with np.errstate(divide="ignore"):
        return {
            run: {f"s/{n}": peak_signal_noise_ratio(photo(n), image(n)) for n in range(IMAGES)}
            for run, image in RUNS.items()
        }


def compared(*options: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    ran = invoke("eval", *RUNS, "--reference", "sharp", *options, "--json", "-q")
    assert_done(ran)
    *rows, last = ran.json
    return rows, last


def test_three_runs() -> None:
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
    mean = {name: np.mean([expected[run][name] for run in RUNS]) for name in expected["noisy"]}
    order = sorted(mean, key=lambda name: mean[name])
    assert [case["name"] for case in last["worst"]] == order[:3]
    assert [case["name"] for case in last["best"]] == order[:-4:-1]
    worst = last["worst"][0]
    assert worst["psnr"] == pytest.approx({run: expected[run][worst["name"]] for run in RUNS})


def test_the_table() -> None:
    ran = invoke("eval", *RUNS, "--reference", "sharp", "--blurry", "blur", "--by-sequence")
    assert_done(ran)
    assert ran.out == b""
    for words in ("eval: 12 images", "wins", "psnr blurriest 10 %", "worst: s/", "best: s/4"):
        assert words in ran.err
    mean = np.mean([*known()["noisy"].values()])
    assert f"{mean:.2f}" in ran.err


def test_two_runs_against_two_folders() -> None:
    """With a reference two folders are two runs, without they are restored and sharp."""
    ran = invoke("eval", "noisy", "sharp", "--reference", "sharp", "--json", "-q")
    assert_done(ran)
    assert ran.json[-1]["runs"]["sharp"]["total"]["infinite"] == IMAGES
    assert ran.json[-1]["runs"]["sharp"]["wins"] == IMAGES
    pairs = invoke("eval", "noisy", "sharp", "--json", "-q").out
    assert invoke("eval", "noisy", "--reference", "sharp", "--json", "-q").out == pairs


def test_shards(folder: Path) -> None:
    for name in ("noisy", "sharp"):
        role = ["--as", "sharp"] if name == "sharp" else []
        assert_done(invoke("prepare", name, *role, "-o", f"{name}.h5", "-q", "--jobs", 1))
    ran = invoke("eval", "noisy.h5", "blurred", "--reference", "sharp.h5", "--json", "-q")
    assert_done(ran)
    expected = np.mean([*known()["noisy"].values()])
    assert ran.json[-1]["runs"]["noisy.h5"]["total"]["psnr"] == pytest.approx(expected)


def test_files() -> None:
    outputs = ["-o", "s.csv", "-o", "s.json", "-o", "s.md"]
    rows, last = compared(*outputs, "--confidence", 0.9)
    content = json.loads(Path("s.json").read_text())
    assert content.pop("images") == rows
    assert content == last
    with Path("s.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    told = {(line["row"], line["run"], line["name"]): line for line in lines}
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


def test_pictures(folder: Path) -> None:
    _, last = compared("--pictures", "shown", "--blurry", "blur")
    names = {case["name"] for case in [*last["worst"], *last["best"]]}
    assert sorted(files(folder / "shown")) == sorted(f"{name}.png" for name in names)
    picture = imageio.imread("shown/s/4.png")
    shown = [blurred(photo(4)), *(image(4) for image in RUNS.values()), photo(4)]
    assert picture.shape == (48, 5 * 64 + 4 * 8, 3)
    for place, image in enumerate(shown):
        np.testing.assert_array_equal(picture[:, 72 * place : 72 * place + 64], image)


def test_names_that_not_all_runs_have(folder: Path) -> None:
    (folder / "noisy/s/3.png").unlink()
    write(folder / "blurred/s/extra.png", photo(0))
    ran = invoke("eval", *RUNS, "--reference", "sharp", "--json", "-q")
    assert_failed(ran, "s/3", "s/3: no image of that name in noisy")
    assert_failed(ran, "extra", "s/extra: no image of that name in noisy")
    *rows, last = ran.json
    assert "s/3" not in [row["name"] for row in rows]
    assert len(rows) == IMAGES - 1 == last["runs"]["blurred"]["total"]["images"]


def test_one_bad_image_is_left_out_of_all_runs(folder: Path) -> None:
    (folder / "noisy/s/3.png").write_bytes(b"none")
    write(folder / "blurred/s/5.png", photo(5, 32, 32))
    ran = invoke("eval", *RUNS, "--reference", "sharp", "--json", "-q")
    assert_failed(ran, "s/3", "noisy/s/3.png")
    assert_failed(ran, "s/5", "s/5: sizes differ: 32x32x3 and 64x48x3")
    assert {t["total"]["images"] for t in ran.json[-1]["runs"].values()} == {IMAGES - 2}


def test_runs_that_cannot_be(folder: Path) -> None:
    write(folder / "elsewhere/x.png", photo(0))
    for inputs, words, status in (
        (["noisy", "blurred", "--reference", "-"], "a stream cannot be paired by name", 2),
        (["noisy", "-", "--reference", "sharp"], "a stream cannot be paired by name", 2),
        (["noisy", "noisy", "--reference", "sharp"], "a run is named twice", 2),
        (["noisy", "none", "--reference", "sharp"], "none: no such file or folder", 1),
        (["noisy", "blurred", "--reference", "none"], "none: no such file or folder", 1),
        (["noisy", "elsewhere", "--reference", "sharp"], "elsewhere has x", 1),
    ):
        assert_refused(invoke("eval", *inputs, "-q"), words, status=status)
    (folder / "cut.h5").write_bytes(b"no shard")
    ran = run("eval", "noisy", "cut.h5", "--reference", "sharp")
    assert_refused(ran, "cut.h5: is not a shard")


def test_parts() -> None:
    whole = compared()[0]
    parts = [compared("--part", f"{i}/2")[0] for i in (1, 2)]
    rows = sorted((row for part in parts for row in part), key=lambda row: str(row["name"]))
    assert rows == sorted(whole, key=lambda row: str(row["name"]))
