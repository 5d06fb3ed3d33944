"""Load the networks that commands run, and start their engines.

This module imports torch, so commands import it only after they have checked their options.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from blurkit.cli.batch import Work
from blurkit.cli.blind_deblur import BlindRunOptions
from blurkit.cli.common import width_and_height
from blurkit.cli.contextual_sim import SimilarityOptions
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.evaluate import EvaluationOptions
from blurkit.cli.prepare import PrepareOptions
from blurkit.cli.shared import Hardware, Networks
from blurkit.engine.device import choose_device
from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import Record
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
from blurkit.metrics.evaluation import NetworkCost
from blurkit.nn.features import find_features
from blurkit.nn.size import SizeRequirement
from blurkit.reports.progress import Stages, say
from blurkit.systems.registry import network_name
from blurkit.systems.system import Use, introduction, load_shipped, title_and_date
from blurkit.systems.uses import network_for, start_engine
from blurkit.tasks.blind_deblur import BlindSearch, start_search
from blurkit.tasks.deblur import blur_estimator, deblur, deblur_by_kernel
from blurkit.tasks.inspect import macs, parameters
from blurkit.tasks.reblur import EstimatedBlur, transferred


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


def restoring(options: DeblurOptions) -> tuple[Work, Engine]:
    """Return the function that deblurs records with a network for any blur, and its engine."""
    engine, name = start("deblurring", options, options, options.quiet, protocol=options.protocol)
    return partial(deblur, engine=engine, checkpoint=name, strength=options.strength), engine


def undoing(options: DeblurOptions, kernel: np.ndarray | None, otherwise: bool) -> Work:
    """Return the function that deblurs records by inverting their blur.

    The blur is `kernel` (h, w), or an estimate if that is None. With `otherwise`, a network
    restores what no estimate explains. Raises BlurkitError for a bad file.
    """
    (loaded,) = load_checkpoints("deconvolving", Networks(options.checkpoint), options.quiet)
    return deblur_by_kernel(
        loaded,
        options.device,
        options.precision,
        kernel=kernel,
        otherwise=start("deblurring", Networks(), options, True)[0] if otherwise else None,
        gamma=options.gamma or 2.2,
        strength=options.strength,
        keep_kernel=options.keep_kernel,
        watch=Stages("window", options.quiet),
    )


def reblurring_by_estimate(
    hardware: Hardware, quiet: bool, otherwise: Callable[[Record, Record], Record] | None
) -> EstimatedBlur:
    """Return the function that blurs records by the blur estimated in others.

    `otherwise` blurs where no estimate is believed. Raises BlurkitError for a bad file.
    """
    (loaded,) = load_checkpoints("deconvolving", Networks(), quiet)
    watch = Stages("window", quiet)
    estimate = blur_estimator(loaded, hardware.device, hardware.precision, watch=watch)
    return EstimatedBlur(estimate, otherwise)


def searching(run: BlindRunOptions, options: Any) -> tuple[BlindSearch, str]:
    """Return what the searches of a run share, and what records say they were restored by."""
    checkpoint = None
    if options.encoded:
        (checkpoint,) = load_checkpoints("search", Networks(run.checkpoint), run.quiet)
    search = start_search(
        options, checkpoint, run.generator, run.features, run.device, run.precision
    )
    return search, checkpoint.name if checkpoint else options.operator


def transferring(
    options: PrepareOptions, pairs: Sequence[Record]
) -> Callable[[Record, int], Record]:
    """Return the function that gives a photo the blur of a pair, drawn by a copy's number.

    Without `-c`, it uses the network with blur codes, because random changes of the codes make more
    kinds of blur.
    """
    networks = Networks(options.checkpoint)
    engine, name = start("reblurring", networks, options, options.quiet, shipped="coding")
    return partial(transferred, pairs=pairs, engine=engine, checkpoint=name, seed=options.seed)


def similarity(options: SimilarityOptions) -> ContextualSimilarity:
    """Return the contextual similarity with its feature network."""
    hint = ", or download VGG-19 (548 MB) with --download"
    network = find_features(options.features, options.download, hint)
    backbone = contextual_network(network, options.layer, choose_device(options.device))
    return ContextualSimilarity(backbone, options.bandwidth, options.distance)


def network_cost(options: EvaluationOptions) -> NetworkCost:
    """Return the name, parameters and GMACs of a deblurring network.

    Raises UsageError if the network does not take images of `--input-size`.
    """
    network = network_for("deblurring", *load_checkpoints("deblurring", options))
    width, height = width_and_height("--input-size", options.input_size)
    name, shape = network_name(network), (height, width)
    needs: SizeRequirement = getattr(network, "size", SizeRequirement())
    if needs.padded(*shape) != shape:
        raise UsageError(
            f"--input-size {options.input_size}: {name} takes sides that are multiples of "
            f"{needs.multiple} and at least {needs.minimum} pixels{', both equal' * needs.square}"
        )
    gmacs = macs(network, (1, 3, *shape)) / 1e9
    return NetworkCost(name, parameters(network), gmacs, options.input_size)
