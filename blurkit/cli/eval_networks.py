"""Several networks that restore the same images: each in a process of its own, in turn."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from blurkit.cli.batch import Problems
from blurkit.cli.common import local_files, refuse_missing
from blurkit.cli.deblur import DeblurOptions, deblurring
from blurkit.errors import BlurkitError, UsageError, is_out_of_memory
from blurkit.io.records import Record
from blurkit.metrics.scores import Scores
from blurkit.model import Work
from blurkit.options import Method
from blurkit.systems.system import providers, shipped_file
from blurkit.tasks.addresses import is_address

NETWORK_COSTS = {
    "seconds": "time to restore an image, the networks in turn, each after an untimed first image",
    "memory": "MB, the most that the network's own process has had in memory, with Python and its "
    "libraries, or has reserved on a GPU",
}
"""The costs of networks, and how they are measured."""

Answer = Record | BlurkitError | None
"""None of a process that has loaded its network, then a restored record, or a problem."""


class NetworkRuns:
    """Networks that restore records, each loaded in a process of its own.

    `names` are those of the networks that are running. One that cannot be loaded, that fails on
    its first record while another does not, or whose process ends is reported to `problems` and
    left out.
    """

    def __init__(self, networks: Mapping[str, DeblurOptions], problems: Problems) -> None:
        self._problems = problems
        with ExitStack() as stack:
            self._running = {name: stack.enter_context(_Process()) for name in networks}
            for name, process in self._running.items():
                process.send(networks[name])
            for name, process in [*self._running.items()]:
                if isinstance(answer := process.receive(), BlurkitError):
                    self._leave_out(name, answer)
            self._stack = stack.pop_all()

    @property
    def names(self) -> list[str]:
        """The names of the networks that are running."""
        return [*self._running]

    def __enter__(self) -> NetworkRuns:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scenes(self, records: Iterable[Record]) -> Iterator[dict[str, Record]]:
        """Yield every record as each network restores it, by name.

        A record that a network fails on is reported and left out for all.
        """
        for record in records if self._running else ():
            scene = None
            with self._problems.guard(record.name):
                scene = self._restored(record)
            if scene:
                yield scene

    def _restored(self, record: Record) -> dict[str, Record]:
        """Return a record as each network restores it, empty if one fails.

        Raises BlurkitError if the record is not a pair.
        """
        record.image("sharp")
        blurry = Record(record.name, {"blur": record.image("blur")})
        restored: dict[str, Record] = {}
        failed: dict[str, BlurkitError] = {}
        for name, process in self._running.items():
            answer = process.ask(blurry)
            if isinstance(answer, Record):
                images, attrs = record.images | answer.images, record.attrs | answer.attrs
                restored[name] = Record(record.name, images, attrs)
            else:
                failed[name] = answer
        whole = True
        for name, problem in failed.items():
            process = self._running[name]
            if process.ended or (restored and not process.done):
                self._leave_out(name, problem)
            else:
                whole = False
                self._problems.add(record.name, BlurkitError(f"{record.name}: {name}: {problem}"))
        return restored if whole else {}

    def _leave_out(self, name: str, problem: BlurkitError) -> None:
        del self._running[name]
        self._problems.add(name, BlurkitError(f"left out: {problem}"))


def network_costs(record: Record) -> Scores:
    """Return what it took a network to restore a record, empty if that was not measured."""
    attrs = record.attrs
    return {key: attrs[f"network_{key}"] for key in NETWORK_COSTS if f"network_{key}" in attrs}


class _Process:
    """A process that runs `serve`, which ends with the block."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "blurkit.cli.eval_networks"]
        pipe = subprocess.PIPE
        self._process: Any = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, start_new_session=True
        )
        self.done = 0
        self.ended = False

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, question: DeblurOptions | Record) -> None:
        """Send the options of the network, or a record to restore."""
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
        except OSError:  # it has ended, which `receive` reports
            pass

    def receive(self) -> Answer:
        """Return the next answer."""
        try:
            answer: Answer = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self.ended = True
            status = self._process.wait()
            return BlurkitError(f"its process ended with status {status}; is memory too small?")
        return answer

    def ask(self, record: Record) -> Record | BlurkitError:
        """Return a record restored, or the problem."""
        self.send(record)
        answer = self.receive()
        assert answer is not None
        self.done += isinstance(answer, Record)
        return answer


