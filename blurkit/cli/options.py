"""Options that several commands share, each declared once."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from blurkit.cli.common import Settings, local_files, refuse_two_streams, with_part
from blurkit.errors import UsageError
from blurkit.io import paths
from blurkit.options import ANY, Placement, Precision, Protocol, check_options, flag, option, rare
from blurkit.reports.progress import Stages, say, say_warning
from blurkit.systems.system import paper_tables, providers

if TYPE_CHECKING:
    from blurkit.model import Model
    from blurkit.options import ValueRange


InputPaths = Annotated[
    list[str], typer.Argument(help="Images, films, folders, datasets, shards or - (a stream).")
]
BLUR = rare("blur", "Name of a dataset's blur folder: blur, blur_gamma.")
SEED = option(0, "Seed of the random numbers.")
RESTORED_AMOUNT = option(1.0, "How much to restore, from 0 (unchanged) to 1 (fully).", ANY)
CHECKPOINT = "Trained networks: a file, an address or -; default: those that come with blurkit."
NETWORK = rare(
    "",
    "Code of the checkpoint's network, if it is your own: FILE.py:CLASS, as in train-deblur.",
    metavar="CODE",
)
SHA256 = rare((), "SHA-256 that files from addresses must have; repeatable.", metavar="DIGEST")


@dataclass(frozen=True)
class Common:
    """The options of every command: a field added here is an option of each of them."""

    quiet: bool = option(False, "Print errors only.", flags=("--quiet", "-q"))
    max_pixels: int = rare(paths.MOST_PIXELS, "Refuse images that claim more pixels.", 1)

    def __post_init__(self) -> None:
        paths.most_pixels = self.max_pixels


@dataclass(frozen=True)
class Printing(Common):
    """The options of a command that reports."""

    json: bool = option(False, "Print JSON lines on standard output.")


@dataclass(frozen=True)
class Divided(Common):
    """The options of a command whose work several machines can divide."""

    part: str = rare(
        "1/1",
        "Process only part I of N of the inputs; auto or auto/N: that of this task of a cluster's "
        "job. {part} in a name of an output becomes IofN.",
        metavar="I/N",
    )


@dataclass(frozen=True)
class Tracked(Divided, Printing):
    """The options of a command that can say what its parts have done."""

    output: str | None = None

    status: bool = rare(
        False,
        "Only print what each part has done, and those that lack results as --array=.",
    )


@dataclass(frozen=True)
class Writing(Printing):
    """The options of a command that writes files."""

    force: bool = option(False, "Overwrite existing output.")

    def check(self, output: str | None) -> None:
        """Raise UsageError if `--json` and `-o` would both write to standard output."""
        if self.json and output == "-":
            raise UsageError("--json and '-o -' both write to standard output; choose one")


@dataclass(frozen=True)
class Filming:
    """How a command writes films."""

    frames: bool = option(False, "Write the frames of films as images, folder/FILM/000000.png.")
    crf: int | None = rare(
        None, "Constant rate factor of videos: 0 to 63, lower is better.  [17]", maximum=63
    )


@dataclass(frozen=True)
class WritingImages(Writing):
    """The options of a command that writes images."""

    format: str | None = rare(None, "Format of images: png, jpg, tif...; with -o -: one image.")
    quality: int | None = rare(
        None, "Quality of lossy images, 1 to 100; default: a JPEG's own, else 95.", 1, maximum=100
    )


@dataclass(frozen=True)
class Comparable(WritingImages):
    """The options of a command whose results can be compared with their inputs."""

    compare: bool = option(
        False, "Also write before and after side by side: NAME.compare.jpg; of a film, six frames."
    )


@dataclass(frozen=True)
class Resumable(Divided, Writing):
    """The options of a command that makes a result of each image, at `output`."""

    output: str | None = None

    resume: bool = option(False, "Keep finished results and make the others.")

    def check(self, output: str | None) -> None:
        """Raise UsageError for options that exclude each other."""
        super().check(output)
        if self.resume and self.force:
            raise UsageError("--resume keeps results and --force overwrites them; choose one")


@dataclass(frozen=True)
class Device(Common):
    """Where a network runs."""

    device: str = option("auto", "Device: auto, cpu, cuda, cuda:N or mps.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", self.device):
            raise UsageError(f"--device {self.device}: use auto, cpu, cuda, cuda:N or mps")


@dataclass(frozen=True)
class Hardware(Device):
    """Where and how a network runs."""

    precision: Precision = rare("auto", "Number format; auto: bf16 if the hardware supports it.")

    @property
    def placement(self) -> Placement:
        """Where and how networks run."""
        return Placement(self.device, self.precision)


@dataclass(frozen=True)
class Tiling(Hardware):
    """How a network runs on images of any size."""

    tile: str = option(
        "auto", "Tile side in pixels; auto: the size used in training.", metavar="PIXELS"
    )
    overlap: int | None = rare(
        None, "Pixels by which tiles overlap and are blended; default: 32 or half the tile."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile != "auto" and not self.tile.isdecimal():
            raise UsageError(f"--tile {self.tile}: give a number of pixels, or auto")

    @property
    def placement(self) -> Placement:
        """Where and how networks run."""
        tile = None if self.tile == "auto" else int(self.tile)
        return replace(super().placement, tile=tile, overlap=self.overlap)


@dataclass(frozen=True)
class ImageTask(Tiling, Comparable, Resumable, Filming):
    """The options of a command that makes images and films of others."""

    def check(self, output: str | None) -> None:
        """Raise UsageError for options that exclude each other, and `--frames` without a folder."""
        super().check(output)
        if self.frames and not (output and paths.is_folder(output)):
            raise UsageError("--frames writes many images: name a folder/ with -o")


@dataclass(frozen=True)
class Networks:
    """The files that hold a command's networks."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    encoder: tuple[str, ...] = rare(
        (), "Encoder or latents that replace the checkpoint's; repeatable."
    )
    sha256: tuple[str, ...] = SHA256

    @property
    def files(self) -> list[str | None]:
        """The given files; the first is None if `-c` was not given."""
        return [self.checkpoint, *self.encoder]


