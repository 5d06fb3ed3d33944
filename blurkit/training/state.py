"""The saved state of a running training, its log, and the other files next to its output."""

import copy
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import (
    Checkpoint,
    half_moments,
    halved,
    load_checkpoint,
    load_tensors,
    verify,
)
from blurkit.io.images import read_image
from blurkit.io.writing import refuse_existing, refuse_output, replacing
from blurkit.metrics.scores import eight_bit
from blurkit.reports.progress import say
from blurkit.reports.values import flat
from blurkit.training.configuration import Configuration, Run
from blurkit.training.recipe import Recipe
from blurkit.version import STATE_VERSION, __version__

LENGTHS = ("iterations", "schedule_iterations")
"""The options that may change when a run is resumed, if the learning rates so far stay the same."""


def read_state(path: Path) -> dict[str, Any]:
    """Return the state in `path`. Raises BlurkitError if it does not hold one."""
    state = find_state(path)
    if state is None:
        raise BlurkitError(f"{path}: is not the saved state of a training run")
    return state


def find_state(path: str | Path) -> dict[str, Any] | None:
    """Return the state in a file named `x.state.pt`, None if the file holds or is anything else.

    Raises BlurkitError if the file is damaged or of another version.
    """
    path = Path(path)
    if not path.name.endswith(".state.pt") or not path.is_file():
        return None
    with path.open("rb") as file:
        state = load_tensors(file, str(path))
    if not isinstance(state, dict) or not {"optimizers", "networks", "step"} <= state.keys():
        return None
    if (version := state.get("version", 1)) != STATE_VERSION:
        reads = f"this blurkit reads {STATE_VERSION}; train again with --force"
        raise BlurkitError(f"{path}: state version {version}, but {reads}")
    verify(state, str(path))
    return state


def state_checkpoint(state: Mapping[str, Any], where: str) -> Checkpoint:
    """Return the current networks of a saved state, averaged where the run averages them.

    The provenance has the `iterations` done so far, `metrics` of the last validation, and
    `warnings` if there are any. `where` names the file in messages.
    """
    about = {"blurkit": __version__, "iterations": state["step"]}
    about |= {key: state[key] for key in ("metrics", "warnings") if state.get(key)}
    networks, blueprints = state["networks"] | state["averaged"], state["blueprints"]
    return Checkpoint(networks, state["system"], state["configuration"], about, where, blueprints)


def finished_run(run: Run, configuration: Configuration) -> Checkpoint | None:
    """Return the checkpoint of a run that is to be resumed if it is finished.

    Raises BlurkitError if that run had other options, and as `load_checkpoint` does.
    """
    files = RunFiles(run.output)
    if not run.resume or run.force or files.state.exists() or not Path(run.output).is_file():
        return None
    checkpoint, own = load_checkpoint(files.path), configuration.as_dict()
    check_same(files.path, checkpoint.configuration, own)
    steps = checkpoint.provenance.get("iterations")
    if steps != configuration.iterations:
        now = f"not {configuration.iterations}; give --force to train again"
        raise BlurkitError(f"{files.path}: is finished after {steps} iterations, {now}")
    others = os.environ.get("RANK", "0") != "0"
    say(f"{files.path}: is finished; there is nothing to resume", run.quiet or others)
    return checkpoint


