"""`blurkit blind-deblur`: deblur by a search for the sharp image and its blur."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blurkit.cli.common import print_json, refuse_two_streams
from blurkit.cli.options import (
    BLUR,
    CHECKPOINT,
    PART,
    SHA256,
    Given,
    InputPaths,
    Networks,
    Tiling,
    WritingImages,
    at_hand,
    model_of,
    output_option,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.interrupts import Terminated, deferred
from blurkit.io.paths import STEPS, is_folder
from blurkit.io.writing import refuse_existing
from blurkit.options import ANY, check_strength, option
from blurkit.reports.progress import Progress, say
from blurkit.systems.system import search_options

if TYPE_CHECKING:
    from blurkit.cli.batch import Problems
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink
    from blurkit.tasks.blind_deblur import BlindSearch, SearchJob
    from blurkit.training.log import TrainingLog


SearchOptions: Any = search_options()


@dataclass(frozen=True)
class BlindRunOptions(Tiling, WritingImages):
    """The options of `blurkit blind-deblur` that do not belong to the search itself."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    sha256: tuple[str, ...] = SHA256
    output: str | None = output_option(
        "Image, folder/, shard (.h5) or -; default: NAME.deblurred next to each image."
    )
    strength: float = option(1.0, "How much to restore, from 0 (unchanged) to 1 (fully).", ANY)
    generator: tuple[str, ...] = option(
        (), "StyleGAN file for --prior stylegan; two files for version 1."
    )
    features: Path | None = option(None, "Feature network for --objective official.")
    region: str | None = option(
        None,
        "Search this part of each photo; deblur the whole by its kernel.",
        metavar="X,Y,W,H",
    )
    keep_kernel: bool = option(
        False, "Store the blur as attribute `kernel`, and its picture in NAME.blind/."
    )
    save_every: int | None = option(None, "Iterations between saved pictures.")
    save_to: Path | None = option(
        None, "Folder for these pictures; default: NAME.blind/ next to the output.", rare=True
    )
    log: Path | None = option(None, "Log the terms of the objective to this file as JSON lines.")
    resume: bool = option(False, "Keep finished results and continue with the rest.")
    state: Path | None = option(
        None, "State file of a stopped search; default: next to the output.", rare=True
    )
    save_minutes: float = option(10.0, "Minutes between saves of the state.", rare=True)
    blur: str = BLUR
    part: str = PART

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

    def check_with(self, search: Any) -> None:
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
        self._check_saving()

    def _check_saving(self) -> None:
        if self.save_to is not None and self.save_every is None and not self.keep_kernel:
            raise UsageError("--save-to requires --save-every or --keep-kernel")
        if self.save_every is not None and self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.resume and self.output == "-" and self.state is None:
            raise UsageError("--resume with '-o -' requires the --state FILE of the stopped run")


def blind_deblur(
    inputs: InputPaths,
    run: BlindRunOptions,
    search: Annotated[Given, SearchOptions],
    preset: Annotated[
        str,
        typer.Option(
            metavar=f"<{'|'.join(SearchOptions.presets)}>",
            help="Values of the search's options that are not given.",
        ),
    ] = "small",
) -> None:
    """Deblur by searching for the sharp image and its blur together.

    The search finds an image and a blur that together reproduce the photo (Algorithm 1 of the
    encoded blur kernel space). It takes minutes, requires no network trained to deblur, and keeps
    the size of the photo.

    Examples: blurkit blind-deblur photo.jpg; blurkit blind-deblur photo.jpg --operator convolution
    --region 800,600,256,256; blurkit blind-deblur photos/ -o sharp/ --resume
    """
    run.check(run.output)
    refuse_two_streams(inputs, [run.checkpoint])
    options = SearchOptions.resolve(preset, **search)
    run.check_with(options)
    check_strength(run.strength)

    run = at_hand(run, "checkpoint", "generator")
    search_records(inputs, run, options)


# ---- The run -------------------------------------------------------------------------------------


