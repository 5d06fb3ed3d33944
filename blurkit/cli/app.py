"""The `blurkit` command, which imports a subcommand only when it is called."""

import gc
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from blurkit.cli.common import INTERRUPTED, command, leave, open_standard_streams
from blurkit.cli.options import expand
from blurkit.errors import BlurkitError, UsageError
from blurkit.version import __version__

COMMANDS = {
    "prepare": ("prepare", "Turn datasets, photos and videos into training shards."),
    "train-reblur": ("train.train_reblur", "Train networks that find, transfer or generate blur."),
    "train-deblur": ("train.train_deblur", "Train networks that deblur."),
    "deblur": ("deblur", "Remove blur from photos, films, folders, datasets and streams."),
    "blind-deblur": (
        "blind_deblur",
        "Deblur by searching for the sharp image and its blur together.",
    ),
    "reblur": ("reblur", "Blur sharp photos like other photos, with a kernel, or at random."),
    "transfer": ("transfer", "Transfer the blur of a pair to other photos."),
    "interpolate": ("interpolate", "Generate frames between a sharp photo and its blurry version."),
    "eval": ("evaluate", "Measure PSNR and SSIM against sharp images, and compare runs."),
    "contextual-sim": (
        "contextual_sim",
        "Measure the contextual similarity of images that need not be aligned.",
    ),
    "export": ("files.export", "Write a network as an ONNX file, which runs without torch."),
    "info": (
        "files.info",
        "Describe checkpoints, shards, streams, images, folders, datasets and logs.",
    ),
}
"""Each command's module and the function in it of that name, or MODULE.NAME; and its summary."""

PLAIN: dict[str, Any] = {
    "rich_markup_mode": None,  # plain help takes half the time
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""How typer shows help and errors."""


class HelpfulCommand(TyperCommand):
    """A command whose help has a section for each group of options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write all visible options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if line := parameter.get_help_record(ctx):
                heading = getattr(parameter, "rich_help_panel", None)
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(heading or kind, []).append(line)
        for heading, lines in sections.items():
            with formatter.section(heading):
                formatter.write_dl(lines)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Mention `--help-all` if options are hidden."""
        if any(getattr(parameter, "hidden", False) for parameter in self.params):
            formatter.write_paragraph()
            formatter.write_text(f"There are more options: {ctx.command_path} --help-all")


def load_command(name: str, arguments: Sequence[str] = ()) -> TyperCommand:
    """Return a subcommand with the options that `arguments` imply. Raises UsageError for others."""
    if name == "deblur" and "--blind" in arguments:
        raise UsageError("--blind: the blind search is a separate command, blurkit blind-deblur")
    module, _, other = COMMANDS[name][0].partition(".")
    target = getattr(import_module(f"blurkit.cli.{module}"), other or module)
    guarded = command(expand(target) if isfunction(target) else target.command(arguments))
    parent, settings = typer.Typer(add_completion=False, **PLAIN), PLAIN["context_settings"]
    parent.command(name, cls=HelpfulCommand, context_settings=settings)(guarded)
    subcommand = typer.main.get_command(parent)
    assert isinstance(subcommand, TyperCommand)
    return subcommand


class LazyCommand(TyperCommand):
    """Placeholder in the list of subcommands, which loads the subcommand when it is called."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **named: Any) -> Any:
        """Return the context of the loaded subcommand."""
        assert self.name is not None
        try:
            return load_command(self.name, args).make_context(info_name, args, *more, **named)
        except BlurkitError as error:
            leave(f"error: {error}", error.exit_status)
        except Exception as error:
            if not hasattr(error, "format_message"):  # which typer's own errors have
                raise
            text = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
            leave(f"error: {text}; see blurkit {self.name} --help", 2)


class LazyGroup(TyperGroup):
    """The group of all subcommands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, summary) in COMMANDS.items():
            self.add_command(LazyCommand(name, short_help=summary))
        self.add_command(self.commands.pop("help"))  # last in the list

    def resolve_command(self, context: Any, args: list[str]) -> Any:
        """Return the command that the arguments name; if these are files, say what to type."""
        if args[0] not in self.commands and (Path(args[0]).suffix or Path(args[0]).exists()):
            typed = shlex.join(["blurkit", "deblur", *args])
            leave(f"error: {args[0]}: is not a command; to deblur it, type {typed}", 2)
        return super().resolve_command(context, args)


app = typer.Typer(name="blurkit", cls=LazyGroup, no_args_is_help=True, **PLAIN)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"blurkit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Learn, remove, apply, transfer and measure motion blur.

    Commands read and write images, folders, datasets, shards (.h5) and streams (-), so they
    can be piped into each other:

    blurkit prepare test/ -o - | blurkit deblur - -c deblur.pt -o - | blurkit eval -
    """


@app.command("help")
def show_help(
    context: typer.Context,
    command: Annotated[str, typer.Argument(help="A command; default: the list of commands.")] = "",
) -> None:
    """Show the help of a command, as --help does."""
    app([*([command] if command else []), "--help"], prog_name=context.find_root().info_name)


def main() -> None:
    """Run the command line."""
    # Before torch is imported: its threads wait for each other in busy loops of milliseconds, in
    # which another program's work stands still. Loops of about 0.1 ms keep the speed without that.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # What the import of torch makes stays: searching it for garbage meanwhile takes 0.1 s.
    gc.set_threshold(700, 10, 1000)
    open_standard_streams()
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # searching all that for garbage when the process ends takes 0.2 s
