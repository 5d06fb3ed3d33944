"""The networks, one file per system, found again by the keys of their state dicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blurkit.models.registry import from_state_dict

__all__ = ["from_state_dict"]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import blurkit.models` does not import torch.
    if name == "from_state_dict":
        from blurkit.models.registry import from_state_dict

        return from_state_dict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
