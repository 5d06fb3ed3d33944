"""Dataclasses whose fields are options of a command, with their help, ranges and presets.

A preset sets many options at once; options given by name take precedence. How `deblur` and `reblur`
choose a method from their options, and where and how networks run, is here, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from blurkit.errors import UsageError

AnyOptions = TypeVar("AnyOptions", bound="Options")


ANY = -math.inf
"""The `minimum` of an option that takes any number, or whose range is checked elsewhere."""


def option(
    default: Any,
    help: str,
    minimum: float = 0,
    below: float = math.inf,
    *,
    maximum: float = math.inf,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    choices: tuple[str, ...] = (),
    rare: bool = False,
) -> Any:
    """Return a field that is an option of a command, with the text that `--help` shows for it.

    A number is at least `minimum`, below `below` and at most `maximum`. `flags` are its names on
    the command line where they differ from the field's, `metavar` is shown for its value, and a
    text is one of the `choices` if there are any. Only `--help-all` shows it if it is `rare`.
    """
    limits = {"minimum": minimum, "below": below, "maximum": maximum}
    shown = {"help": help, "flags": flags, "metavar": metavar, "choices": choices, "rare": rare}
    return field(default=default, metadata=shown | limits)


def flag(f: Field[Any]) -> str:
    """Return the name of a field's option on the command line."""
    named = f.metadata.get("flags")
    return named[0] if named else f"--{f.name.replace('_', '-')}"


def check_options(options: Any) -> None:
    """Raise UsageError, naming the option, if a number is out of range or a choice is unknown."""
    hints = get_type_hints(type(options))
    for f in fields(options):
        value, kind, limits = getattr(options, f.name), hints[f.name], f.metadata
        wrong = f"{flag(f)} {value}: "
        choices = get_args(kind) if get_origin(kind) is Literal else limits.get("choices")
        if choices and value is not None and value not in choices:
            raise UsageError(f"{wrong}use one of {', '.join(choices)}")
        values = value if isinstance(value, tuple) else (value,)
        for number in values:
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check_range(number, limits, wrong)


def _check_range(number: float, limits: Mapping[str, float], wrong: str) -> None:
    least, below, most = (limits[key] for key in ("minimum", "below", "maximum"))
    if least != ANY and not (least <= number < below and number <= most):
        top = f" and below {below}" if below < math.inf else ""
        top = f" and at most {most}" if most < math.inf else top
        raise UsageError(f"{wrong}must be at least {least}{top}")


def check_strength(strength: float) -> None:
    """Raise UsageError if `strength` is not between 0 and 1."""
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: must be from 0 (unchanged) to 1 (restored)")


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


# ---- Where and how networks run ------------------------------------------------------------------

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Protocol = Literal["tiles", "slices", "whole", "local"]
ValueRange = Literal["0..1", "0..255", "-1..1"]
"""The values of black and white in an ONNX file of another program."""


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs on images.

    `device` is auto, cpu, cuda, cuda:N or mps; `precision` auto is bf16 where the hardware supports
    it. `tile` is the side in pixels at which a network runs (None: that of its training crops),
    `overlap` the width in pixels that tiles share (None: 32, or half a small tile). The `protocol`
    "tiles" blends them; "slices", "whole" and "local" measure as papers did, in float32 unless
    `precision` says otherwise.
    """

    device: str = "auto"
    precision: Precision = "auto"
    tile: int | None = None
    overlap: int | None = None
    protocol: Protocol = "tiles"

    @property
    def tiled(self) -> bool:
        """Whether a tile or an overlap is given."""
        return (self.tile, self.overlap) != (None, None)


# ---- Methods -------------------------------------------------------------------------------------

Method = Literal["auto", "shake", "network"]


def choose_method(
    method: Method | None, checkpoint: bool, kernel: bool, network_options: bool
) -> Method:
    """Return the method to use: `method` if it is given, else the default for the other arguments.

    `checkpoint` says whether one is given, `kernel` whether the blur is known, `network_options`
    whether an encoder, a protocol or tiles are given, all of which require `network`. Raises
    UsageError if the arguments contradict each other.
    """
    if method is None:
        method = "network" if (checkpoint and not kernel) or network_options else "auto"
    if network_options and (kernel or method != "network"):
        raise UsageError("--encoder, --protocol, --tile and --overlap are for --method network")
    return "shake" if kernel else method


def choose_reblurring(method: Method | None, networks: bool, itself: bool) -> Method:
    """Return what blurs a photo like another: `method` if it is given, else the default.

    `networks` says whether networks, or options of networks, are named; `itself` whether a pair
    gets its own blur, which measures the network.
    """
    return method or ("network" if networks or itself else "auto")
