"""Training commands: their options are those of the system that `--system` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blurkit.cli.common import print_json
from blurkit.cli.fields import Given, expand, flags_of
from blurkit.cli.shared import Common
from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.systems.dbgan.config import AdversarialConfiguration
from blurkit.systems.system import systems
from blurkit.training.configuration import Configuration, Run

if TYPE_CHECKING:
    from blurkit.nn.features import FeatureTrunk

Options = dict[str, Any]
Body = Callable[[Options, Options, Options], None]
"""What a training command does with what it reads, configuration overrides, and run options."""

Shards = Annotated[
    list[str], typer.Argument(help="Shards or folders of them: train-*, test-* or val-*.h5.")
]


@dataclass(frozen=True)
class Choice:
    """One of the systems that a command trains, with the dataclasses of its options."""

    about: str
    configuration: type[Configuration]
    inputs: type

    @property
    def flags(self) -> set[str]:
        """All names of its own options on the command line."""
        return flags_of(self.configuration, given=True) | flags_of(self.inputs)


@dataclass(frozen=True)
class NoInputs:
    """The files of a training that reads nothing beside its shards."""


@dataclass(frozen=True)
class TrainingOptions(Common):
    """What every training command has beside the options of a method and of a run."""

    dry_run: bool = option(False, "Print configuration, sizes and memory, then stop.")


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains one of several systems, which `--system` names.

    `name` is the command's, `output` the file that it writes by default. `more` is a
    dataclass of options that all systems have.
    """

    name: str
    output: str
    body: Body
    more: type = NoInputs

    def help(self) -> str:
        """Return the help of the command: what it does, each system that it trains, examples."""
        first, *rest = (self.body.__doc__ or "").split("\n\n")
        each = (f"--system {name}: {choice.about}" for name, choice in self.choices().items())
        return "\n\n".join([first, "    " + " ".join(each), *rest])

    def choices(self) -> Mapping[str, Choice]:
        """Return the systems that the command trains, by name."""
        return {
            training.name: Choice(
                training.about,
                _configuration(folder, training.configuration),
                _configuration(folder, training.inputs) if training.inputs else NoInputs,
            )
            for folder, system in systems().items()
            for training in system.trainings
            if training.command == self.name
        }

    def command(self, arguments: Sequence[str]) -> Callable[..., None]:
        """Return the command with the options of the system that the arguments name.

        Raises UsageError for an option of another system.
        """
        choices = self.choices()
        system = _named(arguments, choices)
        chosen = choices[system]
        for argument in _flags_in(arguments):
            others = (choice for choice in choices.values() if argument in choice.flags)
            if any(others) and argument not in chosen.flags | flags_of(Run) | flags_of(self.more):
                raise UsageError(f"{argument} is no option of --system {system}")

        def train(
            shards: Shards = ["shards/"],  # noqa: B006
            *,
            system: Any = system,
            preset: Any = next(iter(chosen.configuration.presets)),
            output: Annotated[
                str, typer.Option("--output", "-o", help="Checkpoint to write; - for a pipe.")
            ] = self.output,
            options: TrainingOptions,
            inputs: Any,
            more: Any,
            overrides: Given,
            run: Run,
        ) -> None:
            if overrides.get("mix") is not None and not run.bgan:
                raise UsageError("--mix goes with --bgan FILE")
            reading = {"shards": shards, "system": system, "preset": preset}
            reading |= {**vars(options), **vars(inputs), **vars(more)}
            self.body(reading, overrides, dict(vars(run)))

        first = next(iter(choices))
        which = f"Published system to train; --help shows the options of this one.  [{first}]"
        values = "Values of the options of --system that are not given."
        train.__annotations__ |= {
            "system": Annotated[
                Literal[tuple(choices)], typer.Option(help=which, show_default=False)
            ],
            "preset": Annotated[
                Literal[tuple(chosen.configuration.presets)], typer.Option(help=values)
            ],
            "inputs": chosen.inputs,
            "more": self.more,
            "overrides": Annotated[Given, chosen.configuration],
        }
        train.__doc__, train.__name__ = self.help(), self.body.__name__
        title = f"Options of --system {system}"
        return expand(train, {"inputs": title, "overrides": title})


def training_command(
    name: str, output: str, more: type = NoInputs
) -> Callable[[Body], TrainingCommand]:
    """Make a `TrainingCommand` of the function below."""
    return lambda body: TrainingCommand(name, output, body, more)


def _configuration(folder: str, name: str) -> Any:
    """Return a dataclass of the `config` module of a system."""
    return getattr(import_module(f"blurkit.systems.{folder}.config"), name)


def _flags_in(arguments: Sequence[str]) -> list[str]:
    """Return the names of options among the arguments of a command."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [text.partition("=")[0] for text in arguments[:end] if text.startswith("--")]


def _named(arguments: Sequence[str], choices: Mapping[str, Choice]) -> str:
    """Return the system that `--system` names last, the first one without it."""
    named = next(iter(choices))
    for place, text in enumerate(arguments):
        flag, _, value = text.partition("=")
        if flag == "--system":
            named = value or next(iter(arguments[place + 1 :]), named)
    return named if named in choices else next(iter(choices))  # typer refuses another


FEATURES = option(None, "Feature network file: VGG-19, VGG-11-BN or SqueezeNet.")


def shard_paths(options: Options) -> list[Path]:
    """The shards and folders that the command was given."""
    return [Path(path) for path in options["shards"]]


def refuse_options(reading: Options, names: Sequence[str]) -> None:
    """Raises UsageError for options given that the chosen system has no use for."""
    for name in names:
        if reading[name]:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} is no option of --system {reading['system']}")


def perceptual_trunk(
    want: str, reading: Options, quiet: bool, layers: Sequence[str] = ()
) -> FeatureTrunk | None:
    """The feature network of a perceptual loss, as `find_trunk` has it.

    A dry run downloads nothing: it takes an empty VGG-19 for the one that a run would fetch.
    """
    from blurkit.nn.backbones import TRUNKS
    from blurkit.nn.features import FeatureTrunk, find_trunk
    from blurkit.reports.progress import say

    if not reading["dry_run"]:
        return find_trunk(want, reading["features"], lambda text: say(text, quiet), layers)
    trunk = find_trunk("none" if want == "none" else "auto", reading["features"], layers=layers)
    return FeatureTrunk(TRUNKS[0], layers) if want == "features" and trunk is None else trunk


def pre_activation_trunk(
    c: AdversarialConfiguration, reading: Options, quiet: bool
) -> FeatureTrunk | None:
    """The feature network of BGAN and DBGAN, whose loss is taken before the activation."""
    from blurkit.nn.features import PRE_ACTIVATION

    want = c.perceptual if c.perceptual_weight else "none"
    return perceptual_trunk(want, reading, quiet, [PRE_ACTIVATION])


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


def check_output(run: Run) -> None:
    """Raises UsageError for an output that could not be written, or read back, at the end."""
    from blurkit.io.streams import standard_output

    if run.output == "-":
        standard_output()
        return
    path = Path(run.output)
    if path.suffix not in (".pt", ".pth", ".safetensors") or path.is_dir():
        raise UsageError(f"-o {run.output}: name a checkpoint ending in .pt or .safetensors, or -")