def search_records(inputs: list[str], run: BlindRunOptions, options: Any) -> None:
    """Deblur all records by searches. Raises UsageError before torch is imported."""
    from blurkit.cli.batch import Problems, choose_part, refuse_hopeless
    from blurkit.data.sources import read_records

    part = choose_part(run.part, run.quiet)
    read = partial(read_records, inputs, blur=run.blur, part=part)
    sink = _open(run)
    fresh = not run.resume
    refuse_hopeless(
        inputs, sink, Problems(inputs, part=part), "deblurred", blur=run.blur, same_names=fresh
    )

    # Import torch only now, so that wrong usage is refused at once.

    search, by = searching(run, options)
    BlindRun(inputs, run, sink, search, by).deblur(lambda problems: read(on_error=problems.add))


def _open(run: BlindRunOptions) -> Sink:
    """Return the sink for `-o`; with --resume, an existing shard may be rewritten."""
    from blurkit.io.image_sinks import FileOptions, open_sink
    from blurkit.io.shards import is_shard

    output = run.output
    fills_shard = (
        output is not None and output != "-" and not is_folder(output) and is_shard(Path(output))
    )
    if run.save_every and run.save_to is None and (output == "-" or fills_shard):
        raise UsageError("--save-every with a shard or a stream requires --save-to FOLDER")
    force = run.force or (run.resume and fills_shard)
    files = FileOptions(force, format=run.format, quality=run.quality)
    return open_sink(output, ("restored",), "deblurred", files)


def searching(run: BlindRunOptions, options: Any) -> tuple[BlindSearch, str]:
    """Return what the searches of a run share, and what records say they were restored by."""
    from blurkit.tasks.blind_deblur import start_search

    checkpoint = None
    if options.encoded:
        model = model_of(Networks(run.checkpoint), run, run.quiet)
        checkpoint = model.checkpoint("search")
    search = start_search(
        options, checkpoint, run.generator, run.features, run.device, run.precision
    )
    return search, checkpoint.name if checkpoint else options.operator


# ---- Searches ------------------------------------------------------------------------------------


