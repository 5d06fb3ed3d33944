"""Code of users, networks and losses: it runs where a user names it, never because a file does."""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from blurkit.errors import BlurkitError, Say, UsageError, is_out_of_memory, one_line
from blurkit.systems.system import network_classes

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint

ENTRY_POINTS = "blurkit.systems"
"""The group of entry points in which installed packages give names to their networks and losses."""


@dataclass(frozen=True)
class UserCode:
    """A class or function that a user has named by `name`; `file` holds it, with this SHA-256."""

    name: str
    target: Callable[..., Any]
    file: str
    sha256: str

    def __call__(self, *values: Any, **named: Any) -> Any:
        """Return what it returns; raise BlurkitError for what it raises."""
        with blamed(self.name, self.file):
            return self.target(*values, **named)


@contextmanager
def blamed(name: str, file: str) -> Iterator[None]:
    """Turn errors, but not a lack of memory, into a BlurkitError that says where in `file`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, BlurkitError) or is_out_of_memory(error):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        line = next((f", line {f.lineno}" for f in reversed(frames) if f.filename == file), "")
        kind, text = type(error).__name__, one_line(error)[:300]
        raise BlurkitError(f"{name}{line}: {kind}: {text}") from error


def find_code(name: str) -> UserCode:
    """Return what `name` names: FILE.py:NAME, MODULE:NAME, or an entry point in `ENTRY_POINTS`.

    This runs the module that holds it. Raises BlurkitError if that fails or there is no such thing.
    """
    place, _, attribute = name.rpartition(":")
    if not place:
        named = next(iter(entry_points(group=ENTRY_POINTS, name=name)), None)
        if named is None:
            known = ", ".join(sorted(e.name for e in entry_points(group=ENTRY_POINTS)))
            raise UsageError(
                f"{name}: write FILE.py:NAME or MODULE:NAME, or an entry point of {ENTRY_POINTS}"
                f" ({known or 'none is installed'})"
            )
        place, attribute = named.module, named.attr
    if place.endswith(".py"):
        try:
            source = Path(place).read_bytes()
        except OSError as error:
            raise BlurkitError(f"{place}: {error.strerror} (from {name})") from error
        module = _run(Path(place).resolve(), source)
    else:
        with blamed(name, ""):
            module = import_module(place)
        file = getattr(module, "__file__", None)
        source = Path(file).read_bytes() if file else b""
    target = getattr(module, attribute, None)
    if not callable(target):
        raise BlurkitError(f"{name}: {place} has no class or function {attribute!r}")
    return UserCode(name, target, str(module.__file__), hashlib.sha256(source).hexdigest())


@lru_cache
def _run(path: Path, source: bytes) -> ModuleType:
    """Return the module of a file; what lies beside the file can be imported, too."""
    module = ModuleType(f"{path.stem}_{hashlib.sha256(source).hexdigest()[:8]}")
    module.__file__ = str(path)
    sys.path.append(str(path.parent))
    sys.modules[module.__name__] = module  # where dataclasses look for it
    with blamed(path.name, str(path)):
        exec(compile(source, str(path), "exec"), vars(module))
    return module


def arguments_of(code: UserCode) -> dict[str, Any]:
    """Return the named arguments of a class or function, with defaults or `Parameter.empty`."""
    with blamed(code.name, code.file):
        found = inspect.signature(code.target).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return {p.name: p.default for p in found if p.kind in kinds}


def with_code(checkpoint: Checkpoint, name: str, warn: Say) -> Checkpoint:
    """Return a checkpoint whose network is built by the code that a user has named, "" for none.

    A warning says if that has changed since the training, unless blurkit knows the network itself,
    whose training took only a loss from the code. Raises as `find_code` does.
    """
    if not name:
        return checkpoint
    code, recorded = find_code(name), checkpoint.provenance.get("code")
    known = network_classes().keys() & {b["class"] for b in checkpoint.blueprints.values()}
    if not known and isinstance(recorded, dict) and code.sha256 not in recorded.values():
        warn(f"{code.file} has changed since {checkpoint.name} was trained with it")
    return replace(checkpoint, code=code)
