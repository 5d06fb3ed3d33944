"""Whatever is wrong is told in a clear line, the rest goes on, and no file is harmed."""

import errno
import os
import pickle
import pty
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch
from pytest import MonkeyPatch

from blurkit.io.paths import refuse_missing
from blurkit.systems.msdi.networks import MultiscaleDiscriminator
from tests.cli.command import assert_failed, assert_refused, files, records, shell, start
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import photo, plant_pair, plant_tree, write
from tests.io.scenes import seal
from tests.io.test_checkpoints import Malicious


def test_shards_that_are_none(shard: Path) -> None:
    whole = shard.read_bytes()
    damaged = whole[:3000] + bytes(4000) + whole[7000:]
    with h5py.File("foreign.h5", "w") as file:
        file["data"] = np.arange(10)
    broken = {
        "empty.h5": (b"", "is empty (0 bytes)"),
        "text.h5": (b"no shard" * 20, "is not a shard (no HDF5 signature)"),
        "short.h5": (whole[:20], "HDF5 header truncated or unknown"),
        "zeros.h5": (bytes(5000), "is not a shard"),
        "foreign.h5": (Path("foreign.h5").read_bytes(), "an HDF5 file, but not a blurkit shard"),
        "cut.h5": (whole[:5000], "0 records are whole"),
        "tail.h5": (whole[:-40_000], "truncated, 40000 bytes are missing; 2 records are whole"),
        "damaged.h5": (damaged, "has changed since it was written"),
    }
    for name, (content, _) in broken.items():
        Path(name).write_bytes(content)
    before = files()
    ran = invoke("eval", *broken, shard, "--json", "-q")
    for name, (_, reason) in broken.items():
        assert any(line.startswith(f"error: {name}: ") and reason in line for line in ran.lines)
    assert ran.status == 1
    assert " failed, 9 evaluated: empty.h5, " in ran.lines[-1]
    assert ran.json[-1]["total"]["images"] == 9
    assert files() == before


def test_names_in_a_shard_cannot_leave_the_output_folder(checkpoint: Path, joint: Path) -> None:
    names = ["../escaped", "/tmp/escaped-absolute", "a/../../escaped", "C:\\escaped", "fine/0"]
    with h5py.File("names.h5", "w", libver="v110") as file:
        for number, name in enumerate(names):
            group = file.create_group(f"{number:08d}")
            group.attrs["name"] = name
            group["blur"], group["sharp"] = photo(number + 1), photo(number)
        seal(file)
    guided, sheets = ("-c", joint, "-q", "-o"), ("--steps", 2, "--sheet", "in/sheets/")
    for command, last in (
        (("deblur", "-c", checkpoint, "-q", "-o", "in/deblurred/"), "4 failed, 1 deblurred"),
        (("reblur", *guided, "in/reblurred/"), "4 failed, 1 reblurred"),
        (("transfer", "names.h5", *guided, "in/moved/"), "23 failed, 2 transferred"),
        (("interpolate", *guided, "in/frames/", *sheets), " failed, "),
        (("interpolate", *guided, "in/frames.h5", *sheets, "--force"), "in/sheets/"),
        (("eval", "-q", "--pictures", "in/pictures"), "../escaped"),
    ):
        ran = invoke(*command, "names.h5")
        assert ran.status == 1 and last in ran.lines[-1], ran.err
        assert "is not a plain relative path" in ran.err
    assert sorted(files()) == [
        "in/deblurred/fine/0.png",
        "in/frames.h5",
        "in/frames/fine/0/0.png",
        "in/frames/fine/0/1.png",
        "in/moved/fine/0/fine/0.png",
        "in/moved/fine/0/tmp/escaped-absolute.png",
        "in/pictures/fine/0.png",
        "in/reblurred/fine/0.png",
        "in/sheets/fine/0.png",
        "names.h5",
    ]
    assert not Path("/tmp/escaped-absolute.png").exists()


def test_bad_photos_among_good_ones(checkpoint: Path) -> None:
    folder = Path("photos")
    good = write(folder / "good.png", photo(0))
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(good.read_bytes()[:2000])
    values = photo(1).astype(np.float32) / 255
    values[3, 4] = np.nan
    tifffile.imwrite(folder / "nan.tif", values, photometric="rgb")
    before = files(folder)
    ran = invoke("deblur", folder, "-c", checkpoint, "-o", "out/", "-q")
    for name, reason in {
        "text.png": "is not an image",
        "empty.png": "",
        "cut.png": "damaged or truncated",
        "nan.tif": "3 values are NaN or infinite",
    }.items():
        lines = [line for line in ran.lines if str(folder / name) in line]
        assert len(lines) == 1 and reason in lines[0], ran.err
    assert ran.status == 1
    assert ran.lines[-1].startswith("4 failed, 1 deblurred: ")
    assert list(files("out")) == ["good.png"]
    assert files(folder) == before
    ran = invoke("prepare", folder, "-o", "shards/", "-q", "--jobs", 2, "--json")
    assert ran.lines[-1].startswith("4 failed, 1 prepared: ")
    assert len(ran.json[0]["left_out"]) == 4


