"""Single system calls fail, by strace: `just faults` (500 faults, about half an hour).

After each, nothing is half-written, nothing that was said is false, and the command, given again,
makes what an undisturbed run makes. Unlike the faults of Python's own operations, these reach the
libraries that read and write films, shards and tables, and reading as well.
"""

import atexit
import gc
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import skimage.data
import torch

from blurkit.io.shards import read_shard, verify_shard
from blurkit.systems.nafnet.networks import NAFNet
from tests.cli import warm
from tests.io.films import make_animation, make_pages, make_video, pictures
from tests.torture.campaign import Campaign, Case, end_with_parent
from tests.torture.commands import (
    RESUMABLE,
    Command,
    commands,
    contents,
    forced,
    record_digest,
    resumed,
)

LIMIT = 240.0
"""The seconds after which a case counts as hung: strace takes time, and the machine may be busy."""

CALLS = {
    "open": ("open,openat", ("EMFILE", "EIO", "EINTR", "ENOSPC")),
    "read": ("read,pread64,readv", ("EIO", "EINTR")),
    "write": ("write,pwrite64,writev", ("ENOSPC", "EIO", "EINTR")),
    "fsync": ("fsync,fdatasync", ("EIO", "ENOSPC", "EINTR")),
    "rename": ("rename,renameat,renameat2,link,linkat", ("EIO", "ENOSPC")),
    "close": ("close", ("EIO", "EINTR", "ENOSPC")),
    "stat": ("stat,fstat,lstat,newfstatat,statx", ("EIO", "ENOSPC")),
    "mkdir": ("mkdir,mkdirat", ("EIO", "ENOSPC")),
}
"""By kind: the system calls, and the errors with which they fail."""

OWN = re.compile(r"/(?:out|err)>")
"""The files to which the command's own messages go."""

REASONS = {
    "EMFILE": "Too many open files",
    "EIO": "Input/output error",
    "EINTR": "Interrupted system call",
    "ENOSPC": "No space left on device|disk is full",
}
"""What a message says of each error."""


class Ended(NamedTuple):
    """How a command ended, what it printed, and the calls that strace has seen or failed."""

    status: int
    out: str
    err: str
    calls: list[str]


def traced(arguments: list[object], scratch: Path, names: str, inject: str = "") -> Ended:
    """Run a command in a fork of this process under strace, which fails calls if told to."""
    log, out, err = (scratch / name for name in ("strace", "out", "err"))
    gc.collect()  # what FFmpeg's threads used cannot be freed in a fork, which has none of them
    child = os.fork()
    if not child:
        try:
            end_with_parent()
            atexit._clear()  # what this process does when it ends is not for the fork to do
            streams = [os.open(os.devnull, os.O_RDONLY)]
            streams += [os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC) for path in (out, err)]
            os.kill(os.getpid(), signal.SIGSTOP)
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            warm.command([*map(str, arguments)], str(scratch), environment, streams)
        finally:
            os._exit(99)
    os.waitpid(child, os.WUNTRACED)
    options = ["-e", f"inject={names}:{inject}"] if inject else []
    command = ["strace", "-f", "-y", "-o", log, "-e", f"trace={names}", *options, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None and b"attached" in tracer.stderr.readline()
    os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    tracer.wait()
    lines = log.read_text(errors="replace").splitlines()
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(), err.read_text(), lines)


def check(ended: Ended, error: str, heard: bool) -> None:
    """Assert that messages are lines, and that a failure has its reason, if it can be `heard`."""
    assert "Traceback" not in ended.err, ended.err
    assert all(line.isprintable() for line in ended.err.splitlines()), ended.err
    assert ended.status in (0, 1), f"status {ended.status}: {ended.err}"
    if ended.status and heard:
        assert re.search(REASONS[error], ended.err), f"reason not said: {ended.err}"


def made(folder: Path) -> dict[str, str]:
    """The results in a folder by name, hidden ones too, and the records in shards one by one.

    What is kept to go on later, such as options, is none.
    """
    found = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if path.suffix == ".h5":
            verify_shard(path)
            series = path.stem.rpartition("-")[0]  # numbers differ where a photo came later
            found |= {f"{series}/{r.name}": record_digest(r) for r in read_shard(path)}
        elif path.is_file() and not name.endswith((".options.json", *RESUMABLE)):
            found[name] = contents(path)
    return found