# ---- The process of a network --------------------------------------------------------------------
# It reads pickles from standard input, the options of `deblur` and then records, and answers each
# on standard output: None once the network is loaded, then the restored record, or a BlurkitError.

STATUS = Path("/proc/self/status")
"""Where Linux states the most memory that a process has had."""


def serve() -> None:
    """Load the network and answer until standard input ends."""
    with os.fdopen(os.dup(1), "wb") as answers, suppress(EOFError):
        os.dup2(2, 1)  # what libraries print is no answer
        work: Work | None = None
        warm = False
        while True:
            question = pickle.load(sys.stdin.buffer)
            answer: Record | BlurkitError | None = None
            if work is None:
                try:
                    work, _ = deblurring(question)
                except BlurkitError as error:
                    answer = error
            else:
                warm = warm or isinstance(_restored(work, question), Record)
                answer = _restored(work, question)
            pickle.dump(answer, answers)
            answers.flush()


def _restored(work: Work, record: Record) -> Record | BlurkitError:
    """Return a record with the restored image and what it took, or the problem."""
    started = time.perf_counter()
    try:
        finished = work(record)
    except BlurkitError as error:
        return error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return BlurkitError("out of memory")
    seconds = time.perf_counter() - started
    costs = {"network_seconds": seconds, "network_memory": round(_peak_memory() / 1e6)}
    return Record(record.name, {"restored": finished.images["restored"]}, finished.attrs | costs)


def _peak_memory() -> float:
    """Return the most bytes that this process has reserved on a GPU, or else in main memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved())
    if STATUS.exists():
        return int(STATUS.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    import resource  # its value on Linux would include the process that started this one

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


if __name__ == "__main__":
    serve()


# ---- The networks that are compared --------------------------------------------------------------

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".onnx")
"""The suffixes by which files among the inputs are known to be networks, not images."""


def shipped_networks() -> dict[str, DeblurOptions]:
    """Return what comes with blurkit by name: the methods of `deblur`, and systems with weights."""
    methods = {method: DeblurOptions(method=method) for method in get_args(Method)}
    systems = [system.name for system in providers("deblurring").values() if system.weights]
    return methods | {name: DeblurOptions(checkpoint=str(shipped_file(name))) for name in systems}


def with_networks(
    inputs: Sequence[str], networks: Sequence[str], sha256: Sequence[str], quiet: bool
) -> tuple[list[str], tuple[str, ...]]:
    """Return the pairs among the inputs, and all networks as local files or known names.

    In `--networks a.pth b.onnx PAIRS`, all but the first network are among the inputs. Raises
    UsageError if there are no pairs or a network is named twice, and BlurkitError for a file that
    does not exist or cannot be fetched.
    """
    known = shipped_networks()
    more = [
        name
        for name in inputs
        if name in known or is_address(name) or Path(name).suffix.lower() in SUFFIXES
    ]
    names, pairs = [*networks, *more], [name for name in inputs if name not in more]
    if not pairs:
        raise UsageError("--networks NETWORK... PAIRS: name pairs of blurry and sharp images, too")
    if "-" in names or len({*names}) < len(names):
        raise UsageError("--networks: name each network once, as a file, an address or by its name")
    if len(pairs) < 3:  # of more inputs, the others are still read
        refuse_missing(pairs, "file or folder")
    files = tuple(name for name in names if name not in known)
    local = local_files({"networks": files}, sha256, quiet)["networks"]
    found = dict(zip(files, local, strict=True))
    return pairs, tuple(found.get(name, name) for name in names)


def restorations(networks: Sequence[str], device: str, max_pixels: int) -> dict[str, DeblurOptions]:
    """Return the options of `deblur` for every network, by the name of its file, or by its path."""
    known = shipped_networks()
    short = [name if name in known else Path(name).name for name in networks]
    names = short if len({*short}) == len(short) else networks
    chosen = (known.get(name) or DeblurOptions(checkpoint=name) for name in networks)
    return {
        name: replace(one, device=device, max_pixels=max_pixels, quiet=True)
        for name, one in zip(names, chosen, strict=True)
    }
