"""A GPU is used by one thread at a time: Apple's aborts if several do."""

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from blurkit.systems.deconvolution import photo


class Counting:
    """A device that counts its callers."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, window: int) -> int:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self._lock:
            self.now -= 1
        return window


@pytest.mark.parametrize(("device", "most"), [("cpu", 2), ("mps", 1), ("cuda", 1)])
def test_windows_use_a_gpu_one_after_the_other(
    device: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    work = Counting()
    told: list[object] = []
    owner = SimpleNamespace(undo=SimpleNamespace(device=torch.device(device)))

    def watch(*words: object) -> None:
        told.append(words)

    done = photo.Deconvolution.each(owner, work, range(6), stage="stage", watch=watch)
    assert done == [*range(6)]
    assert work.most == most and told[-1] == ("stage", 6, 6)