def at_hand(options: Settings, *names: str) -> Settings:
    """Return options with local files for `names`, or -c and --encoder, as `local_files` does."""
    given = {name: getattr(options, name) for name in names or ("checkpoint", "encoder")}
    return replace(options, **local_files(given, options.sha256, options.quiet))


SYSTEMS = tuple(provider.name for provider in providers("reblurring").values())


@dataclass(frozen=True)
class Reblurring(Networks):
    """The networks of a command that reblurs, and the system that they belong to."""

    system: str | None = option(
        None, "System whose networks reblur; with -c, the checkpoint's.", choices=SYSTEMS
    )


def settled(options: Settings, inputs: Sequence[str], *files: Sequence[str | None]) -> Settings:
    """Return options `with_part` whose output, if it has no ending, is a folder.

    For a single file, it is not. Raises UsageError as their `check` does, and if several of the
    inputs and `files` are standard input.
    """
    options = with_part(options)
    output = options.output or "-"
    named = output == "-" or paths.is_folder(output) or Path(output).suffix.strip(".0123456789")
    if not named:
        from blurkit.io.shards import is_shard  # imports h5py

        first = Path(inputs[0])
        if len(inputs) > 1 or is_shard(first) or not first.is_file():
            options = replace(options, output=f"{output}/")
    options.check(options.output)
    refuse_two_streams(inputs, *files)
    return options


def output_option(default: str, files: str = "Image, film, folder/") -> Any:
    """Return the field of `-o`, which takes `files` and records; by default, it is a `default`."""
    help = f"{files}, shard (.h5) or -; default: {default}."
    return option(None, help, flags=("--output", "-o"))


def model_of(
    networks: Networks,
    hardware: Hardware,
    system: str | None = None,
    value_range: ValueRange | None = None,
    network: str = "",
) -> Model:
    """Return the model of a command, which prints warnings and, unless quiet, what it says."""
    from blurkit.model import Model

    quiet = hardware.quiet
    return Model(
        networks.checkpoint,
        networks.encoder,
        system,
        hardware.placement,
        value_range,
        network,
        say=lambda text: say(text, quiet),
        warn=say_warning,
        watch=Stages("window", quiet),
    )


# ---- Options that the modules of eval share ------------------------------------------------------


