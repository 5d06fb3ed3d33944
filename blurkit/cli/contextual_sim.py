"""`blurkit contextual-sim`: contextual similarity, and the decoupling experiment based on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_missing, refuse_two_streams, run_later
from blurkit.cli.shared import PART, SEED, Hardware, Networks, Writing, at_hand
from blurkit.errors import UsageError
from blurkit.options import ANY, option


@dataclass(frozen=True)
class SimilarityOptions(Networks, Hardware, Writing):
    """The options of `blurkit contextual-sim`."""

    images: tuple[str, str] | None = option(
        None,
        "Images of a record to use as X and Y; default: restored, reblurred or blur, and sharp.",
        metavar="X Y",
    )
    layer: tuple[str, ...] = option(
        (),
        "Layer of the feature network; repeatable, distances are summed; default: relu3_4 of "
        "VGG-19 or its equivalent.",
    )
    bandwidth: float = option(1.0, "Bandwidth h in the weights exp((1 - d) / h).", ANY)
    distance: Literal["cosine", "l1", "l2"] = option(
        "cosine", "Distance between two features; l2 is squared."
    )
    features: Path | None = option(
        None, "Feature network file; default: BLURKIT_FEATURES or VGG-19 in torch's cache."
    )
    download: bool = option(False, "Download VGG-19 (548 MB) if no feature network is found.")
    crop: int | None = option(
        None, "Side of the central crop, pixels; 0: whole images.  [0; with --decoupling 256]"
    )
    decoupling: bool = option(False, "Run the experiment of the MSDI-Net paper described above.")
    pairing: Literal["halves", "neighbours", "shuffled"] = option(
        "halves", "How --decoupling divides the records into pairs A, B."
    )
    seed: int = SEED
    pictures: Path | None = option(
        None, "Folder for pictures of A, blur A, blur B and reblurred A side by side (Fig. 6)."
    )
    part: str = PART


def contextual_sim(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Two images X Y; two folders X/ Y/; or datasets, shards, -."),
    ],
    options: SimilarityOptions,
) -> None:
    """Measure the contextual similarity of images that need not be aligned.

    The result is the distance -log CX(X, Y): 0 for equal images, smaller is more similar. Values
    are comparable only if network, layers, bandwidth and image size are the same.

    --decoupling reblurs sharp images A with the degradation of other blurry images B, and compares
    the result, and the blurry A, with A and with B. The paper does not say how it pairs the images:
    here the first half of the records is paired with the second, in order, so that A and B show
    different scenes.

    Examples: blurkit contextual-sim blurry.png sharp.png;
    blurkit contextual-sim shards/test-*.h5 --decoupling
    """
    networks = options.checkpoint is not None or options.encoder or options.pictures is not None
    if not options.decoupling and networks:
        raise UsageError("-c, --encoder and --pictures require --decoupling")
    if options.decoupling and options.images is not None:
        raise UsageError("--decoupling compares blur and sharp; leave out --images")
    refuse_two_streams(inputs, options.files)
    refuse_missing([options.features], "file (from --features)")
    if len(inputs) < 3:  # of more, the others are still compared
        refuse_missing(inputs, "file or folder")

    run_later("contextual_sim_run", "compare_records", inputs, at_hand(options))
