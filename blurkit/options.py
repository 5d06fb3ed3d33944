"""Dataclasses whose fields are options of a command: their help, their ranges, their presets.

Presets change many at once, options given by name win over them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from blurkit.errors import UsageError

AnyOptions = TypeVar("AnyOptions", bound="Options")


def option(default: Any, help: str, minimum: float = 0, below: float = math.inf) -> Any:
    """A field with the text that `--help` shows for it and, for numbers, their range."""
    return field(default=default, metadata={"help": help, "minimum": minimum, "below": below})


def check_options(options: Any) -> None:
    """Raises UsageError, naming the option, for a number out of its range or an unknown choice."""
    hints = get_type_hints(type(options))
    for f in fields(options):
        value, kind, limits = getattr(options, f.name), hints[f.name], f.metadata
        wrong = f"--{f.name.replace('_', '-')} {value}: "
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise UsageError(f"{wrong}use one of {', '.join(get_args(kind))}")
        values = value if isinstance(value, tuple) else (value,)
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if not all(limits["minimum"] <= number < limits["below"] for number in numbers):
            top = f" and below {limits['below']}" if limits["below"] < math.inf else ""
            raise UsageError(f"{wrong}must be at least {limits['minimum']}{top}")


def check_strength(strength: float) -> None:
    """Raise UsageError unless a strength is from 0 to 1."""
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: from 0 (nothing changed) to 1 (all restored)")


@dataclass(frozen=True)
class Options:
    """What all of them have: presets, checks, plain values."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}

    @classmethod
    def resolve(cls: type[AnyOptions], preset: str = "paper", **overrides: Any) -> AnyOptions:
        """The options of `preset` with `overrides` (None: not given) on top.

        Raises UsageError for an unknown preset or field, or a value out of its range.
        """
        if preset not in cls.presets:
            raise UsageError(f"--preset {preset}: use one of {', '.join(cls.presets)}")
        known = {f.name for f in fields(cls)}
        if unknown := set(overrides) - known:
            raise UsageError(f"unknown options: {', '.join(sorted(unknown))}")
        given = {key: value for key, value in overrides.items() if value is not None}
        options = replace(cls(), **{**cls.presets[preset], **given})
        options.check()
        return options

    def check(self) -> None:
        """Raises UsageError for values that make no sense, naming the option."""
        check_options(self)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, as checkpoints store them."""
        return asdict(self)
