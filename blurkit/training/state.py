"""The saved state of a running training: reading, checking and halving it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors
from blurkit.io.half import half_moments, halved


def read_state(path: Path, output: str) -> dict[str, Any]:
    """Return the state in `path`, saved by the training whose checkpoint will be `output`.

    Raises BlurkitError if the file does not exist or does not hold a state.
    """
    if not path.exists():
        finished = f"; {output} is finished" if Path(output).exists() else ""
        raise BlurkitError(f"{path}: no saved state to resume{finished}; run without --resume")
    with path.open("rb") as file:
        state = load_tensors(file, str(path))
    if not isinstance(state, dict) or "optimizers" not in state:
        raise BlurkitError(f"{path}: is not the saved state of a training run")
    return state


def check_same(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise BlurkitError, which names the options, if any differs from that of the saved run."""
    if changed := [key for key in own if saved.get(key) != own[key]]:
        changes = ", ".join(f"{key} {saved.get(key)} (now {own[key]})" for key in changed)
        raise BlurkitError(f"{path}: was trained with {changes}; resume with the same options")


def half_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a running state with its weights in float16 and its moments in bfloat16.

    Moments need the range of float32, which bfloat16 has; weights need the digits of float16.
    Vectors and counters are unchanged, as in `halved`. Loading converts all values to float32.
    """
    networks = {role: halved(values) for role, values in state["networks"].items()}
    averaged = {role: halved(values) for role, values in state["averaged"].items()}
    optimizers = {name: half_moments(values) for name, values in state["optimizers"].items()}
    return {**state, "networks": networks, "averaged": averaged, "optimizers": optimizers}
