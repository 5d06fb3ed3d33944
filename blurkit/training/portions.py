"""The crops of a step that are computed at once, and values that the losses need of all crops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass
class Portion:
    """The slice `part` of a step's `size` crops, which a process computes at once.

    If a process computes its crops in several portions, one after another, these have one list
    `rehearsed` in common: what `gathered` returns, call by call. A rehearsal without gradients
    fills it.
    """

    size: int
    part: slice
    rehearsed: list[Tensor] | None = None
    rehearsing: bool = False
    _calls: int = 0

    @property
    def share(self) -> float:
        """The fraction of the step's crops that are in this portion."""
        return (self.part.stop - self.part.start) / self.size

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let `gathered` complete the values of this portion meanwhile."""
        global _current
        before, _current = _current, self
        self._calls = 0
        try:
            yield
        finally:
            _current = before

    def values_of_all(self, own: Tensor) -> Tensor:
        """Return the values (size, ...) of all crops, given those of this portion (n, ...)."""
        call, self._calls = self._calls, self._calls + 1
        if self.rehearsed is not None and not self.rehearsing:
            return self.rehearsed[call]
        whole = own.new_zeros(self.size, *own.shape[1:])
        whole[self.part] = own
        if self.rehearsed is None:
            if dist.is_initialized():
                dist.all_reduce(whole)
        elif call < len(self.rehearsed):
            self.rehearsed[call] += whole
        else:
            self.rehearsed.append(whole)
        return whole


_current: Portion | None = None


def gathered(values: Tensor) -> Tensor:
    """Return the values (n, ...) of the crops at hand for all crops of the step, (N, ...).

    Losses that compare crops with each other need them. The gradient flows only to the values at
    hand. It is multiplied by N / n, because the gradients of such a loss add up over all portions
    of a step, but the loop averages them. The values of one call must not depend on another's.
    """
    portion = _current
    if portion is None or portion.share == 1:
        return values
    own = values.detach()
    whole, part = portion.values_of_all(own), portion.part
    own = own + (values - own) / portion.share
    return torch.cat([whole[: part.start], own, whole[part.stop :]])
