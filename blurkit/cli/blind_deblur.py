"""`blurkit blind-deblur`: deblur by a search for the sharp image and its blur."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json, result_values
from blurkit.errors import BlurkitError, UsageError
from blurkit.interrupts import Terminated, deferred
from blurkit.io.paths import STEPS, is_folder
from blurkit.io.writing import refuse_output
from blurkit.options import check_strength, option, rare
from blurkit.reports.progress import Progress, say, say_warning
from blurkit.systems.search_options import PRESETS, SearchOptions

if TYPE_CHECKING:
    from blurkit.cli.batch import RecordBatch
    from blurkit.io.records import Record
    from blurkit.systems.blind_search import Search, TiledSearch

SECONDS_BETWEEN_SAVES = 600


@dataclass(frozen=True)
class BlindDeblurOptions(shared.Tiling, shared.Tracked, shared.WritingImages):
    """The options of `blurkit blind-deblur` that do not belong to the search itself."""

    checkpoint: str | None = option(None, shared.CHECKPOINT, flags=("--checkpoint", "-c"))
    sha256: tuple[str, ...] = shared.SHA256
    output: str | None = shared.output_option("NAME.deblurred next to each image", "Image, folder/")
    strength: float = shared.RESTORED_AMOUNT
    generator: tuple[str, ...] = option(
        (), "StyleGAN file for --prior stylegan; two files for version 1."
    )
    features: Path | None = option(None, "Feature network for --objective official.")
    region: str | None = option(
        None, "Search this part of each photo; deblur the whole by its kernel.", metavar="X,Y,W,H"
    )
    keep_kernel: bool = option(
        False, "Store the blur as attribute `kernel`, and its picture in NAME.blind/."
    )
    save_every: int | None = option(None, "Iterations between saved pictures.")
    save_to: Path | None = rare(
        None, "Folder for these pictures; default: NAME.blind/ next to the output."
    )
    log: Path | None = option(None, "Log the terms of the objective to this file as JSON lines.")
    resume: bool = option(False, "Keep finished results and continue with the rest.")
    state: Path | None = rare(None, "State file of a stopped search; default: next to the output.")
    batch: int = rare(1, "Photos or tiles that are searched together.", 1)
    blur: str = shared.BLUR

    @property
    def rectangle(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of `--region`, or None. Raises UsageError for others."""
        if self.region is None:
            return None
        parts = self.region.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"--region {self.region}: give four numbers of pixels, X,Y,W,H")
        x, y, width, height = map(int, parts)
        if not width or not height:
            raise UsageError(f"--region {self.region}: width and height must be at least 1")
        return x, y, width, height

    def check_with(self, search: SearchOptions) -> None:
        """Raise UsageError if options exclude each other, or lack one that they require."""
        if not search.encoded and self.checkpoint is not None:
            raise UsageError(f"--operator {search.operator} takes no checkpoint; leave out -c")
        if search.operator == "downsampling" and self.keep_kernel:
            raise UsageError("--operator downsampling has no kernel to keep")
        if (search.prior == "stylegan") != bool(self.generator):
            raise UsageError("--prior stylegan and --generator FILE require each other")
        if self.rectangle and search.operator == "downsampling":
            raise UsageError("--operator downsampling has no kernel for --region")
        if self.rectangle and self.placement.tiled:
            raise UsageError("--region is searched without tiles; leave out --tile and --overlap")
        if self.save_to is not None and self.save_every is None and not self.keep_kernel:
            raise UsageError("--save-to requires --save-every or --keep-kernel")
        if self.save_every is not None and self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.resume and self.output == "-" and self.state is None:
            raise UsageError("--resume with '-o -' requires the --state FILE of the stopped run")


def blind_deblur(
    inputs: shared.InputPaths,
    run: BlindDeblurOptions,
    search: Annotated[shared.Given, SearchOptions],
    preset: Annotated[
        str,
        typer.Option(
            metavar=f"<{'|'.join(PRESETS['dip'])}>",
            help="Values of the search's options that are not given.",
        ),
    ] = "small",
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON file with options of the search, all constants included."
        ),
    ] = None,
) -> None:
    """Deblur by searching for the sharp image and its blur together.

    The search finds an image and a blur that together reproduce the photo (Algorithm 1 of the
    encoded blur kernel space). It takes minutes, requires no network trained to deblur, and keeps
    the size of the photo. The constants of the search are in docs/commands/blind-deblur.md.

    Examples: blurkit blind-deblur photo.jpg; blurkit blind-deblur photo.jpg --operator convolution
    --region 800,600,256,256; blurkit blind-deblur photos/ -o sharp/ --resume
    """
    run = shared.settled(run, inputs, [run.checkpoint])
    options = SearchOptions.resolve(preset, config, **search)
    run.check_with(options)
    check_strength(run.strength)
    if run.status:
        from blurkit.cli.batch import status_of

        status_of(inputs, run, "deblurred", blur=run.blur)
    run = shared.at_hand(run, "checkpoint", "generator")

    from blurkit.cli.batch import RecordBatch
    from blurkit.io.image_sinks import FileOptions, open_sink
    from blurkit.io.shards import is_shard

    output = run.output
    streamed = output == "-"
    holds_records = streamed or (output and not is_folder(output) and is_shard(Path(output)))
    if run.save_every and run.save_to is None and holds_records:
        raise UsageError("--save-every with a shard or a stream requires --save-to FOLDER")
    how = run.force, run.resume and not streamed, run.format, run.quality
    files = FileOptions(*how, warn=say_warning)
    with RecordBatch(inputs, run, "blind-deblur", "deblurred", summary=False) as batch:
        batch.use(open_sink(output, ("restored",), "deblurred", files))
        batch.refuse_hopeless(inputs, blur=run.blur, same_names=not run.resume)
        # Torch is imported only now, so that wrong usage is refused at once.
        SearchBatch(inputs, run, options, batch).deblur()