def test_one_bad_pair_of_a_dataset() -> None:
    tree = plant_tree("tree", 4)
    write(tree / "test/scene1/blur/0.png", photo(2, 48, 60))
    ran = invoke("prepare", tree, "-o", "pairs.h5", "-q")
    assert_failed(ran, "scene1/0", "scene1/0: blur is 60x48, sharp is 64x48")
    assert ran.lines[-1] == "1 failed, 3 prepared: scene1/0"
    assert [r.name for r in records("pairs.h5")] == ["scene0/0", "scene0/1", "scene1/1"]


def test_checkpoints_that_are_none(tree: Path) -> None:
    marker = Path("code-was-run")
    Path("garbage.pt").write_bytes(os.urandom(500))
    Path("code.pt").write_bytes(pickle.dumps(Malicious(marker)))
    torch.save(Malicious(marker), Path("zip-code.pt"))
    torch.save(MultiscaleDiscriminator(4).state_dict(), Path("discriminator.pt"))
    torch.save({"a.weight": torch.zeros(3)}, Path("unknown.pt"))
    for name, words in {
        "missing.pt": ["missing.pt: no such checkpoint"],
        "garbage.pt": ["garbage.pt: ", "not a checkpoint"],
        "code.pt": ["code.pt: refused, its pickle would run code"],
        "zip-code.pt": ["zip-code.pt: refused, its pickle would run code"],
        "discriminator.pt": ["discriminator.pt: holds discriminator", "deblurring needs"],
        "unknown.pt": ["unknown.pt: no known network", "a.weight"],
    }.items():
        assert_refused(invoke("deblur", tree, "-c", name, "-o", "out/", "-q"), *words)
    assert not marker.exists()
    assert not Path("out").exists()


def test_wrong_usage() -> None:
    assert_refused(invoke("eval", "-", "-", "-q"), "name '-' once", status=2)
    for command in (["eval", ".", "--no-such-option"], ["no-such-command"]):
        assert invoke(*command).status == 2


def test_binary_output_is_kept_from_a_terminal(tree: Path, checkpoint: Path, joint: Path) -> None:
    for command in (["prepare"], ["deblur", "-c", checkpoint], ["reblur", "-c", joint]):
        ours, theirs = pty.openpty()
        process = start(*command, tree, "-o", "-", "-q", stdout=theirs)
        _, err = process.communicate(timeout=60)
        os.close(theirs)
        os.close(ours)
        told = "error: '-o -' sends binary data; pipe it into a command or a file"
        assert (process.returncode, err.decode().splitlines()) == (2, [told])


def test_a_full_disk(small_disk: Path) -> None:
    for number in range(3):
        plant_pair("tree/test", f"scene/{number}", number, height=400, width=400)
    before = write(small_disk / "mine.png", photo(0)).read_bytes()
    for output in ("shards/", "one.h5"):
        ran = invoke("prepare", "tree", "-o", f"{small_disk}/{output}", "-q")
        assert_refused(ran, str(small_disk / output), "the disk is full; free some space")
        assert list(files(small_disk)) == ["mine.png"]
    assert (small_disk / "mine.png").read_bytes() == before


def test_output_that_cannot_be_written(shard: Path) -> None:
    ran = shell(f"blurkit prepare {shard} -o - -q > /dev/full")
    assert ran.status == 1 and "No space left on device" in ran.err
    Path("file").write_text("mine")
    cases = {
        ("file/shards/",): "file: cannot be written (is a file, not a folder)",
        ("/proc/pairs.h5",): "/proc/pairs.h5: cannot be written (No such file or directory)",
    }
    assert_each_refused(cases, "prepare", shard, "-q", "-o", status=1)
    assert Path("file").read_text() == "mine"
    done("prepare", shard, "-q", "-o", "new/deep/shards/")


def test_helper_files_that_are_missing(tree: Path) -> None:
    """Lists, kernels and response curves: told once, however many images there are."""
    command = ("prepare", tree, "-o", "x.h5")
    cases = {
        ("--synthesize", "shake", "--kernels", "none.mat"): "none.mat: no such file",
        ("--average", "2", "--response", "none.txt"): "none.txt: no such response file",
    }
    assert_each_refused(cases, *command, status=1)
    assert_failed(invoke(*command, "--list", "none.txt"), tree.name, "none.txt: no such list file")
    assert files() == {}


def test_what_cannot_be_looked_at_is_not_said_to_be_missing(monkeypatch: MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(os, "lstat", fail)
    refuse_missing(["net.pt"])  # opening it tells the reason
