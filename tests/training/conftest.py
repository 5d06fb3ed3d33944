"""Training in the test's own process runs on one thread."""

import pytest


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Threads that wait for each other on a busy machine take longer than one."""
