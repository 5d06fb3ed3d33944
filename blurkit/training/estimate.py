"""What a training run will need, found by running one step without memory or data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from blurkit.training.recipe import Recipe

GIB = 1 << 30


def estimate(build: Callable[[], Recipe]) -> dict[str, Any]:
    """Parameters per role and the memory of one process with the whole batch, in GiB (float32).

    `weights` are all networks, `optimizer` their gradients and Adam's two moments, `activations`
    what the largest backward pass keeps of the forward pass. One step runs on torch's meta device,
    which computes shapes alone, so this takes seconds for a network of any size.
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
    # A helper may be part of a network, as the encoder of the blur-aware loss is.
    held = {id(p): p.numel() for module in modules for p in module.parameters()}
    weights = 4 * sum(held.values()) / GIB
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
