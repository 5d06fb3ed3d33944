"""Whatever is wrong is told in a clear line, the rest goes on, and no file is harmed."""

from __future__ import annotations

import os
import pickle
import pty
import struct
import subprocess
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from tests.cli.command import (
    ENVIRONMENT,
    assert_done,
    assert_failed,
    assert_refused,
    files,
    photo,
    plant_pair,
    plant_tree,
    records,
    run,
    shell,
    write,
)
from tests.cli.invoke import invoke
from tests.io.scenes import seal

# ---- shards and streams --------------------------------------------------------------------------


def foreign(path: Path) -> bytes:
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(10)
    return path.read_bytes()


def test_shards_that_are_none(shard: Path, tmp_path: Path) -> None:
    whole = shard.read_bytes()
    broken = {
        "empty.h5": (b"", "is empty (0 bytes)"),
        "text.h5": (b"no shard" * 20, "is not a shard (no HDF5 signature)"),
        "short.h5": (whole[:20], "HDF5 header truncated or unknown"),
        "zeros.h5": (bytes(5000), "is not a shard"),
        "foreign.h5": (foreign(tmp_path / "f.h5"), "an HDF5 file, but not a blurkit shard"),
        "cut.h5": (whole[:5000], "0 records are whole"),
        "tail.h5": (whole[:-40_000], "truncated, 40000 bytes are missing; 2 records are whole"),
        "damaged.h5": (
            whole[:3000] + bytes(4000) + whole[7000:],
            "has changed since it was written",
        ),
    }
    (tmp_path / "f.h5").unlink()
    for name, (content, _) in broken.items():
        (tmp_path / name).write_bytes(content)
    before = files(tmp_path)
    ran = invoke("eval", *broken, shard, "--json", "-q", cwd=tmp_path)
    for name, (_, reason) in broken.items():
        if reason:
            assert any(line.startswith(f"error: {name}: ") and reason in line for line in ran.lines)
    assert ran.status == 1
    assert " failed, 9 evaluated: empty.h5, " in ran.lines[-1]
    assert ran.json[-1]["total"]["images"] == 9
    assert files(tmp_path) == before


def test_a_stream_cut_in_a_record(shard: Path, tmp_path: Path) -> None:
    stream = run("prepare", shard, "-o", "-", "-q").out
    ran = run("prepare", "-", "-o", tmp_path / "kept.h5", "-q", input=stream[:-5000])
    assert_failed(ran, "stream, shard 4", "truncated, 5000 bytes are missing")
    assert [r.name for r in records(tmp_path / "kept.h5")] == [r.name for r in records(shard)][:3]
    ran = run("eval", "-", "-q", "--json", input=stream + b"more bytes that are no shard")
    assert_failed(ran, "stream, shard 5", "is not a shard")
    assert len(ran.json) == 5


def test_names_in_a_shard_cannot_leave_the_output_folder(checkpoint: Path, tmp_path: Path) -> None:
    names = ["../escaped", "/tmp/escaped-absolute", "a/../../escaped", "C:\\escaped", "fine/0"]
    with h5py.File(tmp_path / "names.h5", "w", libver="v110") as file:
        for number, name in enumerate(names):
            group = file.create_group(f"{number:08d}")
            group.attrs["name"] = name
            group["blur"], group["sharp"] = photo(number), photo(number)
        seal(file)
    folder = tmp_path / "inner/out"
    ran = invoke("deblur", "names.h5", "-c", checkpoint, "-o", f"{folder}/", "-q", cwd=tmp_path)
    assert_failed(ran, "../escaped", "record name '../escaped' is not a plain relative path")
    assert ran.lines[-1].startswith("4 failed, 1 deblurred")
    ran = invoke("eval", "names.h5", "--pictures", "inner/pictures", "-q", cwd=tmp_path)
    assert_failed(ran, "../escaped", "is not a plain relative path")
    assert sorted(files(tmp_path)) == [
        "inner/out/fine/0.png",
        "inner/pictures/fine/0.png",
        "names.h5",
    ]
    assert not Path("/tmp/escaped-absolute.png").exists()


