"""Recognise the networks that spandrel knows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec

import torch
from torch import Tensor

from blurkit.errors import BlurkitError, one_line
from blurkit.systems.registry import Undrawn
from blurkit.systems.spandrel.library import EXTRA, known_architectures
from blurkit.systems.spandrel.networks import SpandrelNetwork


def library_network(tensors: Mapping[str, Tensor]) -> SpandrelNetwork | None:
    """Return the network of a state dict, in float32, or None if spandrel does not know it.

    Tensors on the meta device count as zeros. Raises BlurkitError if spandrel recognises the state
    dict but cannot load it, or if it lacks its second package, which may know it.
    """
    if (architectures := known_architectures()) is None:
        return None
    from spandrel import canonicalize_state_dict

    state = canonicalize_state_dict({key: _real(tensor) for key, tensor in tensors.items()})
    for architecture in architectures:
        if architecture.detect(state):
            try:
                with Undrawn(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about how the architecture is written
                    return SpandrelNetwork(architecture.load(state))
            except Exception as error:  # each architecture has its own ways to fail
                reason = one_line(error)[:300]
                raise BlurkitError(
                    f"spandrel takes it for {architecture.name}, but cannot load it ({reason})"
                ) from error
    if find_spec(EXTRA) is None:
        raise BlurkitError(f"pip install {EXTRA} adds Restormer, MPRNet and others")
    return None


def _real(tensor: Tensor) -> Tensor:
    if not tensor.is_meta:
        return tensor
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
