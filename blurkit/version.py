"""The version of blurkit, which the build also reads, and those of the formats that it writes.

A file of another version of its format is refused with a line that says so (docs/formats.md).
"""

__version__ = "0.1.0"

SHARD_VERSION = 2
CHECKPOINT_VERSION = 2
STATE_VERSION = 2
"""Of the state of a training; version 1 did not state it."""

FORMAT_VERSIONS = (
    f"shards {SHARD_VERSION}, checkpoints {CHECKPOINT_VERSION}, states {STATE_VERSION}"
)

NEWEST_TORCH = (2, 13)
"""The newest version of torch that the tests have passed with; newer ones bring a warning."""
