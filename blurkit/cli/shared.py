"""Options that several commands share, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.systems.system import providers

InputPaths = Annotated[
    list[str], typer.Argument(help="Images, folders, datasets, shards or - (a stream).")
]
BLUR = option("blur", "Blur folder of a dataset: blur, blur_gamma.", rare=True)
PART = option("1/1", "Do the I-th of N shares of the work.", metavar="I/N", rare=True)
SEED = option(0, "Seed of everything drawn.")
CHECKPOINT = "Trained networks; - reads them from a pipe; else those that come with blurkit."


@dataclass(frozen=True)
class Common:
    """The options of every command: a field added here is an option of each of them."""

    quiet: bool = option(False, "Print errors only.", flags=("--quiet", "-q"))


@dataclass(frozen=True)
class Printing(Common):
    """The options of a command that reports."""

    json: bool = option(False, "JSON lines on standard output.")


@dataclass(frozen=True)
class Writing(Printing):
    """The options of a command that writes files."""

    force: bool = option(False, "Overwrite existing output.")

    def check(self, output: str | None) -> None:
        """Raises UsageError when `--json` and `-o` both want standard output."""
        if self.json and output == "-":
            raise UsageError("--json and '-o -' both want standard output; choose one")


@dataclass(frozen=True)
class Device:
    """Where a network runs."""

    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.")


@dataclass(frozen=True)
class Hardware(Device):
    """Where and how a network runs."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "Number format; auto is bf16 where the hardware has it.", rare=True
    )

    @property
    def cut(self) -> tuple[int | None, int | None]:
        """Side and overlap of tiles in pixels, None where they are not named."""
        return None, None


@dataclass(frozen=True)
class Tiling(Hardware):
    """How a network runs on images of any size."""

    tile: str = option(
        "auto", "Tile side in pixels; auto is the size it was trained on.", metavar="PIXELS"
    )
    overlap: int | None = option(
        None,
        "Pixels that tiles share and blend over; default 32 or half the tile.",
        rare=True,
    )

    def __post_init__(self) -> None:
        if self.tile != "auto" and not self.tile.isdecimal():
            raise UsageError(f"--tile {self.tile}: give a number of pixels, or auto")

    @property
    def cut(self) -> tuple[int | None, int | None]:
        """Side and overlap of tiles in pixels, None where they are not named."""
        return None if self.tile == "auto" else int(self.tile), self.overlap


@dataclass(frozen=True)
class Networks:
    """The files that hold a command's networks."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    encoder: tuple[str, ...] = option(
        (), "Encoder or latents to use in place of the checkpoint's; repeatable.", rare=True
    )

    @property
    def files(self) -> list[str | None]:
        """All files that are named."""
        return [self.checkpoint, *self.encoder]


SYSTEMS = tuple(one.name for one in providers("reblurring").values())


@dataclass(frozen=True)
class Reblurring(Networks):
    """The networks that reblur, of one of the systems that do."""

    system: str | None = option(
        None, "The system whose networks reblur; with -c it is the checkpoint's.", choices=SYSTEMS
    )


def output_option(help: str) -> Any:
    """Return the field of `-o`, whose help says what it takes."""
    return option(None, help, flags=("--output", "-o"))
