"""Campaigns: numbered cases in forked processes, each drawn from a seed, counted by what happened.

What must never happen is an outcome of its own: a case that raises anything, crashes, or takes
longer than its limit.
"""

import ctypes
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

LIMIT = 20.0
"""The seconds after which a case counts as hung."""

FAILURES = ("wrong", "silent", "foreign", "unclear", "broken", "traceback", "crash", "hang")
"""The outcomes that no case may have.

wrong      a record or a weight that is not what was written, beside an error
silent     the same without an error, or a record that is missing without a word
foreign    bytes of another file in a result
unclear    a message of several lines, or with characters that are not printable
broken     another promise: the case says which
traceback  anything raised that is not a BlurkitError
crash      the process was killed by a signal
hang       it took longer than its limit
"""

END = "end"
"""What a case returns that has no more cases after it; it is not counted."""

Case = Callable[[int, random.Random, Path], str]
"""Takes its number, from 0, what it draws from and an empty folder; returns the outcome, and `: `
with more."""


class Campaign(NamedTuple):
    """`prepare` makes the case in a folder for all cases, before any of them is run.

    There are `count` cases, or as many as it takes until one returns `END`.
    """

    name: str
    count: int
    prepare: Callable[[Path], Case]
    limit: float = LIMIT


@dataclass
class Result:
    """What became of the cases of a campaign: how many of each outcome, and which failed."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0

    def add(self, number: int, answer: str) -> None:
        """Count the outcome of a case."""
        outcome, _, more = answer.partition(": ")
        self.outcomes[outcome] += 1
        if outcome in FAILURES:
            self.failures.append(f"{self.name}, case {number}: {outcome}: {more}")


def run(campaign: Campaign, seed: int, only: Sequence[int] = ()) -> Result:
    """Run the cases of a campaign, or `only` those with these numbers."""
    result = Result(campaign.name)
    left = list(only) or list(range(campaign.count))
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp())  # forked processes would remove a TemporaryDirectory
    try:
        case = campaign.prepare(folder)
        while left:
            left = _forked(campaign, case, seed, left, folder, result)
    finally:
        shutil.rmtree(folder)
    if not result.outcomes:
        result.failures.append(f"{campaign.name}: nothing was disturbed in its only run")
    result.seconds = time.monotonic() - began
    return result


def _forked(
    campaign: Campaign, case: Case, seed: int, numbers: list[int], folder: Path, result: Result
) -> list[int]:
    """Run cases in one process as long as it lives; return those that are left."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (case, f"{seed} {campaign.name}", numbers, folder, theirs)
    process = context.Process(target=_run_cases, args=arguments)
    process.start()
    theirs.close()
    left: list[int] = []
    for done, number in enumerate(numbers, 1):
        try:
            answer = ours.recv() if ours.poll(campaign.limit) else f"hang: {campaign.limit:.0f} s"
        except EOFError:
            process.join()
            answer = f"crash: status {process.exitcode}"
        if answer == END:
            break
        result.add(number, answer)
        if answer.startswith(("hang", "crash")):
            left = numbers[done:]
            break
    process.kill()
    process.join()
    return left


def _run_cases(
    case: Case, seed: str, numbers: Sequence[int], folder: Path, answers: Connection
) -> None:
    end_with_parent()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    scratch = folder / "case"
    for number in numbers:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            answer = case(number, random.Random(f"{seed} {number}"), scratch)
        except AssertionError as error:
            answer = f"broken: {str(error) or _place(error)}"
        except BaseException as error:
            answer = f"traceback: {type(error).__name__}: {str(error)[:200]} at {_place(error)}"
        answers.send(answer)


def end_with_parent() -> None:
    """Have Linux kill this process when its parent ends, which may be killed itself."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