# ---- Searches ------------------------------------------------------------------------------------


class SearchBatch:
    """Searches groups of records and writes each record when it is finished.

    A run that is stopped keeps its finished records and saves the state of the others.
    """

    def __init__(
        self, inputs: list[str], run: BlindDeblurOptions, options: SearchOptions, batch: RecordBatch
    ) -> None:
        from blurkit.io.sinks import StreamSink
        from blurkit.systems.blind_search import SavedSearches
        from blurkit.training.state import TrainingLog

        self.inputs, self.run, self.batch, self.sink = inputs, run, batch, batch.sink
        self._streamed = isinstance(self.sink, StreamSink)
        model = shared.model_of(shared.Networks(run.checkpoint), run)
        self.context, self.by = model.searching(options, run.generator, run.features)
        about = options.as_dict() | {"restored_by": self.by, "precision": str(self.context.dtype)}
        place = run.placement
        about |= {"tile": place.tile, "overlap": place.overlap, "region": run.region}
        self.saved = SavedSearches(about)
        self.finished: list[str] = []
        self._already = 0
        self._log = TrainingLog(run.log)

    def deblur(self) -> None:
        """Deblur the records of the inputs that are in the batch's part."""
        from blurkit.data.sources import read_records

        run, batch = self.run, self.batch
        if run.log is not None:
            refuse_output(run.log, run.force or run.resume)
        if not run.resume:
            self._log.start()
        done = 0
        stop: BaseException | None = None
        with batch.completing():
            try:
                if run.resume and run.state is not None:
                    self.finished = self.saved.load(run.state).finished
                records = read_records(
                    self.inputs, blur=run.blur, part=batch.part, on_error=batch.add
                )
                pending = filter(self._is_pending, records)
                while group := list(islice(pending, run.batch)):
                    done += self._search(group)
            except (KeyboardInterrupt, Terminated) as stopped:
                stop = stopped  # the output is completed all the same
        if stop is not None:
            raise stop
        if run.state is not None:
            run.state.unlink(missing_ok=True)
        if self._already:
            say(f"{self._already} records were finished already", run.quiet)
        batch.finish(done + self._already, "deblurred")

    # ---- finished records and saved states -------------------------------------------------------

    def _is_pending(self, record: Record) -> bool:
        """Return whether a record is to be searched; count it if a resumed run finished it."""
        listed = self.run.resume and self._streamed
        finished = record.name in self.finished if listed else self.sink.is_done(record)
        self._already += finished
        return not finished

    def _resume(self, path: Path | None, searches: Sequence[TiledSearch]) -> None:
        """Load the states that a stopped run has saved; without --resume, refuse them."""
        if path is None or not path.exists():
            return
        if not self.run.resume:
            if self.run.force or self.finished:  # or this run saved it
                return
            raise BlurkitError(
                f"{path}: holds the state of a stopped search; continue it with --resume, "
                "or give --force to start over"
            )
        states = self.saved.load(path).searches
        for search in searches:
            name = search.record.name
            if name in states:
                search.load_state_dict(states[name])
                say(f"{name}: resumed at iteration {search.iteration}", self.run.quiet)
                for number, tile in enumerate(search.searches):
                    self._log.resume(tile.iteration, name=name, tile=number)

    # ---- the search ------------------------------------------------------------------------------

    def _search(self, group: Sequence[Record]) -> int:
        """Search a group of records together; return how many succeeded."""
        from blurkit.systems.blind_search import TiledSearch, run_searches

        run, searches, done = self.run, list[TiledSearch](), 0
        place, region = run.placement, run.rectangle
        for record in group:
            with self.batch.guard(record.name):
                self.sink.claim(record)
                search = TiledSearch(record, self.context, place.tile, place.overlap, region)
                if run.keep_kernel:
                    search.check_one_blur()
                searches.append(search)
        if not searches:
            return 0
        with self.batch.guard(", ".join(search.record.name for search in searches)):
            path, result = run.state, self.sink.path(searches[0].record)
            if path is None and result is not None:
                path = result.with_name(f"{result.stem}.state.pt")
            self._resume(path, searches)
            with deferred() as stopped, self._watching(searches, path, stopped) as watch:
                for search in run_searches(searches, run.batch, watch, say_warning):
                    done += self._write(search)
                self._leave(path, searches, bool(stopped()))
        return done

    def _write(self, search: TiledSearch) -> bool:
        """Write the record of a finished search; return whether the search succeeded."""
        from blurkit.io.images import write_image
        from blurkit.tasks.deblur import deblur_by_search

        run = self.run
        settings = run.strength, run.keep_kernel, run.placement
        record = deblur_by_search(search, self.by, *settings, say_warning)
        self.sink.write(record)
        self.finished.append(record.name)
        if "kernel" in record.attrs and (folder := self._folder(search)):
            with self.batch.guard(str(folder)):
                write_image(folder / "kernel.png", search.kernel_picture())
        told = ("iterations", "kept", "objective", "reproduced", "diverged")
        found = {key: record.attrs.get(f"blind_{key}") for key in told}
        if run.json:
            size = result_values(record, record.images["restored"], "restored")
            how = {"with": record.attrs["restored_with"]}
            print_json(size | {"strength": run.strength} | found | how)
        if found["diverged"] is None:
            return True
        reason = (
            f"{record.name}: the search diverged at iteration {found['diverged']}; the picture of "
            f"iteration {found['iterations']} was written; "
            "try a smaller image_rate or kernel_rate in a --config file"
        )
        self.batch.add(record.name, BlurkitError(reason))
        return False

    def _leave(self, path: Path | None, searches: Sequence[TiledSearch], stopped: bool) -> None:
        """Save the state of a stopped group, or delete the state of a finished one."""
        if path is None:
            return
        if stopped:
            self.saved.save(path, searches, self.finished)
            say(f"stopped; the state is saved in {path}; continue with --resume")
        elif self._streamed:
            self.saved.save(path, (), self.finished)  # the only list of what it has received
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def _watching(
        self, searches: Sequence[TiledSearch], path: Path | None, stopped: Callable[[], int]
    ) -> Iterator[Callable[[Sequence[Search]], bool]]:
        """Yield the function to call after every step: progress, log, pictures and saves."""
        run = self.run
        total = self.context.options.iterations * sum(len(s.searches) for s in searches)
        label = searches[0].record.name if len(searches) == 1 else f"{len(searches)} pictures"
        shown = {id(search): search.iteration for search in searches}
        progress = Progress(label, total, "iteration", sum(shown.values()), run.quiet)
        logged = {id(tile): tile.last.iteration for s in searches for tile in s.searches}
        saved = time.monotonic()

        def watch(group: Sequence[Search]) -> bool:
            nonlocal saved
            progress.advance(sum(s.iteration for s in searches) - sum(shown.values()))
            progress.note(_objective(group[0]))
            for search in searches:
                every = run.save_every
                if every and search.iteration // every > shown[id(search)] // every:
                    self._show(search)
                shown[id(search)] = search.iteration
                for number, tile in enumerate(search.searches):
                    last, about = tile.last, {"name": search.record.name, "tile": number}
                    if last.iteration > logged[id(tile)]:
                        logged[id(tile)] = last.iteration
                        about |= {"objective": last.objective, **(last.terms or {})}
                        self._log.write(last.iteration, **about)
            if path is not None and time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                self.saved.save(path, searches, self.finished)
                saved = time.monotonic()
            return bool(stopped())

        with closing(progress):
            yield watch

    def _show(self, search: TiledSearch) -> None:
        from blurkit.io.images import write_image

        folder = self._folder(search)
        assert folder is not None
        file = folder / f"{search.iteration:05d}.png"
        with self.batch.guard(str(file)):
            write_image(file, search.picture(), attrs=search.record.attrs)

    def _folder(self, search: TiledSearch) -> Path | None:
        """Return the folder of a search's pictures, or None if its record goes into a shard."""
        from blurkit.io.sinks import ShardSink

        if self.run.save_to is not None:
            return self.run.save_to / f"{search.record.name}{STEPS}"
        path = None if isinstance(self.sink, ShardSink) else self.sink.path(search.record)
        return path and path.with_name(f"{path.stem}{STEPS}")


def _objective(tile: Search) -> str:
    """Return the objective and its terms for the progress bar."""
    if not tile.last.terms:
        return "warm-up"
    values = {"objective": tile.last.objective, **tile.last.terms}
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())
