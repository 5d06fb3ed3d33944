"""Turn the fields of dataclasses into options of commands.

A command is a function. A parameter annotated with a dataclass, whose fields are made by
`blurkit.options.option`, becomes an option for each field, and receives an instance. A parameter
annotated `Annotated[Given, AClass]`, for options whose defaults come from presets, receives a dict
of the given values, with None for the others. If fields share a name, the first one is used.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from blurkit.cli.help import HelpAll
from blurkit.options import check_options, flag

Given = dict[str, Any]
"""Option values by field name, None if the option was not given."""

Command = Callable[..., None]


def expand(function: Command, titles: Mapping[str, str] | None = None) -> Command:
    """Return `function` as a command with an option for each field of its dataclasses.

    `titles` maps names of parameters to the headings of their options in `--help`. Calling the
    command raises UsageError if a number is out of range.
    """
    groups: dict[str, tuple[type, bool]] = {}
    own: list[str] = []
    options: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if group := _group(parameter.annotation):
            groups[parameter.name] = group
            for option in _options(*group, (titles or {}).get(parameter.name)):
                options.setdefault(option.name, option)
        else:
            own.append(parameter.name)
            options[parameter.name] = parameter.replace(kind=parameter.KEYWORD_ONLY)
    options["help_all"] = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll
    )

    @functools.wraps(function)
    def command(**values: Any) -> None:
        arguments = {name: _filled(group, values) for name, group in groups.items()}
        function(**arguments, **{name: values[name] for name in own})

    command.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {option.name: option.annotation for option in options.values()}
    return command


def flags_of(kind: type, given: bool = False) -> set[str]:
    """Return all command-line names of the options of a dataclass."""
    options = (_flags(f, hint, given) for f, hint in _fields(kind))
    return {name for flags in options for flag in flags for name in flag.split("/")}


def _group(annotation: Any) -> tuple[type, bool] | None:
    """Return the dataclass in a parameter's annotation, if any, and whether it is `Given`."""
    given = get_origin(annotation) is Annotated
    kind = get_args(annotation)[1] if given else annotation
    return (kind, given) if isinstance(kind, type) and is_dataclass(kind) else None


def _fields(kind: type) -> Iterator[tuple[Field[Any], Any]]:
    """Yield the fields of a dataclass with their types: its own, then those of its bases."""
    hints, known = get_type_hints(kind), {f.name: f for f in fields(kind)}
    for base in kind.__mro__:
        for name in inspect.get_annotations(base):
            if name in known:
                yield known.pop(name), hints[name]


def _options(kind: type, given: bool, title: str | None) -> Iterator[inspect.Parameter]:
    """Yield the command's parameter for each field."""
    for f, hint in _fields(kind):
        if "help" not in f.metadata:  # the command declares this option itself
            continue
        help, default, metavar = f.metadata["help"], f.default, f.metadata["metavar"]
        if f.metadata["choices"]:
            metavar = f"[{'|'.join(f.metadata['choices'])}]"
        if given:
            preset, values = next(iter(kind.presets.items()))  # type: ignore[attr-defined]
            default = values.get(f.name, default)
            help += "" if default in (None, "") else f"  [{preset}: {default}]"
            hint, default = hint | None, None
        elif get_origin(hint) is tuple and get_args(hint)[-1] is ...:
            item, default = get_args(hint)[0], list(f.default)  # type: ignore[arg-type]
            hint, metavar = list[item], metavar or f"<{item.__name__.lower()}>"  # type: ignore[valid-type]
        details = typer.Option(
            *_flags(f, hint, given),
            help=help,
            hidden=f.metadata["rare"],
            metavar=metavar,
            show_default=default not in (None, "", False, []),
            rich_help_panel=title,
        )
        yield inspect.Parameter(
            f.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[hint, details],
        )


def _flags(f: Field[Any], hint: Any, given: bool) -> tuple[str, ...]:
    """Return the names of a field's option, with --no-NAME if it can be on by default."""
    name = flag(f)
    if hint in (bool, bool | None) and (given or f.default):
        return (f"{name}/--no-{name[2:]}",)
    return f.metadata.get("flags") or (name,)


def _filled(group: tuple[type, bool], values: Mapping[str, Any]) -> Any:
    """Return the dataclass with the values of its options, or only these values if `Given`."""
    kind, given = group
    own = {f.name: values[f.name] for f in fields(kind) if f.name in values}
    if given:
        return own
    built = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()})
    check_options(built)
    return built