def check_same(path: Path, saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise BlurkitError if an option other than `LENGTHS` differs from that of the saved run."""
    if changed := [key for key in own if key not in LENGTHS and saved.get(key) != own[key]]:
        changes = ", ".join(f"{key} {saved.get(key)} (now {own[key]})" for key in changed)
        raise BlurkitError(f"{path}: was trained with {changes}; resume with the same options")


def check_length(path: Path, saved: Mapping[str, Any], step: int, recipe: Recipe) -> None:
    """Raise BlurkitError if the saved run cannot go on with the length that `recipe` now has.

    `saved` is its configuration. It can if the new length has at least its `step` steps, and if the
    learning rates of these steps stay what they were: the result then has the same bits as that of
    a run which had the new length from its first step.
    """
    new = recipe.configuration
    old = replace(new, **{name: saved[name] for name in LENGTHS})
    if new.iterations < step:
        raise BlurkitError(f"{path}: is at step {step}; --iterations {new.iterations} is too few")
    if old == new or _rates(recipe, old, step) == _rates(recipe, new, step):
        return
    length = old.schedule_iterations or old.iterations
    advice = f"resume with --iterations {old.iterations}"
    if _rates(recipe, replace(new, schedule_iterations=length), step) == _rates(recipe, old, step):
        advice = f"add --schedule-iterations {length} to train on at the rate at its end"
    raise BlurkitError(
        f"{path}: the learning rates of its {step} steps follow a schedule over {length}, which "
        f"--iterations {new.iterations} would change; {advice}"
    )


def _rates(recipe: Recipe, configuration: Configuration, step: int) -> list[float]:
    """Return the learning rates of the first `step` steps of a recipe in another configuration."""
    other = copy.copy(recipe)  # recipes may keep their configuration under a second name
    known = recipe.configuration
    vars(other).update({k: configuration for k, v in vars(recipe).items() if v is known})
    return [other.learning_rate(name, n) for name in recipe.optimizers for n in range(step)]


def half_state(state: dict[str, Any]) -> dict[str, Any]:
    """Return a running state with its weights in float16 and its moments in bfloat16.

    Moments need the range of float32, which bfloat16 has; weights need the digits of float16.
    Vectors and counters are unchanged, as in `halved`. Loading converts all values to float32.
    """
    kinds = {"networks": halved, "averaged": halved, "optimizers": half_moments}
    return state | {
        kind: {name: half(values) for name, values in state[kind].items()}
        for kind, half in kinds.items()
    }


@dataclass(frozen=True)
class RunFiles:
    """The files next to the output `x.pt` of a run, "-" for standard output (then of `train.pt`).

    They are the running state `x.state.pt`, the log `x.log.jsonl`, its events `x.tensorboard/`, the
    sample pictures `x.samples/` and the checkpoints `x.STEP.pt` and `x.best.pt`, in the format of
    the output.
    """

    output: str

    @property
    def path(self) -> Path:
        """The output, or the name that the others take theirs from."""
        return Path("train.pt" if self.output == "-" else self.output)

    def beside(self, ending: str) -> Path:
        """Return the path of a companion of the output."""
        return self.path.with_name(f"{self.path.stem}.{ending}")

    @property
    def state(self) -> Path:
        """The running state."""
        return self.beside("state.pt")

    def checkpoint(self, name: int | Literal["best"]) -> Path:
        """Return the checkpoint of a step, or that of the best validation."""
        return self.beside(f"{name}{self.path.suffix}")

    def refuse_existing(self, run: Run, best: bool) -> None:
        """Raise BlurkitError if a new run would overwrite files without leave.

        `best` says whether it writes the best checkpoint. If it may resume, the log is that of a
        run killed before its first save.
        """
        if self.output != "-":
            refuse_output(self.path, run.force)
        refuse_existing(self.beside("log.jsonl"), run.force or run.resume or self.state.exists())
        name = re.compile(rf"{re.escape(self.path.stem)}\.\d+{re.escape(self.path.suffix)}")
        found = [p for p in self.path.parent.glob("*") if run.save_every and name.fullmatch(p.name)]
        for path in [*found, *([self.checkpoint("best")] if best else [])]:
            refuse_existing(path, run.force)
        if self.state.exists() and not run.force:
            raise BlurkitError(
                f"{self.state}: holds the state of a stopped run; continue it with --resume, or "
                "give --force to start over"
            )


class TrainingLog:
    """Appends JSON objects, one per line: `step`, `time` (seconds since the epoch) and fields.

    Without a `path`, as in all but the first of several processes, it writes nothing. `events`, if
    given, gets the same fields.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.events: Events | None = None

    def start(self) -> None:
        """Start an empty log."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("")

    def resume(self, step: int, **fields: Any) -> None:
        """Remove log lines after `step`; resuming writes them again.

        If `fields` are given, only lines with these values are removed. An incomplete last line is
        always removed. Raises BlurkitError if another line is not one of a log.
        """
        if not self.path or not self.path.exists():
            return
        lines = self.path.read_text(errors="replace").splitlines(keepends=True)
        kept = []
        for number, line in enumerate(lines, 1):
            if not line.endswith("\n"):
                continue
            try:
                entry = json.loads(line)
                late = entry["step"] > step
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise BlurkitError(
                    f"{self.path}: line {number} is no line of a log; remove it, or move the file"
                ) from error
            if not late or any(entry.get(key) != fields[key] for key in fields):
                kept.append(line)
        with replacing(self.path) as partial:
            partial.write_text("".join(kept))

    def write(self, step: int, **fields: Any) -> None:
        """Append a line with these fields."""
        if self.path:
            line = {"step": step, "time": round(time.time(), 3), **fields}
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if self.events:
                self.events.write(step, fields)


class Events:
    """Writes the scalars, warnings and sample pictures of a run to a folder of event files.

    An object of the log, such as `losses`, becomes a scalar for each of its values, `losses/NAME`.
    A run that is resumed at `step` hides what was written after it; one that begins, at step 0,
    removes the events of an earlier run.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second

        if not step:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, step: int, fields: Mapping[str, Any]) -> None:
        """Write the fields of a line of the log."""
        for name, value in flat(fields):
            if isinstance(value, str):
                self._writer.add_text(name, value, step)
            else:
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, step: int, pictures: Iterable[Path]) -> None:
        """Write the sample pictures of a step, files that are named after step and record."""
        for path in pictures:
            pixels = eight_bit(read_image(path).pixels)
            self._writer.add_image(path.stem.partition("-")[2], pixels, step, dataformats="HWC")
        self._writer.flush()
