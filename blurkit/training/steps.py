"""One training step of any recipe: crops in parts, mixed precision, all processes, clipping."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blurkit.engine.torch_runner import autocast, channels_last
from blurkit.errors import UsageError
from blurkit.nn.blocks import Buffers, recompute_blocks
from blurkit.training.distributed import Processes, synchronise_batch_norm
from blurkit.training.recipe import Batch, Losses, Recipe, parameters_of


@dataclass
class Microbatch:
    """The crops that a process computes at once, the slice `part` of a step's `size` ones.

    If a process computes its crops in several portions, one after another, these have one list
    `rehearsed` in common: what `gather_values` returns, call by call. A rehearsal without gradients
    fills it.
    """

    crops: Batch
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
        """Let `gather_values` complete the values of this portion meanwhile."""
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


_current: Microbatch | None = None


def gather_values(values: Tensor) -> Tensor:
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


class OptimizerLoss(nn.Module):
    """`Recipe.loss` of one optimiser, as a module with its parameters, as torch's engine needs."""

    def __init__(self, recipe: Recipe, optimizer: str) -> None:
        super().__init__()
        self._loss, self._name = recipe.loss, optimizer
        self.parameters_ = nn.ParameterList(parameters_of(recipe.optimizers[optimizer]))

    def forward(self, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the loss of a batch and its terms."""
        total, terms = self._loss(self._name, batch)
        return total, {name: value.detach() for name, value in terms.items()}


@dataclass
class Steps:
    """Runs the steps of a recipe, on the crops that this process has of each batch.

    The networks move to the device of `processes`; with `recompute`, the backward pass computes the
    activations of their blocks again. `dtype` is that of mixed precision. The crops are divided
    into `accumulate` parts, which are computed one after another, so that only the activations of
    one part are in memory. Gradients are added up over the parts and the processes: the update is
    that of the whole batch. Only batch normalisation differs, whose statistics are those of a part.

    Raises UsageError if a process has fewer crops than parts.
    """

    recipe: Recipe
    processes: Processes
    dtype: torch.dtype = torch.float32
    accumulate: int = 1
    recompute: bool = False

    def __post_init__(self) -> None:
        recipe, batch = self.recipe, self.recipe.configuration.batch
        self.share = self.processes.share(batch)
        if batch // self.processes.count < self.accumulate:
            raise UsageError(
                f"--accumulate {self.accumulate}: a process has only "
                f"{batch // self.processes.count} crops of the batch"
            )
        modules = [*recipe.networks.values(), *recipe.helpers]
        for module in modules:
            channels_last(module.to(self.processes.device))
            recompute_blocks(module, self.recompute)
            if self.processes.count > 1:
                synchronise_batch_norm(module)
        half = self.dtype == torch.float16
        self.scalers = {
            name: torch.amp.GradScaler(self.processes.device.type, enabled=half)
            for name in recipe.optimizers
        }
        self._objectives = {
            name: self.processes.reducing(OptimizerLoss(recipe, name)) for name in recipe.optimizers
        }
        self._compares: dict[str, bool] = {}
        self._buffers = Buffers(modules)

    def run(self, step: int, batch: Batch) -> Losses:
        """Update every optimiser on the crops of this process; return the losses.

        They are so weighted that their mean over the processes is that over the whole batch.
        """
        losses: Losses = {}
        parts = list(self._parts(batch))
        for name in self.recipe.optimizers:
            with self.recipe.training_only(name):
                losses |= self._update(name, step, parts)
        return losses

    def close(self) -> None:
        """Leave the group of processes, after everything that holds on to it.

        A reducer that is freed later would free the group while it holds Python's lock; the group
        waits for its threads then, and these may wait for the lock.
        """
        self._objectives.clear()
        self.processes.close()

    def _parts(self, batch: Batch) -> Iterator[Microbatch]:
        size, first, count = self.recipe.configuration.batch, self.share.start, self.accumulate
        own = self.share.stop - first
        for number in range(count):
            a, b = own * number // count, own * (number + 1) // count
            crops = {name: images[a:b] for name, images in batch.items()}
            yield Microbatch(crops, size, slice(first + a, first + b))

    def _update(self, name: str, step: int, parts: Sequence[Microbatch]) -> Losses:
        """Update one optimiser by the gradients of all parts and processes; return its losses."""
        optimizer, scaler = self.recipe.optimizers[name], self.scalers[name]
        optimizer.zero_grad(set_to_none=True)
        losses: Losses = {}
        objective = self._objectives[name]
        self._rehearse(name, step, parts)
        for part in self._from_same_buffers(parts):
            weight = part.share * self.processes.count
            apart: AbstractContextManager[object] = nullcontext()
            if isinstance(objective, DistributedDataParallel) and part is not parts[-1]:
                apart = objective.no_sync()  # gradients are averaged after the last part
            with apart:
                total, terms = self._compute(objective, step, part)
                scaler.scale(weight * total).backward()
            for term, value in terms.items():
                losses[term] = losses.get(term, 0) + weight * value
        if clip := self.recipe.configuration.clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters_of(optimizer), clip)
        scaler.step(optimizer)
        scaler.update()
        return losses

    def _compute(
        self, objective: nn.Module, step: int, portion: Microbatch
    ) -> tuple[Tensor, Losses]:
        self.recipe.drawing = step, portion.part
        # Leaving autocast forgets its copies of the weights, which the update makes stale.
        with portion.current(), autocast(self.processes.device, self.dtype):
            return objective(portion.crops)

    @torch.no_grad()
    def _rehearse(self, name: str, step: int, parts: Sequence[Microbatch]) -> None:
        """Find the values that a loss compares over all crops, where it compares any."""
        if len(parts) == 1:
            return
        rehearsed: list[Tensor] = []
        if self._compares.get(name, True):
            for part in self._from_same_buffers(parts, keep=False):
                part.rehearsed, part.rehearsing = rehearsed, True
                self._compute(OptimizerLoss(self.recipe, name), step, part)
            for values in rehearsed:
                self.processes.add(values)
            self._compares[name] = bool(rehearsed)
        for part in parts:
            part.rehearsed, part.rehearsing = rehearsed, False

    def _from_same_buffers(
        self, parts: Sequence[Microbatch], keep: bool = True
    ) -> Iterator[Microbatch]:
        """Yield the parts, each with the buffers that the first one has.

        Power iterations are then those of a single pass. With `keep`, running statistics end as
        their mean over the parts, else everything as it began.
        """
        if len(parts) == 1:
            yield parts[0]
            return
        first, share = self._buffers.values(), 0.0
        mean = first
        for part in parts:
            self._buffers.put(first)
            yield part
            share += part.share
            mean = [
                old.lerp(new, part.share / share) if new.is_floating_point() else new
                for old, new in zip(mean, self._buffers.values(), strict=True)
            ]
        self._buffers.put(mean if keep else first)