@dataclass(frozen=True)
class EvaluationOptions(Networks, Device, Divided, Writing):
    """The options of `blurkit eval`."""

    reference: str | None = option(
        None, "Folder or shard of sharp images; every input is then a run to score."
    )
    blurry: str | None = option(None, "Folder of the blurry images, to form subsets by their PSNR.")
    image: Literal["restored", "reblurred", "blur", "sharp"] | None = option(
        None, "Image of each record to measure; default: restored, or else what it has."
    )
    target: Literal["sharp", "blur"] = option("sharp", "Image of each record to compare it with.")
    ssim: tuple[str, ...] = option(
        ("basicsr", "matlab"),
        "SSIM to report: basicsr, matlab, scikit-image or basicsr-y; repeatable.",
        metavar="KIND",
    )
    metric: tuple[str, ...] = option(
        (), "Also report this metric, such as psnr-y or aligned; repeatable.", metavar="NAME"
    )
    y_psnr: bool = option(False, "Also report the PSNR of the luma, as --metric psnr-y.")
    align: bool = option(
        False, "Also report RealBlur's scores after alignment, as --metric aligned."
    )
    lpips: Path | None = option(
        None,
        "Also report LPIPS with this file: torchvision's AlexNet, VGG-16 or SqueezeNet 1.1; "
        "default: BLURKIT_LPIPS.",
    )
    lpips_heads: Path | None = rare(
        None, "File of LPIPS's linear layers; default: BLURKIT_LPIPS_HEADS."
    )
    crop_border: int = rare(
        0, "Pixels at each side that do not count, as in BasicSR.", metavar="PIXELS"
    )
    no_reference: tuple[str, ...] = option(
        (),
        "Also measure images alone, by pyiqa: niqe,musiq,...; without --reference, several inputs "
        "are runs to compare by these.",
        metavar="NAME,...",
    )
    frequency: bool = option(
        False, "Also report how entropies of high and low frequencies diverge at three scales."
    )
    patch: int | None = rare(
        None, "Side of the squares for --frequency, pixels; default: whole images.", ANY
    )
    figure: Path | None = rare(
        None, "Plot the results of --frequency: a .png, .pdf or .svg file (matplotlib)."
    )
    by_sequence: bool = option(False, "Also report the means of each sequence.")
    confidence: float | None = option(
        None, "Report confidence intervals of the means at this level, such as 0.95.", ANY
    )
    seed: int = SEED
    networks: tuple[str, ...] = option(
        (),
        "Restore pairs by these networks and compare them: files, addresses, names; repeatable.",
        metavar="NETWORK...",
    )
    protocol: Protocol = option(
        "tiles", "With --networks: how they run whole images, as in deblur; own: as their papers'."
    )
    tile: str = option(
        "auto", "With --networks: tile side in pixels; auto: of their training.", metavar="PIXELS"
    )
    precision: Precision = rare("fp32", "With --networks: number format.")
    checkpoint: str | None = option(
        None, "Checkpoint whose parameters and MACs to report.", flags=("--checkpoint", "-c")
    )
    network: str = NETWORK
    input_size: str = rare("256x256", "Image size in pixels for the MACs.", metavar="WxH")
    output: tuple[Path, ...] = option(
        (), "Report file: .csv, .json, .md or .tex; repeatable.", flags=("--output", "-o")
    )
    paper: str | None = option(
        None,
        "Add the rows of a paper's table, by its system and number.",
        choices=tuple(paper_tables()),
    )
    pictures: Path | None = option(
        None,
        "Folder for side-by-side pictures; of several runs, the worst and best images. With "
        "--frequency, also for the bands.",
    )
    html: Path | None = option(
        None,
        "Folder for a report with pictures; of 10 images or more, implies --confidence 0.95.",
        metavar="FOLDER",
    )
    resume: bool = option(
        False, "With -o: keep a log of scores beside the report, and measure what it lacks."
    )
    merge: bool = option(
        False, "The inputs are JSON reports of parts (--part): make one report of them."
    )

    @property
    def alone(self) -> list[str]:
        """The names of the measures without a reference."""
        return [name for text in self.no_reference for name in text.split(",") if name]

    def level_for(self, images: int) -> float | None:
        """Return the confidence level of the intervals of so many images' means, None without."""
        reported = self.html is not None and images >= 10
        return 0.95 if self.confidence is None and reported else self.confidence

    @property
    def metrics(self) -> list[str]:
        """The names of all requested metrics other than PSNR and SSIM."""
        named = {"psnr-y": self.y_psnr, "aligned": self.align}
        return [*self.metric, *(name for name, requested in named.items() if requested)]


# ---- Fields to options ---------------------------------------------------------------------------
# A command is a function. A parameter annotated with a dataclass, whose fields are made by
# `blurkit.options.option`, becomes an option for each field, and receives an instance. A parameter
# annotated `Annotated[Given, AClass]`, for options whose defaults come from presets, receives a
# dict of the given values, with None for the others. If fields share a name, the first one is used.

Given = dict[str, Any]
"""Option values by field name, None if the option was not given."""

Command = Callable[..., None]

_parameter = functools.partial(inspect.Parameter, kind=inspect.Parameter.KEYWORD_ONLY)


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
    options["help_all"] = _parameter("help_all", default=False, annotation=HelpAll)

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
        if "help" not in f.metadata or f.metadata["constant"]:
            continue  # the command declares this option itself, or has none
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
        how: Any = {"hidden": f.metadata["rare"], "metavar": metavar, "rich_help_panel": title}
        shown = default not in (None, "", False, [])
        details = typer.Option(*_flags(f, hint, given), help=help, show_default=shown, **how)
        yield _parameter(f.name, default=default, annotation=Annotated[hint, details])


def _flags(f: Field[Any], hint: Any, given: bool) -> tuple[str, ...]:
    """Return the names of a field's option, with --no-NAME if it can be on by default."""
    name = flag(f)
    if hint in (bool, bool | None) and (given or f.default):
        return (f"{name}/--no-{name[2:]}",)
    return f.metadata.get("flags") or (name,)


def _filled(group: tuple[type, bool], values: Mapping[str, Any]) -> Any:
    """Return the dataclass with the values of its options, or only these values if `Given`."""
    kind, given = group
    known = (f.name for f in fields(kind) if not f.metadata.get("constant"))
    own = {name: values[name] for name in known if name in values}
    if given:
        return own
    built = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()})
    check_options(built)
    return built


def _show_all(context: typer.Context, requested: bool) -> None:
    if requested:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_show_all,
        is_eager=True,
        expose_value=False,
        help="Show this message with all options and exit.",
    ),
]
