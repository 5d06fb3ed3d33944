"""Batches: names, parts, what was finished before, and what is refused before torch is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import (
    ENVIRONMENT,
    assert_done,
    assert_refused,
    assert_same_records,
    files,
    photo,
    records,
    run,
    shell,
    start,
    write,
)


def plant(folder: Path, count: int, side: int = 48) -> Path:
    for number in range(count):
        write(folder / f"{number}.png", photo(number, side, side))
    return folder


def test_files_of_one_stem_have_a_result_each(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number, name in enumerate(("b.png", "b.tif", "b.bmp", "c.png")):
        write(folder / name, photo(number))
    results = ["b.bmp", "b.png", "b.tif", "c.png"]
    assert_done(run("deblur", folder, "-c", checkpoint, "-o", f"{tmp_path}/out/", "-q"))
    assert [*files(tmp_path / "out")] == results
    named = [folder / name for name in ("c.png", "b.tif", "b.png", "b.bmp")]
    assert_done(run("deblur", *named, "-c", checkpoint, "-o", f"{tmp_path}/other/", "-q"))
    assert files(tmp_path / "other") == files(tmp_path / "out")
    assert_done(run("deblur", folder, "-c", checkpoint, "-q"))
    beside = [f"{name[0]}.deblurred{name[1:]}" for name in results]
    assert {*files(folder)} == {*results, *beside}
    ran = run("eval", tmp_path / "out", folder, "--json", "-q")
    assert_done(ran)
    assert {line["name"] for line in ran.json[:-1]} == {"b.bmp", "b.png", "b.tif", "c"}
    assert min(line["psnr"] for line in ran.json[:-1]) > 30


def test_parts_make_the_files_of_one_run(checkpoint: Path, tmp_path: Path) -> None:
    folder = plant(tmp_path / "in", 6)
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    assert_done(run(*options, f"{tmp_path}/whole/"))
    write(folder / "00.png", photo(9))  # what one machine lists, but no other
    assert_done(run(*options, f"{tmp_path}/parts/", "--part", "1/3"))
    (folder / "00.png").unlink()
    (tmp_path / "parts/00.png").unlink(missing_ok=True)
    for part in (2, 3):
        assert_done(run(*options, f"{tmp_path}/parts/", "--part", f"{part}/3"))
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    parts = [
        shell(
            f"RANK={rank} WORLD_SIZE=2 blurkit prepare {folder}/0.png --part auto -o {rank}.h5",
            tmp_path,
        )
        for rank in (0, 1)
    ]
    assert [ran.status for ran in parts] == [0, 0]
    assert "part 2/2 (RANK=1, WORLD_SIZE=2)" in parts[1].lines
    assert len([*tmp_path.glob("?.h5")]) == 1
    ran = run("deblur", folder, "--part", "auto")
    assert_refused(ran, "--part auto: none of RANK, ", "is set", status=2)


# ---- resuming ------------------------------------------------------------------------------------


def test_a_folder_is_resumed(checkpoint: Path, tmp_path: Path) -> None:
    folder, output = plant(tmp_path / "in", 4), tmp_path / "out"
    command = ["deblur", folder, "-c", checkpoint, "-o", f"{output}/"]
    assert_done(run(*command))
    whole = files(output)
    (output / "1.png").unlink()
    (output / "2.png").write_bytes(b"")
    os.utime(output / "3.png", (1, 1))  # older than its input
    (output / "0.png").write_bytes(b"finished")
    ran = run(*command, "--resume")
    assert_done(ran)
    assert ran.lines[-2] == f"wrote 3 images to {output}/"
    assert ran.lines[-1].startswith("deblurred 3 images in ")
    assert ran.lines[-1].endswith(", 1 finished before")
    assert (output / "0.png").read_bytes() == b"finished"
    (output / "0.png").unlink()
    assert_done(run(*command, "--resume", "-q"))
    made = files(output)
    assert made.pop(".options.json") and made == whole
    ran = run(*command, "--resume", "--strength", 0.5)
    assert_refused(ran, "strength was 1.0 and is 0.5 now", ".options.json", status=2)
    assert_refused(run(*command, "--resume", "--force"), "choose one", status=2)
    assert_refused(run(*command[:-1], "-", "--resume"), "'-o -' cannot be continued", status=2)
    assert_done(run(*command, "--force", "--strength", 0.5, "-q"))
    assert files(output).keys() == whole.keys()


def test_images_beside_and_other_commands_are_resumed(joint: Path, tmp_path: Path) -> None:
    for name, *more in (("reblur", "--like", "B"), ("transfer", "A", "B", "--system", "msdi")):
        folder = plant(tmp_path / name, 2, 64)
        pair = {"A": folder / "0.png", "B": folder / "1.png"}
        command = [name, folder, *(pair.get(word, word) for word in more)]
        options = ["-c", joint, "-q"]
        assert_done(run(*command, *options))
        before = files(folder)
        kept = next(folder.glob("0.*ed.png"))
        kept.write_bytes(b"finished")
        next(folder.glob("1.*ed.png")).unlink()
        assert_done(run(*command, *options, "--resume"))
        assert kept.read_bytes() == b"finished"
        kept.unlink()
        assert_done(run(*command, *options, "--resume"))
        assert files(folder) == before


def test_pairs_of_an_interpolation_are_resumed(joint: Path, tree: Path, tmp_path: Path) -> None:
    command = ["interpolate", tree, "-c", joint, "--steps", 2, "-q", "-o", f"{tmp_path}/out/"]
    assert_done(run(*command))
    whole = files(tmp_path / "out")
    (tmp_path / "out/scene0/1/0.png").unlink()
    (tmp_path / "out/scene0/0/1.png").write_bytes(b"finished")
    assert_done(run(*command, "--resume"))
    assert (tmp_path / "out/scene0/0/1.png").read_bytes() == b"finished"
    made = files(tmp_path / "out")
    assert made.keys() == whole.keys() | {".options.json"}
    assert made["scene0/1/0.png"] == whole["scene0/1/0.png"]


def test_a_killed_run_loses_one_record_of_a_shard(checkpoint: Path, tmp_path: Path) -> None:
    folder, output = plant(tmp_path / "in", 4, 64), tmp_path / "out.h5"
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    assert_done(run(*options, tmp_path / "whole.h5"))
    process = start(*options, output, "--resume")
    unfinished = tmp_path / ".out.h5.unfinished"
    latest = time.monotonic() + 60
    record = 2 * 64 * 64 * 3  # bytes
    while not (unfinished.is_file() and unfinished.stat().st_size > record):
        assert process.poll() is None and time.monotonic() < latest
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not output.exists()
    with unfinished.open("ab") as file:  # as if it had been killed while it wrote
        file.write(unfinished.read_bytes()[:5000])
    ran = run(*options[:-2], "-o", output, "--resume")
    assert_done(ran)
    assert "finished before" in ran.lines[-1]
    whole, resumed = records(tmp_path / "whole.h5"), records(output)
    for record in (*whole, *resumed):
        del record.attrs["restored_seconds"]
    assert_same_records(resumed, whole)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in", "out.h5", "whole.h5", ".out.h5.options.json"}
    before = output.read_bytes()
    assert_done(run(*options, output, "--resume"))
    assert output.read_bytes() == before
    write(folder / "9.png", photo(9))
    assert_done(run(*options, output, "--resume"))
    assert [record.name for record in records(output)] == [*"0123", "9"]


# ---- errors first --------------------------------------------------------------------------------

HEAVY = ("torch", "torchvision", "scipy", "skimage", "cv2", "tifffile", "imagecodecs", "imageio")
HEAVY += ("av", "pillow_heif", "rawpy", "jinja2", "rich", "matplotlib")
"""Modules that take long to import, and that a command therefore must not need to refuse."""

IN_TURN = f"""
import contextlib, io, json, sys
from blurkit.cli.app import main
sys.modules.update(dict.fromkeys({HEAVY!r}))  # importing them fails
for line in sys.argv[1:]:
    sys.argv, said = ["blurkit", *line.split()], io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            main()
    except SystemExit as end:
        print(json.dumps([end.code, said.getvalue()]))
