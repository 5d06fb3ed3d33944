"""`blurkit reblur`: blur photos like another picture, with a kernel, or at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_missing, refuse_two_streams, run_later
from blurkit.cli.shared import (
    SEED,
    Comparable,
    Filming,
    Reblurring,
    Resumable,
    Tiling,
    at_hand,
    output_option,
)
from blurkit.errors import UsageError
from blurkit.options import ANY, Method, choose_reblurring, option
from blurkit.systems.system import providers

Way = Literal["like", "kernel", "random", "noise", "search"]
WAYS: tuple[Way, ...] = ("like", "kernel", "random", "noise", "search")
"""Sources of blur. `like`, the default, is what `--like` names, or else the record itself."""


@dataclass(frozen=True)
class ReblurOptions(Reblurring, Tiling, Comparable, Resumable, Filming):
    """The options of `blurkit reblur`."""

    output: str | None = output_option(
        "Image, film, folder/, shard (.h5) or -; default: NAME.reblurred next to each file."
    )
    like: tuple[str, ...] = option(
        (), "Blurry image to take the blur from; a folder, a shard or several: one per input."
    )
    method: Method | None = option(
        None,
        "With --like: shake: estimate the blur and apply it, direction included; network: blur by "
        "G_r or F; auto: shake if an estimate is believed, else network.  [auto; network with -c, "
        "--encoder, --system, --tile, --overlap or without --like]",
    )
    kernel: str | None = option(
        None,
        "Kernel (.mat .npz .npy .png), or a shard or - with kernels or codes from blind-deblur "
        "--keep-kernel; one for all inputs, or one per input.",
        metavar="FILE",
    )
    random: bool = option(False, "Draw new blurs from a kernel space: motion of any direction.")
    noise: bool = option(False, "Draw new blurs from the BGAN that -c names.")
    search: bool = option(
        False, "Search for the code of each record's own blur instead of using G's."
    )
    shuffle: bool = option(
        False, "Assign blurs to photos at random; without --like, make a blur-swapped dataset."
    )
    pairs: bool = option(
        False, "Write training pairs with the result as blur, as --shuffle without --like does."
    )
    copies: int = option(1, "With --random or --noise: blurred versions of each photo.", 1)
    random_scale: float | None = option(
        None,
        "Standard deviation of normal random input; default 1 with --noise and, with --random, "
        "1.2 for networks that come without codes.",
        rare=True,
    )
    gamma: float | None = option(
        None,
        "With --kernel: gamma between pixels and linear light; default 1.",
        ANY,
    )
    iterations: int | None = option(None, "With --search: number of steps; default 200.", ANY)
    kernel_rate: float | None = option(
        None, "With --search: learning rate; default 0.0005.", ANY, rare=True
    )
    seed: int = SEED

    @property
    def ways(self) -> list[Way]:
        """The given options that name a source of blur."""
        return [way for way in WAYS if getattr(self, way) not in (None, False, ())]

    @property
    def way(self) -> Way:
        """The source of blur."""
        return self.ways[0] if self.ways else "like"

    @property
    def by(self) -> Method:
        """What blurs photos like others: the named method, or the one that other options imply."""
        return choose_reblurring(self.method, self.names_networks, not self.like)

    @property
    def names_networks(self) -> bool:
        """Whether options for networks that reblur are given."""
        return any((*self.files, self.system)) or self.cut != (None, None)

    @property
    def swaps(self) -> bool:
        """Whether the output is a dataset of pairs."""
        return self.pairs or (self.shuffle and not self.like)


def reblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp images, folders, datasets, shards or - (a stream).")
    ],
    options: ReblurOptions,
) -> None:
    """Blur sharp photos like other photos, with a kernel, or at random.

    The blur of --like is estimated as a kernel or, where that fails, given by a network; for the
    blur kernel space (--system), --like names pairs of a sharp and a blurry image, or shards of
    them. Without --like, records with both images reblur themselves, and the result is compared
    with their own blur; with --shuffle they exchange blurs, and the output is a dataset of training
    pairs (a folder receives shards). With --copies, the differences between copies are measured.

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/; blurkit reblur photos/ --random;
    blurkit reblur photos/ --noise -c bgan.pt --copies 4 --pairs -o pairs/;
    blurkit reblur pairs.h5 --search
    """
    options.check(options.output)
    options.check_films(options.output)
    refuse_two_streams(inputs, options.like, [options.kernel, *options.files])
    refuse_missing([*options.like, options.kernel], "file or folder")
    if len(options.ways) > 1:
        raise UsageError("use only one of --like, --kernel, --random, --noise and --search")
    _check_networks(options)
    _check_goes_with(options)

    run_later("reblur_run", "reblur_records", inputs, at_hand(options))


def _check_networks(options: ReblurOptions) -> None:
    """Raise UsageError for networks, or uses of them, that the source of blur does not have."""
    if options.way == "like":
        return
    if options.shuffle or options.encoder:
        raise UsageError("--shuffle and --encoder exclude --kernel, --random, --noise and --search")
    if options.system not in (None, *(provider.name for provider in providers("coding").values())):
        raise UsageError(
            f"--system {options.system} excludes --kernel, --random, --noise, --search"
        )
    if options.way == "noise" and (options.checkpoint is None or options.system is not None):
        raise UsageError(
            "--noise requires -c with a BGAN, without --system; none comes with blurkit"
        )


def _check_goes_with(options: ReblurOptions) -> None:
    """Raise UsageError for options that require another source of blur."""
    if options.method in ("shake", "auto") and not options.like:
        raise UsageError(f"--method {options.method} requires --like")
    if options.method in ("shake", "auto") and options.names_networks:
        raise UsageError("-c, --encoder, --system, --tile and --overlap are for --method network")
    way, random = options.way, (options.copies, options.random_scale)
    if way not in ("random", "noise") and random != (1, None):
        raise UsageError("--copies and --random-scale require --random or --noise")
    if way == "search" and options.cut != (None, None):
        raise UsageError("--search takes photos whole; leave out --tile and --overlap")
    if way != "search" and (options.iterations, options.kernel_rate) != (None, None):
        raise UsageError("--iterations and --kernel-rate require --search")
    if way != "kernel" and options.gamma is not None:
        raise UsageError("--gamma requires --kernel")
