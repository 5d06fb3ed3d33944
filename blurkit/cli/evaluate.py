"""`blurkit eval`: measure results."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from blurkit.cli.common import local_files, refuse_two_streams, width_and_height, with_part
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.options import EvaluationOptions, at_hand
from blurkit.errors import UsageError
from blurkit.io.paths import refuse_missing
from blurkit.options import Method
from blurkit.systems.system import providers, shipped_file
from blurkit.tasks.addresses import is_address


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Shards or - with restored and sharp images; RESTORED/ SHARP/; or runs to compare."
        ),
    ],
    options: EvaluationOptions,
) -> None:
    """Measure PSNR and SSIM against sharp images, and compare runs.

    SSIM has several definitions. Two are reported by default: per channel (BasicSR, scikit-image)
    and MATLAB's in 3-D, which the papers use in their GoPro tables. Values of any depth are first
    rounded to 8 bits. The report describes how every number is computed.

    --networks restores the blurry images of pairs by several networks in one run, and reports the
    seconds and the memory that each takes, too. What comes with blurkit has names: auto, shake and
    network, which are methods of deblur, and msdi.

    Examples: blurkit eval restored.h5; blurkit eval restored/ sharp/; ... | blurkit eval - --json;
    blurkit eval reblurred.h5 --image reblurred --target blur;
    blurkit eval ours/ theirs/ --reference sharp/ --confidence 0.95 -o scores.md;
    blurkit eval --networks a.pth b.onnx auto pairs.h5;
    blurkit eval --merge part1.json part2.json -o all.json
    """
    options = with_part(options)
    width_and_height("--input-size", options.input_size)
    networks: dict[str, DeblurOptions] = {}
    if options.networks:
        these = "reference", "blurry", "image", "target", "checkpoint", "encoder", "resume", "merge"
        _refuse(options, these, "--networks excludes {}")
        inputs, networks = with_networks(inputs, options)
    else:
        _check(inputs, options)
        options = at_hand(options)

    from blurkit.cli.scoring import Evaluation, merge  # imports numpy

    if options.merge:
        merge(inputs, options)
    else:
        Evaluation(inputs, options, networks).run()


def _check(inputs: list[str], options: EvaluationOptions) -> None:
    """Raise UsageError for options that exclude each other or require others."""
    if options.checkpoint is not None:
        refuse_two_streams(inputs, options.files)
    _refuse(options, ("protocol", "tile", "precision"), "{} requires --networks")
    if options.checkpoint is None and (options.encoder or options.network):
        raise UsageError("--encoder and --network require --checkpoint or --networks")
    refuse_missing([options.lpips], "file (from --lpips)")
    refuse_missing([options.lpips_heads], "file (from --lpips-heads)")
    if not options.frequency and (options.patch is not None or options.figure is not None):
        raise UsageError("--patch and --figure require --frequency")
    if options.merge:
        others = [field.name for field in fields(options) if field.name not in FOR_REPORTS]
        _refuse(options, others, "--merge excludes {}; give it to parts")
    elif options.resume and (options.force or options.frequency or not options.output):
        raise UsageError("--resume requires -o and excludes --force and --frequency")


FOR_REPORTS = (
    *("by_sequence", "confidence", "seed", "output", "paper"),
    *("quiet", "json", "force", "merge"),
)
"""The options that make sense with `--merge`; the others are those of the parts."""


def _refuse(options: EvaluationOptions, names: Iterable[str], reason: str) -> None:
    for name in names:
        if getattr(options, name) != getattr(EvaluationOptions, name):
            raise UsageError(reason.format(f"--{name.replace('_', '-')}"))


# ---- The networks that are compared --------------------------------------------------------------

SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors", ".onnx")
"""The suffixes by which files among the inputs are known to be networks, not images."""


def shipped_networks() -> dict[str, DeblurOptions]:
    """Return what comes with blurkit by name: the methods of `deblur`, and systems with weights."""
    methods = {method: DeblurOptions(method=method) for method in get_args(Method)}
    systems = [system.name for system in providers("deblurring").values() if system.weights]
    return methods | {name: DeblurOptions(checkpoint=str(shipped_file(name))) for name in systems}


def with_networks(
    inputs: Sequence[str], options: EvaluationOptions
) -> tuple[list[str], dict[str, DeblurOptions]]:
    """Return the pairs among the inputs, and how `deblur` runs each network, by a short name.

    In `--networks a.pth b.onnx PAIRS`, all but the first network are among the inputs. The names
    are those of files, or their paths if two files have one name. Raises UsageError if there are no
    pairs or a network is named twice, and BlurkitError for a file that does not exist or cannot be
    fetched.
    """
    known = shipped_networks()
    more = [
        name
        for name in inputs
        if name in known or is_address(name) or Path(name).suffix.lower() in SUFFIXES
    ]
    names, pairs = [*options.networks, *more], [name for name in inputs if name not in more]
    if not pairs:
        raise UsageError("--networks NETWORK... PAIRS: name pairs of blurry and sharp images, too")
    if "-" in names or len({*names}) < len(names):
        raise UsageError("--networks: name each network once, as a file, an address or by its name")
    if len(pairs) < 3:  # of more inputs, the others are still read
        refuse_missing(pairs, "file or folder")
    given = {"networks": tuple(name for name in names if name not in known)}
    local = iter(local_files(given, options.sha256, options.quiet)["networks"])
    paths = [name if name in known else next(local) for name in names]
    short = [Path(path).name for path in paths]
    named = zip(short if len({*short}) == len(short) else paths, paths, strict=True)
    chosen = {name: known.get(path) or DeblurOptions(checkpoint=path) for name, path in named}
    same = ("device", "precision", "max_pixels")
    how: dict[str, Any] = {name: getattr(options, name) for name in same} | {"quiet": True}
    for name, one in chosen.items():
        own = how | ({} if one in known.values() else {"network": options.network})
        if one.way() == "network":  # estimated blur has tiles of its own
            own |= {"protocol": options.protocol, "tile": options.tile}
        chosen[name] = replace(one, **own)
    return pairs, chosen
