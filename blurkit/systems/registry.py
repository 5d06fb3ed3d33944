"""Recognise the networks of checkpoints, build them and load them strictly.

Foreign state dicts are recognised by keys and shapes; blurkit's own files state class and options.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import STATE_KEYS, Checkpoint, prefixed_forms
from blurkit.systems.any_network.inference import UserNetwork
from blurkit.systems.system import (
    Architecture,
    Shapes,
    inference,
    network_class,
    network_classes,
    systems,
)

DRAWING = (Tensor.normal_, Tensor.uniform_, functional.normalize)
"""Functions that initialise tensors when a network is built; spectral norms use the last one."""


def from_state_dict(state_dict: Mapping[str, Any]) -> nn.Module:
    """Return the network of a state dict, in eval mode, with copies of its tensors in float32.

    A state dict under one of `STATE_KEYS`, as training code saves it, is unwrapped, and `PREFIXES`
    that all keys have are removed. Raises BlurkitError if no known network matches or, naming the
    first differing keys, if keys or shapes differ from the network's.
    """
    return recognise_network(state_dict)[1]


def recognise_network(state_dict: Mapping[str, Any]) -> tuple[Architecture, nn.Module]:
    """Return the architecture of a state dict and the network, as `from_state_dict` does."""
    forms = [*prefixed_forms(_unwrap(state_dict))]
    for tensors in forms:
        shapes = Shapes({key: tuple(tensor.shape) for key, tensor in tensors.items()})
        for folder, architecture in network_classes().values():
            if architecture.matches(shapes):
                # Built without memory or initial values; `fill` assigns the tensors.
                with torch.device("meta"), Undrawn():
                    module = network_class(folder, architecture).from_shapes(shapes)
                return architecture, fill(architecture, module, tensors)
    return _of_library(forms)


def fill(architecture: Architecture, module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a network that was built without memory, with copies of `tensors`, in eval mode.

    Raises BlurkitError, naming the first differing keys, if `tensors` do not match the network.
    """
    own = module.state_dict()
    tensors = {
        k: v for k, v in tensors.items() if k in own or not k.startswith(architecture.unused)
    }
    generator = torch.Generator().manual_seed(0)
    for key in own:
        if key not in tensors and key.startswith(architecture.drawn):
            tensors[key] = torch.randn(own[key].shape, generator=generator)
    if mismatch := differences(own, tensors):
        raise BlurkitError(f"not a whole {architecture.name}; {mismatch}")
    copies = {key: tensors[key].detach().to(own[key].dtype, copy=True) for key in own}
    module.load_state_dict(copies, assign=True)
    return module.eval()


def _of_library(forms: Sequence[Mapping[str, Tensor]]) -> tuple[Architecture, nn.Module]:
    """Return the network of a state dict, in any of its `forms`, that only a library knows."""
    hints: list[str] = []
    for folder, system in systems().items():
        if system.library is None:
            continue
        for tensors in forms:
            try:
                network = network_class(folder, system.library).from_tensors(tensors)
            except BlurkitError as error:
                hints.append(str(error))
                continue
            if network is not None:
                return system.library, network.eval()
        if find_spec(system.extra) is None:
            hints.append(f"pip install 'blurkit[{system.extra}]' lets blurkit run many more")
    keys = f"{len(forms[0])} keys: {_first(forms[0])}"
    raise BlurkitError(
        "; ".join([f"no known network has this state dict of {keys}", *dict.fromkeys(hints)])
    )


class Undrawn(TorchFunctionMode):
    """Skips drawing initial values, for which torch would import its compiler for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the result of `func`, or its first argument if `func` is skipped."""
        return args[0] if func in DRAWING else func(*args, **(kwargs or {}))


def describe(module: nn.Module) -> dict[str, Any]:
    """Return a network's class name, its options (width, version, ...) and parameter counts."""
    parameters = list(module.parameters())
    return {
        "network": network_name(module),
        **getattr(module, "options", {}),
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
    }


def network_name(module: nn.Module) -> str:
    """Return the name of a network's class, or its own if it has one."""
    return str(getattr(module, "name", type(module).__name__))


