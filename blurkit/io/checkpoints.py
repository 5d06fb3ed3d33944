"""Checkpoints: networks with everything needed to rebuild and trust them."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from blurkit.errors import BlurkitError, one_line
from blurkit.io.paths import replacing
from blurkit.io.streams import standard_input, standard_output

FORMAT = "blurkit-checkpoint"
VERSION = 1
StateDict = dict[str, torch.Tensor]


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    `networks` has one state dict per role (`encoder`, `latents`, `reblur`, `deblur`,
    `discriminator`); a file of another program is the single role `network`. `configuration` is
    the training configuration, `provenance` how the weights came about (command, data, seed,
    iterations, metrics); both are plain JSON values. `where` names the file in messages.
    """

    networks: dict[str, StateDict]
    system: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    where: str = "checkpoint"


def save_checkpoint(checkpoint: Checkpoint, output: str | Path) -> None:
    """Write a checkpoint whole or not at all to a file, or to standard output for `-`.

    A name ending in `.safetensors` chooses that format, anything else torch's.
    Raises BlurkitError when it cannot be written.
    """
    if str(output) == "-":
        buffer = io.BytesIO()
        _write(checkpoint, buffer, ".pt")
        stream = standard_output()
        stream.write(buffer.getbuffer())
        stream.flush()
        return
    path = Path(output)
    with replacing(path) as partial, partial.open("wb") as file:
        _write(checkpoint, file, path.suffix)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint in a file, or on standard input for `-`, on the CPU.

    Reads blurkit's own files, torch files of state dicts (bare or under `params` or `state_dict`)
    and safetensors. Only tensors and plain values are ever unpickled: a file that would run code
    is refused. Raises BlurkitError for a file that is missing, damaged, refused or no checkpoint.
    """
    if str(source) == "-":
        return _read(io.BytesIO(standard_input().read()), "checkpoint on standard input")
    path = Path(source)
    try:
        with path.open("rb") as file:
            return _read(file, str(path))
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such checkpoint") from error
    except IsADirectoryError as error:
        raise BlurkitError(f"{path}: is a folder, not a checkpoint") from error


def load_tensors(file: BinaryIO, where: str) -> Any:
    """Tensors and plain values from a seekable torch file, refusing anything that would run code.

    Raises BlurkitError naming `where`.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = one_line(error)
        if "Unsupported" in text or "GLOBAL" in text:
            raise BlurkitError(
                f"{where}: refused, its pickle would run code; "
                "ask its author for a plain state dict or a safetensors file"
            ) from error
        raise BlurkitError(f"{where}: is not a checkpoint") from error
    except Exception as error:  # damaged archives fail in many ways
        raise BlurkitError(f"{where}: damaged, or not a checkpoint") from error


def _write(checkpoint: Checkpoint, file: BinaryIO, suffix: str) -> None:
    about = {
        "format": FORMAT,
        "version": VERSION,
        "system": checkpoint.system,
        "configuration": checkpoint.configuration,
        "provenance": checkpoint.provenance,
    }
    networks = {
        role: {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        for role, state in checkpoint.networks.items()
    }
    if suffix == ".safetensors":
        flat = {f"{role}/{key}": t for role, state in networks.items() for key, t in state.items()}
        file.write(save_safetensors(flat, metadata={FORMAT: json.dumps(about)}))
    else:
        torch.save({**about, "networks": networks}, file)


def _read(file: BinaryIO, where: str) -> Checkpoint:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise BlurkitError(f"{where}: is empty (0 bytes)")
    if head[8:9] == b"{":
        return _from_safetensors(file.read(), where)
    content = load_tensors(file, where)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return _checkpoint(content, content.get("networks", {}), where)
    state = _state_dict(content)
    if state is None:
        held = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise BlurkitError(f"{where}: holds no network weights (found: {held[:200]})")
    return Checkpoint({"network": state}, where=where)


def _from_safetensors(data: bytes, where: str) -> Checkpoint:
    try:
        tensors = load_safetensors(data)
        length = int.from_bytes(data[:8], "little")
        about = json.loads(
            json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(FORMAT, "{}")
        )
    except Exception as error:  # the library raises its own and ValueErrors
        raise BlurkitError(f"{where}: damaged safetensors file ({one_line(error)})") from error
    if not about:
        return Checkpoint({"network": tensors}, where=where)
    networks: dict[str, StateDict] = {}
    for key, tensor in tensors.items():
        role, _, name = key.partition("/")
        networks.setdefault(role, {})[name] = tensor
    return _checkpoint(about, networks, where)


def _checkpoint(about: dict[str, Any], networks: dict[str, StateDict], where: str) -> Checkpoint:
    if about.get("version") != VERSION:
        version = about.get("version")
        raise BlurkitError(f"{where}: checkpoint version {version}; this blurkit reads {VERSION}")
    return Checkpoint(
        networks,
        system=str(about.get("system", "")),
        configuration=dict(about.get("configuration", {})),
        provenance=dict(about.get("provenance", {})),
        where=where,
    )


def _state_dict(content: Any) -> StateDict | None:
    """The state dict in a foreign file: bare, or under one of the usual keys."""
    if not isinstance(content, dict):
        return None
    for key in ("params", "state_dict", "model"):
        if isinstance(content.get(key), dict):
            return _state_dict(content[key])
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    return tensors if tensors and len(tensors) == len(content) else None
