"""`blurkit transfer`: transfer the blur of a pair to other photos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import (
    Comparable,
    Filming,
    Reblurring,
    Resumable,
    Tiling,
    at_hand,
    output_option,
)
from blurkit.errors import UsageError


@dataclass(frozen=True)
class TransferOptions(Reblurring, Tiling, Comparable, Resumable, Filming):
    """The options of `blurkit transfer`."""

    output: str | None = output_option(
        "Image, film, folder/, shard (.h5) or -; default: A.transferred next to each file."
    )


def transfer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B_SHARP B_BLUR",
            help="Photos to blur, then the pair whose blur they get: images or folders; or A and "
            "PAIRS: a dataset, shard or - with both images.",
        ),
    ],
    options: TransferOptions,
) -> None:
    """Transfer the blur of a pair to other photos.

    Every photo of A gets the blur of every pair B. To show how good a transfer is, B's own sharp
    image is reblurred too, and its PSNR against the real blurry image is printed. Sizes may differ.
    With more than one B, the results are named A/B. Without -c and --system, the blur kernel space
    that comes with blurkit is used, as it compares both images of B.

    Examples: blurkit transfer a.png b_sharp.png b_blur.png;
    blurkit transfer photos/ pairs.h5 -o blurred/
    """
    options.check(options.output)
    options.check_films(options.output)
    refuse_two_streams(inputs, options.files)
    if len(inputs) not in (2, 3):
        raise UsageError("transfer takes A B_SHARP B_BLUR, or A PAIRS")

    run_later("transfer_run", "transfer_records", inputs, at_hand(options))