def _unwrap(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    for name in STATE_KEYS:
        if isinstance(state_dict.get(name), Mapping):
            state_dict = state_dict[name]
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise BlurkitError(f"not a state dict: {key!r} is a {kind}, not a tensor")
    return dict(state_dict)


def differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Return how the keys and shapes of `given` differ from those of `own`, in words, or ""."""
    missing = [key for key in own if key not in given]
    unexpected = [key for key in given if key not in own]
    wrong = [
        f"{key} {list(given[key].shape)} instead of {list(tensor.shape)}"
        for key, tensor in own.items()
        if key in given and given[key].shape != tensor.shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": wrong}
    return "; ".join(f"{problem}: {_first(keys)}" for problem, keys in problems.items() if keys)


def _first(keys: Iterable[str]) -> str:
    """Return the first three keys and the number of the remaining ones."""
    keys = list(keys)
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more


# ---- Roles ---------------------------------------------------------------------------------------


def load_networks(*checkpoints: Checkpoint) -> dict[str, nn.Module]:
    """Return all networks in the checkpoints by role (`encoder`, `latents`, `reblur`, ...).

    A joint model of the official code is split into its four networks. If two networks have the
    same role, the later one is used. All are in eval mode, on the CPU. Raises BlurkitError, naming
    the file and role, if a state dict is of no known network or incomplete.
    """
    networks: dict[str, nn.Module] = {}
    for checkpoint in checkpoints:
        for role, state in checkpoint.networks.items():
            try:
                if own := _by_code(checkpoint, role, state):
                    architecture, network = own
                elif blueprint := checkpoint.blueprints.get(role):
                    architecture, network = rebuild(blueprint, state)
                else:
                    architecture, network = recognise_network(state)
            except BlurkitError as error:
                part = "" if role == "network" else f" ({role})"
                raise BlurkitError(f"{checkpoint.where}{part}: {error}") from error
            if not architecture.role:
                networks |= network.roles()  # type: ignore[operator]
            else:
                networks[architecture.role if role == "network" else role] = network
    return networks


def _by_code(
    checkpoint: Checkpoint, role: str, state: Mapping[str, Tensor]
) -> tuple[Architecture, nn.Module] | None:
    """Return the network that the code of a checkpoint makes for a state dict.

    None without code, for a known class, and for another program's file without all of its keys.
    """
    blueprint = checkpoint.blueprints.get(role)
    known = blueprint is not None and blueprint["class"] in network_classes()
    if checkpoint.code is None or known or role not in ("network", "deblur"):
        return None
    module = UserNetwork(checkpoint.code, {} if blueprint is None else blueprint["options"])
    kind = Architecture(module.name, "deblur", "", ())
    for form in prefixed_forms(dict(state)):
        if blueprint is not None or module.state_dict().keys() == form.keys():
            return kind, fill(kind, module, form)
    return None


def assemble(checkpoint: Checkpoint, *others: Checkpoint) -> dict[str, nn.Module]:
    """Return the networks of `checkpoint` by role, with companions such as an encoder.

    The companions are taken from `others`. Raises BlurkitError as `load_networks` does, if one of
    `others` holds no companion, and if networks do not fit together.
    """
    networks, given = load_networks(checkpoint), dict[str, nn.Module]()
    accompanied = {n: s.companions for n, s in systems().items() if s.companions}
    roles = [role for companions in accompanied.values() for role in companions]
    for source in others:
        held = load_networks(source)
        companions = {role: network for role, network in held.items() if role in roles}
        if not companions:
            wanted = " or ".join(roles)
            raise BlurkitError(f"{source.where}: holds {describe_networks(held)}, but no {wanted}")
        given |= companions
    where = " + ".join(source.where for source in (checkpoint, *others))
    try:
        for folder in accompanied:
            networks = inference(folder).accompany(networks, given)
    except BlurkitError as error:
        raise BlurkitError(f"{where}: {error}") from error
    return networks


def describe_networks(networks: dict[str, nn.Module]) -> str:
    """Return the result of `load_networks` in words, for a message."""
    return ", ".join(f"{role} ({network_name(n)})" for role, n in networks.items()) or "nothing"


# ---- Own checkpoints -----------------------------------------------------------------------------


def rebuild(
    blueprint: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> tuple[Architecture, nn.Module]:
    """Return the architecture and the network of a blueprint, with a state dict's tensors.

    The network is in eval mode and in float32. Its class is looked up by name among those that
    systems describe, and nowhere else. Raises BlurkitError if no system has the class, if the class
    does not accept the options, or if the tensors do not match the network.
    """
    with torch.device("meta"), Undrawn():
        architecture, network = _built(blueprint)
    return architecture, fill(architecture, network, dict(state_dict))


def _built(blueprint: Mapping[str, Any]) -> tuple[Architecture, nn.Module]:
    name, options = blueprint["class"], blueprint["options"]
    known = network_classes()
    if name not in known:
        own = f"; if it is your own, name its code where it runs: --network {name}"
        raise BlurkitError(f"no system in this version of blurkit has a network {name!r}{own}")
    folder, architecture = known[name]
    arguments = {
        key: _built(value)[1] if isinstance(value, dict) else value
        for key, value in options.items()
    }
    try:
        return architecture, network_class(folder, architecture)(**arguments)
    except (TypeError, ValueError, BlurkitError) as error:
        raise BlurkitError(f"{name} does not accept the options {options}: {error}") from error
