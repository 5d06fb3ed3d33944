"""Checkpoints: networks with everything needed to rebuild and verify them."""

import argparse
import io
import json
import pickle
import pickletools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
import xxhash
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from blurkit.errors import BlurkitError, one_line
from blurkit.interrupts import deferred
from blurkit.io.paths import reading_error, reading_errors
from blurkit.io.records import value_bytes
from blurkit.io.streams import standard_input, standard_output
from blurkit.io.writing import Uncomplaining, replacing
from blurkit.version import CHECKPOINT_VERSION

CHECKPOINT_FORMAT = "blurkit-checkpoint"

STATE_KEYS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "g_ema")
"""The keys under which training code saves a state dict; the first present one is read."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
"""What wrappers put before every key: several GPUs, `torch.compile`, and training frameworks."""

StateDict = dict[str, torch.Tensor]


class Unread:
    """Takes the place of a value in a pickle that is neither read nor needed, and keeps nothing."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


BESIDE: list[Any] = [argparse.Namespace] + [
    (Unread, name)
    for name in (
        *("numpy.dtype", "numpy.ndarray", "pathlib.PosixPath", "pathlib.WindowsPath"),
        *("pathlib._local.PosixPath", "pathlib._local.WindowsPath"),  # so Python 3.13 names them
        *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
        *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    )
]
"""What training code saves beside weights: options, and what is neither imported nor made."""

# These words in torch's messages distinguish a pickle that names code from a file that is not a
# pickle: a function or class by name, an object of one, and opcodes of newer protocols, which torch
# never writes.
CODE_SIGNS = ("GLOBAL", "allowlisted", "operand 147", "operand 149")


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    `networks` has one state dict per role (`encoder`, `latents`, `reblur`, `deblur`,
    `discriminator`); a file from another program has the single role `network`. `configuration` is
    the training configuration, `provenance` the origin of the weights (command, data, seed,
    iterations, metrics); both are plain JSON values. `where` names the file in messages.
    `blueprints` describes per role how the network is built (`nn.blueprints`); a role without a
    blueprint is recognised by its keys. `code`, which no file states, is what a user has named to
    build the network with (`systems.code`).
    """

    networks: dict[str, StateDict]
    system: str = ""
    configuration: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    where: str = "checkpoint"
    blueprints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    code: Any = None

    @property
    def name(self) -> str:
        """The file's name without its folder, by which records refer to the checkpoint."""
        return Path(self.where).name


def save_checkpoint(checkpoint: Checkpoint, output: str | Path, force: bool = True) -> None:
    """Write a checkpoint, whole or not at all, to a file, or to standard output for `-`.

    A name that ends in `.safetensors` selects that format, any other name torch's. Raises
    BlurkitError if the file cannot be written, or exists and `force` is off.
    """
    if str(output) == "-":
        stream, buffer = standard_output(), io.BytesIO()
        torch.save(_content(checkpoint), buffer)
        stream.write(buffer.getbuffer())
        stream.flush()
    elif Path(output).suffix == ".safetensors":
        with replacing(Path(output), force) as partial:
            partial.write_bytes(_as_safetensors(checkpoint))
    else:
        save_tensors(_content(checkpoint), Path(output), force)


