"""Training commands: their options are those of the system that `--system` names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from blurkit.cli.common import local_files, print_json
from blurkit.cli.options import SHA256, Common, Given, expand, flags_of
from blurkit.errors import UsageError
from blurkit.options import flag, option, rare
from blurkit.systems.system import Training, augmentations, named, trainings
from blurkit.training.configuration import (
    Run,
    SavedConfiguration,
    TrainingInputs,
    read_configuration,
)

Shards = Annotated[
    list[str], typer.Argument(help="Shards, or folders of train-*, val-* or test-*.h5.")
]


@dataclass(frozen=True)
class TrainingOptions(Common):
    """The options of training commands other than those of the system and of the run."""

    config: str = option(
        "", "Options from a --dry-run or a checkpoint, instead of a preset.", metavar="FILE"
    )
    dry_run: bool = option(False, "Print the configuration, sizes and memory use, then stop.")
    sha256: tuple[str, ...] = SHA256
    processes: int = rare(
        1, "With --dry-run: devices that share the batch; print the needs of one.", 1
    )
    measure_steps: int = rare(
        0, "With --dry-run: run so many steps on the device and print their time."
    )


Augmentations: Any = make_dataclass(
    "Augmentations",
    [(name, str, option("", change.help)) for name, (_, change) in augmentations().items()],
    frozen=True,
)
"""The checkpoints of networks that augment the batches of any training, by option."""


USES_OF_PRESETS = {
    "paper": "has the paper's values",
    "official": "those of the released code",
    "small": "trains on a CPU in minutes",
}
"""What the help says of a preset, where the system has it."""


@dataclass(frozen=True)
class TrainingCommand:
    """A command that trains one of several systems, which `--system` names.

    `name` is the name of the command, `output` its default output file, and `about` its help
    without the systems.
    """

    name: str
    output: str
    about: str

    def help(self, presets: Iterable[str]) -> str:
        """Return the help of the command: its purpose, systems, some of the presets, examples."""
        first, examples = self.about.split("\n\n")
        offered = trainings(self.name).items()
        systems = " ".join(f"--system {name}: {training.about}" for name, (_, training) in offered)
        known = {name: use for name, use in USES_OF_PRESETS.items() if name in presets}
        uses = " ".join(f"--preset {name} {use}." for name, use in known.items())
        return "\n\n".join([first, f"    {systems}", f"    {uses}", examples])

    def command(self, arguments: Sequence[str]) -> Callable[..., None]:
        """Return the command with the options of the system that `arguments` name.

        Raises UsageError if they contain an option of another system, or a `--config` that does not
        fit the command, `--system` or `--preset`.
        """
        offered, given_flags = trainings(self.name), _flags_in(arguments)
        choices = {name: _classes(*training) for name, training in offered.items()}
        saved = self._saved(arguments)
        first = next(iter(choices))
        implied = (name for name, (_, t) in offered.items() if t.chosen_by in given_flags)
        system = _last(arguments, "--system") or (saved.system if saved else next(implied, first))
        system = system if system in choices else first  # typer refuses other names
        configuration, input_files = choices[system]
        named_files = {f.name: _last(arguments, flag(f)) for f in fields(input_files)}
        configuration = configuration.for_inputs(named_files)
        choices[system] = configuration, input_files
        flags = {k: flags_of(c, given=True) | flags_of(i) for k, (c, i) in choices.items()}
        foreign = set().union(*flags.values()) - flags[system]
        foreign -= flags_of(Run) | flags_of(Augmentations)
        if wrong := [name for name in given_flags if name in foreign]:
            raise UsageError(f"{wrong[0]} is not an option of --system {system}")

        def train(
            shards: Shards = ["shards/"],  # noqa: B006
            *,
            system: Any = system,
            preset: Any = next(iter(configuration.presets)),
            output: Annotated[
                str, typer.Option("--output", "-o", help="Checkpoint to write; - for a pipe.")
            ] = self.output,
            options: TrainingOptions,
            inputs: Any,
            changes: Any,
            overrides: Given,
            run: Run,
        ) -> None:
            check_output(run)
            if saved is None:
                inputs.check(overrides)
                configuration.resolve(preset, **overrides)
            changes = {name: file for name, file in vars(changes).items() if file}
            named = inputs.files | changes | {"start": run.start}
            files = local_files(named, options.sha256, options.quiet, "file (from --{})")
            changes, given = ({k: files[k] for k in part} for part in (changes, inputs.files))
            how = replace(run, start=files["start"], augmentations=changes)
            what = {"command": self.name, "system": system, "preset": saved or preset}
            what |= {"run": how, "inputs": vars(inputs) | given, "overrides": overrides}
            if options.dry_run:
                print_estimate(options, how, what)
            else:
                run_training(shards, how, what)

        system_help = f"System to train, whose options --help shows.  [{first}]"
        system_option = typer.Option(help=system_help, show_default=False)
        preset_option = typer.Option(help="Preset of values for the options of --system.")
        train.__annotations__ |= {
            "system": Annotated[Literal[tuple(choices)], system_option],
            "preset": Annotated[Literal[tuple(configuration.presets)], preset_option],
            "inputs": input_files,
            "changes": Augmentations,
            "overrides": Annotated[Given, configuration],
        }
        train.__doc__ = self.help(configuration.presets)
        train.__name__ = self.name.replace("-", "_")
        title = f"Options of --system {system}"
        return expand(train, {"inputs": title, "overrides": title})

    def _saved(self, arguments: Sequence[str]) -> SavedConfiguration | None:
        """Return what `--config` names, if it is given."""
        if not (file := _last(arguments, "--config")):
            return None
        if "--preset" in _flags_in(arguments):
            raise UsageError("--preset and --config exclude each other: both set every option")
        saved = read_configuration(file)
        if saved.system not in (offered := trainings(self.name)):
            names = ", ".join(offered)
            raise UsageError(f"{file}: is of --system {saved.system}; {self.name} has {names}")
        return saved


def _classes(folder: str, training: Training) -> tuple[Any, Any]:
    """Return the dataclasses of a training's configuration and of the files that it needs."""
    inputs = named(folder, "config", training.inputs) if training.inputs else TrainingInputs
    return named(folder, "config", training.configuration), inputs


