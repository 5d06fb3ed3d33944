"""The training loop: every recipe, any number of processes, with stopping and resuming."""

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from blurkit.data.workers import ahead
from blurkit.engine.torch_runner import autocast, channels_last, choose_device
from blurkit.errors import BlurkitError, one_line
from blurkit.interrupts import noted
from blurkit.io.checkpoints import Checkpoint, save_checkpoint, save_tensors, with_checksums
from blurkit.nn.blocks import blueprints
from blurkit.reports.progress import Progress, say
from blurkit.training.batches import BatchAugmentation
from blurkit.training.configuration import Run
from blurkit.training.distributed import Processes
from blurkit.training.memory import steps_of
from blurkit.training.recipe import Batch, Losses, Recipe, Samples, Validate
from blurkit.training.state import (
    Events,
    RunFiles,
    TrainingLog,
    check_length,
    check_same,
    half_state,
    read_state,
)
from blurkit.version import STATE_VERSION


class Stopped(Exception):
    """Raised when training has saved its state, for `signal` or, if that is 0, its time limit."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Trainer:
    """Trains a recipe on samples and writes its checkpoint.

    The files next to the output are those of `RunFiles`. The state is saved at regular intervals,
    on SIGINT and SIGTERM, and when the run's minutes are over, and deleted in the end. A resumed
    run gives the same bits as one that never stopped, unless the state is saved in half precision.

    `provenance` is stored in the checkpoint. A run can be resumed only with the same configuration
    and the same `identity`, which is part of the provenance. Every batch is augmented by
    `augmentations`; `validate` scores the checkpoint at regular intervals.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        samples: Samples,
        provenance: Mapping[str, Any],
        identity: Mapping[str, Any],
        augmentations: Sequence[BatchAugmentation] = (),
        validate: Validate | None = None,
    ) -> None:
        self.recipe, self.run, self.samples = recipe, run, samples
        self.c = recipe.configuration
        self.identity = self.c.as_dict() | dict(identity)
        self.provenance, self.augmentations, self.validate = provenance, augmentations, validate
        self.device = choose_device(run.device)
        self.processes = Processes(self.device)
        self.files = RunFiles(run.output)
        self.log = TrainingLog(self.files.beside("log.jsonl") if self.processes.first else None)
        self.step = 0
        self.metrics: dict[str, float] = {}
        self.validated = 0
        self.best = -math.inf
        self.warnings: list[str] = []
        self._began = self._said = time.monotonic()
        # A run with a limit of minutes is resumed without --resume.
        resume = run.resume or (bool(run.minutes) and not run.force)
        self.resuming = resume and self.files.state.exists()
        self._prepare()
        self._first = self._said_step = self.step

    # ---- before the first step ------------------------------------------------------------------

    def _prepare(self) -> None:
        if not self.resuming:
            self.files.refuse_existing(self.run, best=self.validate is not None)
            if self.run.resume:
                say(f"{self.files.state}: no saved state to resume, so it starts", self._silent)
        self.steps = steps_of(self.recipe, self.run, self.processes)
        for augmentation in self.augmentations:
            channels_last(augmentation.network.to(self.device))
        self.averaged: dict[str, AveragedModel] = {}
        if self.c.ema:
            average = get_ema_multi_avg_fn(self.c.ema)
            for role, network in self.recipe.networks.items():
                self.averaged[role] = AveragedModel(network, multi_avg_fn=average)
        self._average_weights()  # the first update copies the initial weights
        if self.resuming:
            self._load_state()
        else:
            self.log.start()
        if self.run.tensorboard and self.processes.first:
            self.log.events = Events(self.files.beside("tensorboard"), self.step)

    def _load_state(self) -> None:
        """Load the saved state. Raises BlurkitError if it is damaged or another run's."""
        path = self.files.state
        state = read_state(path)
        try:
            self._restore(path, state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise BlurkitError(f"{path}: damaged, or of another run ({one_line(error)})") from error
        self.log.resume(self.step)
        say(f"resumed at step {self.step} of {self.c.iterations}", self._silent)

    def _restore(self, path: Path, state: Mapping[str, Any]) -> None:
        check_same(path, state["configuration"], self.identity)
        check_length(path, state["configuration"], state["step"], self.recipe)
        for role, network in self.recipe.networks.items():
            network.load_state_dict(state["networks"][role])
        for name, optimizer in self.recipe.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            self.steps.scalers[name].load_state_dict(state["scalers"][name])
        for role, averaged in self.averaged.items():
            averaged.module.load_state_dict(state["averaged"][role])
        self.step, self.metrics = state["step"], state["metrics"]
        self.validated, self.best = state["validated"], state["best"]
        self.warnings = state["warnings"]

    # ---- the loop -------------------------------------------------------------------------------

    def train(self) -> Checkpoint:
        """Train until the last iteration; write and return the checkpoint.

        Raises Stopped by a signal or the time limit, and BlurkitError if a loss is not finite.
        """
        progress = Progress("training", self.c.iterations, "step", self.step, self._silent)
        every = self.run.validate_every or max(1, self.c.iterations // 5)
        saved = time.monotonic()
        try:
            with noted() as signalled:
                with closing(self._batches()) as batches:
                    for batch in batches:
                        losses = self._one_step(batch)
                        self.step += 1
                        progress.advance()
                        last = self.step == self.c.iterations
                        if self.step % self.run.log_every == 0 or last:
                            progress.note(self._log(losses, batch))
                        if self.step % every == 0 or last:
                            self._validate()
                        if self.run.save_every and self.step % self.run.save_every == 0:
                            self._save(self.files.checkpoint(self.step))
                        stop = self.processes.any(bool(signalled()) or self._time_is_up())
                        if stop or time.monotonic() - saved > 60 * self.run.save_minutes:
                            self._save_state()
                            saved = time.monotonic()
                        if stop:
                            self._tell_speed()
                            raise Stopped(signalled())
                self._tell_speed()
                return self._finish()
        finally:
            progress.close()
            self.steps.close()

    def _one_step(self, batch: Batch) -> Losses:
        for name, optimizer in self.recipe.optimizers.items():
            for group in optimizer.param_groups:
                rate = self.recipe.learning_rate(name, self.step)
                group["lr"] = rate * group.get("share", 1.0)
        for network in self.recipe.networks.values():
            network.train()
        with autocast(self.device, self.steps.dtype):
            for augment in self.augmentations:
                batch = augment(batch, self.c.seed, self.step, self.c.batch, self.steps.share)
        losses = self.steps.run(self.step, batch)
        self._average_weights()
        return losses

    def _average_weights(self) -> None:
        """Move the averaged parameters towards the current ones; buffers are copied."""
        for role, averaged in self.averaged.items():
            averaged.update_parameters(self.recipe.networks[role])

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield the batches of the remaining steps, on the device."""
        load = partial(self.samples.load, part=self.steps.share)
        steps = range(self.step, self.c.iterations)
        with closing(ahead(load, steps, self.run.jobs)) as prefetched:
            for loaded in prefetched:
                yield self.samples.to_device(loaded, self.device)

    def _time_is_up(self) -> bool:
        elapsed = time.monotonic() - self._began
        unfinished = self.step < self.c.iterations
        return unfinished and bool(self.run.minutes) and elapsed > 60 * self.run.minutes

    # ---- log, validation, checkpoints -----------------------------------------------------------

    @property
    def _silent(self) -> bool:
        return self.run.quiet or not self.processes.first

    def _log(self, losses: Losses, batch: Batch) -> str:
        """Log a step and return a short form of it. Raises BlurkitError if a loss is not finite."""
        sums = self.processes.sum(torch.stack([value.float() for value in losses.values()]))
        values = dict(zip(losses, (sums / self.processes.count).tolist(), strict=True))
        if self.processes.first:
            measured = self.recipe.measures(batch)
            values |= {name: value.item() for name, value in measured.items()}
        if broken := [name for name, value in values.items() if not math.isfinite(value)]:
            raise BlurkitError(
                f"step {self.step}: the {' and '.join(broken)} loss is not finite; start over "
                "with --force and a lower --learning-rate, --clip 0.01 or --precision fp32"
            )
        rates = {n: self.recipe.learning_rate(n, self.step - 1) for n in self.recipe.optimizers}
        speed = self._speed()
        self.log.write(self.step, losses=values, learning_rates=rates, crops_per_second=speed)
        if warning := self.recipe.check_collapse(values):
            self.warn(warning)
        shown = " ".join(f"{name}={value:.4g}" for name, value in values.items())
        return f"{shown} {speed:.1f} crops/s"

    def warn(self, warning: str) -> None:
        """Say this once, and write it to the log and the checkpoint."""
        text = f"step {self.step}: {warning}" if self.step else warning
        if text not in self.warnings:
            self.warnings.append(text)
            self.log.write(self.step, warning=warning)
            say(text, not self.processes.first)

    def _speed(self) -> float:
        """Return the crops per second over all devices since the last call."""
        now, crops = time.monotonic(), (self.step - self._said_step) * self.c.batch
        speed = crops / max(now - self._said, 1e-9)
        self._said, self._said_step = now, self.step
        return round(speed, 2)

    def _tell_speed(self) -> None:
        crops, seconds = (self.step - self._first) * self.c.batch, time.monotonic() - self._began
        speed = f"{crops} crops in {seconds:.0f} s, {crops / seconds:.1f} crops/s"
        say(f"step {self.step} of {self.c.iterations}: {speed}", self._silent)

    def _validate(self) -> None:
        pictures = self.files.beside("samples") if self.run.samples else None
        if self.validate is not None:
            checkpoint = self._checkpoint()
            self.metrics = self.validate(checkpoint, self.processes, pictures, self.step)
            self.validated = self.step
            self.log.write(self.step, validation=self.metrics)
            scores = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items())
            if (score := self.metrics.get(self.recipe.best, -math.inf)) > self.best:
                self.best = score
                self._save(best := self.files.checkpoint("best"))
                scores += f"; the best so far, saved as {best}"
            say(f"step {self.step}: {scores}", self._silent)
        self.processes.wait()
        if self.log.events and pictures:
            self.log.events.show(self.step, sorted(pictures.glob(f"{self.step:07d}-*.png")))

    def _checkpoint(self) -> Checkpoint:
        networks = self._states(self.recipe.networks) | self._averages()
        metrics = self.metrics if self.validated == self.step else {}
        about = {**self.provenance, "iterations": self.step, "metrics": metrics}
        if self.warnings:
            about["warnings"] = self.warnings
        c, built = self.c, blueprints(self.recipe.networks)
        where, code = self.run.output, self.recipe.code
        return Checkpoint(networks, c.system, c.as_dict(), about, where, built, code)

    def _averages(self) -> dict[str, dict[str, Tensor]]:
        """Return the state dicts of the averaged networks by role; empty without averaging."""
        return self._states({role: averaged.module for role, averaged in self.averaged.items()})

    @staticmethod
    def _states(parts: Mapping[str, Any]) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in parts.items()}

    def _save(self, path: Path) -> None:
        """Write the current networks as a checkpoint; then there is always a state to resume."""
        if self.processes.first:
            save_checkpoint(self._checkpoint(), path)
            if self.step < self.c.iterations and not self.files.state.exists():
                self._save_state()

    def _save_state(self) -> None:
        if not self.processes.first:
            return
        state = {
            "version": STATE_VERSION,
            "system": self.c.system,
            "blueprints": blueprints(self.recipe.networks),
            "configuration": self.identity,
            "step": self.step,
            "metrics": self.metrics,
            "validated": self.validated,
            "best": self.best,
            "warnings": self.warnings,
            "networks": self._states(self.recipe.networks),
            "averaged": self._averages(),
            "optimizers": self._states(self.recipe.optimizers),
            "scalers": self._states(self.steps.scalers),
        }
        state = half_state(state) if self.run.half_state else state
        save_tensors(with_checksums(state), self.files.state)

    def _finish(self) -> Checkpoint:
        checkpoint = self._checkpoint()
        if self.processes.first:
            # A run that is resumed had leave to write there when it began.
            save_checkpoint(checkpoint, self.run.output, self.run.force or self.resuming)
            self.files.state.unlink(missing_ok=True)
        self.processes.wait()
        return checkpoint
