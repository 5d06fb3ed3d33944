"""Training commands: every field of a configuration dataclass becomes an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from blurkit.cli.common import print_json
from blurkit.errors import UsageError
from blurkit.training.configuration import Configuration, Run

Options = dict[str, Any]


def training_command(
    configuration: type[Configuration], output: str, extra: Sequence[inspect.Parameter]
) -> Callable[[Callable[[Options, Options, Options], None]], Callable[..., None]]:
    """Make a command of a function of (what it reads, configuration overrides, run options).

    The command has the arguments `shards` and `--preset`, the parameters `extra`, then every field
    of `configuration` (None: the preset's value) and of `Run`.
    """

    def decorate(function: Callable[[Options, Options, Options], None]) -> Callable[..., None]:
        own = {f.name for f in fields(configuration)}
        run = {f.name for f in fields(Run)}

        def command(**options: Any) -> None:
            function(
                {k: v for k, v in options.items() if k not in own | run},
                {k: v for k, v in options.items() if k in own},
                {k: v for k, v in options.items() if k in run},
            )

        parameters = [*_inputs(configuration), _output(output), *extra]
        parameters += [*_fields(configuration, optional=True), *_fields(Run, optional=False)]
        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def option(name: str, kind: Any, default: Any, help: str, *flags: str) -> inspect.Parameter:
    """One option as a parameter of a command."""
    annotation = Annotated[kind, typer.Option(*flags, help=help)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def shard_paths(options: Options) -> list[Path]:
    """The shards and folders that the command was given."""
    return [Path(path) for path in options["shards"]]


def print_dry_run(configuration: Configuration, needs: dict[str, Any], quiet: bool) -> None:
    """What `--dry-run` shows: the configuration as JSON on standard output, a table of needs."""
    from blurkit.reports.tables import print_table

    print_json({"system": configuration.system, **configuration.as_dict(), "estimate": needs})
    if quiet:
        return
    rows: list[Sequence[object]] = [(k, str(v)) for k, v in configuration.as_dict().items()]
    print_table("configuration", ["option", "value"], rows)
    sizes: list[Sequence[object]] = [
        *((f"{role} parameters", f"{n:,}") for role, n in needs["parameters"].items()),
        ("trained parameters", f"{needs['trained']:,}"),
        *((name, f"{needs[name]:.2f} GiB") for name in ("weights", "optimizer", "activations")),
        ("total memory", f"{needs['total']:.2f} GiB"),
    ]
    print_table("estimate for one process, float32", ["what", "size"], sizes)


def run_training(start: Callable[[], Any]) -> None:
    """Run a training to its end; one that was stopped leaves with the signal's exit status."""
    from blurkit.training.loop import Stopped

    try:
        start()
    except Stopped as stop:
        typer.echo("stopped; the state is saved, continue with --resume", err=True)
        raise typer.Exit(128 + stop.signal) from None


def _inputs(configuration: type[Configuration]) -> list[inspect.Parameter]:
    shards = Annotated[
        list[str], typer.Argument(help="Shards or folders of them: train-*, test-* or val-*.h5.")
    ]
    presets = Literal[tuple(configuration.presets)]  # type: ignore[valid-type]
    return [
        inspect.Parameter(
            "shards", inspect.Parameter.KEYWORD_ONLY, default=["shards/"], annotation=shards
        ),
        option("preset", presets, "paper", "Values of all options below that are not given."),
        option(
            "dry_run", bool, False, "Print configuration, sizes and memory, then stop.", "--dry-run"
        ),
    ]


def _output(default: str) -> inspect.Parameter:
    return option("output", str, default, "Checkpoint to write; - for a pipe.", "--output", "-o")


def _fields(dataclass: type[Configuration] | type[Run], optional: bool) -> list[inspect.Parameter]:
    hints = get_type_hints(dataclass)
    parameters = []
    for f in fields(dataclass):
        if f.default is MISSING:
            continue
        flag = f"--{f.name.replace('_', '-')}"
        kind, default, help = hints[f.name], f.default, f.metadata["help"]
        flags = [flag, "-q"] if f.name == "quiet" else [flag]
        if kind is bool and (optional or default):
            flags = [f"{flag}/--no-{flag[2:]}"]
        if optional:
            help = f"{help} [paper: {default}]"
            kind, default = kind | None, None
        parameters.append(option(f.name, kind, default, help, *flags))
    return parameters


def check_output(run: Run) -> None:
    """Raises UsageError for an output that could not be written, or read back, at the end."""
    from blurkit.io.streams import standard_output

    if run.output == "-":
        standard_output()
        return
    path = Path(run.output)
    if path.suffix not in (".pt", ".pth", ".safetensors") or path.is_dir():
        raise UsageError(f"-o {run.output}: name a checkpoint ending in .pt or .safetensors, or -")
