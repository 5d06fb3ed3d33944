"""Help texts: `--help` shows the everyday options, and `--help-all` also the rare ones."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand


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


def _show_all(context: typer.Context, requested: bool) -> None:
    if requested:
        for parameter in context.command.params:
            parameter.hidden = False  # type: ignore[attr-defined]
        typer.echo(context.get_help())
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=_show_all,
        is_eager=True,
        expose_value=False,
        help="Show this message with all options and exit.",
    ),
]
