"""Options that several commands share, each declared once."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from blurkit.cli.common import local_files
from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.io import paths
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.options import option
from blurkit.reports.progress import say
from blurkit.systems.system import Use, introduction, load_shipped, providers, title_and_date
from blurkit.systems.uses import start_engine

InputPaths = Annotated[
    list[str], typer.Argument(help="Images, films, folders, datasets, shards or - (a stream).")
]
BLUR = option("blur", "Name of a dataset's blur folder: blur, blur_gamma.", rare=True)
PART = option(
    "1/1",
    "Process only part I of N of the inputs; auto: the part of this task of a cluster's job.",
    metavar="I/N",
    rare=True,
)
SEED = option(0, "Seed of the random numbers.")
CHECKPOINT = "Trained networks: a file, an address or -; default: those that come with blurkit."
SHA256 = option(
    (), "SHA-256 that files from addresses must have; repeatable.", metavar="DIGEST", rare=True
)


@dataclass(frozen=True)
class Common:
    """The options of every command: a field added here is an option of each of them."""

    quiet: bool = option(False, "Print errors only.", flags=("--quiet", "-q"))
    max_pixels: int = option(
        paths.MOST_PIXELS, "Refuse images that claim more pixels.", 1, rare=True
    )

    def __post_init__(self) -> None:
        paths.most_pixels = self.max_pixels


@dataclass(frozen=True)
class Printing(Common):
    """The options of a command that reports."""

    json: bool = option(False, "Print JSON lines on standard output.")


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
    """How a command that makes images of images writes films."""

    frames: bool = option(False, "Write the frames of films as images, folder/FILM/000000.png.")
    crf: int | None = option(
        None,
        "Constant rate factor of videos: 0 to 63, lower is better.  [17]",
        maximum=63,
        rare=True,
    )

    def check_films(self, output: str | None) -> None:
        """Raise UsageError if `--frames` is given, but `-o` is not a folder."""
        if self.frames and not (output and (output.endswith("/") or Path(output).is_dir())):
            raise UsageError("--frames writes many images: name a folder/ with -o")


@dataclass(frozen=True)
class WritingImages(Writing):
    """The options of a command that writes images."""

    format: str | None = option(
        None, "Format of images: png, jpg, tif...; with -o -: one image.", rare=True
    )
    quality: int | None = option(
        None,
        "Quality of lossy images, 1 to 100; default: a JPEG's own, else 95.",
        1,
        maximum=100,
        rare=True,
    )


@dataclass(frozen=True)
class Comparable(WritingImages):
    """The options of a command whose results can be compared with their inputs."""

    compare: bool = option(False, "Also write before and after side by side: NAME.compare.jpg.")


@dataclass(frozen=True)
class Resumable(Writing):
    """The options of a command that makes a result of each image."""

    resume: bool = option(False, "Keep finished results and make the others.")
    part: str = PART

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

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Number format; auto: bf16 if the hardware supports it.", rare=True
    )

    @property
    def cut(self) -> tuple[int | None, int | None]:
        """Side and overlap of tiles in pixels, None if not given."""
        return None, None


@dataclass(frozen=True)
class Tiling(Hardware):
    """How a network runs on images of any size."""

    tile: str = option(
        "auto", "Tile side in pixels; auto: the size used in training.", metavar="PIXELS"
    )
    overlap: int | None = option(
        None,
        "Pixels by which tiles overlap and are blended; default: 32 or half the tile.",
        rare=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile != "auto" and not self.tile.isdecimal():
            raise UsageError(f"--tile {self.tile}: give a number of pixels, or auto")

    @property
    def cut(self) -> tuple[int | None, int | None]:
        """Side and overlap of tiles in pixels, None if not given."""
        return None if self.tile == "auto" else int(self.tile), self.overlap


@dataclass(frozen=True)
class Networks:
    """The files that hold a command's networks."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    encoder: tuple[str, ...] = option(
        (), "Encoder or latents that replace the checkpoint's; repeatable.", rare=True
    )
    sha256: tuple[str, ...] = SHA256

    @property
    def files(self) -> list[str | None]:
        """The given files; the first is None if `-c` was not given."""
        return [self.checkpoint, *self.encoder]


_Options = TypeVar("_Options", bound=Any)


def at_hand(options: _Options, *names: str) -> _Options:
    """Return options with local files for those of `names`, by default -c and --encoder.

    Addresses are fetched. Raises as `local_files` does.
    """
    given = {name: getattr(options, name) for name in names or ("checkpoint", "encoder")}
    changed: _Options = replace(options, **local_files(given, options.sha256, options.quiet))
    return changed


SYSTEMS = tuple(provider.name for provider in providers("reblurring").values())


@dataclass(frozen=True)
class Reblurring(Networks):
    """The networks of a command that reblurs, and the system that they belong to."""

    system: str | None = option(
        None, "System whose networks reblur; with -c, the checkpoint's.", choices=SYSTEMS
    )


def output_option(help: str) -> Any:
    """Return the field of `-o` with the help text `help`."""
    return option(None, help, flags=("--output", "-o"))


def load_checkpoints(
    use: Use, networks: Networks, quiet: bool = False, system: str | None = None
) -> list[Checkpoint]:
    """Return the checkpoints that `-c` and `--encoder` name, in this order.

    Without `-c`, the first is the one that comes with blurkit for `use`, of `system` if that is
    given; a message says so unless `quiet`. Raises BlurkitError for a bad file.
    """
    if networks.checkpoint is None:
        first = load_shipped(system, use)
        say(introduction(*title_and_date(first)), quiet)
    else:
        first = load_checkpoint(networks.checkpoint)
    return [first, *map(load_checkpoint, networks.encoder)]


def start(
    use: Use,
    networks: Networks,
    hardware: Hardware,
    quiet: bool,
    system: str | None = None,
    shipped: Use | None = None,
    **options: Any,
) -> tuple[Engine, str]:
    """Return the engine that runs a network for `use`, and the name of the first checkpoint.

    Without `-c`, the checkpoint is the one that comes with blurkit for the use `shipped`, by
    default `use`. `options` are those of `tasks.engines.start_engine`. Raises BlurkitError if the
    files do not hold the network.
    """
    loaded = load_checkpoints(shipped or use, networks, quiet, system)
    tile, overlap = hardware.cut
    engine = start_engine(
        use,
        *loaded,
        tile=tile,
        overlap=overlap,
        device=hardware.device,
        precision=hardware.precision,
        warn=lambda text: say(f"warning: {text}"),
        system=system,
        **options,
    )
    return engine, loaded[0].name