# ---- images --------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises an image and holds none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@pytest.fixture
def bad_photos(tmp_path: Path) -> Path:
    """A folder of one good photo and seven that are not."""
    folder = tmp_path / "photos"
    write(folder / "good.png", photo(0))
    (folder / "text.png").write_text("no image")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:2000])
    (folder / "huge.png").write_bytes(png_header(20000, 20000))
    values = photo(1).astype(np.float32) / 255
    tifffile.imwrite(folder / "scale.tif", values * 255, photometric="rgb")
    values[3, 4] = np.nan
    tifffile.imwrite(folder / "nan.tif", values, photometric="rgb")
    tifffile.imwrite(folder / "short.tif", photo(1), photometric="rgb")
    (folder / "short.tif").write_bytes((folder / "short.tif").read_bytes()[:5000])
    return folder


def test_bad_photos_among_good_ones(bad_photos: Path, checkpoint: Path, tmp_path: Path) -> None:
    before = files(bad_photos)
    ran = invoke("deblur", bad_photos, "-c", checkpoint, "-o", f"{tmp_path}/out/", "-q")
    for name, reason in {
        "text.png": "is not an image",
        "empty.png": "",
        "cut.png": "damaged or truncated",
        "huge.png": "which a file of 45 bytes cannot hold",
        "scale.tif": "float images are in [0, 1]",
        "nan.tif": "3 values are NaN or infinite",
        "short.tif": "damaged or truncated",
    }.items():
        lines = [line for line in ran.lines if str(bad_photos / name) in line]
        assert len(lines) == 1, ran.err
        assert reason in lines[0]
    assert ran.status == 1
    assert ran.lines[-1].startswith("7 failed, 1 deblurred: ")
    assert list(files(tmp_path / "out")) == ["good.png"]
    assert files(bad_photos) == before
    ran = invoke("prepare", bad_photos, "-o", f"{tmp_path}/shards/", "-q", "--jobs", 2, "--json")
    assert ran.lines[-1].startswith("7 failed, 1 prepared: ")
    assert len(ran.json[0]["left_out"]) == 7


def test_one_bad_pair_of_a_dataset(tmp_path: Path) -> None:
    tree = plant_tree(tmp_path / "tree", 4)
    write(tree / "test/scene1/blur/0.png", photo(2, 48, 60))
    ran = invoke("prepare", tree, "-o", tmp_path / "pairs.h5", "-q")
    assert_failed(ran, "scene1/0", "scene1/0: blur is 60x48, sharp is 64x48")
    assert ran.lines[-1] == "1 failed, 3 prepared: scene1/0"
    assert [r.name for r in records(tmp_path / "pairs.h5")] == ["scene0/0", "scene0/1", "scene1/1"]


# ---- checkpoints ---------------------------------------------------------------------------------


def test_checkpoints_that_are_none(tree: Path, tmp_path: Path) -> None:
    import torch

    from blurkit.systems.msdi.networks import MultiscaleDiscriminator

    marker = tmp_path / "code-was-run"
    (tmp_path / "garbage.pt").write_bytes(os.urandom(500))
    (tmp_path / "code.pt").write_bytes(pickle.dumps(RunsCode(str(marker))))
    torch.save(RunsCode(str(marker)), tmp_path / "zip-code.pt")
    torch.save(MultiscaleDiscriminator(4).state_dict(), tmp_path / "discriminator.pt")
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "unknown.pt")
    for name, words in {
        "missing.pt": ["missing.pt: no such checkpoint"],
        "garbage.pt": ["garbage.pt: ", "not a checkpoint"],
        "code.pt": ["code.pt: refused, its pickle would run code"],
        "zip-code.pt": ["zip-code.pt: refused, its pickle would run code"],
        "discriminator.pt": ["discriminator.pt: holds discriminator", "deblurring needs"],
        "unknown.pt": ["unknown.pt: no known network", "a.weight"],
    }.items():
        ran = invoke("deblur", tree, "-c", name, "-o", "out/", "-q", cwd=tmp_path)
        assert_refused(ran, *words)
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


class RunsCode:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker: str) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self._marker}",)


# ---- inputs, outputs and options -----------------------------------------------------------------


def test_inputs_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for command in (["prepare", "-o", "out/"], ["eval"]):
        ran = invoke(*command, "empty", "-q", cwd=tmp_path)
        assert_failed(ran, "empty", "empty: holds no image and no shard")
        ran = invoke(*command, "missing.png", "-q", cwd=tmp_path)
        assert_failed(ran, "missing.png", "missing.png: no such file or folder")
    assert files(tmp_path) == {}
    assert not (tmp_path / "out").exists()


