"""Batches: names, parts, what was finished before, and what is refused before torch is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
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
    folder, output = plant(tmp_path / "in", 4, 128), tmp_path / "out.h5"
    options = ["deblur", folder, "-c", checkpoint, "-q", "-o"]
    assert_done(run(*options, tmp_path / "whole.h5"))
    process = start(*options, output, "--resume")
    unfinished = tmp_path / ".out.h5.unfinished"
    latest = time.monotonic() + 60
    while not (unfinished.is_file() and unfinished.stat().st_size):
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

WITHOUT_TORCH = """
import sys
from blurkit.cli.app import main
sys.modules["torch"] = None
sys.argv = ["blurkit", *sys.argv[1:]]
main()
"""


def without_torch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`blurkit ARGUMENTS` in a Python that cannot import torch."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "command",
    [
        ["deblur", "{}"],
        ["deblur", "{}", "-o", "out/"],
        ["reblur", "{}", "--random"],
        ["transfer", "{}", "photo.png", "photo.png"],
        ["interpolate", "{}", "-o", "out/"],
    ],
)
def test_inputs_that_cannot_be_read_are_refused_without_torch(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("photo.png"), photo(0))
    Path("empty").mkdir()
    Path("notes.txt").write_text("no image")
    for name, words in (
        ("missing.jpg", "missing.jpg: no such file"),
        ("empty", "empty: holds no image"),
        ("notes.txt", "notes.txt: is not an image"),
    ):
        ran = without_torch(*(word.format(name) for word in command))
        assert ran.returncode == 1 and "Traceback" not in ran.stderr
        assert words in ran.stderr.splitlines()[0]
        assert f"1 failed, 0 {command[0].removesuffix('e')[:6]}" in ran.stderr.splitlines()[-1]


def test_outputs_that_cannot_be_written_are_refused_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photo.deblurred.png", "photo.reblurred.png", "out/photo.png"):
        write(Path(name), photo(0))
    write(Path("photo.transferred.png"), photo(0))
    before = files(tmp_path)
    for command, words in (
        (["deblur", "photo.png"], "photo.deblurred.png: exists already; give --force"),
        (["deblur", "photo.png", "-o", "out/"], "out/photo.png: exists already"),
        (["deblur", "photo.png", "-o", "out/photo.png"], "out/photo.png: exists already"),
        (["deblur", "photo.png", "-o", "photo.png/x.png"], "photo.png: cannot be written"),
        (["deblur", "photo.png", "-o", "x.xyz"], "-o x.xyz: name an image, a film, a folder"),
        (["deblur", "photo.png", "-o", "y.png", "-c", "no.pt"], "no.pt: no such checkpoint"),
        (["reblur", "photo.png", "--random"], "photo.reblurred.png: exists already"),
        (["transfer", *["photo.png"] * 3], "photo.transferred.png: exists already"),
    ):
        ran = without_torch(*command)
        assert ran.returncode in (1, 2) and "Traceback" not in ran.stderr
        assert words in ran.stderr.splitlines()[0], ran.stderr
    assert files(tmp_path) == before


def test_nothing_is_loaded_if_all_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "photo.deblurred.png"):
        write(Path(name), photo(0))
    ran = without_torch("deblur", "photo.png", "--resume")
    assert ran.returncode == 0
    assert ran.stderr.endswith(", 1 finished before\n")


def test_success_is_reported_in_one_line(checkpoint: Path, tmp_path: Path) -> None:
    image = write(tmp_path / "photo.png", np.asarray(photo(0)))
    ran = run("deblur", image, "-c", checkpoint)
    assert_done(ran)
    assert ran.lines[-1] == f"wrote {tmp_path}/photo.deblurred.png"
    ran = run("deblur", image, "-c", checkpoint, "-o", tmp_path / "x.h5")
    assert ran.lines[-1] == f"wrote {tmp_path}/x.h5"
    assert run("deblur", image, "-c", checkpoint, "--force", "-q").lines == []
