"""The gradients of a gradient penalty through batch norms; as a script, under `torchrun`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from blurkit.systems.dbgan.recipe import gradient_penalty
from blurkit.training.distributed import Processes, synchronise_batch_norm


def penalty_gradients() -> list[Tensor]:
    """The gradients of all parameters, averaged over processes with a part of a batch each."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)]
    network = nn.Sequential(*layers)
    real, fake, share = torch.rand(3, 4, 3, 8, 8)
    processes = Processes(torch.device("cpu"))
    if processes.count > 1:
        synchronise_batch_norm(network)
    own = processes.share(4)
    loss = gradient_penalty(network, real[own], fake[own], share[own][:, :1, :1, :1])
    loss.backward()
    gradients = [processes.average(p.grad) for p in network.parameters() if p.grad is not None]
    processes.close()
    return gradients


if __name__ == "__main__":
    gradients = penalty_gradients()
    if os.environ["RANK"] == "0":
        torch.save(gradients, Path(sys.argv[1]))
