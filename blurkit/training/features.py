"""The feature network of a recipe's perceptual loss."""

from __future__ import annotations

from collections.abc import Sequence

from blurkit.nn.features import BACKBONES, FeatureNetwork, find_feature_network
from blurkit.reports.progress import say


def feature_network(
    want: str, file: str, quiet: bool, dry_run: bool, layers: Sequence[str] = ()
) -> FeatureNetwork | None:
    """Return the feature network of a perceptual loss, as `find_feature_network` does.

    A dry run downloads nothing: it uses an untrained VGG-19 in place of the one that a run would
    download. Raises BlurkitError if a network is required and cannot be found or read.
    """
    if not dry_run:
        return find_feature_network(want, file, lambda text: say(text, quiet), layers)
    network = find_feature_network("none" if want == "none" else "auto", file, layers=layers)
    return (
        FeatureNetwork(BACKBONES[0], layers) if want == "features" and network is None else network
    )
