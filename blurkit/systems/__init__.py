"""The published systems, one folder each, and the registry that recognises their networks."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blurkit.systems.registry import from_state_dict

__all__ = ["from_state_dict"]


def __getattr__(name: str) -> Any:
    # Imported on demand, so that `import blurkit.systems` does not import torch.
    if name == "from_state_dict":
        from blurkit.systems.registry import from_state_dict

        return from_state_dict
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
