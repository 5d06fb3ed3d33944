"""`blurkit deblur --blind`: its options, and the run of a search over records."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from blurkit.cli.common import PrecisionName, Problems, load_checkpoints
from blurkit.cli.training import field_option, option
from blurkit.errors import UsageError
from blurkit.systems.kernel_space.search_options import BlindOptions

if TYPE_CHECKING:
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink

Options = dict[str, Any]
Command = Callable[..., None]

_PRESETS = Literal[tuple(BlindOptions.presets)]  # type: ignore[valid-type]

RUN = [
    option(
        "blind",
        bool,
        False,
        "Search for image and blur instead (Algorithm 1 of the encoded blur kernel space); all "
        "options below are of this search.",
        "--blind",
    ),
    option("preset", _PRESETS | None, None, "Values of what is not given. [default]"),
    option(
        "generator", list[str], [], "StyleGAN for --prior stylegan; of version 1 both its files."
    ),
    option("features", Path | None, None, "Feature network for --objective official."),
    option("keep_kernel", bool, False, "Keep the blur as attribute `kernel`.", "--keep-kernel"),
    option("save_every", int | None, None, "Save a picture every so many iterations."),
    option("save_to", Path | None, None, "Folder for these; else NAME.blind/ beside the output."),
    option("log", Path | None, None, "File for the objective's terms as JSON lines."),
    option("resume", bool, False, "Keep what is finished and go on with the rest.", "--resume"),
    option("state", Path | None, None, "File for a stopped search; else beside the output."),
    option("save_minutes", float | None, None, "Minutes between saves of it. [10]"),
]
"""Options of a run, beside those of the search."""


def with_blind_options(function: Command) -> Command:
    """`function` as a command with the options of blind deblurring, given to it as `search`."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    hints = get_type_hints(BlindOptions)
    search = [*RUN]
    for f in fields(BlindOptions):
        told = "" if f.default in (None, "") else str(f.default)
        search.append(field_option(f, hints[f.name], told))
    names = {p.name for p in search}

    @functools.wraps(function)
    def command(**options: Any) -> None:
        function(
            **{k: v for k, v in options.items() if k not in names},
            search={k: v for k, v in options.items() if k in names},
        )

    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.name != "search"] + search
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def refuse_search(search: Options) -> None:
    """Raises UsageError for an option of the search without --blind."""
    for name, value in search.items():
        if value not in (None, [], False):
            raise UsageError(f"--{name.replace('_', '-')} goes with --blind")


# -- the run ---------------------------------------------------------------------------------------


@dataclass
class Run:
    """How a search runs over records: what the command was given beside the search's options."""

    checkpoint: str | None
    output: str | None
    strength: float
    tile: int | None
    overlap: int | None
    device: str
    precision: PrecisionName
    json: bool
    force: bool
    quiet: bool
    generator: list[str]
    features: Path | None
    keep_kernel: bool
    save_every: int | None
    save_to: Path | None
    log: Path | None
    resume: bool
    state: Path | None
    save_minutes: float | None

    def check(self, options: BlindOptions) -> None:
        """Raises UsageError for options that need each other, or exclude each other."""
        if options.operator != "kernel-space" and self.checkpoint is not None:
            raise UsageError(f"--operator {options.operator} takes no checkpoint; leave out -c")
        if options.operator == "downsampling" and self.keep_kernel:
            raise UsageError("--operator downsampling has no kernel to keep")
        if (options.prior == "stylegan") != bool(self.generator):
            raise UsageError("--prior stylegan and --generator FILE go together")
        if self.save_to is not None and self.save_every is None:
            raise UsageError("--save-to goes with --save-every")
        if self.save_every is not None and self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.save_every and self.save_to is None and (self.output == "-" or self.fills_shard):
            raise UsageError("--save-every into a shard or a stream needs --save-to FOLDER")
        if self.resume and self.output == "-" and self.state is None:
            raise UsageError("--resume with '-o -' needs the --state FILE of the stopped run")

    @property
    def fills_shard(self) -> bool:
        """Whether the output is one shard."""
        from blurkit.io.shards import is_shard
        from blurkit.io.sinks import is_folder

        output = self.output
        return output not in (None, "-") and not is_folder(output) and is_shard(Path(output))


def deblur_blindly(
    records: Callable[[Problems], Iterable[Record]], run: Run, search: Options
) -> None:
    """Deblur the records that `records` gives by a blind search with the options in `search`."""
    options = BlindOptions.resolve(search.pop("preset") or "default", **search)
    run.check(options)
    sink = open_output(run)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.cli.blind_run import BlindRun
    from blurkit.systems.kernel_space.search_context import load_context
    from blurkit.tasks.deblur import check_strength

    check_strength(run.strength)
    checkpoint = None
    if options.operator == "kernel-space":
        (checkpoint,) = load_checkpoints(run.checkpoint, (), run.quiet, "kernel-space")
    estimator = None
    if options.start_estimate:
        from blurkit.systems.deconvolution.beginning import shipped_estimator

        estimator = shipped_estimator(run.device, run.precision)
    context = load_context(
        options, checkpoint, run.generator, run.features, run.device, run.precision, estimator
    )
    by = checkpoint.name if checkpoint else options.operator
    BlindRun(run, sink, context, by).deblur(records)


def open_output(run: Run) -> Sink:
    """The sink for `-o`; with --resume a shard that is there may be written anew."""
    from blurkit.io.sinks import open_sink

    force = run.force or (run.resume and run.fills_shard)
    return open_sink(run.output, ("restored",), "deblurred", force)
