"""What a system says of itself, without torch: its name, its networks, its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from blurkit.errors import BlurkitError
from blurkit.options import Options

if TYPE_CHECKING:
    from torch import nn

NAMES = ("msdi", "kernel_space", "msfs", "dbgan", "deconvolution")
"""The folders of the systems. A state dict is compared with their networks in this order."""

Use = Literal[
    "deblurring",
    "reblurring",
    "interpolation",
    "random",
    "noise",
    "coding",
    "deconvolving",
    "search",
]
"""What networks are good for; see `blurkit.systems.uses`."""


class Shapes(dict[str, tuple[int, ...]]):
    """Every key of a state dict, or of the part under `prefix`, with its tensor's shape."""

    prefix = ""

    def __missing__(self, key: str) -> tuple[int, ...]:
        raise BlurkitError(f"the state dict lacks {self.prefix + key!r}")

    def under(self, prefix: str) -> Shapes:
        """The part whose keys begin with `prefix`, without it."""
        part = Shapes({k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)})
        part.prefix = self.prefix + prefix
        return part

    def has(self, prefix: str) -> bool:
        """Whether any key begins with `prefix`."""
        return any(key.startswith(prefix) for key in self)

    def numbers(self, pattern: str) -> list[int]:
        """The number that is the one group of `pattern`, of every key that is of it, in order."""
        return sorted(int(match[1]) for key in self if (match := re.fullmatch(pattern, key)))


@dataclass(frozen=True)
class Architecture:
    """One kind of network: its name, how its state dict is recognised, and how it is built.

    `keys` are beginnings of keys that a state dict of it has, all of them. `build` is the function
    of the system's `detection` module that makes the network from shapes. `classes` are those that
    it may make, as MODULE.CLASS in the system's folder; files name them without the module. `role`
    is what it is in a file that names no roles; a network of several comes apart by its method
    `roles`. Keys that begin with one of `unused` may be there beyond the network's own; those that
    begin with one of `drawn` may be missing and then hold noise, the same every time.
    """

    name: str
    role: str
    build: str
    keys: tuple[str, ...]
    classes: tuple[str, ...]
    unused: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()

    def matches(self, shapes: Shapes) -> bool:
        """Whether a state dict of these shapes is one of this kind, whole or not."""
        return all(shapes.has(key) for key in self.keys)


@dataclass(frozen=True)
class Training:
    """One training of a system: what `--system NAME` of a training command selects.

    `command` is the command that offers it, `about` one sentence for its help. `configuration` and
    `inputs` are dataclasses of the system's `config` module: the options of the method, and the
    files it needs beside the shards ("": none). `plan` is the function of its `recipe` module that
    makes a `training.recipe.Plan` of (inputs, preset, config overrides, run options, dry run).
    """

    name: str
    command: str
    about: str
    configuration: str
    plan: str
    inputs: str = ""


@dataclass(frozen=True)
class Augmentation:
    """A network of a system that changes the batches of any training.

    `option` names the option that takes its checkpoint, and its place in provenance; `help` is that
    option's. `make` is the function of the system's `augmentation` module that makes a
    `training.batches.Augmentation` of (checkpoint file, configuration).
    """

    option: str
    help: str
    make: str


@dataclass(frozen=True)
class System:
    """One published method: the description of its folder.

    `name` is that of options and checkpoints, `title` the one people know. `weights` is the file in
    `blurkit/weights/` that comes with the package, if any does. `uses` are what its networks are
    good for, each with the networks that it takes, in words; `inference` has a function for each
    (see `blurkit.systems.uses`). `companions` are roles that a file beside the checkpoint may fill,
    `search` is the dataclass in its folder with the options of a blind search.
    """

    name: str
    title: str
    architectures: tuple[Architecture, ...]
    uses: Mapping[Use, str] = field(default_factory=dict)
    companions: tuple[str, ...] = ()
    search: str = ""
    weights: str = ""
    trainings: tuple[Training, ...] = ()
    augmentations: tuple[Augmentation, ...] = ()


def systems() -> Mapping[str, System]:
    """Return every system by the name of its folder."""
    return {name: import_module(f"blurkit.systems.{name}").SYSTEM for name in NAMES}


def trainings(command: str) -> dict[str, tuple[str, Training]]:
    """Return the trainings that a command offers, each under its name with its system's folder."""
    return {
        training.name: (folder, training)
        for folder, system in systems().items()
        for training in system.trainings
        if training.command == command
    }


def augmentations() -> dict[str, tuple[str, Augmentation]]:
    """Return every augmentation under the name of its option, with its system's folder."""
    return {
        augmentation.option: (folder, augmentation)
        for folder, system in systems().items()
        for augmentation in system.augmentations
    }


def named(folder: str, module: str, name: str) -> Any:
    """Return what a module in a system's folder calls `name`."""
    return getattr(import_module(f"blurkit.systems.{folder}.{module}"), name)


def providers(use: Use) -> dict[str, System]:
    """Return the systems that serve a use, by folder, in the order in which they are tried."""
    return {folder: system for folder, system in systems().items() if use in system.uses}


def network_classes() -> dict[str, tuple[Architecture, Callable[[], type[nn.Module]]]]:
    """Return the architecture of every class of networks by name, and what imports the class."""
    return {
        path.rpartition(".")[2]: (architecture, partial(named, folder, *path.split(".")))
        for folder, system in systems().items()
        for architecture in system.architectures
        for path in architecture.classes
    }


def builder(folder: str, architecture: Architecture) -> Callable[[Shapes], nn.Module]:
    """Return the function that builds a network of an architecture from shapes."""
    build: Callable[[Shapes], nn.Module] = named(folder, "detection", architecture.build)
    return build


def inference(folder: str) -> ModuleType:
    """Return the module of a system that runs its networks on images."""
    return import_module(f"blurkit.systems.{folder}.inference")


def search_options() -> type[Options]:
    """Return the dataclass of the options of the blind search."""
    ((folder, path),) = ((name, one.search) for name, one in systems().items() if one.search)
    options: type[Options] = named(folder, *path.split("."))
    return options
