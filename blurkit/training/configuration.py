"""The options of training: those of every recipe's configuration, and the options of a run.

Each system's `config.py` has a dataclass for its recipe, whose defaults are the paper's values, but
where a run that was saved before the option existed had another one: `paper` then has the value.
These modules must not import torch, because the command line builds its help from the classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from blurkit.errors import BlurkitError, UsageError
from blurkit.options import Options, Precision, check_options, option, rare
from blurkit.synthesis import BlurKind

ValidationProtocol = Literal["paper", "tiles", "slices", "whole"]
"""How validation runs networks on whole images: as the system's paper, or by a named protocol."""


WIDTH = option(64, "Channels at full size; deeper levels double it.", 1)


@dataclass(frozen=True)
class Configuration(Options):
    """The options that every recipe has."""

    system: ClassVar[str] = ""
    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}}

    iterations: int = option(200_000, "Training steps.", 1)
    batch: int = option(32, "Crops per step, over all devices together.", 1)
    crop: int = option(256, "Side of the square training crops, pixels.", 32)
    learning_rate: float = option(3e-4, "Adam's learning rate at the start of the cosine.")
    final_learning_rate: float = rare(1e-7, "Learning rate at the end of the cosine.")
    schedule_iterations: int = rare(0, "Length of the cosine in steps; 0: all iterations.")
    beta1: float = rare(0.9, "Adam's first decay rate.", below=1)
    beta2: float = rare(0.99, "Adam's second decay rate.", below=1)
    clip: float = rare(0.0, "Largest total gradient norm; 0: no clipping.")
    ema: float = rare(
        0.0, "Decay of the averaged weights that are saved; 0: no averaging.", below=1
    )
    sharp_pairs: float = rare(
        0.0, "Fraction of crops trained as identity pairs (sharp on both sides).", below=1
    )
    synthesize: Literal["none", BlurKind] = option(
        "none", "Draw new blur for every crop of a sharp record; kinds as in prepare."
    )
    synthetic_share: float = rare(
        0.0,
        "With --synthesize: fraction of blurred records that get new blur instead, 0 to 1.",
        maximum=1,
    )
    mix: float = rare(0.5, "Fraction of crops whose blur an augmentation replaces.", maximum=1)
    orientations: Literal["all", "flip", "none"] = rare(
        "all", "Draw crops in all eight orientations, flipped left to right, or as is."
    )
    seed: int = option(10, "Seed of weights, crops and all other random numbers.")

    @classmethod
    def for_inputs(cls, inputs: Mapping[str, Any]) -> type[Configuration]:
        """Return the options of the training for some of its input files, by option."""
        return cls

    def check(self) -> None:
        """Raise UsageError, which names the option, if a value is invalid."""
        super().check()
        if self.synthetic_share and self.synthesize == "none":
            raise UsageError("--synthetic-share requires --synthesize")
        if self.crop % 16:
            raise UsageError(f"--crop {self.crop}: must be a multiple of 16")


@dataclass(frozen=True)
class TrainingInputs:
    """The files that a training reads in addition to its shards; by default none."""

    @property
    def files(self) -> dict[str, Any]:
        """The options that name files or addresses."""
        return vars(self)

    def check(self, overrides: Mapping[str, Any]) -> None:
        """Raise UsageError if files are missing that the training requires.

        `overrides` are the given options of the method, None if not given.
        """


@dataclass(frozen=True)
class FeatureInputs(TrainingInputs):
    """The input files of a training with a perceptual loss."""

    features: str = option("", "Feature network file: VGG-19, VGG-11-BN or SqueezeNet.")


