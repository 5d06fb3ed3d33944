"""How a system describes itself, without torch: its name, networks, trainings and weights."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from blurkit.errors import BlurkitError, UsageError

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint


NAMES = (
    *("msdi", "kernel_space", "msfs", "dbgan", "nafnet", "deconvolution"),
    *("spandrel", "any_network"),
)
"""The folders of the systems, in the order in which their networks are tried on a state dict."""

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
"""What networks can be used for; see `blurkit.systems.uses`."""


class Shapes(dict[str, tuple[int, ...]]):
    """The keys of a state dict, or of its part under `prefix`, with their tensors' shapes."""

    prefix = ""

    def __missing__(self, key: str) -> tuple[int, ...]:
        raise BlurkitError(f"the state dict lacks {self.prefix + key!r}")

    def under(self, prefix: str) -> Shapes:
        """Return the part whose keys begin with `prefix`, with the prefix removed."""
        part = Shapes({k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)})
        part.prefix = self.prefix + prefix
        return part

    def has(self, prefix: str) -> bool:
        """Return whether any key begins with `prefix`."""
        return any(key.startswith(prefix) for key in self)

    def numbers(self, pattern: str) -> list[int]:
        """Return, sorted, the number in the group of `pattern` for every key that matches it."""
        return sorted(int(match[1]) for key in self if (match := re.fullmatch(pattern, key)))

    def count(self, pattern: str) -> int:
        """Return how many keys match `pattern`."""
        return sum(re.fullmatch(pattern, key) is not None for key in self)


@dataclass(frozen=True)
class Architecture:
    """One kind of network: its name, its class, and how its state dict is recognised.

    `role` is the network's in a file without roles; it is empty for a model of several networks,
    which its method `roles` splits. `network` is the class, as MODULE.CLASS in the system's folder;
    its classmethod `from_shapes` builds the network of a state dict's `Shapes`. Files of blurkit
    store the class without the module. A state dict is recognised by all of the key prefixes
    `keys`. Keys that begin with one of `unused` are ignored unless the network has them; those that
    begin with one of `drawn` may be missing, and are then filled with noise, the same every time.
    """

    name: str
    role: str
    network: str
    keys: tuple[str, ...]
    unused: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()

    def matches(self, shapes: Shapes) -> bool:
        """Return whether a state dict of these shapes is of this kind, complete or not."""
        return all(shapes.has(key) for key in self.keys)


@dataclass(frozen=True)
class Training:
    """One training of a system, which `--system NAME` of a training command selects.

    `command` is the command that offers it, `about` describes it in that command's help.
    `configuration` and `inputs` name dataclasses in the system's `config` module: the method's
    options, and the files that it needs in addition to the shards ("": none). `plan` names the
    function in the `recipe` module that makes a `training.recipe.Plan` from (inputs, preset, config
    overrides, run options, dry run), or the class of a recipe that needs its configuration alone.
    The option `chosen_by`, if there is one, selects this training without `--system`.
    """

    name: str
    command: str
    about: str
    configuration: str
    plan: str
    inputs: str = ""
    chosen_by: str = ""


@dataclass(frozen=True)
class Augmentation:
    """A network of a system that changes the batches of any training.

    `option` is the option that takes its checkpoint, and its key in the provenance; `help` is the
    option's help text. `make` names the function in the system's `inference` module that makes a
    `training.batches.BatchAugmentation` from (checkpoint file, configuration).
    """

    option: str
    help: str
    make: str


@dataclass(frozen=True)
class System:
    """One published method, as its folder describes it.

    `name` is used in options and checkpoints, `title` in messages. `weights` is the file in
    `blurkit/weights/` that comes with the package, if there is one. `uses` are the uses of its
    networks, each with the networks that it needs, in words; the `inference` module has a function
    for each (see `blurkit.systems.uses`). `companions` are roles that a file other than the
    checkpoint may fill. `library` describes the networks of a library, which are tried when no
    architecture matches: its class has `from_tensors`, which returns the network of a state dict,
    or None. `extra` is the extra of blurkit, and the package, that this requires.
    """

    name: str
    title: str
    architectures: tuple[Architecture, ...]
    uses: Mapping[Use, str] = field(default_factory=dict)
    companions: tuple[str, ...] = ()
    weights: str = ""
    trainings: tuple[Training, ...] = ()
    augmentations: tuple[Augmentation, ...] = ()
    library: Architecture | None = None
    extra: str = ""


