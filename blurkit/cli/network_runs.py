"""Several networks that restore the same images: each in a process of its own, in turn."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from blurkit.cli.batch import Problems
from blurkit.cli.deblur import DeblurOptions
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.metrics.scores import Scores

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
            if self._running[name].useless and (restored or self._running[name].ended):
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
    """A process of `network_process`, which ends with the block."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "blurkit.cli.network_process"]
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

    @property
    def useless(self) -> bool:
        """Whether it has not restored any record, or never will again."""
        return self.ended or not self.done

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
