"""Import spandrel, with or without torchvision, and the architectures that it knows."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from blurkit.errors import BlurkitError, one_line

EXTRA = "spandrel_extra_arches"
"""A package of more architectures, whose licences restrict their use."""

TORCHVISION = {
    "torchvision": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("InterpolationMode", "normalize", "rotate"),
}
"""What spandrel imports of torchvision: only networks that blurkit refuses use it, LaMa (which
fills holes) and RestoreFormer (for faces). A test compares this with spandrel's source."""


@lru_cache
def known_architectures() -> list[Any] | None:
    """Return spandrel's architectures in the order of their detection, None if it is missing.

    Those of `spandrel_extra_arches` follow if that is installed. Raises BlurkitError if either
    cannot be imported.
    """
    if find_spec("spandrel") is None:
        return None
    try:
        with _without_torchvision():
            from spandrel import MAIN_REGISTRY

            registry = MAIN_REGISTRY.copy()
            if find_spec(EXTRA) is not None:
                from spandrel_extra_arches import EXTRA_REGISTRY

                registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    except Exception as error:  # what it needs may be missing, or fail in its own way
        raise BlurkitError(f"spandrel cannot be imported ({one_line(error)})") from error
    return [support.architecture for support in registry.architectures("detection")]


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Put empty modules in the place of torchvision, for a while, if it cannot be imported.

    It may be missing, or made for another torch: the one that pip installs beside a torch without
    CUDA cannot be imported. One that works is used.
    """
    try:
        import_module("torchvision.transforms.functional")
    except Exception:  # of any class
        pass
    else:
        yield
        return
    modules = {name: ModuleType(name) for name in TORCHVISION}
    for name, members in TORCHVISION.items():
        vars(modules[name]).update(dict.fromkeys(members))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