def save_tensors(content: Mapping[str, Any], path: Path, force: bool = True) -> None:
    """Write a table of tensors and plain values, whole or not at all, or raise BlurkitError."""
    with replacing(path, force) as partial, Uncomplaining(partial) as file:
        # torch writes a few bytes at a time, and aborts where a signal is raised in what it calls.
        with deferred(), io.BufferedWriter(file, 1 << 20) as buffered:
            torch.save(content, buffered)
        if file.error is not None:
            raise file.error


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Load a checkpoint onto the CPU from a file, or from standard input for `-`.

    Reads blurkit's own files, torch files of state dicts (bare or under one of `STATE_KEYS`) and
    safetensors. Only tensors and plain values are ever unpickled; a file that would run code is
    refused. Raises BlurkitError if the file is missing, damaged, refused or not a checkpoint.
    """
    if str(source) == "-":
        return _read(io.BytesIO(standard_input().read()), "checkpoint on standard input")
    path = Path(source)
    folder = "is a folder, not a checkpoint"
    known = {FileNotFoundError: "no such checkpoint", IsADirectoryError: folder}
    with reading_errors(path, known), path.open("rb") as file:
        return _read(file, str(path))


def load_tensors(file: BinaryIO, where: str) -> Any:
    """Load tensors and plain values from a seekable file, or raise BlurkitError, also for code."""
    start = file.tell()
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(BESIDE):
            warnings.simplefilter("ignore")  # about foreign pickle protocols
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        file.seek(start)
        if any(sign in str(error) for sign in CODE_SIGNS) and _is_pickled(file):
            raise BlurkitError(
                f"{where}: refused, its pickle would run code; "
                "ask its author for a plain state dict or a safetensors file"
            ) from error
        raise BlurkitError(f"{where}: is not a checkpoint") from error
    except Exception as error:  # damaged archives fail in many ways
        raise reading_error(where, "damaged, or not a checkpoint", error) from error


def _is_pickled(file: BinaryIO) -> bool:
    """Tell a pickle, or an archive of one, from garbage that has a pickle's opcodes by chance."""
    start = file.tell()
    if re.match(rb"PK|\x80[\0-\5]", file.read(2)):
        return True
    file.seek(start)
    try:  # a pickle that does not begin with its protocol is of the first two
        return all(code.proto < 2 for code, _, _ in pickletools.genops(file))
    except ValueError:
        return False


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    networks = {
        role: {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}
        for role, state in checkpoint.networks.items()
    }
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "system": checkpoint.system,
        "configuration": checkpoint.configuration,
        "provenance": checkpoint.provenance,
        "roles": {role: dict(checkpoint.blueprints.get(role, {})) for role in networks},
        "networks": networks,
    }
    return with_checksums(content)


def _as_safetensors(checkpoint: Checkpoint) -> bytes:
    names = ("configuration", "provenance", "blueprints")
    plain = json.loads(json.dumps({name: getattr(checkpoint, name) for name in names}))
    content = _content(replace(checkpoint, **plain))  # as JSON gives it back
    networks = content.pop("networks")
    flat = {  # copies, because the format refuses tensors that share memory
        f"{role}/{key}": t.clone() for role, state in networks.items() for key, t in state.items()
    }
    return save_safetensors(flat, metadata={CHECKPOINT_FORMAT: json.dumps(content)})


def _read(file: BinaryIO, where: str) -> Checkpoint:
    head = file.read(16)
    file.seek(0)
    if not head:
        raise BlurkitError(f"{where}: is empty (0 bytes)")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000:  # safetensors'
        return _from_safetensors(file.read(), where)
    content = load_tensors(file, where)
    if isinstance(content, dict) and content.get("format") == CHECKPOINT_FORMAT:
        return _checkpoint(content, where)
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
            json.loads(data[8 : 8 + length]).get("__metadata__", {}).get(CHECKPOINT_FORMAT, "{}")
        )
    except Exception as error:  # the library raises its own errors and ValueErrors
        raise BlurkitError(f"{where}: damaged safetensors file ({one_line(error)})") from error
    if not tensors:
        raise BlurkitError(f"{where}: holds no network weights (found no tensor)")
    if not about:
        if all("/" in key for key in tensors):  # as only blurkit names them
            raise BlurkitError(f"{where}: damaged, it has lost what it says of itself")
        return Checkpoint({"network": tensors}, where=where)
    networks: dict[str, StateDict] = {}
    for key, tensor in tensors.items():
        role, _, name = key.partition("/")
        networks.setdefault(role, {})[name] = tensor
    if not isinstance(about, dict):
        raise BlurkitError(f"{where}: damaged, what it says of itself is not a table")
    return _checkpoint({**about, "networks": networks}, where)


def _checkpoint(about: dict[str, Any], where: str) -> Checkpoint:
    version, networks = about.get("version"), about.get("networks")
    if version != CHECKPOINT_VERSION:
        reads = f"this blurkit reads {CHECKPOINT_VERSION}; train it again"
        raise BlurkitError(f"{where}: checkpoint version {version}, but {reads}")
    verify(about, where)
    configuration, provenance = about.get("configuration", {}), about.get("provenance", {})
    if not isinstance(configuration, dict) or not isinstance(provenance, dict):
        raise BlurkitError(f"{where}: damaged, its configuration or provenance is not a table")
    if not (isinstance(networks, dict) and networks) or None in map(_state_dict, networks.values()):
        reason = "holds no network weights, or networks that are not state dicts"
        raise BlurkitError(f"{where}: {reason}")
    roles, system = about.get("roles", {}), str(about.get("system", ""))
    if not isinstance(roles, dict) or not all(map(_is_role, roles.values())):
        raise BlurkitError(f"{where}: damaged, its table of roles is invalid")
    blueprints = {role: blueprint for role, blueprint in roles.items() if blueprint}
    return Checkpoint(networks, system, configuration, provenance, where, blueprints)


