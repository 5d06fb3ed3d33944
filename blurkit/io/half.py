"""Weights and optimiser states in half precision, which halves the size of files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with its weights as float16; loading converts them back to float32.

    Vectors are unchanged: a variance may exceed the range of float16, spectral norms need their
    exact vectors, and all of them make up less than a hundredth of a network.
    """
    return {
        key: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for key, tensor in state.items()
    }


def half_moments(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state with its moments as bfloat16, which has the range of float32.

    Vectors and counters are unchanged, as in `halved`; optimisers convert the moments back to
    float32.
    """
    moments = {
        number: {
            name: v.bfloat16() if isinstance(v, Tensor) and v.ndim > 1 else v
            for name, v in values.items()
        }
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": moments}
