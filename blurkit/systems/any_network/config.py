"""Training options of networks of users: those of their signatures, too. Imports no torch."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, make_dataclass
from inspect import Parameter
from pathlib import Path
from typing import Any, ClassVar, cast

from blurkit.errors import UsageError
from blurkit.options import ANY, constant, option, rare
from blurkit.systems.code import arguments_of, find_code
from blurkit.training.configuration import Configuration, Run, TrainingInputs


@dataclass(frozen=True)
class AnyInputs(TrainingInputs):
    """What is trained, and by which loss: code or a file that the user names."""

    network: str = option(
        "",
        "What to train: your FILE.py:CLASS, MODULE:CLASS, an entry point, or a file of weights.",
        metavar="NETWORK",
    )
    loss: str = option(
        "",
        "psnr, l1, charbonnier, or your FILE.py:FUNCTION of (restored, sharp).  [psnr]",
        metavar="LOSS",
    )

    @property
    def is_file(self) -> bool:
        """Whether the network is one in a file of weights."""
        kind = Path(self.network).suffix.lower()
        return "://" in self.network or kind in (".pt", ".pth", ".ckpt", ".safetensors")

    @property
    def files(self) -> dict[str, Any]:
        """The network, if it is a file."""
        return {"network": self.network} if self.is_file else {}

    def check(self, overrides: Mapping[str, Any]) -> None:
        """Raise UsageError if no network is named."""
        if not self.network:
            raise UsageError("--network NETWORK: name what to train, such as mine.py:Net")


@dataclass(frozen=True)
class AnyConfiguration(Configuration):
    """Any network that restores an image on its own: one pixel loss, by AdamW."""

    system: ClassVar[str] = "any-network"

    batch: int = option(8, "Crops per step, over all devices together.", 1)
    learning_rate: float = option(2e-4, "AdamW's learning rate at the start of the cosine.")
    beta2: float = rare(0.999, "AdamW's second decay rate.", below=1)
    weight_decay: float = rare(1e-4, "AdamW's weight decay, of all parameters.")
    clip: float = rare(0.01, "Largest total gradient norm; 0: no clipping.")
    network: str = constant("", "The network that was named.")
    loss: str = constant("psnr", "The loss that was named.")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "small": {"iterations": 1200, "batch": 4, "crop": 128, "ema": 0.98},
    }
    literals: ClassVar[dict[str, bool]] = {}
    """The options of the network's signature, and whether their values are Python literals."""

    @classmethod
    def for_inputs(cls, inputs: Mapping[str, Any]) -> type[AnyConfiguration]:
        """Return this class with an option for each argument of the network that is named."""
        given = AnyInputs(network=str(inputs.get("network") or ""))
        if not given.network or given.is_file:
            return cls
        code = find_code(given.network)
        taken = {f.name for kind in (cls, Run, AnyInputs) for f in fields(kind)}
        taken |= {"system", "preset", "config", "shards", "processes"}
        new: list[tuple[str, type, Any]] = []
        literals: dict[str, bool] = {}
        for name, default in arguments_of(code).items():
            if name in taken:
                other = f"{code.name}: its argument {name!r} is an option of every training"
                raise UsageError(f"{other}; give it another name")
            literals[name] = type(default) not in (bool, int, float, str)
            if literals[name]:
                default = "" if default is Parameter.empty else repr(default)
                if default and not _is_literal(default):
                    del literals[name]  # such as a class: always the default
                    continue
            new.append((name, type(default), option(default, f"Of {code.name}.", ANY)))
        made: Any = make_dataclass(cls.__name__, new, bases=(cls,), frozen=True)
        made.literals = literals
        return cast(type[AnyConfiguration], made)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments for the network. Raises UsageError if one is missing."""
        values: dict[str, Any] = {}
        for name, literal in self.literals.items():
            values[name] = getattr(self, name)
            if literal:
                if values[name] == "":
                    raise UsageError(f"--{name.replace('_', '-')}: {self.network} needs a value")
                with suppress(ValueError, SyntaxError):  # a text without quotes
                    values[name] = ast.literal_eval(values[name])
        return values


def _is_literal(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return False
    return True
