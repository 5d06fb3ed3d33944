"""Fields of dataclasses as options, those of a training command of the system that it trains."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

import pytest
import typer
from typer.testing import CliRunner

from blurkit.cli import train
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.evaluate import EvaluationOptions
from blurkit.cli.options import Common, Given, expand, flags_of
from blurkit.cli.reblur import ReblurOptions
from blurkit.cli.train import TrainingCommand
from blurkit.errors import BlurkitError, UsageError
from blurkit.io import paths
from blurkit.options import Options, option
from blurkit.systems import system as descriptions
from blurkit.systems.system import System, Training
from blurkit.training.configuration import Configuration, TrainingInputs


@dataclass(frozen=True)
class Base:
    """What several commands have."""

    quiet: bool = option(False, "Say nothing.", flags=("--quiet", "-q"))


@dataclass(frozen=True)
class Own(Base):
    """One command's own."""

    side: int = option(4, "Side.", 1, maximum=9)
    names: tuple[str, ...] = option(("a", "b"), "Names.", flags=("--name",))
    sure: bool = option(True, "Be sure.")
    file: Path | None = option(None, "A file.", rare=True)


@dataclass(frozen=True)
class Preset(Options):
    """Values that presets give."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"usual": {}}
    rate: float = option(0.5, "Rate.")
    fast: bool = option(False, "Be fast.")


def run(command: Any, *arguments: object) -> Any:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*map(str, arguments)])


def test_a_dataclass_is_built_of_its_options() -> None:
    got: list[tuple[Own, Given]] = []

    def command(options: Own, given: Annotated[Given, Preset]) -> None:
        got.append((options, given))

    assert run(expand(command)).exit_code == 0
    given = ["-q", "--side", 3, "--name", "x", "--no-sure", "--file", "y", "--rate", 1, "--fast"]
    assert run(expand(command), *given).exit_code == 0
    assert got == [
        (Own(), {"rate": None, "fast": None}),
        (Own(True, 3, ("x",), False, Path("y")), {"rate": 1.0, "fast": True}),
    ]


def test_help_has_texts_defaults_and_a_classes_own_options_first() -> None:
    def command(options: Own, given: Annotated[Given, Preset]) -> None:
        """Do it."""

    shown = run(expand(command), "--help").output
    assert re.search(r"--side \S+\s+Side\.\s+\[default: 4\]", shown)
    assert re.search(r"--rate \S+\s+Rate\.\s+\[usual: 0\.5\]", shown)
    assert shown.index("--side") < shown.index("--quiet") < shown.index("--rate")
    assert "--file" not in shown
    assert flags_of(Own) == {"--side", "--name", "--sure", "--no-sure", "--file", "--quiet", "-q"}
    assert flags_of(Preset, given=True) == {"--rate", "--fast", "--no-fast"}


def test_numbers_out_of_their_range_are_refused_by_their_option() -> None:
    def command(options: Own) -> None:
        raise AssertionError

    for value in (0, 10):
        error = run(expand(command), "--side", value).exception
        assert isinstance(error, UsageError) and str(error).startswith(f"--side {value}: must be")


def test_options_of_one_name_are_one() -> None:
    got: list[tuple[Base, Own]] = []

    def command(first: Base, second: Own) -> None:
        got.append((first, second))

    assert run(expand(command), "--quiet").exit_code == 0
    assert got == [(Base(True), replace(Own(), quiet=True))]


# ---- systems -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FirstConfiguration(Configuration):
    """Has fields of the same names as the other, of other types."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {"paper": {}, "tiny": {}}
    depth: int = option(3, "Levels of the first.", 1)
    shape: Literal["round", "square"] = option("round", "Shape of the first.")
    alone: float = option(0.5, "Only the first has it.")
    sharp: bool = option(False, "Only the first can.")


@dataclass(frozen=True)
class SecondConfiguration(Configuration):
    """The other."""

    depth: str = option("deep", "Depth of the second, in words.")
    shape: float = option(0.25, "Roundness of the second.", below=1)


