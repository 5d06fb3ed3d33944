"""Describe a checkpoint, also as a model card: its networks, their cost, how they were made."""

import json
import platform
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from blurkit.data.workers import processors
from blurkit.engine.engine import InputShapes, Shape, SizeRequirement
from blurkit.engine.torch_runner import choose_device, choose_precision
from blurkit.errors import BlurkitError, one_line, printable
from blurkit.io.checkpoints import CHECKPOINT_FORMAT, Checkpoint, load_checkpoint
from blurkit.nn.blocks import meta_copy
from blurkit.nn.features import features_from_state_dict
from blurkit.reports.values import outline
from blurkit.systems.registry import describe, load_networks
from blurkit.training.state import state_checkpoint
from blurkit.version import CHECKPOINT_VERSION, FORMAT_VERSIONS, __version__

SETTING = 16
"""Tensors of so few values may state how a network is built, such as its scale."""


def describe_checkpoint(checkpoint: Checkpoint, height: int, width: int) -> dict[str, Any]:
    """Return a checkpoint's system, networks by role, configuration and provenance, as JSON values.

    Each network has its class and options, its parameters and `gmacs`: 10^9 multiply-accumulates
    of one forward pass for an image of `height` x `width` pixels, with the shapes of its `inputs`.
    A state dict of no known network has its first keys instead, and the reason as `problem`.
    """
    foreign = not checkpoint.system and set(checkpoint.networks) == {"network"}
    networks: dict[str, Any] = {}
    for role, state in checkpoint.networks.items():
        networks |= _describe_state_dict(checkpoint, role, state, height, width)
    return {
        "kind": "checkpoint",
        "format": "of another program" if foreign else f"{CHECKPOINT_FORMAT} {CHECKPOINT_VERSION}",
        "checksums": not foreign,
        "system": checkpoint.system or None,
        "networks": networks,
        "configuration": checkpoint.configuration,
        "provenance": checkpoint.provenance,
    }


def describe_state(state: Mapping[str, Any], where: str, height: int, width: int) -> dict[str, Any]:
    """Return the saved state of a running training as JSON values, like a checkpoint's.

    `metrics` are those of the last validation. `where` names the file in messages.
    """
    about = describe_checkpoint(state_checkpoint(state, where), height, width)
    return {
        "kind": "state of a training",
        "system": about["system"],
        "step": state["step"],
        "iterations": state["configuration"]["iterations"],
        "metrics": state["metrics"],
        "best": state.get("best"),
        "warnings": state.get("warnings", []),
        "networks": about["networks"],
        "configuration": about["configuration"],
    }


def _describe_state_dict(
    checkpoint: Checkpoint, role: str, state: Mapping[str, Tensor], height: int, width: int
) -> dict[str, Any]:
    """Describe the network of one state dict by role, or the parts of a joint model."""
    # Of weights, only shapes are needed, so networks of our own take no memory.
    shapes = {
        key: tensor if tensor.numel() <= SETTING else torch.empty_like(tensor, device="meta")
        for key, tensor in state.items()
    }
    try:
        networks = load_networks(replace(checkpoint, networks={role: shapes}))
    except BlurkitError as error:
        problem = str(error).removeprefix(f"{checkpoint.where}: ")
        known = _describe_features(state, height, width) or _describe_heads(state)
        first = {"problem": problem, "tensors": len(state), "values": _count(state)}
        return {role: known or first | {"first_keys": list(state)[:5]}}
    return {name: _describe_network(network, height, width) for name, network in networks.items()}


def _describe_network(network: nn.Module, height: int, width: int) -> dict[str, Any]:
    about, inputs = describe(network), input_shapes(network, height, width)
    try:
        return about | {"gmacs": round(macs(network, *inputs) / 1e9, 4), "inputs": inputs}
    except BlurkitError:  # it has no forward method, or one that takes more than an image
        return about | {"gmacs": None}