@dataclass(frozen=True)
class Run:
    """The options of a training run, which do not change its recipe.

    `augmentations` maps the option of each augmentation of the batches to its checkpoint.
    """

    output: str
    device: str = option("auto", "Device: auto, cpu, cuda, cuda:N or mps.")
    precision: Precision = option("fp32", "Mixed precision.")
    accumulate: int = option(
        1,
        "Parts in which a device computes its crops of a step, to save memory; batch norms see one "
        "part at a time.",
        1,
    )
    checkpointing: Literal["auto", "on", "off"] = option(
        "auto", "Compute activations again in the backward pass; auto: if the GPU is too small."
    )
    start: str = option("", "Checkpoint to initialise the networks from; default: random.")
    resume: bool = option(
        False, "Continue the run whose state is saved next to the output, or else start it."
    )
    force: bool = option(False, "Overwrite existing output.")
    save_every: int = option(0, "Steps between checkpoints that are kept, x.STEP.pt; 0: none.")
    log_every: int = rare(50, "Steps between log lines.", 1)
    validate_every: int = rare(0, "Steps between validations; 0: five over the run.")
    validate_on: int = rare(
        8, "Number of validation records, evenly spread over all; 0: no validation."
    )
    validate_protocol: ValidationProtocol = rare(
        "paper", "How validation runs whole images, as in deblur; paper: as the system's."
    )
    save_minutes: float = rare(10.0, "Minutes between saves of the running state.")
    minutes: float = option(
        0.0, "Save and stop after this many minutes; the same command continues. 0: no limit."
    )
    half_state: bool = rare(
        False, "Save the running state in half precision; a resumed run then differs slightly."
    )
    verify: bool = rare(True, "Read all shards and verify their checksums before the first step.")
    jobs: int = option(0, "Processes that prepare crops in advance; 0: a thread.")
    samples: bool = rare(True, "Save sample pictures at each validation.")
    tensorboard: bool = rare(
        False, "Also write the log and samples for TensorBoard, to x.tensorboard/."
    )
    quiet: bool = option(False, "Print errors only.")
    augmentations: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_options(self)
        if self.tensorboard and find_spec("tensorboard") is None:
            raise UsageError(
                "--tensorboard needs a package that is not installed: "
                "pip install 'blurkit[tensorboard]'"
            )


@dataclass(frozen=True)
class SavedConfiguration:
    """The options of one training of `system` by name; `where` names their file in messages."""

    system: str
    values: Mapping[str, Any]
    where: str

    def options(self, kind: type[Configuration]) -> dict[str, Any]:
        """Return the value of every option of `kind`; those not saved have their defaults.

        Raises BlurkitError if a saved name or type is none of `kind`.
        """
        known = {f.name: f.default for f in fields(kind)}
        if unknown := [name for name in self.values if name not in known]:
            names = ", ".join(map(repr, unknown[:5]))
            raise BlurkitError(
                f"{self.where}: not options of this training of --system {self.system}: {names}"
            )
        for name, value in self.values.items():
            wanted = type(known[name])
            if type(value) is not wanted and (type(value), wanted) != (int, float):
                text = f"{self.where}: {name} is {str(value)[:40]!r}, not {wanted.__name__}"
                raise BlurkitError(text)
        return {**known, **self.values}


def read_configuration(file: str | Path) -> SavedConfiguration:
    """Return the configuration in a checkpoint, or in a file with the JSON that `--dry-run` prints.

    Raises BlurkitError if the file is missing or holds no configuration.
    """
    path = Path(file)
    if path.suffix in (".pt", ".pth", ".safetensors"):
        from blurkit.io.checkpoints import load_checkpoint

        checkpoint = load_checkpoint(path)
        system, values = checkpoint.system, checkpoint.configuration
    else:
        printed = _read_json(path)
        system = str(printed.get("system", ""))
        values = {k: value for k, value in printed.items() if k not in ("system", "estimate")}
    if not system or not values:
        raise BlurkitError(f"{path}: holds no configuration of a training")
    return SavedConfiguration(system, values, str(path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such file (from --config)") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        content = error
    if not isinstance(content, dict):
        raise BlurkitError(f"{path}: is neither what --dry-run prints nor a checkpoint")
    return content