def _flags_in(arguments: Sequence[str]) -> list[str]:
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [text.partition("=")[0] for text in arguments[:end] if text.startswith("--")]


def _last(arguments: Sequence[str], option: str) -> str:
    """Return the last value of an option among the arguments of a command, "" without it."""
    found = ""
    for place, text in enumerate(arguments):
        flag, _, value = text.partition("=")
        if flag == option:
            found = value or next(iter(arguments[place + 1 :]), "")
    return found


def print_estimate(options: TrainingOptions, run: Run, chosen: Mapping[str, Any]) -> None:
    """Print the output of `--dry-run`: the configuration as JSON on standard output, then tables.

    `chosen` are the arguments of `tasks.train.plan_training`.
    """
    from blurkit.reports.tables import print_table

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks.train import needs_of, plan_training

    plan = plan_training(**chosen, dry_run=True)
    configuration = plan.configuration
    needs = needs_of(plan, run, options.processes, options.measure_steps)
    print_json({"system": configuration.system, **configuration.as_dict(), "estimate": needs})
    if run.quiet:
        return
    rows = [(k, str(v)) for k, v in configuration.as_dict().items()]
    print_table("configuration", ["option", "value"], rows)
    sizes: dict[str, object] = {
        "crops": -(-configuration.batch // options.processes),
        "parts": run.accumulate,
        "checkpointing": run.checkpointing,
        **{f"{role} parameters": f"{n:,}" for role, n in needs["parameters"].items()},
        "trained parameters": f"{needs['trained']:,}",
        **{name: f"{needs[name]:.2f} GiB" for name in ("weights", "optimizer", "activations")},
        "total memory": f"{needs['total']:.2f} GiB",
        **{f"measured {k}": f"{value:.2f}" for k, value in needs.get("measured", {}).items()},
    }
    print_table("estimate for one process, float32", ["what", "size"], [*sizes.items()])


def run_training(shards: list[str], run: Run, chosen: Mapping[str, Any]) -> None:
    """Run a training; if a signal stops it, exit with the signal's status."""
    from blurkit.data.sampler import training_shards

    training_shards([Path(shard) for shard in shards])

    # Import torch only now, so that missing shards are refused at once.
    from blurkit.tasks.train import plan_training, run_plan
    from blurkit.training.loop import Stopped

    try:
        run_plan(plan_training(**chosen), shards, run)
    except Stopped as stop:
        if not stop.signal:
            typer.echo("time is up; the state is saved; run the same command to continue", err=True)
            return
        typer.echo("stopped; the state is saved; continue with --resume", err=True)
        raise typer.Exit(128 + stop.signal) from None


def check_output(run: Run) -> None:
    """Raise UsageError for an output that could not be written, or read back later."""
    if run.output == "-":
        from blurkit.io.streams import standard_output  # imports numpy

        standard_output()
        return
    path = Path(run.output)
    if path.suffix not in (".pt", ".pth", ".safetensors") or path.is_dir():
        raise UsageError(f"-o {run.output}: name a checkpoint ending in .pt or .safetensors, or -")


# ---- The commands --------------------------------------------------------------------------------

train_deblur = TrainingCommand(
    "train-deblur",
    "deblur.pt",
    """Train networks that deblur.

    Examples: blurkit train-deblur shards/ --encoder enc.pt --preset small -o deblur.pt;
    blurkit train-deblur shards/ --system dbgan --bgan bgan.pt;
    blurkit train-deblur shards/ --network mine.py:Net -o mine.pt
    """,
)


train_reblur = TrainingCommand(
    "train-reblur",
    "enc.pt",
    """Train networks that find, transfer or generate blur.

    Examples: blurkit train-reblur shards/ --preset small -o enc.pt;
    blurkit train-reblur shards/ --system kernel-space --preset small -o kernel.pt;
    blurkit train-reblur shards/ --system bgan --blurry rwbi/ --preset small -o bgan.pt
    """,
)
