"""Data-parallel training under `torchrun`, in the training loop alone: recipes do not see it.

Every process loads its slice of the global batch, gradients are averaged during the backward pass,
and batch normalisation uses the whole batch. N processes thus compute the same as a single one.
"""

import itertools
import os
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from blurkit.errors import UsageError


class Processes:
    """The group of processes that train together: a single one unless started by `torchrun`.

    Raises UsageError if this machine has fewer GPUs than processes.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.count = 0, 1
        self.device = device
        if "WORLD_SIZE" in os.environ and not dist.is_initialized():
            if device.type == "cuda":
                gpus, started = torch.cuda.device_count(), os.environ.get("LOCAL_WORLD_SIZE", 1)
                if int(started) > gpus:
                    few = f"{gpus} GPU{'s' * (gpus != 1)}; start one for each"
                    raise UsageError(f"{started} processes cannot train on {few}")
                torch.cuda.set_device(device)  # as torch documents for NCCL
                _join("nccl", device_id=device)
            else:
                _join("gloo")
        if dist.is_initialized():
            self.rank, self.count = dist.get_rank(), dist.get_world_size()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Return this process's slice of a batch; slices differ by one crop at most.

        Raises UsageError if there are fewer crops than processes.
        """
        if batch < self.count:
            raise UsageError(
                f"--batch {batch}: fewer crops than the {self.count} processes; start fewer"
            )
        first, last = (batch * rank // self.count for rank in (self.rank, self.rank + 1))
        return slice(first, last)

    def reducing(self, module: nn.Module) -> nn.Module:
        """Return `module`, so wrapped that its gradients are averaged over the processes."""
        if self.count == 1:
            return module
        return DistributedDataParallel(
            module,
            find_unused_parameters=True,  # released networks have layers that never run
            gradient_as_bucket_view=True,
        )

    def add(self, values: Tensor) -> None:
        """Replace a tensor by its sum over the processes."""
        if self.count > 1:
            dist.all_reduce(values)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        return bool(self.sum(torch.tensor(float(flag))))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes, on the CPU; may overwrite `values`."""
        values = values.to(self.device)
        self.add(values)
        return values.cpu()

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.count > 1:
            index = [self.device.index] if self.device.type == "cuda" else None
            dist.barrier(device_ids=index)

    def close(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


_rendezvous = lru_cache(lambda: next(dist.rendezvous("env://")))
_groups = itertools.count()


def _join(backend: str, **options: Any) -> None:
    """Join a new group of all processes.

    Each has its own part of the store that they share: in that of an earlier group, the processes
    would find addresses where nobody answers any more, and wait.
    """
    store, rank, count = _rendezvous()
    own = dist.PrefixStore(f"blurkit{next(_groups)}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=count, **options)


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


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d over the batches of all processes, also on the CPU, unlike torch's version."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W) by the statistics of the global batch."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        shape, dtype = (1, -1, 1, 1), x.dtype
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        dist.all_reduce(count)  # not every process has as many crops
        x = x.float()
        mean: Tensor = Sum.apply(x.sum((0, 2, 3))) / count
        x = x - mean.view(shape)
        variance: Tensor = Sum.apply(x.square().sum((0, 2, 3))) / count
        if self.running_mean is not None and self.running_var is not None:
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach() * (count / (count - 1)), momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        x = x * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            x = x * self.weight.view(shape) + self.bias.view(shape)
        return x.to(dtype)


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
