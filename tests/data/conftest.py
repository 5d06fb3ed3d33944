"""What tests of inputs give on standard input, and what is reported to them."""

import io

import pytest

from tests.data.trees import Give, Reports


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch) -> Give:
    """give(data): the next bytes on standard input."""
    return lambda data: monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
