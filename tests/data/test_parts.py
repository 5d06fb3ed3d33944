"""Parts of the work: every record in one part, and parts taken from a cluster's variables."""

from __future__ import annotations

import pytest

from blurkit.data.places import in_part, parse_part, part_of_job
from blurkit.errors import UsageError


def test_parse_part() -> None:
    assert parse_part("2/8") == (2, 8)
    for text in ("0/3", "4/3", "1", "a/b", "1/", "-1/2", "", "Auto"):
        with pytest.raises(UsageError, match="I/N"):
            parse_part(text)


def test_every_name_is_in_one_part_and_parts_are_even() -> None:
    names = [f"GOPR0384_11_00/{number:06d}" for number in range(800)] + ["a/é", "\udcff"]
    owners = [[part for part in range(1, 9) if in_part(name, (part, 8))] for name in names]
    assert all(len(owner) == 1 for owner in owners)
    sizes = [owners.count([part]) for part in range(1, 9)]
    assert min(sizes) > 70 and max(sizes) < 130
    # This must never change: machines with different versions share work, and runs are resumed.
    assert [in_part("photo", (part, 4)) for part in (1, 2, 3, 4)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ("SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=4", (4, 4)),
        (
            "SLURM_ARRAY_TASK_ID=30 SLURM_ARRAY_TASK_COUNT=4 SLURM_ARRAY_TASK_MIN=10 "
            "SLURM_ARRAY_TASK_STEP=10 SLURM_PROCID=0 SLURM_NTASKS=1",
            (3, 4),
        ),
        ("SLURM_PROCID=2 SLURM_NTASKS=16", (3, 16)),
        ("JOB_COMPLETION_INDEX=0 JOB_COMPLETIONS=5", (1, 5)),
        ("RANK=1 WORLD_SIZE=2 SLURM_PROCID=0 SLURM_NTASKS=1", (2, 2)),
    ],
)
def test_the_part_of_a_job(variables: str, part: tuple[int, int]) -> None:
    environment = dict(pair.split("=") for pair in variables.split())
    found, stated = part_of_job(environment)
    assert found == part
    assert variables.split()[0] in stated


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("", "none of RANK, JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID, SLURM_PROCID is set"),
        ("JOB_COMPLETION_INDEX=0", "but JOB_COMPLETIONS is not set"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2, WORLD_SIZE=2 is not one of evenly spaced parts"),
        ("RANK=x WORLD_SIZE=2", "RANK=x"),
        ("SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_COUNT=3 SLURM_ARRAY_TASK_MIN=1", "evenly spaced"),
    ],
)
def test_jobs_that_state_no_part(variables: str, words: str) -> None:
    environment = dict(pair.split("=") for pair in variables.split())
    with pytest.raises(UsageError, match=words):
        part_of_job(environment)
