"""All campaigns against what blurkit reads and writes: `just torture` (about half an hour).

    python -m tests.torture [NAMES ...]   those whose names begin so, alone
    --seed N      of the cases; the same seed gives the same cases
    --scale X     so many times as many cases
    --case N      of one campaign: this case alone, to look at a failure
    --write       put the table in docs/reliability.md

It ends with status 1 if any case failed.
"""

import argparse
import multiprocessing
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from tests.benchmarks import pages
from tests.torture import damage, faults, hostile, system_calls
from tests.torture.campaign import FAILURES, Campaign, Result, end_with_parent, run

CAMPAIGNS = [c for module in (damage, hostile, faults, system_calls) for c in module.CAMPAIGNS]
SUBJECT = re.compile(r"(.+?)(?:, (truncated|corrupted)|: (.+))?$")
"""The name of a campaign: its subject, and what is done to it, or with it."""


def main() -> None:
    parser = pages.options(__doc__, seed=1, scale=1.0)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--case", type=int, action="append", default=[])
    given = parser.parse_args()
    torch.set_num_threads(1)
    faults.map_large_blocks()
    results = []
    for campaign in CAMPAIGNS:
        if given.names and not campaign.name.startswith(tuple(given.names)):
            continue
        count = max(1, round(campaign.count * given.scale))
        results.append(in_a_fresh_process(campaign._replace(count=count), given))
        failures = (f"    {failure}" for failure in results[-1].failures[:20])
        sys.stdout.write("\n".join([row(results[-1]), *failures, ""]))
        sys.stdout.flush()
    failed = sum(len(result.failures) for result in results)
    sys.stdout.write(f"{sum(r.outcomes.total() for r in results)} cases, {failed} failed\n")
    if given.write:
        write(results, given.seed)
    sys.exit(1 if failed else 0)


def in_a_fresh_process(campaign: Campaign, given: argparse.Namespace) -> Result:
    """The result of a campaign whose process has no memory left over from another one."""
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fork, initializer=end_with_parent) as one:
        return one.submit(run, campaign, given.seed, given.case).result()


def row(result: Result) -> str:
    """A campaign as a row of the table, failures first."""
    ordered = sorted(result.outcomes.items(), key=lambda item: (item[0] not in FAILURES, -item[1]))
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in ordered)
    each = 1000 * result.seconds / max(1, result.outcomes.total())
    return f"| {result.name} | {outcomes} | {len(result.failures)} | {each:.0f} ms |"


def grouped(rows: Iterable[str]) -> list[str]:
    """Return the rows of campaigns with those of one subject, such as image.png, in one row."""
    subjects: dict[str, list[tuple[str, str, int]]] = {}
    for line in rows:
        name, outcomes, failed, _ = line.strip("| ").split(" | ")
        subject, *parts = SUBJECT.findall(name)[0]
        subjects.setdefault(subject, []).append(("".join(parts), outcomes, int(failed)))
    return [
        f"| {subject} | {'; '.join(f'{p}: {o}' if p else o for p, o, _ in parts)} "
        f"| {sum(failed for *_, failed in parts)} |"
        for subject, parts in subjects.items()
    ]


def write(results: Sequence[Result], seed: int) -> None:
    minutes = sum(result.seconds for result in results) / 60
    told = (
        f"{sum(r.outcomes.total() for r in results)} cases of seed {seed} in {minutes:.0f} minutes "
        f"({platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__.partition('+')[0]})."
    )
    head = ["| campaigns | what became of the cases | failed |", "|---|---|---:|"]
    table = "\n".join([told, "", *head, *grouped(map(row, results))])
    pages.fill("torture", table, pages.DOCS / "reliability.md")


if __name__ == "__main__":
    main()
