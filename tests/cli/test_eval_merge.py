"""Evaluations in parts, and evaluations that go on from where they were killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.command import assert_done, assert_refused, blurred, files, photo, write
from tests.cli.invoke import invoke

IMAGES = 14
OPTIONS = ["--by-sequence", "--confidence", 0.9, "--seed", 3]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of 14 images in two sequences; one image of a run is perfect."""
    monkeypatch.chdir(tmp_path)
    for number in range(IMAGES):
        sharp = photo(number, 24, 32)
        noise = np.random.default_rng(number).integers(-9, 10, sharp.shape)
        name = f"s{number % 2}/{number}.png"
        write(tmp_path / "sharp" / name, sharp)
        write(tmp_path / "blur" / name, blurred(sharp))
        write(tmp_path / "a" / name, sharp if number == 3 else blurred(sharp))
        write(tmp_path / "b" / name, np.clip(sharp + noise, 0, 255).astype(np.uint8))
    return tmp_path


def report(name: str) -> Any:
    return json.loads(Path(name).read_text())


@pytest.mark.parametrize("runs", [["a"], ["a", "b"]])
def test_parts_are_merged_to_the_report_of_one_run(folders: Path, runs: list[str]) -> None:
    inputs = ["eval", *runs, "--reference", "sharp", "--blurry", "blur", "-q"]
    assert_done(invoke(*inputs, *OPTIONS, "-o", "whole.json", "-o", "whole.md"))
    parts = ["1.json", "2.json", "3.jsonl"]
    for number, part in enumerate(parts, 1):
        output = ["-o", part] if part.endswith(".json") else ["--json"]
        ran = invoke(*inputs, "--part", f"{number}/3", *output)
        assert_done(ran)
        if ran.out:
            Path(part).write_bytes(ran.out)
    merge = ["eval", "--merge", *parts[::-1], *OPTIONS]
    assert_done(invoke(*merge, "-q", "-o", "merged.json", "-o", "merged.md"))
    whole, merged = report("whole.json"), report("merged.json")
    assert len(whole["images"]) == IMAGES
    assert merged == whole
    assert Path("merged.md").read_bytes() == Path("whole.md").read_bytes()
    for refused, words in (
        ([parts[0], parts[1]], ["part 3/3 is missing"]),
        ([parts[0], *parts], ["is in another report, too"]),
        ([*parts, "sharp"], ["sharp: cannot be read"]),
        ([*parts, "whole.md"], ["whole.md: is not a whole report"]),
    ):
        status = 2 if "report, too" in words[0] or "missing" in words[0] else 1
        assert_refused(invoke("eval", "--merge", *refused, "-q"), *words, status=status)
    assert_refused(invoke(*merge, "--ssim", "matlab"), "--merge excludes --ssim", status=2)


def test_parts_that_were_measured_in_other_ways_are_not_merged(folders: Path) -> None:
    inputs = ["eval", "a", "--reference", "sharp", "-q"]
    assert_done(invoke(*inputs, "--part", "1/2", "-o", "1.json"))
    assert_done(invoke(*inputs, "--part", "2/2", "-o", "2.json", "--ssim", "matlab"))
    assert_refused(invoke("eval", "--merge", "1.json", "2.json"), "2.json: ssim differs", status=2)


@pytest.mark.parametrize("inputs", [["a", "sharp"], ["a", "b", "--reference", "sharp"]])
def test_a_resumed_evaluation_is_that_of_one_run(folders: Path, inputs: list[str]) -> None:
    assert_done(invoke("eval", *inputs, *OPTIONS, "-o", "whole.json", "-q"))
    resumed = ["eval", *inputs, *OPTIONS, "-o", "again.json", "--resume", "-q"]
    assert_done(invoke(*resumed))
    assert report("again.json") == report("whole.json")
    log = Path(".again.json.scores.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == IMAGES
    # As if it had been killed while it wrote the sixth line; what it has measured is not read.
    log.write_text("".join(lines[:5]) + lines[5][:20])
    Path("again.json").unlink()
    done = [json.loads(line)["name"] for line in lines[:5]]
    for name in done:
        Path("a", f"{name}.png").write_bytes(b"")
    ran = invoke(*resumed, "--json")
    assert_done(ran)
    assert report("again.json") == report("whole.json")
    assert [line["name"] for line in ran.json[:5]] == done
    assert log.read_text() == "".join(lines)
    ran = invoke(*resumed[:-1], "--confidence", 0.8)
    assert_refused(ran, "confidence was 0.9 and is 0.8", ".again.json.options.json", status=2)


def test_reports_that_no_log_belongs_to_are_kept(folders: Path) -> None:
    assert_done(invoke("eval", "a", "sharp", "-o", "s.json", "-q"))
    before = files(folders)
    ran = invoke("eval", "a", "sharp", "-o", "s.json", "-q", "--resume")
    assert_refused(ran, "s.json: exists already")
    assert files(folders) == before
    ran = invoke("eval", "a", "sharp", "--resume")
    assert_refused(ran, "--resume requires -o", status=2)
