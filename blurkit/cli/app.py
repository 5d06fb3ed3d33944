"""The `blurkit` command: every subcommand under its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import blurkit
from blurkit.cli import (
    contextual_sim,
    deblur,
    evaluate,
    info,
    interpolate,
    prepare,
    reblur,
    train_deblur,
    train_reblur,
    transfer,
)
from blurkit.cli.common import INTERRUPTED, command

app = typer.Typer(
    name="blurkit",
    help="Learn motion blur, remove it, apply it, move it between photos, measure all of that.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help answers in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS: dict[str, Callable[..., None]] = {
    "prepare": prepare.prepare,
    "train-reblur": train_reblur.train_reblur,
    "train-deblur": train_deblur.train_deblur,
    "deblur": deblur.deblur,
    "reblur": reblur.reblur,
    "transfer": transfer.transfer,
    "interpolate": interpolate.interpolate,
    "eval": evaluate.evaluate,
    "contextual-sim": contextual_sim.contextual_sim,
    "info": info.info,
}
for name, function in COMMANDS.items():
    app.command(name)(command(function))


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
