"""The networks that `eval --networks` compares: their names, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from blurkit.cli.common import local_files, refuse_missing
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.evaluate import EvaluationOptions
from blurkit.errors import UsageError
from blurkit.options import Method
from blurkit.systems.system import providers, shipped_file
from blurkit.tasks.addresses import is_address

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".onnx")
"""The suffixes by which files among the inputs are known to be networks, not images."""


def shipped_networks() -> dict[str, DeblurOptions]:
    """Return what comes with blurkit by name: the methods of `deblur`, and systems with weights."""
    methods = {method: DeblurOptions(method=method) for method in get_args(Method)}
    systems = [system.name for system in providers("deblurring").values() if system.weights]
    return methods | {name: DeblurOptions(checkpoint=str(shipped_file(name))) for name in systems}


def with_networks(
    inputs: Sequence[str], options: EvaluationOptions
) -> tuple[list[str], EvaluationOptions]:
    """Return the pairs among the inputs, and the options with all networks as local files.

    In `--networks a.pth b.onnx PAIRS`, all but the first network are among the inputs. Raises
    UsageError if there are no pairs or a network is named twice, and BlurkitError for a file that
    does not exist or cannot be fetched.
    """
    known = shipped_networks()
    more = [name for name in inputs if _is_network(name) or name in known]
    names, pairs = [*options.networks, *more], [name for name in inputs if name not in more]
    if not pairs:
        raise UsageError("--networks NETWORK... PAIRS: name pairs of blurry and sharp images, too")
    if "-" in names or len({*names}) < len(names):
        raise UsageError("--networks: name each network once, as a file, an address or by its name")
    if len(pairs) < 3:  # of more inputs, the others are still read
        refuse_missing(pairs, "file or folder")
    files = tuple(name for name in names if name not in known)
    local = local_files({"networks": files}, options.sha256, options.quiet)["networks"]
    found = dict(zip(files, local, strict=True))
    return pairs, replace(options, networks=tuple(found.get(name, name) for name in names))


def _is_network(name: str) -> bool:
    return is_address(name) or Path(name).suffix.lower() in SUFFIXES


def restorations(options: EvaluationOptions) -> dict[str, DeblurOptions]:
    """Return the options of `deblur` for every network, by the name of its file, or by its path."""
    known = shipped_networks()
    short = [name if name in known else Path(name).name for name in options.networks]
    names = short if len({*short}) == len(short) else options.networks
    chosen = (known.get(name) or DeblurOptions(checkpoint=name) for name in options.networks)
    return {
        name: replace(one, device=options.device, max_pixels=options.max_pixels, quiet=True)
        for name, one in zip(names, chosen, strict=True)
    }
