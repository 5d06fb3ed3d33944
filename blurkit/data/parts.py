"""Parts of the work: which records one of several machines processes, decided by names alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from blurkit.errors import UsageError

WorkPart = tuple[int, int]
"""The number of a part, from 1, and the number of parts."""

WHOLE: WorkPart = (1, 1)
"""All of the work."""


def in_part(name: str, part: WorkPart) -> bool:
    """Return whether the record `name` belongs to `part`.

    This depends on nothing but the name, so machines agree even if they list different files.
    """
    number, parts = part
    digest = hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % parts == number - 1


def shard_prefix(part: WorkPart) -> str:
    """Return what the names of a part's shards begin with after their split, `p2of8-`."""
    return "" if part == WHOLE else f"p{part[0]}of{part[1]}-"


def parse_part(text: str) -> WorkPart:
    """Return `2/8` as (2, 8), the second of eight parts. Raises UsageError for anything else."""
    first, slash, parts = text.partition("/")
    if not (slash and first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise UsageError(
            f"--part {text}: write I/N with I from 1 to N, such as 2/8, or auto in a cluster's job"
        )
    return int(first), int(parts)


def part_of_job(environment: Mapping[str, str]) -> tuple[WorkPart, str]:
    """Return the part of this process in a cluster's job, and the variables that state it.

    Raises UsageError if no cluster's variables are set, or if they make no sense.
    """
    for names, read in SCHEDULERS:
        if names[0] not in environment:
            continue
        stated = ", ".join(f"{n}={environment[n]}" for n in names if n in environment)
        try:
            index, parts = read(environment)
        except KeyError as missing:
            raise UsageError(f"--part auto: {stated}, but {missing.args[0]} is not set") from None
        except (ValueError, ZeroDivisionError):
            index, parts = -1, 0
        if not 0 <= index < parts:
            raise UsageError(f"--part auto: {stated} is not one of evenly spaced parts")
        return (index + 1, parts), stated
    known = ", ".join(names[0] for names, _ in SCHEDULERS)
    raise UsageError(f"--part auto: none of {known} is set; write I/N, such as 2/8")


def _array(environment: Mapping[str, str]) -> tuple[int, int]:
    """Return the index of a task in an array of SLURM, whose ids may start and step anywhere."""
    first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
    step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    index, rest = divmod(int(environment["SLURM_ARRAY_TASK_ID"]) - first, step)
    return -1 if rest else index, int(environment["SLURM_ARRAY_TASK_COUNT"])


def _numbered(index: str, parts: str) -> Callable[[Mapping[str, str]], tuple[int, int]]:
    return lambda environment: (int(environment[index]), int(environment[parts]))


TORCHRUN = ("RANK", "WORLD_SIZE")
KUBERNETES = ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS")
SLURM_ARRAY = (
    *("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    *("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
)
SLURM_TASKS = ("SLURM_PROCID", "SLURM_NTASKS")

SCHEDULERS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, str]], tuple[int, int]]], ...] = (
    (TORCHRUN, _numbered(*TORCHRUN)),
    (KUBERNETES, _numbered(*KUBERNETES)),
    (SLURM_ARRAY, _array),
    (SLURM_TASKS, _numbered(*SLURM_TASKS)),
)
"""The variables of each scheduler and how they state a part, the most specific scheduler first."""
