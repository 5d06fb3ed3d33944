"""The memory that a training run will need, from one step on shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blurkit.training.recipe import Recipe

GIB = 1 << 30


def estimate(build: Callable[[], Recipe]) -> dict[str, Any]:
    """Return the parameters per role, and the memory in GiB of one process with the whole batch.

    The memory is that of float32: `weights` are those of all networks, `optimizer` holds the
    gradients and Adam's two moments, `activations` are what the largest backward pass needs of the
    forward pass. One step runs on torch's meta device, which computes only shapes, so this takes
    seconds for a network of any size.
    """
    with torch.device("meta"):
        recipe = build()
    modules = [*recipe.networks.values(), *recipe.helpers]
    own = {p.untyped_storage() for module in modules for p in module.to("meta").parameters()}
    c = recipe.configuration
    batch = {name: torch.empty(c.batch, 3, c.crop, c.crop, device="meta") for name in recipe.images}
    kept: set[torch.UntypedStorage] = set()
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()) not in own:
            kept.add(storage)
        return tensor

    def update(name: str, loss: Tensor) -> None:
        nonlocal largest
        largest = max(largest, sum(storage.nbytes() for storage in kept))
        kept.clear()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        recipe.step(batch, update)
    parameters = {
        role: sum(p.numel() for p in network.parameters())
        for role, network in recipe.networks.items()
    }
    trained = {
        id(p): p
        for optimizer in recipe.optimizers.values()
        for group in optimizer.param_groups
        for p in group["params"]
    }
    trainable = sum(p.numel() for p in trained.values())
    # A helper may be part of a network, like the encoder of the blur-aware loss.
    sizes = {id(p): p.numel() for module in modules for p in module.parameters()}
    weights = 4 * sum(sizes.values()) / GIB
    moments = 3 * 4 * trainable / GIB
    activations = largest / GIB
    return {
        "parameters": parameters,
        "trained": trainable,
        "weights": weights,
        "optimizer": moments,
        "activations": activations,
        "total": weights + moments + activations,
    }