class BlindRun:
    """Searches groups of records and writes each record when it is finished.

    `inputs` are where the records come from; `by` is stored in the records as the name of what
    restored them. A run that is stopped keeps
    its finished records and saves the state of the others.
    """

    def __init__(
        self, inputs: list[str], run: BlindRunOptions, sink: Sink, search: BlindSearch, by: str
    ) -> None:
        from blurkit.cli.batch import Problems

        self.run, self.sink, self.search, self.by = run, sink, search, by
        self.problems = Problems(inputs)
        about = search.options.as_dict() | {"restored_by": by, "precision": str(search.dtype)}
        del about["batch"]  # which only affects rounding
        place = run.placement
        about |= {"tile": place.tile, "overlap": place.overlap, "region": run.region}
        self.saved = search.saved(about)
        self.finished: list[str] = []
        self._already = 0
        self._log: TrainingLog | None = None

    def deblur(self, records: Callable[[Problems], Iterable[Record]]) -> None:
        """Deblur all `records`, a function that takes the problems to report bad inputs to."""
        self._open_log()
        done = 0
        with _whole(self.sink):
            self._adopt()
            pending = self._unfinished(records(self.problems))
            while group := list(islice(pending, self.search.options.batch)):
                done += self._search(group)
        if self.run.state is not None:
            self.run.state.unlink(missing_ok=True)
        if self._already:
            say(f"{self._already} records were finished already", self.run.quiet)
        self.problems.finish(done + self._already, "deblurred")

    # ---- finished records and saved states -------------------------------------------------------

    def _adopt(self) -> None:
        """With --resume, take over the finished records of a shard, or their names for a stream."""
        from blurkit.io.records import Record
        from blurkit.io.shards import read_shard
        from blurkit.io.sinks import ShardSink

        if not self.run.resume:
            return
        if isinstance(self.sink, ShardSink):
            shard = self.sink.path(Record(""))
            with deferred():  # an interrupted copy would lose the rest
                for record in read_shard(shard) if shard.is_file() else ():
                    self.sink.write(record)
                    self.finished.append(record.name)
        elif self.run.state is not None:
            self.finished = self.saved.load(self.run.state).finished

    def _unfinished(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if self.run.resume and self._is_finished(record):
                self._already += 1
            else:
                yield record

    def _is_finished(self, record: Record) -> bool:
        from blurkit.io.sinks import ShardSink, StreamSink

        if isinstance(self.sink, (ShardSink, StreamSink)):
            return record.name in self.finished
        try:
            path = self.sink.path(record)
        except BlurkitError:  # reported when it is claimed
            return False
        return path is not None and path.exists()

    def _state_path(self, record: Record) -> Path | None:
        """Return the state file of the group that begins with `record`, or None if it has none."""
        path = self.run.state or self.sink.path(record)
        if path is None or path == self.run.state:
            return path
        return path.with_name(f"{path.stem}.state.pt")

    def _take_up(self, path: Path | None, jobs: Sequence[SearchJob]) -> None:
        """Load the states of jobs that a stopped run has saved.

        Raises BlurkitError if there are some, but neither --resume nor --force was given.
        """
        if path is None or not path.exists():
            return
        if not self.run.resume:
            if self.run.force or self.finished:  # or this run saved it
                return
            raise BlurkitError(
                f"{path}: holds the state of a stopped search; continue it with --resume, "
                "or give --force to start over"
            )
        states = self.saved.load(path).jobs
        for job in jobs:
            if job.record.name in states:
                job.load_state_dict(states[job.record.name])
                line = f"{job.record.name}: resumed at iteration {job.iteration}"
                say(line, self.run.quiet)
                for number, search in enumerate(job.searches):
                    if self._log is not None:
                        about = {"name": job.record.name, "tile": number}
                        self._log.resume(search.iteration, **about)

    def _save(self, path: Path | None, jobs: Sequence[SearchJob]) -> None:
        if path is not None:
            self.saved.save(path, jobs, self.finished)

    # ---- the search ------------------------------------------------------------------------------

    def _search(self, group: Sequence[Record]) -> int:
        """Search a group of records together; return how many succeeded."""
        jobs: list[SearchJob] = []
        for record in group:
            with self.problems.guard(record.name):
                self.sink.claim(record)
                job = self._job(record)
                if self.run.keep_kernel:
                    job.check_one_blur()
                jobs.append(job)
        names = ", ".join(job.record.name for job in jobs)
        done = 0
        with self.problems.guard(names):
            path = self._state_path(jobs[0].record) if jobs else None
            self._take_up(path, jobs)
            with deferred() as stopped, self._watching(jobs, path, stopped) as watch:
                for job in self.search.run(jobs, watch, self._warn):
                    done += self._write(job)
                self._leave(path, jobs, bool(stopped()))
        return done

    def _job(self, record: Record) -> SearchJob:
        from blurkit.tasks.blind_deblur import RegionJob

        run = self.run
        if run.rectangle is None:
            return self.search.job(record, run.placement.tile, run.placement.overlap)
        hardware = run.device, run.precision
        return RegionJob(record, self.search, run.rectangle, *hardware, self._warn)

    def _write(self, job: SearchJob) -> bool:
        from blurkit.io.images import write_image

        record = job.result(self.by, self.run.strength, self.run.keep_kernel)
        self.sink.write(record)
        if "kernel" in record.attrs and (folder := self._folder(job)):
            write_image(folder / "kernel.png", job.kernel_picture())
        self.finished.append(record.name)
        attrs = record.attrs
        if self.run.json:
            height, width = record.images["restored"].shape[:2]
            print_json(
                {"name": record.name, "width": width, "height": height}
                | {"seconds": attrs["restored_seconds"], "strength": self.run.strength}
                | {"iterations": attrs["blind_iterations"], "kept": attrs["blind_kept"]}
                | {"objective": attrs["blind_objective"]}
                | {"reproduced": attrs.get("blind_reproduced")}
                | {"diverged": attrs.get("blind_diverged"), "with": attrs["restored_with"]}
            )
        diverged = attrs.get("blind_diverged")
        if diverged is not None:
            self.problems.add(
                record.name,
                BlurkitError(
                    f"{record.name}: the search diverged at iteration {diverged}; the picture of "
                    f"iteration {attrs['blind_iterations']} was written; "
                    "try a smaller --image-rate or --kernel-rate"
                ),
            )
        return diverged is None

    def _leave(self, path: Path | None, jobs: Sequence[SearchJob], stopped: bool) -> None:
        """Save the state of a stopped group, or delete the state of a finished one."""
        from blurkit.io.sinks import StreamSink

        if stopped and path is not None:
            self._save(path, jobs)
            say(f"stopped; the state is saved in {path}; continue with --resume")
        elif isinstance(self.sink, StreamSink):
            self._save(path, ())  # the only list of what the stream has received
        elif path is not None:
            path.unlink(missing_ok=True)

    @contextmanager
    def _watching(
        self, jobs: Sequence[SearchJob], path: Path | None, stopped: Callable[[], int]
    ) -> Iterator[Callable[[Sequence[Any]], bool]]:
        """Yield the function to call after every step: progress, log, pictures and saves."""
        run = self.run
        total = self.search.options.iterations * sum(len(job.searches) for job in jobs)
        label = jobs[0].record.name if len(jobs) == 1 else f"{len(jobs)} pictures"
        counted = sum(job.iteration for job in jobs)
        progress = Progress(label, total, "iteration", counted, run.quiet)
        shown = {id(job): job.iteration for job in jobs}
        logged = {id(s): s.last.iteration for job in jobs for s in job.searches}
        saved = time.monotonic()

        def watch(group: Sequence[Any]) -> bool:
            nonlocal counted, saved
            now = sum(job.iteration for job in jobs)
            progress.advance(now - counted)
            counted = now
            progress.note(_objective(group[0]))
            for job in jobs:
                if run.save_every and job.iteration // run.save_every > (
                    shown[id(job)] // run.save_every
                ):
                    self._show(job)
                shown[id(job)] = job.iteration
                for number, search in enumerate(job.searches):
                    if search.last.iteration > logged[id(search)]:
                        logged[id(search)] = search.last.iteration
                        self._note(job, number, search)
            if time.monotonic() - saved > 60 * run.save_minutes:
                self._save(path, jobs)
                saved = time.monotonic()
            return bool(stopped())

        try:
            yield watch
        finally:
            progress.close()

    def _show(self, job: SearchJob) -> None:
        """Write the current picture of a search to its folder."""
        from blurkit.io.images import write_image

        folder = self._folder(job)
        assert folder is not None
        write_image(folder / f"{job.iteration:05d}.png", job.picture(), attrs=job.record.attrs)

    def _folder(self, job: SearchJob) -> Path | None:
        """Return the folder of a search's pictures, or None if its record goes into a shard."""
        from blurkit.io.sinks import ShardSink

        if self.run.save_to is not None:
            return self.run.save_to / f"{job.record.name}{STEPS}"
        path = self.sink.path(job.record)
        if path is None or isinstance(self.sink, ShardSink):
            return None
        return path.with_name(f"{path.stem}{STEPS}")

    def _open_log(self) -> None:
        from blurkit.training.log import TrainingLog

        if self.run.log is None:
            return
        refuse_existing(self.run.log, self.run.force or self.run.resume)
        self._log = TrainingLog(self.run.log)
        if not self.run.resume:
            self._log.start()

    def _note(self, job: SearchJob, number: int, search: Any) -> None:
        if self._log is not None:
            result = search.last
            about = {"name": job.record.name, "tile": number, "objective": result.objective}
            self._log.write(result.iteration, **about, **(result.terms or {}))

    def _warn(self, text: str) -> None:
        say(f"warning: {text}")


def _objective(search: Any) -> str:
    """Return the objective and its terms for the progress bar."""
    terms = search.last.terms or {}
    parts = [f"{name} {value:.4f}" for name, value in terms.items()]
    return ", ".join([f"objective {search.last.objective:.4f}", *parts]) if parts else "warm-up"


@contextmanager
def _whole(sink: Sink) -> Iterator[None]:
    """Do as `with sink` does, but also finish the output if the run is stopped."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        sink.finish()
        raise
    except BaseException:
        sink.abandon()
        raise
    sink.finish()
