"""blurkit learns, removes, applies, transfers and measures motion blur in photos."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from blurkit.version import __version__

if TYPE_CHECKING:
    from blurkit.api import (
        contextual_similarity,
        evaluate,
        html_report,
        info,
        load,
        prepare,
        read_records,
        sharpness,
        write_records,
    )
    from blurkit.errors import BlurkitError
    from blurkit.io.checkpoints import Checkpoint
    from blurkit.io.records import Record
    from blurkit.tasks.export import export
    from blurkit.tasks.train import train

__all__ = [
    "BlurkitError",
    "Checkpoint",
    "Record",
    "__version__",
    "contextual_similarity",
    "evaluate",
    "export",
    "html_report",
    "info",
    "load",
    "prepare",
    "read_records",
    "sharpness",
    "train",
    "write_records",
]

_ELSEWHERE = {
    "BlurkitError": "blurkit.errors",
    "Checkpoint": "blurkit.io.checkpoints",
    "Record": "blurkit.io.records",
    "export": "blurkit.tasks.export",
    "train": "blurkit.tasks.train",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that `import blurkit` and `blurkit --help` do not import torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, "blurkit.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
