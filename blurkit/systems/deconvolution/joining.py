"""The beginning of the step that joins drafts: a copy of the step before it."""

from __future__ import annotations

import torch
from torch import Tensor

from blurkit.systems.deconvolution.networks import Deconvolver


def joining(network: Deconvolver) -> Deconvolver:
    """Return the network with a step that joins drafts, its only part that will be trained.

    A network without that step gets a copy of its second one, whose features ignore the draft.
    """
    if not network.options["drafts"]:
        network = with_copied_step(network)
    network.requires_grad_(False)
    network.draft_ties.requires_grad_(True)
    for part in (network.three, network.draft_judge):
        part.requires_grad_(True)
    return network


def with_copied_step(network: Deconvolver) -> Deconvolver:
    """Return a network that joins drafts, with a copy of the second step as the third."""
    joined = Deconvolver(network.options["widths"], drafts=True)
    joined.load_state_dict(network.state_dict(), strict=False)
    state = network.two.network.state_dict()
    entering, leaving = 12 * network.two.candidates, 4 * network.two.candidates
    state["first.weight"] = with_zeros(state["first.weight"], 1, entering, 12)
    for key in ("last.weight", "last.bias"):
        state[key] = with_zeros(state[key], 0, leaving, 4)
    joined.three.network.load_state_dict(state)
    joined.draft_judge.load_state_dict(network.judge.state_dict())
    joined.draft_ties.data.copy_(network.ties)
    return joined


def with_zeros(tensor: Tensor, axis: int, place: int, count: int) -> Tensor:
    """Return the tensor with `count` slices of zeros along an axis, before the slice `place`."""
    before, after = tensor.tensor_split([place], axis)
    return torch.cat([before, torch.zeros_like(before.narrow(axis, 0, count)), after], axis)