def differing(left: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """The names of results that are missing, too many or others."""
    return sorted(name for name in {*left, *wanted} if left.get(name) != wanted.get(name))


def fault_case(name: str, make: Callable[[Path], dict[str, Command]], folder: Path) -> Case:
    """Fail one random call of a command, by number within its kind, and give it again."""
    command = make(folder)[name]
    warm.import_package()

    @cache
    def undisturbed(kind: str) -> tuple[dict[str, str], str, list[int]]:
        output = folder / f"undisturbed {kind}"
        shutil.rmtree(output, ignore_errors=True)  # of a process that was taken for hung
        output.mkdir()
        ended = traced(command.first(output), folder, CALLS[kind][0])
        assert ended.status == 0, ended.err
        counts: Counter[str] = Counter()
        numbers = []
        for line in ended.calls:
            thread = line.split()[0]
            counts[thread] += "(" in line and "resumed>" not in line
            if f"{folder}/" in line and (kind == "write" or not OWN.search(line)):
                numbers.append(counts[thread])
        return made(output), ended.out.replace(str(output), ""), numbers

    def case(number: int, r: random.Random, scratch: Path) -> str:
        kind = r.choice([*CALLS])
        names, errors = CALLS[kind]
        wanted, out, numbers = undisturbed(kind)
        at, error = r.choice(numbers), r.choice(errors)
        output = scratch / "output"
        output.mkdir()
        ended = traced(command.first(output), scratch, names, f"error={error}:when={at}")
        failed = [line for line in ended.calls if "(INJECTED)" in line]
        what = f"{kind} {at} of {len(numbers)} {error}: {failed} {ended.status} {ended.err}"
        try:
            own = any(OWN.search(line) for line in failed)
            check(ended, error, not own and any(f"{folder}/" in line for line in failed))
            left = made(output)
            if ended.status == 0:
                assert left == wanted, f"{differing(left, wanted)} differ, and nothing is said"
                assert ended.out.replace(str(output), "") == out, "it prints something else"
            else:
                hidden = [name for name in left if "/." in f"/{name}"]
                assert not hidden or "unlink" in str(failed), f"{hidden} are left"
                wrong = [name for name in differing(left, wanted) if name in left]
                failures = ended.err.splitlines()[-1]
                said = all(Path(name).stem in failures for name in wrong)
                assert said or re.match(r"\d+ failed, \d+ evaluated: ", failures), (
                    f"{wrong} half-written"  # a report is of what could be read, and says so
                )
            again = traced(command.again(output), scratch, "mkdir")
            assert again.status == 0, f"again: {again.err}"
            now = made(output)
            assert now == wanted, f"given again, {differing(now, wanted)} differ"
        except AssertionError as wrong:
            raise AssertionError(f"{wrong}\n   {what}") from wrong
        return "held" if ended.status else "unaffected"

    return case


def film_commands(folder: Path) -> dict[str, Command]:
    """Commands on small pictures and films, with a tiny network."""
    network, films = folder / "small.pth", folder / "inputs"
    torch.save({"params": NAFNet(8, (1,), 1, (1,)).state_dict()}, network)
    for kind in ("videos", "animations", "pages", "mixed"):
        (films / kind).mkdir(parents=True)
    # Not H.264, of which x264 writes one film or another from the same frames, if they are small.
    make_video(films / "videos" / "first.mp4", pictures(4), "libvpx-vp9")
    make_video(films / "videos" / "second.mkv", pictures(4), "libvpx")
    for suffix in (".gif", ".apng", ".webp", ".avif"):
        make_animation(films / "animations" / f"of {suffix[1:]}{suffix}")
    make_pages(films / "pages" / "first.tif")
    make_pages(films / "pages" / "second.tif")
    photo = PIL.Image.fromarray(skimage.data.astronaut()[60:108, 200:264])
    for suffix in (".jpg", ".png", ".webp", ".tif", ".jp2", ".avif"):
        photo.save(films / "mixed" / f"of {suffix[1:]}{suffix}")
    quick = ("-c", network, "--tile", 64, "--device", "cpu")
    return {
        **{f"deblur, {kind.name}": resumed("", "deblur", kind, *quick) for kind in films.iterdir()},
        "deblur, compared": resumed("", "deblur", films / "mixed", *quick, "--compare"),
        "deblur, a resumed shard": resumed("x.h5", "deblur", films / "mixed", *quick),
    }


def other_commands(folder: Path) -> dict[str, Command]:
    """Commands that prepare, measure and train."""
    pair = folder / "training" / "shards" / "val-00000.h5"
    return commands(folder) | {"eval": forced("x.json", "eval", pair, "--image", "blur")}


FILMS = ("deblur, videos", "deblur, animations", "deblur, pages", "deblur, mixed")
FILMS += ("deblur, compared", "deblur, a resumed shard")
OTHERS = ("prepare, a shard", "prepare, a folder", "prepare, two processes", "eval")
OTHERS += ("train-deblur", "train-reblur")
CAMPAIGNS = [
    Campaign(f"system calls: {name}", 42, partial(fault_case, name, make), LIMIT)
    for names, make in ((FILMS, film_commands), (OTHERS, other_commands))
    for name in names
]
