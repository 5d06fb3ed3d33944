"""Dataclasses whose fields are options of a command, with their help, ranges and presets.

A preset sets many options at once; options given by name take precedence. How `deblur` and `reblur`
choose a method from their options, and where and how networks run, is here, too.
"""

import json
import math
import os
from dataclasses import Field, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin, get_type_hints

from blurkit.errors import BlurkitError, UsageError

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
    constant: bool = False,
) -> Any:
    """Return a field that is an option of a command, with the text that `--help` shows for it.

    A number is at least `minimum`, below `below` and at most `maximum`. `flags` are its names on
    the command line where they differ from the field's, `metavar` is shown for its value, and a
    text is one of the `choices` if there are any. Only `--help-all` shows it if it is `rare`. A
    `constant` is no option of the command: only files and calls of the API set it.
    """
    limits = {"minimum": minimum, "below": below, "maximum": maximum}
    shown = {"help": help, "flags": flags, "metavar": metavar, "choices": choices, "rare": rare}
    return field(default=default, metadata=shown | limits | {"constant": constant})


constant = partial(option, constant=True)
rare = partial(option, rare=True)


def flag(f: Field[Any]) -> str:
    """Return the name of a field's option on the command line, or of a constant in files."""
    if f.metadata.get("constant"):
        return f.name
    named = f.metadata.get("flags")
    return named[0] if named else f"--{f.name.replace('_', '-')}"


def check_options(options: Any) -> None:
    """Raise UsageError, naming the option, if a number is out of range or a choice is unknown."""
    hints = get_type_hints(type(options))
    for f in fields(options):
        value = getattr(options, f.name)
        _check_value(value, f, hints[f.name], f"{flag(f)} {value}: ")


def _check_value(value: Any, f: Field[Any], kind: Any, wrong: str) -> None:
    choices = get_args(kind) if get_origin(kind) is Literal else f.metadata.get("choices")
    if choices and value is not None and value not in choices:
        raise UsageError(f"{wrong}use one of {', '.join(choices)}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            least, below, most = (f.metadata[key] for key in ("minimum", "below", "maximum"))
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
        if unknown := set(overrides) - {f.name for f in fields(cls)}:
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
Protocol = Literal["tiles", "slices", "whole", "local", "own"]
ValueRange = Literal["0..1", "0..255", "-1..1"]
"""The values of black and white in an ONNX file of another program."""


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs on images.

    `device` is auto, cpu, cuda, cuda:N or mps; `precision` auto is bf16 where the hardware supports
    it. `tile` is the side in pixels at which a network runs (None: that of its training crops),
    `overlap` the width in pixels that tiles share (None: 32, or half a small tile). The `protocol`
    "tiles" blends them; "slices", "whole" and "local" measure as papers did, in float32 unless
    `precision` says otherwise; "own" is what the network's own paper did, "tiles" if unknown.
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


def own_gpu(count: int) -> int | None:
    """Return which of `count` visible GPUs this process should use, None if nothing says so.

    It is LOCAL_RANK (torchrun) or SLURM_LOCALID (srun); if there are more processes than GPUs, they
    share them. A scheduler that shows each process only its own GPU leaves no choice.
    """
    for name in ("LOCAL_RANK", "SLURM_LOCALID"):
        if (local := os.environ.get(name, "")).isdecimal():
            return int(local) % max(count, 1)
    return None


# ---- Files of options ----------------------------------------------------------------------------

NOTES = ("about", "sources")
"""Keys of a file of options whose values describe the others."""

TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "two numbers",
}
"""What messages call the values of a type."""


def read_options(file: str | Path, kind: type[Options]) -> dict[str, Any]:
    """Return the values in a JSON file of options of `kind`, by field name; lists become tuples.

    `about` and `sources` may describe the values. A null leaves an option at its default. Raises
    BlurkitError if the file is missing or not a JSON object, or if an option is unknown or of
    another type; UsageError if a value is out of range.
    """
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise BlurkitError(f"{file}: {error.strerror} (from --config)") from error
    except (ValueError, RecursionError) as error:
        raise BlurkitError(f"{file}: is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise BlurkitError(f"{file}: is not a JSON object of options")
    hints, known = get_type_hints(kind), {f.name: f for f in fields(kind)}
    values = {key: content[key] for key in content if key not in NOTES and content[key] is not None}
    for key, value in values.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            question = f"; did you mean {near[0]!r}?" if near else ""
            raise BlurkitError(f"{file}: {key!r} is not an option{question}")
        wrong = f"{file}: {key} {json.dumps(value)}: "
        values[key] = _typed(value, hints[key], wrong)
        _check_value(values[key], known[key], hints[key], wrong)
    return values


def _typed(value: Any, hint: Any, wrong: str) -> Any:
    """Return a value from JSON as an option's type. Raises BlurkitError for another type."""
    kind = get_origin(hint) or hint
    if kind is UnionType:  # with None
        return _typed(value, get_args(hint)[0], wrong)
    if kind is tuple and isinstance(value, list) and len(value) == len(get_args(hint)):
        return tuple(_typed(item, get_args(hint)[0], wrong) for item in value)
    kind = str if kind is Literal else kind
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise BlurkitError(f"{wrong}must be {TYPE_NAMES[kind]}")


# ---- Methods -------------------------------------------------------------------------------------

Method = Literal["auto", "shake", "network"]


def choose_method(
    method: Method | None, checkpoint: bool, kernel: bool, network_options: bool, sheet: bool
) -> Method:
    """Return the method to use: `method` if it is given, else the default for the other arguments.

    `checkpoint` says whether one is given, `kernel` whether the blur is known, `network_options`
    whether an encoder, a protocol or tiles are given, all of which require `network`, and `sheet`
    whether the known blur is that of a photo's windows, beside which a network may help. Raises
    UsageError if the arguments contradict each other.
    """
    if method is None:
        method = "network" if (checkpoint and not kernel) or network_options else "auto"
    if network_options and (kernel or method != "network"):
        raise UsageError("--encoder, --protocol, --tile and --overlap are for --method network")
    return "shake" if kernel and not (sheet and method == "auto") else method


def choose_reblurring(method: Method | None, networks: bool, itself: bool) -> Method:
    """Return what blurs a photo like another: `method` if it is given, else the default.

    `networks` says whether networks, or options of networks, are named; `itself` whether a pair
    gets its own blur, which measures the network.
    """
    return method or ("network" if networks or itself else "auto")
