"""The `blurkit` command: every subcommand under its name, imported when it is run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from inspect import isfunction
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import blurkit
from blurkit.cli.common import INTERRUPTED, command, leave
from blurkit.cli.fields import expand
from blurkit.cli.help import HelpfulCommand
from blurkit.errors import BlurkitError, UsageError

COMMANDS = {
    "prepare": ("prepare", "Turn datasets, photos and videos into training shards."),
    "train-reblur": (
        "train_reblur",
        "Learn blur: find it in pairs, put it onto others, or make new one.",
    ),
    "train-deblur": ("train_deblur", "Learn to deblur."),
    "deblur": ("deblur", "Remove blur from photos, folders, datasets, streams."),
    "blind-deblur": ("blind_deblur", "Search for a photo and its blur together."),
    "reblur": ("reblur", "Blur sharp photos like other photos, by a kernel, or at random."),
    "transfer": ("transfer", "Put the blur of a pair onto other photos."),
    "interpolate": ("interpolate", "Make the pictures between a sharp photo and its blurry one."),
    "eval": ("evaluate", "Measure PSNR and SSIM against sharp images, and compare runs."),
    "contextual-sim": (
        "contextual_sim",
        "Measure the contextual similarity of images that need not be aligned.",
    ),
    "info": (
        "info",
        "Say what checkpoints, shards, streams, images, folders and datasets hold.",
    ),
}
"""The module of each command, with the function or `TrainingCommand` of that name, and its line."""

PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # plain help answers in half the time
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""How typer shows help and errors."""


def load_command(name: str, arguments: Sequence[str] = ()) -> TyperCommand:
    """Return a subcommand; which options a training command has depends on its arguments.

    Raises UsageError for arguments that it never takes.
    """
    if name == "deblur" and "--blind" in arguments:
        raise UsageError("--blind: the blind search is a command, blurkit blind-deblur")
    module = COMMANDS[name][0]
    found = getattr(import_module(f"blurkit.cli.{module}"), module)
    made = expand(found) if isfunction(found) else found.command(arguments)
    alone = typer.Typer(add_completion=False, **PLAIN)
    alone.command(name, cls=HelpfulCommand, context_settings=PLAIN["context_settings"])(
        command(made)
    )
    built = typer.main.get_command(alone)
    assert isinstance(built, TyperCommand)
    return built


class LazyCommand(TyperCommand):
    """Stands for a subcommand in the list of all, and loads it when it is called."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> Any:
        """Return the context of the subcommand itself."""
        assert self.name is not None
        try:
            return load_command(self.name, args).make_context(info_name, args, *more, **named)
        except BlurkitError as error:
            leave(f"error: {error}", error.exit_status)


class LazyGroup(TyperGroup):
    """The group of all subcommands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, line) in COMMANDS.items():
            self.add_command(LazyCommand(name, short_help=line))


app = typer.Typer(name="blurkit", cls=LazyGroup, no_args_is_help=True, **PLAIN)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"blurkit {blurkit.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learn motion blur, remove it, apply it, move it between photos, measure all of that.

    Commands read and write images, folders, datasets, shards (.h5) and streams (-), so they pipe
    into each other:

    blurkit prepare test/ -o - | blurkit deblur - -c deblur.pt -o - | blurkit eval -
    """


def main() -> None:
    """Run the command line."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
