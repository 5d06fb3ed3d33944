"""The networks that commands run: loaded from files, and put into the engine.

Importing this imports torch, so commands do when there is nothing left to refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from blurkit.cli.blind_deblur import BlindRunOptions
from blurkit.cli.common import width_and_height
from blurkit.cli.contextual_sim import SimilarityOptions
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.evaluate import EvaluationOptions
from blurkit.cli.interpolate import InterpolateOptions
from blurkit.cli.prepare import PrepareOptions
from blurkit.cli.shared import Hardware, Networks, SystemName
from blurkit.engine.device import choose_device
from blurkit.engine.engine import Engine, Protocol
from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import Record
from blurkit.metrics.complexity import macs, parameters
from blurkit.metrics.contextual import ContextualSimilarity, contextual_trunk
from blurkit.nn.features import find_features
from blurkit.nn.size import SizeRequirement
from blurkit.reports.progress import Stages, say
from blurkit.systems.deconvolution.beginning import shipped_estimator
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.deblurring import ShakeDeblurring, deconvolution_network
from blurkit.systems.deconvolution.inference import Deconvolution
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.systems.kernel_space.search_setting import Setting, load_setting
from blurkit.tasks.deblur import deblur, deblurring_network, trained_tile
from blurkit.tasks.interpolate import interpolation_network
from blurkit.tasks.reblur import reblurring_network, transferred
from blurkit.weights.shipped import introduction, load_shipped

Work = Callable[[Record], Record]
"""What a command does with a record."""


def load_checkpoints(
    checkpoint: str | None,
    encoder: Sequence[str] = (),
    quiet: bool = False,
    system: str = "msdi",
) -> list[Checkpoint]:
    """Return the checkpoints that `-c` and `--encoder` name, in this order.

    Without `-c` the first is that of `system` that comes with blurkit, which is said unless
    `quiet`. Raises BlurkitError for a bad file.
    """
    if checkpoint is None:
        first = load_shipped(system)
        say(introduction(first), quiet)
    else:
        first = load_checkpoint(checkpoint)
    return [first, *map(load_checkpoint, encoder)]


def start(
    build: Callable[..., nn.Module],
    networks: Networks,
    hardware: Hardware,
    quiet: bool,
    system: str = "msdi",
    protocol: Protocol = "tiles",
) -> tuple[Engine, str]:
    """Return the engine that runs what `build` makes of the checkpoints, and the first one's name.

    Without `--tile` tiles have the size that the network was trained on. Raises BlurkitError for
    files that do not hold the network.
    """
    loaded = load_checkpoints(networks.checkpoint, networks.encoder, quiet, system)
    network, (tile, overlap) = build(*loaded), hardware.cut
    engine = Engine(
        network,
        tile=trained_tile(loaded[0], network) if tile is None else tile,
        overlap=overlap,
        device=hardware.device,
        precision=hardware.precision,
        protocol=protocol,
        warn=lambda text: say(f"warning: {text}"),
    )
    return engine, loaded[0].name


def restoring(options: DeblurOptions) -> tuple[Work, Engine]:
    """Return what deblurs records by a network that restores any blur, and its engine."""
    engine, name = start(
        deblurring_network, options, options, options.quiet, protocol=options.protocol
    )
    return partial(deblur, engine=engine, checkpoint=name, strength=options.strength), engine


def undoing(options: DeblurOptions, kernel: np.ndarray | None, otherwise: bool) -> ShakeDeblurring:
    """Return what deblurs records by their own blur, or by `kernel` (h, w), None for estimates.

    With `otherwise` a network restores what no estimate explains. Raises BlurkitError for a bad
    file.
    """
    (loaded,) = load_checkpoints(options.checkpoint, (), options.quiet, "deconvolution")
    network = deconvolution_network(loaded)
    restores = start(deblurring_network, Networks(), options, True)[0] if otherwise else None
    return ShakeDeblurring(
        Deconvolution(network, Shake(), options.device, options.precision),
        loaded.name,
        kernel,
        restores,
        options.gamma or 2.2,
        options.strength,
        options.keep_kernel,
        Stages("window", options.quiet),
    )


def blind_search(run: BlindRunOptions, options: BlindOptions) -> tuple[Setting, str]:
    """Return what the searches of a run share, and what records say they were restored by."""
    checkpoint = None
    if options.operator == "kernel-space":
        (checkpoint,) = load_checkpoints(run.checkpoint, (), run.quiet, "kernel-space")
    on = run.device, run.precision
    estimator = shipped_estimator(*on) if options.start_estimate else None
    setting = load_setting(options, checkpoint, run.generator, run.features, *on, estimator)
    return setting, checkpoint.name if checkpoint else options.operator


def reblurring(
    networks: Networks, hardware: Hardware, quiet: bool, system: SystemName | None = None
) -> tuple[Engine, str]:
    """Return the engine that blurs a photo like another, and its checkpoint's name."""
    build = partial(reblurring_network, system=system)
    return start(build, networks, hardware, quiet, system or "msdi")


def interpolating(options: InterpolateOptions) -> tuple[Engine, str]:
    """Return the engine that mixes degradations, and its checkpoint's name."""
    build = partial(interpolation_network, deblur=options.deblur, spherical=options.spherical)
    return start(build, options, options, options.quiet)


def transferring(
    options: PrepareOptions, pairs: Sequence[Record]
) -> Callable[[Record, int], Record]:
    """Return what gives a photo, and a copy of it, the blur of one of the pairs."""
    networks = Networks(options.checkpoint)
    engine, name = start(reblurring_network, networks, options, options.quiet, "kernel-space")
    return partial(transferred, pairs=pairs, engine=engine, checkpoint=name, seed=options.seed)


def similarity(options: SimilarityOptions) -> ContextualSimilarity:
    """Return what measures how similar images are, with its feature network."""
    hint = ", or fetch VGG-19 (548 MB) with --download"
    network = find_features(options.features, options.download, hint)
    trunk = contextual_trunk(network, options.layer, choose_device(options.device))
    return ContextualSimilarity(trunk, options.bandwidth, options.distance)


def network_cost(options: EvaluationOptions) -> dict[str, Any]:
    """Return name, parameters and GMACs of a deblurring network.

    Raises UsageError for an `--input-size` that it does not take.
    """
    network = deblurring_network(*load_checkpoints(options.checkpoint, options.encoder))
    width, height = width_and_height("--input-size", options.input_size)
    name, shape = type(network).__name__, (height, width)
    needs: SizeRequirement = getattr(network, "size", SizeRequirement())
    if needs.padded(*shape) != shape:
        raise UsageError(
            f"--input-size {options.input_size}: {name} takes sides that are multiples of "
            f"{needs.multiple}, {needs.minimum} pixels or more"
        )
    return {
        "name": name,
        "parameters": parameters(network),
        "gmacs": macs(network, (1, 3, *shape)) / 1e9,
        "input_size": options.input_size,
    }