def test_wrong_usage_is_told_before_anything_is_done(tree: Path, tmp_path: Path) -> None:
    for options, words in {
        ("--part", "nonsense"): "--part nonsense: write I/N",
        ("--part", "0/3"): "--part 0/3: write I/N",
        ("--stride", "4"): "--stride requires --average or --crop",
        ("--copies", "2"): "--copies requires --synthesize or --transfer-from",
        ("--average", "-3"): "averaging takes at least 1 frame",
        ("--synthesize", "shake", "--kernel-size", "9", "3"): "the smaller first",
        ("-o", "-", "--json"): "both write to standard output",
        ("-o", "out.xyz"): "-o out.xyz: name ",
        ("-o", ""): "-o : name ",
        ("--response", "curve.txt"): "--response requires --average",
        ("-o", "pairs.h5", "--resume"): "--resume requires a folder",
    }.items():
        output = [] if "-o" in options else ["-o", "out/"]
        ran = invoke("prepare", tree, *output, *options, "-q", cwd=tmp_path)
        assert_refused(ran, words, status=2)
    ran = run("eval", "-", "-", "-q")
    assert_refused(ran, "name '-' once", status=2)
    for command in (["prepare"], ["eval", tree, "--no-such-option"], ["no-such-command"]):
        assert invoke(*command).status == 2
    assert files(tmp_path) == {}


def test_binary_output_is_kept_from_a_terminal(tree: Path, checkpoint: Path, joint: Path) -> None:
    for command in (
        ["prepare", tree],
        ["deblur", tree, "-c", checkpoint],
        ["reblur", tree, "-c", joint],
    ):
        ours, theirs = pty.openpty()
        done = subprocess.run(
            ["blurkit", *map(str, command), "-o", "-", "-q"],
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
        )
        os.close(theirs)
        os.close(ours)
        assert done.returncode == 2
        assert done.stderr.decode().splitlines() == [
            "error: '-o -' sends binary data; pipe it into a command or a file"
        ]


def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    for number in range(3):
        plant_pair(tmp_path / "tree/test", f"scene/{number}", number, height=400, width=400)
    before = write(small_disk / "mine.png", photo(0)).read_bytes()
    for output in ("shards/", "one.h5"):
        ran = invoke("prepare", tmp_path / "tree", "-o", f"{small_disk}/{output}", "-q")
        assert_refused(ran, str(small_disk / output), "the disk is full; free some space")
        assert list(files(small_disk)) == ["mine.png"]
    assert (small_disk / "mine.png").read_bytes() == before


def test_a_full_disk_behind_a_pipe(shard: Path, tmp_path: Path) -> None:
    ran = shell(f"blurkit prepare {shard} -o - -q > /dev/full", tmp_path)
    assert ran.status == 1
    assert "No space left on device" in ran.err


def test_output_that_cannot_be_written(shard: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ran = invoke("prepare", shard, "-o", "file/shards/", "-q", cwd=tmp_path)
    assert ran.status == 1
    assert "cannot be written (Not a directory)" in ran.err
    assert (tmp_path / "file").read_text() == "mine"
    ran = invoke("prepare", shard, "-o", "/proc/pairs.h5", "-q")
    assert_refused(ran, "/proc/pairs.h5: cannot be written (No such file or directory)")
    assert_done(invoke("prepare", shard, "-o", "new/deep/shards/", "-q", cwd=tmp_path))


def test_helper_files_that_are_missing(tree: Path, tmp_path: Path) -> None:
    """Lists, kernels and response curves: told once, however many images there are."""
    kernels = ["--synthesize", "shake", "--kernels", "none.mat"]
    for options, words in (
        (kernels, "none.mat: no such file"),
        (["--average", "2", "--response", "none.txt"], "none.txt: no such response file"),
    ):
        assert_refused(invoke("prepare", tree, "-o", "x.h5", *options, cwd=tmp_path), words)
    ran = invoke("prepare", tree, "-o", "x.h5", "--list", "none.txt", cwd=tmp_path)
    assert_failed(ran, tree.name, "none.txt: no such list file")
    assert files(tmp_path) == {}
