"""Runs of blind searches: in groups, as large as memory allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from blurkit.errors import BlurkitError, is_out_of_memory
from blurkit.systems.kernel_space.blind import Job
from blurkit.systems.kernel_space.search import Search
from blurkit.systems.kernel_space.search_steps import advance


def run(
    jobs: Sequence[Job],
    batch: int = 1,
    watch: Callable[[Sequence[Search]], bool | None] = lambda group: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Job]:
    """Run all jobs, up to `batch` searches of one size together, and yield each finished job.

    `watch` is called with the group after each of its steps; the run ends if it returns True. If
    memory runs out, the run continues with smaller groups. `warn` is called with a message when
    that happens, or when a search cannot start from its estimate. Raises BlurkitError if memory
    runs out for a single search.
    """
    yielded: set[int] = set()
    while True:
        for job in jobs:
            if job.finished and id(job) not in yielded:
                yielded.add(id(job))
                _warn_if_high(job, warn)
                yield job
        waiting = [s for job in jobs for s in job.searches if not s.finished]
        if not waiting:
            return
        group = [s for s in waiting if s.photo.shape == waiting[0].photo.shape][:batch]
        try:
            for search in group:
                search.begin(warn)
            while group:
                advance(group)
                if watch(group):
                    return
                group = [search for search in group if not search.finished]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(group) == 1:
                raise BlurkitError("out of memory; try a smaller --tile") from error
        else:
            continue
        batch = len(group) // 2
        warn(f"out of memory; continuing with {batch} searches at a time")


def _warn_if_high(job: Job, warn: Callable[[str], None]) -> None:
    """Call `warn` if the worst search of a job ended before it reproduced the photo."""
    enough = min(search.context.options.enough for search in job.searches)
    reproduced = min(search.found.reproduced for search in job.searches)
    if reproduced < enough and not any(search.diverged for search in job.searches):
        warn(
            f"{job.record.name}: the search ended high: its image and blur reproduce the photo "
            f"with only {reproduced:.1f} dB (--enough {enough:g}); it needs more --iterations, or "
            "the blur is not one that --operator can make"
        )
