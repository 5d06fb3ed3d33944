"""The cost of a network: its parameters, and the multiply-accumulates of one forward pass."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from blurkit.errors import BlurkitError, one_line
from blurkit.nn.size import Shape


def parameters(network: nn.Module) -> int:
    """Return the number of parameters of `network`, not counting buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, *inputs: Shape | list[Shape]) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in one forward pass.

    The pass runs in eval mode. `inputs` are the shapes of its arguments, such as (1, 3, 256, 256);
    a list of shapes describes a list of tensors. One multiply-accumulate is two of the operations
    that torch counts. Only shapes are computed, so inputs of any size need no memory, and `network`
    is not changed. Raises BlurkitError if the network does not accept inputs of these shapes.
    """
    on_meta = _meta_copy(network).eval()
    arguments = [
        [torch.empty(shape, device="meta") for shape in argument]
        if isinstance(argument, list)
        else torch.empty(argument, device="meta")
        for argument in inputs
    ]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            on_meta(*arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        name = type(network).__name__
        raise BlurkitError(f"{name} does not accept inputs {inputs}: {one_line(error)}") from error
    return counter.get_total_flops() // 2


def _meta_copy(network: nn.Module) -> nn.Module:
    """Return a copy whose tensors have shapes but no memory, and require no gradients."""
    # The deep copy uses the tensors in `known` instead of copying the originals. Some tensors are
    # plain attributes of modules: the weights that spectral norm computes, which cannot be copied.
    known: dict[int, Any] = {}
    for module in network.modules():
        tensors = [*module.parameters(False), *module.buffers(False), *vars(module).values()]
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                trained = isinstance(tensor, nn.Parameter)
                known[id(tensor)] = nn.Parameter(empty, requires_grad=False) if trained else empty
    return copy.deepcopy(network, known)
