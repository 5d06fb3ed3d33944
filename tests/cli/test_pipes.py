"""Commands piped into each other: the same results, bounded memory, quiet and honest ends."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import ENVIRONMENT, piped, records, shell, start
from tests.cli.invoke import done, timeless
from tests.cli.pictures import photo, write
from tests.io.scenes import assert_all_same

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_pipeline_prints_what_its_steps_do(checkpoint: Path, tree: Path) -> None:
    prepare, deblur = f"blurkit prepare {tree} -o -", f"blurkit deblur - -c {checkpoint} -o -"
    ran = piped(f"{prepare} | {deblur} | blurkit eval - --json")
    done("prepare", tree, "-o", "pairs/")
    done("deblur", "pairs", "-c", checkpoint, "-o", "restored.h5")
    assert ran.out == done("eval", "restored.h5", "--json").out
    assert len(ran.json) == 5
    assert ran.json[-1]["total"]["psnr"] != ran.json[-1]["total"]["psnr_blur"]


def test_blurs_exchanged_interpolated_and_removed_in_a_line(joint: Path, shard: Path) -> None:
    command = f"-c {joint} --precision fp32 -q"
    piped(
        f"blurkit reblur {shard} --shuffle {command} -o - | "
        f"blurkit interpolate - --steps 2 {command} -o - | blurkit deblur - {command} -o out.h5"
    )
    options = [*command.split(), "-o"]
    done("reblur", shard, "--shuffle", *options, "1.h5")
    done("interpolate", "1.h5", "--steps", 2, *options, "2.h5")
    done("deblur", "2.h5", *options, "3.h5")
    first, second = records("out.h5"), records("3.h5")
    assert [r.name for r in first] == [f"{r.name}/{n}" for r in records(shard) for n in range(2)]
    assert all("restored" in record.images for record in first)
    assert_all_same(timeless(first), timeless(second))


def test_shards_and_streams_are_one_another(shard: Path, tree: Path) -> None:
    """A stream saved to a file reads like a shard, concatenated shards like a stream."""
    command = ["eval", "--json", "-q"]
    whole, saved = done(*command, shard).out, Path("saved.h5")
    saved.write_bytes(done("prepare", shard, "-o", "-", "-q").out)
    assert_all_same(records(saved), records(shard))
    assert done(*command, saved).out == whole
    assert done(*command, "-", input=saved.read_bytes()).out == whole
    parts = Path("1.h5"), Path("2.h5")
    for path in parts:
        done("prepare", tree, "-o", path, "--part", f"{path.stem}/2", "-q")
    ran = done(*command, "-", input=b"".join(path.read_bytes() for path in parts))
    assert sorted(ran.out.splitlines()[:-1]) == sorted(whole.splitlines()[:-1])


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_reader_that_leaves_early_ends_the_writer_quietly(jobs: int) -> None:
    folder = many_photos(Path("photos"), 40)
    prepare = f"blurkit prepare {folder} -o - -q --jobs {jobs}"
    ran = shell(f"{prepare} | head -c 1000; echo ${{PIPESTATUS[0]}}")
    assert ran.err == ""
    assert ran.out.startswith(b"\x89HDF\r\n\x1a\n") and ran.out.endswith(b"141\n")


def test_json_lines_to_a_reader_that_leaves_early(shard: Path) -> None:
    Path("many.h5").write_bytes(50 * shard.read_bytes())
    ran = shell("blurkit eval many.h5 --json -q | head -n 1; echo ${PIPESTATUS[0]}")
    assert ran.err == "" and ran.out.endswith(b"}\n141\n")


def test_every_stage_says_that_the_first_failed(checkpoint: Path) -> None:
    ran = shell(
        f"(blurkit prepare missing/ -o - -q; echo $? > 1) | "
        f"(blurkit deblur - -c {checkpoint} -o - -q; echo $? > 2) | "
        "(blurkit eval - -q; echo $? > 3)"
    )
    assert [Path(stage).read_text() for stage in "123"] == ["1\n"] * 3
    assert "missing/: no such file or folder" in ran.err
    assert ran.err.count("error: stream: empty; the command before this one sent nothing") == 2
    assert ran.out == b""


def many_photos(folder: Path, count: int) -> Path:
    """One photo of 0.8 MB under many names."""
    first = write(folder / "0.bmp", photo(0, 512, 512))
    for number in range(1, count):
        (folder / f"{number}.bmp").hardlink_to(first)
    return folder


def peak_memory(command: list[object], source: int | None, target: int) -> int:
    """The largest resident size, KiB, of a command between two open files."""
    streams = {"stdin": source, "stdout": target, "stderr": subprocess.DEVNULL}
    process = start(*command, env=ENVIRONMENT, **streams)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_maxrss


def test_memory_does_not_grow_with_the_number_of_records() -> None:
    peaks, options = [], ["-o", "-", "-q"]
    for count in (20, 120):
        folder = many_photos(Path(str(count)), count)
        with Path(f"{count}.h5").open("wb") as stream:
            written = peak_memory(["prepare", folder, *options], None, stream.fileno())
        with Path(f"{count}.h5").open("rb") as stream:
            read = peak_memory(["prepare", "-", *options], stream.fileno(), subprocess.DEVNULL)
        peaks.append((written, read))
    few, many = peaks
    for before, after in zip(few, many, strict=True):
        assert after < before + 30_000  # 100 more records hold 79 MB