"""


def without_torch(commands: Sequence[str]) -> list[tuple[int, list[str]]]:
    """The exit status and messages of each of `commands`, in a Python without heavy modules.

    One process runs all in turn, which takes less time than a process for each.
    """
    command = [sys.executable, "-c", IN_TURN, *commands]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    ends = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(ends) == len(commands)
    return [(status or 0, said.splitlines()) for status, said in ends]


def test_inputs_that_cannot_be_read_are_refused_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("photo.png"), photo(0))
    Path("empty").mkdir()
    Path("notes.txt").write_text("no image")
    cases = [
        (command.format(name), words)
        for command in (
            "deblur {}",
            "deblur {} -o out/",
            "reblur {} --random",
            "transfer {} photo.png photo.png",
            "interpolate {} -o out/",
        )
        for name, words in (
            ("missing.jpg", "missing.jpg: no such file"),
            ("empty", "empty: holds no image"),
            ("notes.txt", "notes.txt: is not an image"),
        )
    ]
    ends = without_torch([command for command, _ in cases])
    for (command, words), (status, lines) in zip(cases, ends, strict=True):
        assert status == 1 and words in lines[0], (command, lines)
        assert f"1 failed, 0 {command.split()[0].removesuffix('e')[:6]}" in lines[-1]


def test_outputs_that_cannot_be_written_are_refused_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photo.deblurred.png", "photo.reblurred.png", "out/photo.png"):
        write(Path(name), photo(0))
    write(Path("photo.transferred.png"), photo(0))
    before = files(tmp_path)
    refusals = (
        ("deblur photo.png", "photo.deblurred.png: exists already; give --force"),
        ("deblur photo.png -o out/", "out/photo.png: exists already"),
        ("deblur photo.png -o out/photo.png", "out/photo.png: exists already"),
        ("deblur photo.png -o photo.png/x.png", "photo.png: cannot be written"),
        ("deblur photo.png -o x.xyz", "-o x.xyz: name an image, a film, a folder"),
        ("deblur photo.png -o y.png -c no.pt", "no.pt: no such checkpoint"),
        ("reblur photo.png --random", "photo.reblurred.png: exists already"),
        ("transfer photo.png photo.png photo.png", "photo.transferred.png: exists already"),
    )
    ends = without_torch([command for command, _ in refusals])
    for (command, words), (status, lines) in zip(refusals, ends, strict=True):
        assert status in (1, 2) and words in lines[0], (command, lines)
    assert files(tmp_path) == before


def test_wrong_usage_is_refused_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BLURKIT_LPIPS", raising=False)
    write(Path("photo.png"), photo(0))
    write(Path("b.png"), photo(1))
    Path("empty").mkdir()
    before = files(tmp_path)
    refusals = (
        ("deblur photo.png --strength 7", "--strength 7: must be from 0"),
        ("deblur photo.png --device nonsense", "--device nonsense: use auto, cpu"),
        ("deblur photo.png --kernel no.png", "no.png: no such file"),
        ("reblur photo.png", "photo.png: holds no pair of a sharp and a blurry image; name what"),
        ("reblur photo.png --like no.png", "no.png: no such file or folder"),
        ("reblur photo.png --kernel no.mat", "no.mat: no such file"),
        ("reblur photo.png --search", "photo.png: holds no pair of a sharp and a blurry image"),
        ("transfer photo.png photo.png", "photo.png: holds no pair of a sharp and a blurry image"),
        ("transfer photo.png no.png photo.png", "no.png: no such file"),
        ("interpolate photo.png", "photo.png: holds no pair of a sharp and a blurry image"),
        ("interpolate no.png photo.png", "no.png: no such file"),
        ("interpolate photo.png no.png", "no.png: no such file"),
        ("interpolate photo.png b.png -o b.png", "b.png: exists already; give --force"),
        ("eval no.png", "no.png: no such file"),
        ("eval photo.png no.png", "no.png: no such file"),
        ("eval photo.png b.png --metric no", "--metric no: choose from"),
        ("eval photo.png b.png -o x.txt", "-o x.txt: name a file that ends in"),
        ("eval photo.png b.png -o photo.png", "-o photo.png: name a file that ends in"),
        ("eval photo.png b.png --lpips no.pth", "no.pth: no such file (from --lpips)"),
        ("eval photo.png b.png --html b.png", "--html b.png: is a file"),
        ("eval --merge no.json", "no.json: cannot be read"),
        ("prepare no/", "no/: no such file"),
        ("prepare photo.png -o b.png", "b.png"),
        ("train-deblur no.h5 -o x.pt", "--encoder FILE: name the checkpoint"),
        ("train-deblur no.h5 --encoder no.pt -o x.pt", "no.pt: no such file (from --encoder)"),
        ("train-deblur no.h5 --system msfs -o x.pt", "no.h5: no such shard or folder"),
        ("train-reblur empty -o x.pt", "empty: holds no train-*.h5"),
        ("train-reblur empty -o x.pt --crop 250", "--crop 250: must be a multiple of 16"),
        ("train-reblur empty -o x.png", "-o x.png: name a checkpoint"),
        ("train-reblur empty --features no.pth", "no.pth: no such file (from --features)"),
        ("contextual-sim no.png photo.png", "no.png: no such file"),
        ("contextual-sim photo.png b.png --features no.pth", "no.pth: no such file"),
        ("blind-deblur no.png", "no.png: no such file"),
        ("info no.png", "no.png: no such file"),
    )
    ends = without_torch([command for command, _ in refusals])
    for (command, words), (status, lines) in zip(refusals, ends, strict=True):
        assert status in (1, 2) and words in lines[0], (command, lines)
    assert files(tmp_path) == before


def test_nothing_is_loaded_if_all_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photo.deblurred.png"):
        write(Path(name), photo(0))
    ((status, lines),) = without_torch(["deblur photo.png --resume"])
    assert status == 0 and lines[-1].endswith(", 1 finished before")


def test_success_is_reported_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    image = write(tmp_path / "photo.png", np.asarray(photo(0)))
    ran = run("deblur", image, "-c", checkpoint)
    assert_done(ran)
    assert ran.lines[-1] == f"wrote {tmp_path}/photo.deblurred.png"
    ran = run("deblur", image, "-c", checkpoint, "-o", tmp_path / "x.h5")
    assert ran.lines[-1] == f"wrote {tmp_path}/x.h5"
    assert run("deblur", image, "-c", checkpoint, "--force", "-q").lines == []


@pytest.mark.slow
def test_parts_that_are_killed_and_resumed_make_the_files_of_one_run(
    checkpoint: Path, tmp_path: Path
) -> None:
    folder = plant(tmp_path / "in", 24, 128)
    options = ["-c", checkpoint, "-q"]
    assert_done(run("deblur", folder, "-o", f"{tmp_path}/whole/", *options))
    for number in range(1, 5):
        command = ["deblur", folder, "-o", f"{tmp_path}/parts/", *options]
        command += ["--part", f"{number}/4", "--resume"]
        process, before = start(*command), len(files(tmp_path / "parts"))
        latest = time.monotonic() + 60
        while len(files(tmp_path / "parts")) < before + 2:  # the options are a file, too
            assert process.poll() is None and time.monotonic() < latest
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert_done(run(*command))
    made = files(tmp_path / "parts")
    assert made.pop(".options.json") and made == files(tmp_path / "whole")
