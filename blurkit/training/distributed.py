"""Data-parallel training under `torchrun`, in the training loop alone: recipes do not see it.

Every process loads its slice of the global batch, gradients are averaged before each update, and
batch normalisation uses the whole batch. N processes thus compute the same as a single one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurkit.errors import UsageError


class Processes:
    """The group of processes that train together: a single one unless started by `torchrun`."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = 0, 1
        self.device = device
        if "WORLD_SIZE" in os.environ and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        if dist.is_initialized():
            self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's slice of a global batch of `batch` crops.

        Raises UsageError if `batch` is not a multiple of the number of processes.
        """
        if batch % self.count:
            raise UsageError(f"--batch {batch}: must be a multiple of the {self.count} processes")
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in a single all-reduce."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))

    def average(self, values: Tensor) -> Tensor:
        """Return the mean of a tensor over the processes; may overwrite `values`."""
        if self.count > 1:
            dist.all_reduce(values)
            values = values / self.count
        return values

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        if self.count == 1:
            return flag
        value = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return bool(value.item())

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, on the CPU; may overwrite `values`."""
        if self.count > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.count > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


def local_device(name: str) -> str:
    """Return the device of this process: under torchrun, `auto` and `cuda` mean its GPU."""
    local = os.environ.get("LOCAL_RANK")
    if local is not None and torch.cuda.is_available() and name in ("auto", "cuda"):
        return f"cuda:{local}"
    return name


class Sum(torch.autograd.Function):
    """Sums a tensor over all processes, and its gradient in the backward pass."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        """Return the sum of a tensor of any shape over the processes."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        """Return the summed gradient: each loss depends on the values of every process."""
        total: Tensor = Sum.apply(gradient)  # differentiable itself, for gradient penalties
        return total


def gathered(values: Tensor) -> Tensor:
    """Return the values (n, ...) of all processes as (N, ...), for losses over the whole batch.

    The gradient flows only to this process's values. It is multiplied by the number of processes,
    because the gradients of such a loss add up over the processes, but the loop averages them.
    """
    if not dist.is_initialized():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.detach())
    own = values.detach()
    parts[dist.get_rank()] = own + len(parts) * (values - own)
    return torch.cat(parts)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all processes, also on the CPU, unlike torch's version."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the statistics of the global batch."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        shape, dtype = (1, -1, 1, 1), x.dtype
        x = x.float()
        mean: Tensor = Sum.apply(x.sum((0, 2, 3))) / count
        x = x - mean.view(shape)
        variance: Tensor = Sum.apply(x.square().sum((0, 2, 3))) / count
        self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        x = x * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1


def synchronise_batch_norm(network: nn.Module) -> None:
    """Replace every BatchNorm2d in a network by a synchronised one with the same tensors."""
    for name, child in network.named_children():
        if type(child) is nn.BatchNorm2d:
            options = (child.eps, child.momentum, child.affine, child.track_running_stats)
            layer = SynchronisedBatchNorm(child.num_features, *options).train(child.training)
            for key, tensor in (*child.named_parameters(), *child.named_buffers()):
                setattr(layer, key, tensor)
            setattr(network, name, layer)
        else:
            synchronise_batch_norm(child)
