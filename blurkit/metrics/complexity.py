"""What a network costs: its parameters, and the multiply-accumulates of one forward pass."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from blurkit.errors import BlurkitError, one_line
from blurkit.nn.size import Shape


def parameters(network: nn.Module) -> int:
    """The number of parameters of `network`; buffers are none."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, *inputs: Shape | list[Shape]) -> int:
    """Multiply-accumulates of convolutions and matrix products in one forward pass, in eval mode.

    `inputs` are the shapes of the forward's arguments, such as (1, 3, 256, 256); a list of shapes
    stands for a list of tensors. One multiply-accumulate is two of the operations that torch
    counts. Nothing is computed and no memory taken, whatever the size, and `network` stays as it
    is. Raises BlurkitError when the network does not take such inputs.
    """
    on_meta = _meta_copy(network).eval()
    arguments = [
        [torch.empty(shape, device="meta") for shape in given]
        if isinstance(given, list)
        else torch.empty(given, device="meta")
        for given in inputs
    ]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            on_meta(*arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        name = type(network).__name__
        raise BlurkitError(f"{name} does not take inputs {inputs}: {one_line(error)}") from error
    return counter.get_total_flops() // 2


def _meta_copy(network: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes but no memory, and want no gradients."""
    # A deep copy takes what `known` holds instead of copying it. Tensors are also plain attributes
    # of modules: the weights that the spectral norm computed, which refuse to be copied.
    known: dict[int, Any] = {}
    for module in network.modules():
        tensors = [*module.parameters(False), *module.buffers(False), *vars(module).values()]
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                kept = isinstance(tensor, nn.Parameter)
                known[id(tensor)] = nn.Parameter(empty, requires_grad=False) if kept else empty
    return copy.deepcopy(network, known)
