"""`reblur`, `transfer` and `interpolate` with what is wrong: one clear line, and no file harmed."""

from __future__ import annotations

import gc
import os
import signal
import time
from pathlib import Path

import h5py
import imageio.v3 as imageio
import pytest

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.streams import ShardWriter
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    files,
    photo,
    plant_pair,
    records,
    start,
    write,
)
from tests.cli.guides import official
from tests.cli.invoke import invoke
from tests.engine.networks import steered
from tests.io.scenes import seal


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Four sharp photos."""
    return [write(tmp_path / f"photos/{n}.png", photo(n)) for n in range(4)]


# ---- references and records ----------------------------------------------------------------------


def test_references_that_are_none(
    joint: Path, photos: list[Path], tmp_path: Path, shard: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.h5").write_bytes(shard.read_bytes()[:-40_000])
    for name, words in {
        "missing.png": "missing.png: no such file or folder",
        "empty": "empty: holds no image and no shard",
        "text.png": "text.png: is not an image",
        "notes.txt": "is not an image, film or shard",
        "cut.h5": "truncated, 40000 bytes are missing",
    }.items():
        for output in (f"{tmp_path}/out/", tmp_path / "out.h5"):
            before = files(tmp_path)
            ran = invoke("reblur", photos[0].parent, "--like", tmp_path / name, "-c", joint, "-q",
                         "-o", output)  # fmt: skip
            assert_refused(ran, words)
            assert files(tmp_path) == before and not (tmp_path / "out").exists()


def test_records_that_lack_an_image(joint: Path, photos: list[Path], tmp_path: Path) -> None:
    ran = invoke("reblur", photos[0], "-c", joint, "-q")
    assert_refused(ran, "0.png: holds no pair of a sharp and a blurry image; name what to")
    assert_done(invoke("prepare", photos[0].parent, "-o", tmp_path / "blur.h5", "-q"))
    ran = invoke("reblur", tmp_path / "blur.h5", "-c", joint, "-q", "-o", f"{tmp_path}/out/")
    assert_failed(ran, "3", "record '0' holds blur; sharp or restored is needed")
    assert ran.lines[-1].startswith("4 failed, 0 reblurred")
    assert not (tmp_path / "out").exists()


def test_one_record_that_lacks_an_image(joint: Path, shard: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.h5"
    whole = records(shard)
    del whole[1].images["blur"], whole[2].images["sharp"]
    with ShardWriter(mixed) as writer:
        for record in whole:
            writer.write(record)
    for command, kept in {
        ("reblur",): ["scene0/0", "scene1/1"],
        ("interpolate", "--steps", 1): ["scene0/0/0", "scene1/1/0"],
    }.items():
        output = tmp_path / f"{command[0]}.h5"
        ran = invoke(*command, mixed, "-c", joint, "-q", "-o", output)
        assert_failed(ran, "scene0/1", "record 'scene0/1' holds sharp; blur is needed")
        assert_failed(ran, "scene1/0", "record 'scene1/0' holds blur; sharp", "is needed")
        assert ran.lines[-1].startswith("2 failed, 2 ")
        assert [r.name for r in records(output)] == kept
    # In an exchange one fails for want of its own sharp image, one for want of another's blur.
    output = tmp_path / "swapped.h5"
    ran = invoke("reblur", mixed, "--shuffle", "-c", joint, "-q", "-o", output)
    assert_failed(ran, "scene1/0", "record 'scene0/1' holds sharp; blur is needed")
    assert_failed(ran, "scene1/0", "record 'scene1/0' holds blur; sharp or restored is needed")
    assert {*files(tmp_path)} == {f"{n}.h5" for n in ("mixed", "reblur", "interpolate", "swapped")}


def test_an_exchange_that_cannot_be(joint: Path, tree: Path, tmp_path: Path) -> None:
    pair = tree / "test/scene0"
    one = tmp_path / "one"
    for role in ("blur", "sharp"):
        write(one / f"test/s/{role}/0.png", imageio.imread(pair / role / "0.png"))
    for output in (f"{tmp_path}/out/", tmp_path / "out.h5", "-"):
        ran = invoke("reblur", one, "--shuffle", "-c", joint, "-q", "-o", output)
        assert_refused(ran, "--shuffle needs two records at least", "found 1")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob("*.h5"))


def test_names_in_a_shard_cannot_leave_the_folder_of_frames(joint: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "names.h5", "w", libver="v110") as file:
        for number, name in enumerate(("../escaped", "fine")):
            group = file.create_group(f"{number:08d}")
            group.attrs["name"] = name
            group["blur"], group["sharp"] = photo(number + 1), photo(number)
        seal(file)
    common = ("-c", joint, "-q", "-o", f"{tmp_path}/in/out/")
    ran = invoke("reblur", tmp_path / "names.h5", *common)
    assert_failed(ran, "../escaped", "record name '../escaped' is not a plain relative path")
    ran = invoke("transfer", tmp_path / "names.h5", tmp_path / "names.h5", *common)
    assert ran.status == 1 and ran.lines[-1].startswith("3 failed, 1 transferred: ../escaped/")
    sheets = ("--steps", 2, "--sheet", f"{tmp_path}/in/sheets/")
    ran = invoke("interpolate", tmp_path / "names.h5", *common, *sheets)
    assert ran.status == 1 and "is not a plain relative path" in ran.err
    ran = invoke("interpolate", tmp_path / "names.h5", "-c", joint, "-q", *sheets, "--force",
                 "-o", tmp_path / "in/frames.h5")  # fmt: skip
    assert_failed(ran, "sheets/", "record name '../escaped' is not a plain relative path")
    assert sorted(files(tmp_path)) == [
        "in/frames.h5",
        "in/out/fine.png",
        "in/out/fine/0.png",
        "in/out/fine/1.png",
        "in/out/fine/fine.png",
        "in/sheets/fine.png",
        "names.h5",
    ]


# ---- checkpoints and options ---------------------------------------------------------------------


def test_checkpoints_that_do_not_reblur(
    joint: Path, checkpoint: Path, shard: Path, tmp_path: Path
) -> None:
    roles = steered().roles()
    for lacking, held in {
        "reblur": "holds encoder (DegradationEncoder), latents (PriorUpsampling), "
        "deblur (JointGenerator); reblurring needs an encoder, latents and a reblurring generator",
        "encoder": "holds latents (PriorUpsampling), reblur (JointGenerator), deblur",
    }.items():
        states = {k: dict(n.state_dict()) for k, n in roles.items() if k != lacking}
        save_checkpoint(Checkpoint(states, "msdi", {}), tmp_path / f"no-{lacking}.pt")
        ran = invoke("reblur", shard, "-c", tmp_path / f"no-{lacking}.pt", "-o",
                     tmp_path / "out.h5", "-q")  # fmt: skip
        assert_refused(ran, f"no-{lacking}.pt: {held}", "as train-reblur writes them")
    ran = invoke("reblur", shard, "-c", checkpoint, "-o", tmp_path / "out.h5", "-q")
    assert_refused(ran, "holds deblur (MSDINet); reblurring needs")
    ran = invoke("reblur", shard, "-c", joint, "--encoder", checkpoint, "-o", "out/", "-q")
    assert_refused(ran, "tiny.pt: holds deblur (MSDINet), but no encoder or latents")
    small = official(tmp_path / "small.pth", steered(width=4).net_prior)
    ran = invoke("reblur", shard, "-c", joint, "--encoder", small, "-o", "out/", "-q")
    assert_refused(ran, "these networks do not fit together: DegradationEncoder width 4")
    assert sorted(files(tmp_path)) == ["no-encoder.pt", "no-reblur.pt", "small.pth"]


@pytest.mark.parametrize("command", ["reblur", "transfer", "interpolate"])
def test_a_bad_checkpoint_leaves_no_output(command: str, shard: Path, tmp_path: Path) -> None:
    given = [shard, shard] if command == "transfer" else [shard]
    (tmp_path / "garbage.pt").write_bytes(os.urandom(500))
    wrong = {"missing.pt": "no such checkpoint", "garbage.pt": "not a checkpoint"}
    for name, words in wrong.items():
        for output in ("out.h5", "out/", "-"):
            target = output if output == "-" else f"{tmp_path}/{output}"
            ran = invoke(command, *given, "-c", tmp_path / name, "-o", target, "-q")
            assert_refused(ran, words)
            gc.collect()  # as at the end of a process
            assert [*files(tmp_path)] == ["garbage.pt"]


def test_wrong_usage(joint: Path, shard: Path, tmp_path: Path) -> None:
    for options, words in {
        ("--json", "-o", "-"): "both write to standard output",
        ("-", "--like", "-"): "standard input can be read only once",
        ("--like", "-", "-c", "-"): "standard input can be read only once",
        ("--tile", "50"): "multiple of 16, at least 32",
        ("--tile", "wide"): "give a number of pixels, or auto",
        ("-o", f"{tmp_path}/out.gif"): "is a film, but",
    }.items():
        given = ["-c", joint] if "-c" not in options else []
        ran = invoke("reblur", shard, *given, "-q", *options)
        assert_refused(ran, words, status=2)
    ran = invoke("reblur", shard, "-c", joint, "-o", tmp_path / "one.png", "-q")
    assert ran.status == 2 and "is one image, but there are more" in ran.err
    assert [*files(tmp_path)] == ["one.png"]
    assert invoke("reblur", shard, "-c", joint, "--seed", -1).status == 2


# ---- ends ----------------------------------------------------------------------------------------


def test_a_full_disk(joint: Path, small_disk: Path, tmp_path: Path) -> None:
    """Four swapped pairs of 380 KiB each."""
    for number in range(4):
        for role in ("blur", "sharp"):
            write(tmp_path / f"in/test/s/{role}/{number}.bmp", photo(number, 180, 360))
    for output in ("shards/", "one.h5"):
        ran = invoke("reblur", tmp_path / "in", "--shuffle", "-c", joint, "-q", "--tile", 192,
                     "-o", f"{small_disk}/{output}")  # fmt: skip
        assert_refused(ran, "the disk is full; free some space")
        assert files(small_disk) == {}


def test_a_command_that_is_ended_leaves_nothing_half_written(joint: Path, tmp_path: Path) -> None:
    for number in range(6):
        plant_pair(tmp_path / "tree/test", f"s/{number}", number, height=480, width=480)
    output = tmp_path / "out"
    output.mkdir()
    process = start("reblur", tmp_path / "tree", "-c", joint, "-o", output / "out.h5",
                    "--tile", 240)  # fmt: skip
    latest = time.monotonic() + 60
    while not any(path.stat().st_size > 2 * 480 * 480 * 3 for path in output.iterdir()):
        assert process.poll() is None and time.monotonic() < latest
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.splitlines()[-1]) == (143, b"terminated")
    assert b"Traceback" not in err and list(output.iterdir()) == []