def _describe_features(
    state: Mapping[str, Tensor], height: int, width: int
) -> dict[str, Any] | None:
    """Describe a feature network; return None for any other state dict."""
    try:
        features = features_from_state_dict(state)
    except BlurkitError:
        return None
    own = {"network": features.name, "layers": list(features.layers)}
    return _describe_network(features, height, width) | own


def _describe_heads(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Describe LPIPS's linear layers, of one or more networks; return None for anything else."""
    matches = [re.fullmatch(r"(?:(\w+)\.)?lin\d\.model\.1\.weight", key) for key in state]
    if None in matches:
        return None
    names = sorted({match[1] for match in matches if match and match[1]})
    return {"network": "LPIPS heads", "of": names, "parameters": _count(state)}


def _count(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


def input_shapes(network: nn.Module, height: int, width: int) -> InputShapes:
    """Return the input shapes of `network` for one RGB image of `height` x `width` pixels.

    They have the form that `macs` accepts; sides are enlarged to what the network needs. Networks
    that take more than an image, or another size, say so by their own `input_shapes`.
    """
    size = getattr(network, "size", SizeRequirement()).padded(height, width)
    shapes: Callable[[int, int], InputShapes] | None = getattr(network, "input_shapes", None)
    return shapes(*size) if shapes else [(1, 3, *size)]


# ---- A model card --------------------------------------------------------------------------------

HUB_TAGS = {"deblur": "deblurring", "reblur": "blur-synthesis"}
"""The tags of networks by the role that they have."""

CARD = """---
license: {licence}
library_name: blurkit
pipeline_tag: image-to-image
tags:
{tags}{metrics}---

# {title}

| role | network | parameters | GMACs |
| --- | --- | ---: | ---: |
{networks}

## Use

```sh
pip install blurkit
blurkit deblur photo.jpg -c {file}
```

`{file}` is this file, or its address on the Hub: `hf://OWNER/NAME/{file}`.

## Training

{training}
"""


def model_card(about: Mapping[str, Any], file: str, licence: str) -> str:
    """Return the model card of a checkpoint, as the Hugging Face Hub reads it: Markdown with YAML.

    `about` is what `info` returns for the checkpoint, `file` its name, and `licence` one of the
    Hub's names. Commands of trainings are left out, since they name files of their author.
    """
    networks, system = about["networks"], about["system"] or "image restoration"
    tags = ["motion-blur", "image-restoration", "pytorch", system]
    tags += [HUB_TAGS[role] for role in networks if role in HUB_TAGS]
    provenance = about["provenance"]
    runs = {k: v for k, v in provenance.items() if isinstance(v, Mapping) and "iterations" in v}
    runs = runs or {"": provenance}
    scores = dict.fromkeys(name for run in runs.values() for name in run.get("metrics") or {})
    rows = (
        f"| {role} | {network.get('network', 'unknown')} | {network.get('parameters', 0):,} "
        f"| {network.get('gmacs') or ''} |"
        for role, network in networks.items()
    )
    made = [line for role, run in runs.items() for line in _made(role, run)]
    data = [f"- trained on: {printable(str(text))}" for text in provenance.get("trained_on") or ()]
    return CARD.format(
        licence=licence,
        tags="".join(f"- {json.dumps(printable(tag))}\n" for tag in tags),
        metrics="metrics:\n" * bool(scores)
        + "".join(f"- {json.dumps(printable(name))}\n" for name in scores),
        title=f"{printable(system)}: {', '.join(map(printable, networks))}",
        networks="\n".join(printable(row) for row in rows),
        file=printable(file),
        training="\n".join([*made, *data]) or "Nothing is known of it.",
    )


def _made(role: str, run: Mapping[str, Any]) -> Iterator[str]:
    for name in ("date", "iterations", "records", "seed", "metrics", "blurkit", "torch"):
        if value := run.get(name):
            yield from outline({f"- {role}, {name}" if role else f"- {name}": value})


# ---- Seeds ---------------------------------------------------------------------------------------

OF_A_RUN = ("blurkit", "torch", "date", "command", "seed", "iterations", "metrics", "warnings")
"""What a checkpoint's provenance says of one training, and not of how it differs from others."""


def seed_groups(checkpoints: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of checkpoints that were trained alike but for their seed, in groups.

    The label of a group has the options in which the groups differ. Files of other programs, and
    checkpoints of the same training, are in no group.
    """
    trained: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, file in checkpoints.items():
        with suppress(BlurkitError):  # ONNX files, and what another message is about
            checkpoint = load_checkpoint(file)
            about = {k: v for k, v in checkpoint.provenance.items() if k not in OF_A_RUN}
            setting = {"system": checkpoint.system} | checkpoint.configuration | about
            if (seed := setting.pop("seed", None)) is not None:
                trained[json.dumps(setting, sort_keys=True)].setdefault(seed, []).append(name)
    groups = {
        key: [name for names in by_seed.values() for name in names]
        for key, by_seed in trained.items()
        if len(by_seed) > 1 and all(len(names) == 1 for names in by_seed.values())
    }
    settings = [json.loads(key) for key in groups]
    options = dict.fromkeys(name for setting in settings for name in setting)
    differ = [o for o in options if len({json.dumps(s.get(o)) for s in settings}) > 1]
    labels = [
        ", ".join(f"{o} {s[o]}" for o in differ if isinstance(s.get(o), (str, int, float)))
        for s in settings
    ]
    return {
        (label if labels.count(label) == 1 else runs[0]) or setting["system"]: runs
        for label, setting, runs in zip(labels, settings, groups.values(), strict=True)
    }


# ---- Complexity ----------------------------------------------------------------------------------


def parameters(network: nn.Module) -> int:
    """Return the number of parameters of `network`, not counting buffers."""
    return sum(parameter.numel() for parameter in network.parameters())


def macs(network: nn.Module, *inputs: Shape | list[Shape]) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in one forward pass.

    The pass runs in eval mode. `inputs` are the shapes of its arguments, such as (1, 3, 256, 256);
    a list of shapes describes a list of tensors. Only shapes are computed, so inputs of any size
    need no memory. Raises BlurkitError if the network does not accept inputs of these shapes.
    """
    shapes_only = meta_copy(network, [network]).eval().requires_grad_(False)
    arguments = [
        [torch.empty(shape, device="meta") for shape in argument]
        if isinstance(argument, list)
        else torch.empty(argument, device="meta")
        for argument in inputs
    ]
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            shapes_only(*arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        name = type(network).__name__
        raise BlurkitError(f"{name} does not accept inputs {inputs}: {one_line(error)}") from error
    return counter.get_total_flops() // 2  # torch counts additions, too


# ---- This machine --------------------------------------------------------------------------------

DEVELOPMENT = re.compile("extra == .(dev|docs|test)\\b")
"""What the requirements for developing blurkit say of themselves."""


def system_report() -> dict[str, str]:
    """Return versions and devices for a report of a problem, and no names of users or files."""
    report = {
        "blurkit": f"{__version__} ({FORMAT_VERSIONS})",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processors": str(processors()),
        "device": _device_line(),
    }
    try:
        lines = requires("blurkit") or []
    except PackageNotFoundError:  # it runs from a folder of its sources
        lines = ["torch", "numpy"]
    used = [re.split("[^\\w.-]", line)[0] for line in lines if not DEVELOPMENT.search(line)]
    for package in used:
        with suppress(PackageNotFoundError):
            report[package] = version(package)
    with suppress(ImportError):
        import onnxruntime

        report["ONNX Runtime on"] = ", ".join(onnxruntime.get_available_providers())
    return report


def _device_line() -> str:
    """Describe the device that `auto` chooses, and the number format."""
    device = choose_device()
    number = str(choose_precision("auto", device)).removeprefix("torch.")
    if device.type != "cuda":
        return f"{device.type}, {number}"
    about = torch.cuda.get_device_properties(device)
    memory = f"{about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{torch.cuda.device_count()} x {about.name} ({memory}), {number}"