@dataclass(frozen=True)
class SecondInputs(TrainingInputs):
    """The files that only the second reads."""

    map: tuple[str, ...] = option((), "Maps of the second.")


Toys = tuple[TrainingCommand, list[tuple[Any, ...]]]


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> Toys:
    """A command that trains two systems, and what its function is called with."""
    config = ModuleType("blurkit.systems.toys.config")
    for kind in (FirstConfiguration, SecondConfiguration, SecondInputs):
        setattr(config, kind.__name__, kind)
    about = ("second", "train-toy", "The second.", "SecondConfiguration", "plan", "SecondInputs")
    first = Training("first", "train-toy", "The first.", "FirstConfiguration", "plan")
    trainings = (first, Training(*about))
    package = ModuleType("blurkit.systems.toys")
    package.SYSTEM = System("toys", "Toys", (), trainings=trainings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "blurkit.systems.toys", package)
    monkeypatch.setitem(sys.modules, "blurkit.systems.toys.config", config)
    monkeypatch.setattr(descriptions, "NAMES", (*descriptions.NAMES, "toys"))
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train, "run_training", lambda *given: calls.append(given))
    return TrainingCommand("train-toy", "toy.pt", "Train a toy.\n\nExamples: none."), calls


def test_fields_of_one_name_are_the_systems_own(toys: Toys) -> None:
    command, calls = toys
    for arguments, depth, shape in (
        (["--depth", "5", "--shape", "square"], 5, "square"),
        (["--system", "second", "--depth", "5", "--shape", "0.5"], "5", 0.5),
        (["--depth", "5", "--shape", "0.5", "--system=second"], "5", 0.5),
        (["--system", "first", "--system", "second", "--depth", "x"], "x", None),
    ):
        assert run(command.command(arguments), *arguments).exit_code == 0, arguments
        shards, how, chosen = calls.pop()
        overrides, second = chosen["overrides"], chosen["system"] == "second"
        assert (overrides["depth"], overrides["shape"]) == (depth, shape)
        assert (chosen["command"], chosen["preset"], shards) == ("train-toy", "paper", ["shards/"])
        assert how.output == "toy.pt"
        assert ("map" in chosen["inputs"]) == ("alone" not in overrides) == second
    for wrong in (["--depth", "deep"], ["--system", "third"]):
        assert run(command.command(wrong), *wrong).exit_code == 2
    assert calls == []


def test_help_of_a_training_is_the_systems_own(toys: Toys) -> None:
    command, _ = toys
    shown = {}
    for name in ("first", "second"):
        given = ["--system", name]
        shown[name] = run(command.command(given), *given, "--help").output
        assert "--system first: The first. --system second: The second." in shown[name]
        assert "first|second" in shown[name]
    first, second = shown.values()
    assert run(command.command([]), "--help").output == first
    assert re.search(r"--depth \S+\s+Levels of the first\.\s+\[paper: 3\]", first)
    assert re.search(r"--depth \S+\s+Depth of the second, in words\.\s+\[paper: deep\]", second)
    assert "--alone" in first and "--alone" not in second
    assert "--map" in second and "--map" not in first
    assert "paper|tiny" in first and "tiny" not in second


def test_options_of_another_system_are_refused(toys: Toys) -> None:
    command, _ = toys
    for arguments, words in (
        (["--map", "m.png"], "--map is not an option of --system first"),
        (["--system", "second", "--alone", "1"], "--alone is not an option of --system second"),
        (["--system=second", "--alone=1"], "--alone is not an option of --system second"),
        (["--no-sharp", "--system", "second"], "--no-sharp is not an option of --system second"),
    ):
        with pytest.raises(UsageError, match=words):
            command.command(arguments)
    command.command(["--system", "second", "--", "--alone"])


@pytest.mark.parametrize("options", [DeblurOptions, ReblurOptions, EvaluationOptions])
def test_the_limit_of_pixels_holds(options: type[Common], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "most_pixels", paths.most_pixels)
    options(max_pixels=100)
    with pytest.raises(BlurkitError, match="claims 11x10 pixels, more than --max-pixels 100"):
        paths.check_pixels(10, 11, "photo.png")
