"""`blurkit reblur`: put the blur of another picture, of a kernel, or a new one onto photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import SEED, Reblurring, Tiling, Writing, output_option
from blurkit.errors import UsageError
from blurkit.options import ANY, option
from blurkit.systems.system import providers

Way = Literal["like", "kernel", "random", "noise", "search"]
WAYS: tuple[Way, ...] = ("like", "kernel", "random", "noise", "search")
"""Where the blur comes from: what `--like` names, or the record itself, unless another is given."""


@dataclass(frozen=True)
class ReblurOptions(Reblurring, Tiling, Writing):
    """The options of `blurkit reblur`."""

    output: str | None = output_option(
        "An image, a folder/, a shard (.h5) or -; else NAME.reblurred beside each image."
    )
    like: tuple[str, ...] = option(
        (), "Blurry image to take the blur from; a folder, shard or several: one per input."
    )
    kernel: str | None = option(
        None,
        "Kernel (.mat .npz .npy .png), or shard or - with the kernels or codes of blind-deblur "
        "--keep-kernel: one for all inputs, or one per input.",
        metavar="FILE",
    )
    random: bool = option(False, "Draw new blurs from a variational kernel space.")
    noise: bool = option(False, "Draw new blurs from a BGAN, which -c names.")
    search: bool = option(
        False, "Search for the code of each record's own blur, in place of what G says of it."
    )
    shuffle: bool = option(
        False, "Draw who gets whose blur; without --like, a blur-swapped data set."
    )
    pairs: bool = option(
        False, "Write pairs to train on, the result as blur; --shuffle alone does, too."
    )
    copies: int = option(1, "With --random and --noise: blurred versions of each photo.", 1)
    random_scale: float | None = option(
        None,
        "Standard deviation of what is drawn; default 1.2 with --random, as in the released code, "
        "and 1 with --noise.",
        rare=True,
    )
    gamma: float | None = option(
        None,
        "With --kernel: gamma between pixels and the light that a kernel blurs; default 1.",
        ANY,
    )
    iterations: int | None = option(None, "With --search: steps; default 200.", ANY)
    kernel_rate: float | None = option(
        None, "With --search: learning rate; default 0.0005.", ANY, rare=True
    )
    seed: int = SEED

    @property
    def ways(self) -> list[Way]:
        """The options given that name where the blur comes from."""
        return [way for way in WAYS if getattr(self, way) not in (None, False, ())]

    @property
    def way(self) -> Way:
        """Where the blur comes from."""
        return self.ways[0] if self.ways else "like"

    @property
    def swaps(self) -> bool:
        """Whether the output is a data set of pairs."""
        return self.pairs or (self.shuffle and not self.like)


def reblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp images, folders, datasets, shards or - (a stream).")
    ],
    options: ReblurOptions,
) -> None:
    """Blur sharp photos like other photos, by a kernel, or at random.

    For the blur kernel space --like names pairs of a sharp and a blurry image, or shards of them.
    Without --like, records that hold both reblur themselves, and it is measured how near that comes
    to their own blur; with --shuffle they exchange blurs, and the output is a data set of pairs to
    train on (a folder gets shards). Of --copies it is measured how much they differ.

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/; blurkit reblur photos/ --random;
    blurkit reblur photos/ --noise -c bgan.pt --copies 4 --pairs -o pairs/;
    blurkit reblur pairs.h5 --search
    """
    options.check(options.output)
    refuse_two_streams(inputs, options.like, [options.kernel, *options.files])
    if len(options.ways) > 1:
        raise UsageError("one of --like, --kernel, --random, --noise and --search says which blur")
    _check_networks(options)
    _check_goes_with(options)

    run_later("reblur_run", "reblur_records", inputs, options)


def _check_networks(options: ReblurOptions) -> None:
    """Raises UsageError for networks, or ways to use them, that this way does not have."""
    if options.way == "like":
        return
    if options.shuffle or options.encoder:
        raise UsageError("--shuffle and --encoder go with --like")
    if options.system not in (None, *(one.name for one in providers("coding").values())):
        raise UsageError(f"--system {options.system} goes with --like")
    if options.way == "noise" and (options.checkpoint is None or options.system is not None):
        raise UsageError(
            "--noise takes a BGAN that -c names, without --system; none comes with blurkit"
        )


def _check_goes_with(options: ReblurOptions) -> None:
    """Raises UsageError for options of another way."""
    way, drawn = options.way, (options.copies, options.random_scale)
    if way not in ("random", "noise") and drawn != (1, None):
        raise UsageError("--copies and --random-scale go with --random and --noise")
    if way == "search" and options.cut != (None, None):
        raise UsageError("--search takes photos whole, without --tile and --overlap")
    if way != "search" and (options.iterations, options.kernel_rate) != (None, None):
        raise UsageError("--iterations and --kernel-rate go with --search")
    if way != "kernel" and options.gamma is not None:
        raise UsageError("--gamma goes with --kernel")
