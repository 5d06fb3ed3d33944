"""Training commands: every field of a configuration dataclass becomes an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from blurkit.cli.common import print_json
from blurkit.errors import UsageError
from blurkit.systems.dbgan.config import AdversarialConfiguration
from blurkit.training.configuration import Configuration, Run

if TYPE_CHECKING:
    from blurkit.nn.features import FeatureNetwork

Options = dict[str, Any]


def training_command(
    configurations: Sequence[type[Configuration]], output: str, extra: Sequence[inspect.Parameter]
) -> Callable[[Callable[[Options, Options, Options], None]], Callable[..., None]]:
    """Make a command of a function of (what it reads, configuration overrides, run options).

    The command has the arguments `shards` and `--preset`, with several configurations `--system`,
    the parameters `extra`, then every field of the `configurations` (None: the preset's value) and
    of `Run`. Overrides are those of the chosen system's configuration.
    """

    def decorate(function: Callable[[Options, Options, Options], None]) -> Callable[..., None]:
        own = {f.name for configuration in configurations for f in fields(configuration)}
        run = {f.name for f in fields(Run)}

        def command(**options: Any) -> None:
            reading = {k: v for k, v in options.items() if k not in own | run}
            overrides = {k: v for k, v in options.items() if k in own}
            if options.get("mix") is not None and not options["bgan"]:
                raise UsageError("--mix goes with --bgan FILE")
            if len(configurations) > 1:
                overrides = _of_system(configurations, reading["system"], overrides)
            function(reading, overrides, {k: v for k, v in options.items() if k in run})

        parameters = [*_inputs(configurations), _output(output), *extra]
        parameters += [*_training_fields(configurations), *_run_fields()]
        command.__name__ = function.__name__
        command.__doc__ = function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _of_system(
    configurations: Sequence[type[Configuration]], system: str, overrides: Options
) -> Options:
    """The overrides that the system's configuration has. UsageError for another's that is given."""
    known = {f.name for c in configurations if c.system == system for f in fields(c)}
    for name, value in overrides.items():
        if value is not None and name not in known:
            raise UsageError(f"--{name.replace('_', '-')} is no option of --system {system}")
    return {name: value for name, value in overrides.items() if name in known}


def option(name: str, kind: Any, default: Any, help: str, *flags: str) -> inspect.Parameter:
    """One option as a parameter of a command."""
    annotation = Annotated[kind, typer.Option(*flags, help=help)]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def field_option(f: Field[Any], kind: Any, told: str) -> inspect.Parameter:
    """The option for a field of type `kind`, None where it is not given; `told` is its default."""
    flag = f"--{f.name.replace('_', '-')}"
    flags = [f"{flag}/--no-{flag[2:]}"] if kind is bool else [flag]
    help = f"{f.metadata['help']} [{told}]" if told else f.metadata["help"]
    return option(f.name, kind | None, None, help, *flags)


FEATURES = option(
    "features", str | None, None, "Feature network file: VGG-19, VGG-11-BN or SqueezeNet."
)


def shard_paths(options: Options) -> list[Path]:
    """The shards and folders that the command was given."""
    return [Path(path) for path in options["shards"]]


def refuse_options(reading: Options, names: Sequence[str]) -> None:
    """Raises UsageError for options given that the chosen system has no use for."""
    for name in names:
        if reading[name]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is no option of --system {reading['system']}")


def perceptual_network(
    want: str, reading: Options, quiet: bool, layers: Sequence[str] = ()
) -> FeatureNetwork | None:
    """The feature network of a perceptual loss, as `find_feature_network` has it.

    A dry run downloads nothing: it takes an empty VGG-19 for the one that a run would fetch.
    """
    from blurkit.nn.backbones import BACKBONES
    from blurkit.nn.features import FeatureNetwork, find_feature_network
    from blurkit.reports.progress import say

    if not reading["dry_run"]:
        return find_feature_network(
            want, reading["features"], lambda text: say(text, quiet), layers
        )
    features = find_feature_network(
        "none" if want == "none" else "auto", reading["features"], layers=layers
    )
    return (
        FeatureNetwork(BACKBONES[0], layers)
        if want == "features" and features is None
        else features
    )


def pre_activation_network(
    c: AdversarialConfiguration, reading: Options, quiet: bool
) -> FeatureNetwork | None:
    """The feature network of BGAN and DBGAN, whose loss is taken before the activation."""
    from blurkit.nn.features import PRE_ACTIVATION

    want = c.perceptual if c.perceptual_weight else "none"
    return perceptual_network(want, reading, quiet, [PRE_ACTIVATION])


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
        if not stop.signal:
            typer.echo("time is up; the state is saved, the same command goes on", err=True)
            return
        typer.echo("stopped; the state is saved, continue with --resume", err=True)
        raise typer.Exit(128 + stop.signal) from None


def _inputs(configurations: Sequence[type[Configuration]]) -> list[inspect.Parameter]:
    shards = Annotated[
        list[str], typer.Argument(help="Shards or folders of them: train-*, test-* or val-*.h5.")
    ]
    names = tuple(dict.fromkeys(name for c in configurations for name in c.presets))
    presets = Literal[names]  # type: ignore[valid-type]
    systems = tuple(configuration.system for configuration in configurations)
    choice = Literal[systems]  # type: ignore[valid-type]
    system = option("system", choice, systems[0], "Which published system to train.")
    return [
        inspect.Parameter(
            "shards", inspect.Parameter.KEYWORD_ONLY, default=["shards/"], annotation=shards
        ),
        *([system] if len(systems) > 1 else []),
        option("preset", presets, "paper", "Values of all options below that are not given."),
        option(
            "dry_run", bool, False, "Print configuration, sizes and memory, then stop.", "--dry-run"
        ),
    ]


def _output(default: str) -> inspect.Parameter:
    return option("output", str, default, "Checkpoint to write; - for a pipe.", "--output", "-o")


def _training_fields(configurations: Sequence[type[Configuration]]) -> list[inspect.Parameter]:
    """An option for every field of any of the configurations, not given unless it is."""
    found: dict[str, list[tuple[str, Field[Any], Any]]] = {}
    for configuration in configurations:
        hints = get_type_hints(configuration)
        for f in fields(configuration):
            found.setdefault(f.name, []).append((configuration.system, f, hints[f.name]))
    parameters = []
    for name, each in found.items():
        _, f, kind = each[0]
        assert all(other == kind for *_, other in each), f"two options are named {name}"
        defaults = {system: f.default for system, f, _ in each}
        told = "; ".join(f"{system}: {default}" for system, default in defaults.items())
        if len(each) == len(configurations) and len(set(defaults.values())) == 1:
            told = f"paper: {f.default}"
        parameters.append(field_option(f, kind, told))
    return parameters


def _run_fields() -> list[inspect.Parameter]:
    hints = get_type_hints(Run)
    parameters = []
    for f in fields(Run):
        if f.default is MISSING:
            continue
        flag = f"--{f.name.replace('_', '-')}"
        flags = [flag, "-q"] if f.name == "quiet" else [flag]
        if hints[f.name] is bool and f.default:
            flags = [f"{flag}/--no-{flag[2:]}"]
        parameters.append(option(f.name, hints[f.name], f.default, f.metadata["help"], *flags))
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