def systems() -> Mapping[str, System]:
    """Return all systems by the name of their folder."""
    return {name: import_module(f"blurkit.systems.{name}").SYSTEM for name in NAMES}


def trainings(command: str) -> dict[str, tuple[str, Training]]:
    """Return the trainings that a command offers, by name, each with its system's folder."""
    return {
        training.name: (folder, training)
        for folder, system in systems().items()
        for training in system.trainings
        if training.command == command
    }


def paper_tables() -> dict[str, dict[str, dict[str, str]]]:
    """Return the papers' numbers, in `published.tsv`, by table (`msdi-1`), method and score."""
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for folder in sorted(NAMES):
        file = Path(__file__).parent / folder / "published.tsv"
        lines = file.read_text().splitlines() if file.exists() else []
        for row in csv.DictReader(lines, delimiter="\t"):
            name, method = f"{folder}-{row.pop('table')}", row.pop("method")
            tables.setdefault(name, {})[method] = {s: text for s, text in row.items() if text}
    return tables


def augmentations() -> dict[str, tuple[str, Augmentation]]:
    """Return all augmentations by the name of their option, each with its system's folder."""
    return {
        augmentation.option: (folder, augmentation)
        for folder, system in systems().items()
        for augmentation in system.augmentations
    }


def named(folder: str, module: str, name: str) -> Any:
    """Return the attribute `name` of a module in a system's folder."""
    return getattr(import_module(f"blurkit.systems.{folder}.{module}"), name)


def providers(use: Use) -> dict[str, System]:
    """Return the systems that support a use, by folder, in the order in which they are tried."""
    return {folder: system for folder, system in systems().items() if use in system.uses}


def network_classes() -> dict[str, tuple[str, Architecture]]:
    """Return the folder and the architecture of every network class by the name of the class."""
    return {
        architecture.network.rpartition(".")[2]: (folder, architecture)
        for folder, system in systems().items()
        for architecture in system.architectures
    }


def network_class(folder: str, architecture: Architecture) -> Any:
    """Return the network class of an architecture of the system in `folder`."""
    return named(folder, *architecture.network.split("."))


def inference(folder: str) -> ModuleType:
    """Return the module of a system that runs its networks on images."""
    return import_module(f"blurkit.systems.{folder}.inference")


# ---- Weights that ship ---------------------------------------------------------------------------

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped_file(system: str | None = None, use: Use = "deblurring") -> Path:
    """Return the file with a system's weights.

    Without a `system`, it is the first one that supports `use` and has weights. Raises BlurkitError
    if the package lacks the file, UsageError if the system has no weights.
    """
    candidates = providers(use).values() if system is None else systems().values()
    shipped = {candidate.name: candidate.weights for candidate in candidates if candidate.weights}
    name = next(iter(shipped)) if system is None else system
    if name not in shipped:
        known = " and ".join(shipped)
        raise UsageError(f"no weights of {system!r} come with blurkit; there are {known}")
    file = WEIGHTS / shipped[name]
    if not file.is_file():
        raise BlurkitError(
            f"{file}: the weights that come with blurkit are missing; install it again, "
            "or name others with -c"
        )
    return file


def load_shipped(system: str | None = None, use: Use = "deblurring") -> Checkpoint:
    """Return the checkpoint in `shipped_file`. Raises BlurkitError if the file is damaged."""
    from blurkit.io.checkpoints import load_checkpoint  # imports torch

    return load_checkpoint(shipped_file(system, use))


def title_and_date(checkpoint: Checkpoint) -> tuple[str, str]:
    """Return the title of a checkpoint's system, and the day on which it was made."""
    titles = {system.name: system.title for system in systems().values()}
    title = titles.get(checkpoint.system, checkpoint.system)
    return title, str(checkpoint.provenance.get("date", "no date"))


def introduction(name: str, date: str) -> str:
    """Return the line that a command prints when it uses the weights of a system by default."""
    return f"using the weights that come with blurkit ({name}, {date}); -c names others"
