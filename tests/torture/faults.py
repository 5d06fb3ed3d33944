"""Every operation on files fails once, one after another, as in SQLite's tests; kills;
and several writers of one file.

After each, what is in the output's folder is whole, and the command, given again, ends with what an
undisturbed run has made.
"""

import ctypes
import errno
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.io.shards import read_shard, verify_shard
from blurkit.io.streams import ShardWriter
from tests.cli import warm
from tests.cli.command import Ran
from tests.cli.invoke import done, invoke
from tests.io.faults import Faulty, failing
from tests.torture.campaign import END, Campaign, Case
from tests.torture.commands import Command, check_left, commands, found

ERRORS = (errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EMFILE)
MOST = 400
"""The operations after which a run must have ended."""


def undisturbed(command: Command, folder: Path) -> dict[str, str]:
    """What a command makes that nothing disturbs."""
    folder.mkdir()
    done(*command.first(folder))
    return found(folder)


def check_error(ran: Ran) -> None:
    """Assert that a command failed and said so in lines that are clear."""
    assert ran.status == 1, f"status {ran.status}"
    assert any(line.startswith("error: ") for line in ran.lines), ran.err
    assert all(line.isprintable() for line in ran.lines), ran.err


def one_fault(command: Command, wanted: dict[str, str], at: int, folder: Path) -> str:
    """Let the `at`-th operation of a command fail, from 1, and give the command again."""
    with failing(at, ERRORS[at % len(ERRORS)]) as faults:
        ran = invoke(*command.first(folder))
    if not faults.reached:
        assert ran.status == 0 and found(folder) == wanted, "it differs without a fault"
        return END
    check_error(ran)
    check_left(folder, wanted, hidden=False)
    return given_again(command, wanted, folder)


def given_again(command: Command, wanted: dict[str, str], folder: Path) -> str:
    """The outcome where a command that has failed now ends as an undisturbed one."""
    done(*command.again(folder))
    assert found(folder) == wanted, "given again, it makes something else"
    return "held"


def every_fault(command: Command, folder: Path, step: int) -> int:
    """Let every `step`-th operation of a command fail once; return how many failed."""
    folder.mkdir(exist_ok=True)
    wanted = undisturbed(command, folder / "undisturbed")
    for count, at in enumerate(range(1, MOST, step)):
        (folder / str(at)).mkdir()
        if one_fault(command, wanted, at, folder / str(at)) == END:
            return count
    raise AssertionError(f"more than {MOST} operations")


def fault_case(name: str, folder: Path) -> Case:
    """Fail the operation with the case's number."""
    command = commands(folder)[name]
    wanted = undisturbed(command, folder / "undisturbed")
    return lambda number, r, scratch: one_fault(command, wanted, number + 1, scratch)


def stream_case(folder: Path) -> Case:
    """Fail the writes of a stream; what was sent is whole records, and the reader says so."""
    photos = commands(folder)["prepare, a shard"].first(folder)[1]
    names = [record.name for record in read_records([str(photos)])]

    def case(number: int, r: random.Random, scratch: Path) -> str:
        path = scratch / "sent.h5"
        with (
            failing(number + 1) as faults,
            Faulty(faults, path, "w") as stream,
            mock.patch("blurkit.io.image_sinks.standard_output", lambda: stream),
        ):
            ran = invoke("prepare", photos, "-o", "-", "--jobs", 1, "-q")
        errors: list[Exception] = []
        sent = list(read_records([str(path)], on_error=lambda _, error: errors.append(error)))
        if not faults.reached:
            assert (ran.status, len(sent), errors) == (0, len(names), [])
            return END
        check_error(ran)
        assert [record.name for record in sent] == names[: len(sent)]
        return "held"

    return case


# ---- memory --------------------------------------------------------------------------------------

STEP = 512 * 1024
"""The bytes of memory that each run has more than the one before."""

LEAST = 1024 * 1024
"""The bytes that the first run has, in which a command's options can be read."""


def map_large_blocks() -> None:
    """Take blocks of 64 KiB and more from the system, where they are not left for later runs."""
    ctypes.CDLL(None).mallopt(-3, 64 * 1024)  # M_MMAP_THRESHOLD


def take_what_is_free() -> list[bytes]:
    """Blocks that fill the memory left over within the process, under a limit on its size."""
    blocks: list[bytes] = []
    for size in (32 * 1024, 4 * 1024):
        with suppress(MemoryError):
            while True:
                blocks.append(bytes(size))
    return blocks


def memory_case(name: str, folder: Path) -> Case:
    """Give a command so little memory that some allocation fails, a later one in each case."""
    command = commands(folder, side=400)[name]
    wanted = undisturbed(command, folder / "undisturbed")

    def case(number: int, r: random.Random, scratch: Path) -> str:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken, before[1]))
        try:
            blocks = take_what_is_free()
            resource.setrlimit(resource.RLIMIT_AS, (taken + LEAST + number * STEP, before[1]))
            ran = invoke(*command.first(scratch))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
        blocks.clear()
        if ran.status == 0:
            assert found(scratch) == wanted, "it differs with less memory"
            return END
        check_error(ran)
        found(scratch)  # whole, but records that did not fit are missing
        return given_again(command, wanted, scratch)

    return case


