"""The files that a training run keeps next to its output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.writing import refuse_existing


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

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation."""
        return self.beside(f"best{self.path.suffix}")

    def at(self, step: int) -> Path:
        """Return the checkpoint of a step."""
        return self.beside(f"{step}{self.path.suffix}")

    def steps(self) -> list[Path]:
        """Return the checkpoints of steps that exist."""
        return self._found(rf"{self._stem}\.\d+{self._suffix}")

    def refuse_existing(self, force: bool, steps: bool, best: bool) -> None:
        """Raise BlurkitError if a new run would overwrite files and `force` is off.

        `steps` and `best` say whether the run writes checkpoints of steps, and the best one.
        """
        if self.output != "-":
            refuse_existing(self.path, force)
        refuse_existing(self.beside("log.jsonl"), force or self.state.exists())
        for path in [*(self.steps() if steps else []), *([self.best] if best else [])]:
            refuse_existing(path, force)
        if self.state.exists() and not force:
            raise BlurkitError(
                f"{self.state}: holds the state of a stopped run; continue it with --resume, or "
                "give --force to start over"
            )

    @property
    def _stem(self) -> str:
        return re.escape(self.path.stem)

    @property
    def _suffix(self) -> str:
        return re.escape(self.path.suffix)

    def _found(self, pattern: str) -> list[Path]:
        return [p for p in self.path.parent.glob("*") if re.fullmatch(pattern, p.name)]