def _is_role(about: Any) -> bool:
    """Return whether an entry is a table of a class and its options, or empty."""
    kinds = {"class": str, "options": dict}
    return isinstance(about, dict) and (
        not about or all(isinstance(about.get(key), kind) for key, kind in kinds.items())
    )


def _state_dict(content: Any) -> StateDict | None:
    """Return the state dict in a foreign file, bare or under one of the usual keys, or None."""
    for _ in range(8):  # it may be inside so many tables
        if not isinstance(content, dict):
            return None
        inside = (content.get(key) for key in STATE_KEYS)
        inner = next((found for found in inside if isinstance(found, dict)), None)
        if inner is None:
            whole = all(isinstance(key, str) and _is_weight(v) for key, v in content.items())
            return content if content and whole else None
        content = inner
    return None


def prefixed_forms(state: StateDict) -> Iterator[StateDict]:
    """Yield a state dict, and then what it is without each of `PREFIXES` that all keys have.

    The counter of torch's averaged models, which has none, is left out then.
    """
    yield state
    keys = {*state} - {"n_averaged"}
    while keys and (
        prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in keys)), "")
    ):
        state = {key.removeprefix(prefix): state[key] for key in state if key in keys}
        keys = {*state}
        yield state


def _is_weight(value: Any) -> bool:
    """Return whether a value is a tensor that holds its own numbers, as all weights do."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and not value.is_meta
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


# ---- Checksums of tensors ------------------------------------------------------------------------

KEY = "checksums"
"""Where a table holds the checksums of all else in it, by place."""


def with_checksums(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of tensors and plain values together with their checksums, in `KEY`."""
    return {**content, KEY: dict(leaf_checksums(content))}


def verify(content: Mapping[str, Any], where: str) -> None:
    """Raise BlurkitError if a table, that of the file `where`, differs from its checksums."""
    stated = content.get(KEY)
    found = dict(leaf_checksums({name: value for name, value in content.items() if name != KEY}))
    if stated == found:
        return
    if not isinstance(stated, Mapping):
        raise BlurkitError(f"{where}: damaged, its checksums are missing")
    changed = next((p for p in (*found, *stated) if stated.get(p) != found.get(p)), KEY)
    raise BlurkitError(f"{where}: damaged, {str(changed)[:100]!r} has changed")


def leaf_checksums(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place, such as `a/0`, and checksum of all tensors and values in nested tables."""
    if isinstance(content, Mapping):
        children: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, (list, tuple)):
        children = enumerate(content)
    else:
        yield where, _checksum(content)
        return
    for key, value in children:
        yield from leaf_checksums(value, f"{where}/{key}" if where else str(key))


def _checksum(value: Any) -> str:
    if _is_weight(value):
        tensor = value.detach().cpu().contiguous()
        digest = xxhash.xxh3_128(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return str(digest.hexdigest())
    return str(xxhash.xxh3_128_hexdigest(value_bytes(value)))


# ---- Half precision ------------------------------------------------------------------------------


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with its weights as float16; loading converts them back to float32.

    Vectors are unchanged: a variance may exceed the range of float16, spectral norms need their
    exact vectors, and all of them make up less than a hundredth of a network.
    """
    return {
        key: tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor
        for key, tensor in state.items()
    }


def half_moments(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimiser's state with its moments as bfloat16, which has the range of float32.

    Vectors and counters are unchanged, as in `halved`; optimisers convert the moments back.
    """
    moments = {
        number: {
            name: v.bfloat16() if isinstance(v, Tensor) and v.ndim > 1 else v
            for name, v in values.items()
        }
        for number, values in optimizer["state"].items()
    }
    return {**optimizer, "state": moments}