# ---- kills ---------------------------------------------------------------------------------------


def start(arguments: list[object], folder: Path) -> int:
    """A command in a process group of its own, whose errors go to a file; its process."""
    child = os.fork()
    if child:
        os.setpgid(child, child)
        return child
    try:
        os.setpgid(0, 0)
        streams = [os.open(os.devnull, os.O_RDWR) for _ in range(2)]
        streams.append(os.open(folder / "errors", os.O_CREAT | os.O_WRONLY | os.O_TRUNC))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        warm.command([*map(str, arguments)], str(folder), environment, streams)
    finally:
        os._exit(99)


def kill_case(folder: Path) -> Case:
    """Kill commands at a moment anywhere in their run, once or twice, and give them again."""
    every = commands(folder, count=12, side=96)

    @cache
    def whole(name: str) -> tuple[dict[str, str], float]:
        target = folder / name
        target.mkdir()
        began = time.monotonic()
        _, status = os.waitpid(start(every[name].first(target), folder), 0)
        assert status == 0, (folder / "errors").read_text()
        return found(target), time.monotonic() - began

    def case(number: int, r: random.Random, scratch: Path) -> str:
        name = [*every][number % len(every)]
        wanted, seconds = whole(name)
        output, kills = scratch / "output", r.choice((1, 2))
        output.mkdir()
        arguments = every[name].first(output)
        for _ in range(kills):
            process = start(arguments, scratch)
            time.sleep(seconds * r.uniform(0.02, 1.0))
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            check_left(output, wanted, hidden=True)
            arguments = every[name].again(output)
        _, status = os.waitpid(start(arguments, scratch), 0)
        assert status == 0, (scratch / "errors").read_text()
        assert found(output) == wanted, f"{name}: given again, it makes something else"
        return f"held after {kills}"

    return case


# ---- writers of one file ----------------------------------------------------------------------

PRECIOUS = "precious"


def forked(work: Callable[[], None]) -> int:
    """A process that ends with 0 if the work is done, and 1 if it raises a BlurkitError."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        # As in containers that share a folder, where every command is process 1.
        os.getpid = lambda: 1
        work()
        status = 0
    except BlurkitError as error:
        status = 1 if str(error).isprintable() else 98
    finally:
        os._exit(status)


def write(path: Path, tag: int, force: bool, wait: float) -> None:
    """Write a shard whose pixels are all `tag`, slowly."""
    time.sleep(wait)
    with ShardWriter(path, force) as writer:
        for number in range(3):
            writer.write(Record(f"{tag}/{number}", {"blur": np.full((16, 16, 3), tag, np.uint8)}))
            time.sleep(wait)


def writers(folder: Path) -> Case:
    """Write one output at once, some with --force, beside links to a file that is not to change."""

    def case(number: int, r: random.Random, scratch: Path) -> str:
        path, victim = scratch / "x.h5", scratch / "victim"
        victim.write_text(PRECIOUS)
        names = (".x.h5.lock", ".x.h5.1.partial", ".x.h5.partial", "x.h5")
        planted = [scratch / name for name in names if r.random() < 0.15]
        for link in planted:
            link.symlink_to(victim)
        forces = [r.random() < 0.5 for _ in range(r.choice((2, 3, 5)))]
        children = {
            forked(lambda tag=tag, force=force: write(path, tag, force, r.uniform(0, 0.02))): tag
            for tag, force in enumerate(forces, 1)
        }
        ended = {tag: os.waitpid(child, 0)[1] for child, tag in children.items()}
        won = [tag for tag, status in ended.items() if status == 0]
        lost = [os.waitstatus_to_exitcode(status) for status in ended.values() if status]
        assert set(lost) <= {1}, f"writers ended with {lost}"
        assert victim.read_text() == PRECIOUS, "a link was followed"
        assert len([tag for tag in won if not forces[tag - 1]]) <= 1, "one output was lost"
        left = {child.name for child in scratch.iterdir()} - {"victim", "x.h5"}
        assert left <= {link.name for link in planted}, f"{left} are left"
        if not won:
            assert planted, "nobody has written"
            return "all refused"
        verify_shard(path)
        tags = {int(record.images["blur"][0, 0, 0]) for record in read_shard(path)}
        assert len(tags) == 1 and tags <= {*won}, f"of {tags} that {won} wrote"
        return f"{len(won)} wrote"

    return case


FAULTS = ("prepare, a shard", "prepare, a folder", "deblur, a shard", "deblur, a folder")
FAULTS += ("reblur, films",)
TRAININGS = ("train-deblur", "train-reblur")
CAMPAIGNS = [
    *(Campaign(f"faults: {name}", MOST, partial(fault_case, name), 60) for name in FAULTS),
    Campaign("faults: prepare, a stream", MOST, stream_case, 60),
    *(Campaign(f"faults: {name}", MOST, partial(fault_case, name), 60) for name in TRAININGS),
    *(Campaign(f"memory: {name}", MOST, partial(memory_case, name), 60) for name in FAULTS),
    Campaign("kills", 110, kill_case, 120),
    Campaign("writers of one file", 300, writers),
]
