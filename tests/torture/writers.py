"""Several writers of one file at once, which all have one process number, and planted links."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.io.shards import read_shard, verify_shard
from blurkit.io.streams import ShardWriter
from tests.torture.campaign import Campaign, Case

PRECIOUS = "precious"


def forked(work: Callable[[], None]) -> int:
    """A process that ends with 0 if the work is done, and 1 if it raises a BlurkitError."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        # As in containers that share a folder, where every command is process 1.
        os.getpid = lambda: 1  # type: ignore[assignment]
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
            image = np.full((16, 16, 3), tag, np.uint8)
            writer.write(Record(f"{tag}/{number}", {"blur": image}))
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


CAMPAIGNS = [Campaign("writers of one file", 300, writers)]
