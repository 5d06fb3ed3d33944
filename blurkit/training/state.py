"""The running state of a training, read from its file and made small."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors
from blurkit.io.half import half_moments, halved


def read_state(path: Path, output: str) -> dict[str, Any]:
    """Return the state saved in `path`, beside the checkpoint `output` to be.

    Raises BlurkitError when there is none, or the file is something else.
    """
    if not path.exists():
        done = f"; {output} is finished" if Path(output).exists() else ""
        raise BlurkitError(f"{path}: no saved state to resume{done}; run without --resume")
    with path.open("rb") as file:
        state = load_tensors(file, str(path))
    if not isinstance(state, dict) or "optimizers" not in state:
        raise BlurkitError(f"{path}: is not the saved state of a training run")
    return state


def check_same(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise BlurkitError, naming them, for options of the saved run that are others now."""
    if changed := [key for key in own if saved.get(key) != own[key]]:
        changes = ", ".join(f"{key} {saved.get(key)} (now {own[key]})" for key in changed)
        raise BlurkitError(f"{path}: was trained with {changes}; resume with the same options")


def half_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a running state with its weights as float16 and its moments as bfloat16.

    Moments need the range of float32, which bfloat16 has; weights need the digits. Vectors and
    counters stay, as in `halved`. Loading makes all of them float32 again.
    """
    networks = {role: halved(values) for role, values in state["networks"].items()}
    averaged = {role: halved(values) for role, values in state["averaged"].items()}
    optimizers = {name: half_moments(values) for name, values in state["optimizers"].items()}
    return {**state, "networks": networks, "averaged": averaged, "optimizers": optimizers}
