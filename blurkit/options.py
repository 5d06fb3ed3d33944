"""Dataclasses whose fields are options of a command, with their help, ranges and presets.

A preset sets many options at once; options given by name take precedence.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from blurkit.errors import UsageError

AnyOptions = TypeVar("AnyOptions", bound="Options")


def option(default: Any, help: str, minimum: float = 0, below: float = math.inf) -> Any:
    """Return a field with its help text and, for numbers, its range: `minimum` <= n < `below`."""
    return field(default=default, metadata={"help": help, "minimum": minimum, "below": below})


def check_options(options: Any) -> None:
    """Raise UsageError, naming the option, if a number is out of range or a choice is unknown."""
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
    """Raise UsageError if `strength` is not between 0 and 1."""
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: from 0 (unchanged) to 1 (fully restored)")


@dataclass(frozen=True)
class Options:
    """Base class of option dataclasses: presets, checks and plain values."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}

    @classmethod
    def resolve(cls: type[AnyOptions], preset: str = "paper", **overrides: Any) -> AnyOptions:
        """Return the options of `preset`, replaced by those `overrides` that are not None.

        Raises UsageError if the preset or a field is unknown, or a value is out of range.
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
        """Raise UsageError, naming the option, if a value is invalid."""
        check_options(self)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, as checkpoints store them."""
        return asdict(self)
