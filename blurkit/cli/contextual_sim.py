"""`blurkit contextual-sim`: contextual similarity, and the decoupling experiment made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import PART, SEED, Hardware, Networks, Writing
from blurkit.errors import UsageError
from blurkit.options import ANY, option


@dataclass(frozen=True)
class SimilarityOptions(Networks, Hardware, Writing):
    """The options of `blurkit contextual-sim`."""

    images: tuple[str, str] | None = option(
        None,
        "Which images of a record are X and Y; else restored, reblurred or blur, and sharp.",
        metavar="X Y",
    )
    layer: tuple[str, ...] = option(
        (),
        "Layer of the feature network; repeated ones are summed; else relu3_4 of VGG-19, its like "
        "of others.",
    )
    bandwidth: float = option(1.0, "h in the weights exp((1 - d) / h).", ANY)
    distance: Literal["cosine", "l1", "l2"] = option(
        "cosine", "Distance of two features; l2 is squared."
    )
    features: Path | None = option(
        None, "Feature network; else BLURKIT_FEATURES or VGG-19 in torch's cache."
    )
    download: bool = option(False, "Fetch VGG-19 (548 MB) when none is at hand.")
    crop: int | None = option(
        None, "Side of a crop from the middle, 0: whole images; default 0, for --decoupling 256."
    )
    decoupling: bool = option(False, "The experiment of the MSDI-Net paper, see above.")
    pairing: Literal["halves", "neighbours", "shuffled"] = option(
        "halves", "How --decoupling divides the records into pairs A, B."
    )
    seed: int = SEED
    pictures: Path | None = option(
        None, "Folder for A, blur A, blur B and reblurred A side by side (Fig. 6)."
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

    What is shown is the distance -log CX(X, Y): 0 is the same, smaller is more similar. Values
    compare only where network, layers, bandwidth and image size agree.

    --decoupling reblurs sharp images A with the degradation of other blurry images B, and holds
    the result, and the blurry A, to A and to B. The paper does not say how it pairs the images:
    here the first half of the records goes with the second, in order, so that A and B are of
    different scenes.

    Examples: blurkit contextual-sim blurry.png sharp.png;
    blurkit contextual-sim shards/test-*.h5 --decoupling
    """
    named = options.checkpoint is not None or options.encoder or options.pictures is not None
    if not options.decoupling and named:
        raise UsageError("-c, --encoder and --pictures go with --decoupling")
    if options.decoupling and options.images is not None:
        raise UsageError("--decoupling takes blur and sharp; leave --images out")
    refuse_two_streams(inputs, options.files)

    run_later("contextual_sim_run", "compare_records", inputs, options)
