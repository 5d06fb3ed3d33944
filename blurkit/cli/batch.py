"""Processing of records in a command: a bad record never stops the others."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NoReturn

import typer

from blurkit.cli.common import leave, print_json
from blurkit.cli.options import ImageTask, Printing, Resumable, Tracked
from blurkit.data import sources
from blurkit.data.collection import are_two_sides, read_two_sides
from blurkit.data.places import WHOLE, Scene, WorkPart, array_of, parse_part
from blurkit.data.workers import Background
from blurkit.errors import BlurkitError, NoOutput, UsageError, memory_errors
from blurkit.io.films import FILM_SUFFIXES, FilmOptions
from blurkit.io.formats import ending
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.images import pixels_in, read_image
from blurkit.io.paths import is_folder
from blurkit.io.records import Record
from blurkit.io.shards import is_shard, read_shard
from blurkit.io.sinks import ShardSink, Sink, part_shards, source_change, unfinished_stream
from blurkit.io.writing import keep_first, last_change, writing_errors
from blurkit.reports.pictures import Panels, before_after, film_sheet
from blurkit.reports.progress import duration, rough_duration, say, say_warning, track

RecordTask = tuple[Record, Callable[[], Record]]
"""A record, and the function that returns it finished."""

FrameTask = tuple[Record, Callable[[], Record | Callable[[], Record]]]
"""The same, or for a film's frame the function that begins it; what that returns finishes it, and
is called when the next one has been begun."""


@dataclass(eq=False)
class Problems:
    """The bad items of a batch: each is reported at once, and all are listed again at the end.

    So is the number of files among `inputs` that no command reads, but those with a suffix in
    `also_read`, and with `summary`, how much was done in what time. `already` counts what a resumed
    run has found finished.
    """

    inputs: Sequence[str] = ()
    also_read: Collection[str] = ()
    part: WorkPart = WHOLE
    quiet: bool = False
    summary: bool = False
    already: int = field(default=0, init=False)
    failed: list[str] = field(default_factory=list, init=False)
    _started: float = field(default_factory=time.monotonic, init=False)

    def add(self, where: str, error: BlurkitError) -> None:
        """Report a bad item. UsageError and NoOutput are raised instead and end the command."""
        if isinstance(error, (UsageError, NoOutput)):
            raise error
        say_error(where, str(error))
        self.failed.append(where)

    def say(self, text: str) -> None:
        """Print a line on standard error, unless quiet."""
        say(text, self.quiet)

    def pairs(self, inputs: list[str], first: str) -> sources.RecordStream:
        """Return the inputs' records in the part; of two folders, the first has images `first`."""
        if are_two_sides(inputs):
            roles = (first, "sharp")
            return read_two_sides(inputs[0], inputs[1], self.part, self.add, roles, self.say)
        return sources.read_records(inputs, part=self.part, on_error=self.add)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Run a block in which a BlurkitError, or too little memory, counts as one bad item."""
        try:
            with memory_errors("; try a smaller --tile"):
                yield
        except BlurkitError as error:
            self.add(where, error)
        except RecursionError:
            self.add(where, BlurkitError("damaged: what it says is nested too deeply"))

    def finish(self, done: int, verb: str, what: str = "image") -> None:
        """End with a summary; the status is 1 if items failed, were not read, or none was done."""
        if unread := sources.unread_files(self.inputs, self.also_read):
            say(sources.summary_of_unread(unread))
        already = f", {self.already} finished before" if self.already else ""
        if self.failed:
            names = ", ".join(self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
            leave(f"{len(self.failed)} failed, {done} {verb}{already}: {names}", 1)
        if not done and not self.already and self.part == WHOLE:
            leave(f"error: nothing was {verb}: the input holds no suitable record", 1)
        if self.summary and (done != 1 or already):
            seconds = time.monotonic() - self._started
            say(f"{verb} {counted(done, what)} in {duration(seconds)}{already}")
        if unread:
            leave("", 1)


def say_error(where: str, reason: str) -> None:
    """Print what is wrong with an item, which is named if the reason does not name it."""
    say(f"error: {reason}" if where in reason else f"error: {where}: {reason}")


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number} {what}{'s' * (number != 1)}"


def warn(name: str, warnings: Iterable[str], options: Printing) -> None:
    """Print the warnings about a record on standard error, unless `--json` prints them."""
    for warning in warnings:
        say(f"warning: {name}: {warning}", options.quiet or options.json)


class RecordBatch(Problems, AbstractContextManager["RecordBatch"]):
    """A command's way from records to a sink, which makes a result of each record.

    `label` is the name of the command, `verb` what it does to a record, as in `deblurred`: names of
    results have it, too. Leaving the block with an error abandons a sink that no `run` completed.
    """

    sink: Sink

    def __init__(
        self, inputs: Sequence[str], options: Any, label: str, verb: str, summary: bool = True
    ) -> None:
        part, quiet = parse_part(options.part), options.quiet
        super().__init__(inputs, (), part, quiet, summary and not quiet)
        self._options, self._label, self._verb = options, label, verb
        self._names: set[str] = set()
        self._kept: dict[str, Path] = {}
        self._unfinished = ExitStack()

    def __exit__(self, *error: Any) -> None:
        self._unfinished.__exit__(*error)

    def use(self, sink: Sink) -> None:
        """Write the results to `sink`."""
        self.sink = self._unfinished.enter_context(sink)

    def completing(self) -> ExitStack:
        """Return the block at whose end the sink is completed, or abandoned after an error."""
        return self._unfinished.pop_all()

    def open(
        self, show: Sequence[str], panels: Panels | None = None, only: range | None = None
    ) -> None:
        """Open the sink that `-o` names, which shows the first available image of `show`.

        With `--compare`, `panels` are shown beside each result. Films get `only` these frames.
        """
        options = self._options
        how: dict[str, Any] = {"guard": self.guard, "failed": self.failed, "warn": say_warning}
        if isinstance(options, ImageTask):
            how["films"] = FilmOptions(options.frames, options.crf, only, say_warning)
            how |= {"format": options.format, "quality": options.quality}
            if panels is not None and options.compare:
                how |= {"compare": partial(before_after, panels=panels), "sheet": film_sheet}
        files = FileOptions(options.force, options.resume, **how)
        self.use(open_sink(options.output, show, self._verb, files))
        remember_options(options)

    def refuse_hopeless(
        self,
        inputs: Sequence[str],
        image: str = "blur",
        blur: str = "blur",
        same_names: bool = True,
        times: int = 1,
        reported: bool = False,
    ) -> None:
        """End the command, before networks are loaded, if it can read or write nothing.

        `same_names` means that a result has the name of its image, so that its file is known;
        `times` is the number of results of each image. `image` and `blur` are as for `find_items`.
        What is finished already is enough if it is `reported`. The part becomes an even one. Raises
        UsageError for several results in one file.
        """
        sink, found = self.sink, sources.find_items(inputs, image=image, blur=blur)
        if found.results:
            self.say(sources.summary_of_results(found.results))
        self.part = sources.part_among(self.part, found.items)
        if sink.only:
            sink.refuse_several(times * sources.RecordStream(found.items, self.part).results)
        reasons = [(where, BlurkitError(reason)) for where, reason in found.left_out]
        already = 0
        for item in found.items:
            if isinstance(item, sources.ShardSource) or not same_names:
                return
            if item.name not in self.part:
                continue
            try:
                if not sink.is_done(sources.without_images(item)):
                    sink.claim(sources.without_images(item))
                    return
                already += 1
            except BlurkitError as error:
                reasons.append((item.name, error))
        self.already = already
        if reported and already:
            return
        for where, problem in reasons:
            self.add(where, problem)
        self.completing().close()
        self.finish(0, self._verb)
        leave("", 0)

    def remaining(self, jobs: Iterable[FrameTask], part: WorkPart = WHOLE) -> Iterator[FrameTask]:
        """Yield the jobs in `part` whose records a resumed run has not found finished."""
        last = None
        for record, work in jobs:
            if sources.result_name(record) not in part:
                continue
            if not self.sink.is_done(record):
                yield record, work
                continue
            film = self.sink.film(record)
            self.already += film is None or film != last
            last = film
            if film is None and (path := self.sink.path(record)):
                self._kept[record.name] = path

    def run(
        self,
        jobs: Iterable[FrameTask],
        total: int | None = None,
        items: Iterable[Scene | sources.ShardSource] = (),
        unit: str = "image",
    ) -> Generator[Record, None, None]:
        """Run every job, write its record to the sink, then yield it.

        A record that fails is added to the problems, and a film of which it is a frame is given up.
        `total` is the number of records if it is known, `unit` what the progress calls them; how
        long `items` will take is said as by `forecast`. Each job runs in another thread, while this
        one reads the next record and writes the last one. Closing the generator ends that thread.
        """
        sink, quiet = self.sink, self._options.quiet
        # The next record of a stream may come late or never.
        ahead = not any(map(sources.is_stream, self.inputs))
        expected = forecast(() if quiet else items)
        try:
            with self.completing(), Background() as background:
                started = _started(_claimed(jobs, sink, self), background, ahead)
                for record, result in track(started, self._label, total, unit, quiet):
                    if sink.is_dropped(record):
                        continue
                    with self.guard(record.name):
                        finished = result()
                        if line := expected(finished):
                            say(line)
                        sink.write(finished)
                        self._names.add(record.name)
                        yield finished
                        continue
                    sink.drop(record)
        except NoOutput:
            self._say_written()
            raise
        self._say_written()

    def _say_written(self) -> None:
        sink, quiet = self.sink, self._options.quiet
        say_written(sink.files, quiet, "file" if sink.films else "image", sink.comparisons)

    def end(self, done: int | None = None) -> None:
        """End with a summary of the results that are `done`, by default those of the sink."""
        what = "file" if self.sink.films else "image"
        self.finish(self.sink.done if done is None else done, self._verb, what)

    def finished_before(
        self, scenes: Iterable[Scene], records: sources.RecordStream, made: str
    ) -> Iterator[Record]:
        """Yield the records that a resumed run has found finished, with the image `made`.

        They are read again: from the shard that is resumed, or else from `scenes` and the shards
        among `records`, with their results.
        """
        if isinstance(self.sink, ShardSink):
            shard = self.sink.path(Record(""))
            finished = read_shard(shard) if self.already and shard.is_file() else ()
            yield from (record for record in finished if record.name not in self._names)
            return
        for scene in scenes:
            result = self.sink.path(sources.without_images(scene))
            paths = scene.files | ({made: result} if result else {})
            yield from sources.item_records([replace(scene, files=paths)], on_error=self.add)
        if not self._kept:
            return
        shards = (item for item in records.items if isinstance(item, sources.ShardSource))
        files = [item for item in shards if not sources.is_stream(item.source)]
        for record in sources.item_records(files, on_error=lambda where, error: None):
            if path := self._kept.get(record.name):
                yield replace(record, images=record.images | {made: read_image(path).pixels})


def forecast(items: Iterable[Scene | sources.ShardSource]) -> Callable[[Record], str]:
    """Return the function that says after one of the first photos how long all items will take.

    For any other record, and where films or shards hide how many follow, it returns "". The time of
    a photo is taken to be in proportion to its pixels, of which a file's head tells the number; of
    formats that other readers decode, it is the mean of the others.
    """
    items = list(items)
    files = [item.paths[0] for item in items if isinstance(item, Scene)]
    films = any(ending(file) in FILM_SUFFIXES for file in files)
    said = films or not len(files) == len(items) > FIRST
    pixels, started = list[int](), time.monotonic()

    def after(record: Record) -> str:
        nonlocal said
        if said:
            return ""
        pixels.append(math.prod(next(iter(record.images.values())).shape[:2]))
        seconds = time.monotonic() - started
        if len(pixels) < FIRST and seconds < LONG:
            return ""
        said = True
        sizes = [size for file in files[:1000] if (size := pixels_in(file))]  # more take too long
        total = seconds * fmean(sizes or pixels) * len(files) / sum(pixels)
        if total < SOON:
            return ""
        return f"{counted(len(files), 'photo')}, about {rough_duration(total)}"

    return after


FIRST = 3
"""So many photos tell how long the others will take, or those of the first `LONG` seconds."""

LONG = 180.0

SOON = 10.0
"""Of a batch of fewer seconds, nothing is said."""


def _claimed(jobs: Iterable[FrameTask], sink: Sink, problems: Problems) -> Iterator[FrameTask]:
    """Yield the jobs whose records `sink` accepts; of a film that it does not, no other frame."""
    for record, work in jobs:
        if sink.is_dropped(record):
            continue
        with problems.guard(sink.film(record) or record.name):
            sink.claim(record)
            yield record, work
            continue
        sink.drop(record)


def _started(
    jobs: Iterable[FrameTask], background: Background, ahead: bool
) -> Iterator[RecordTask]:
    """Start the jobs in order; yield each record with a function that waits for its result.

    With `ahead`, a job is yielded when the next one has been read, which thus starts without delay;
    so is one that awaits the next. If that cannot be read, the error is raised after those before.
    """
    waiting: deque[RecordTask] = deque()
    try:
        for record, work in jobs:
            job = background.submit(work)
            waiting.append((record, partial(_ended, job, background)))
            while len(waiting) > (ahead or _awaits_next(job)):
                yield waiting.popleft()
    except Exception:
        yield from waiting
        raise
    yield from waiting


def _awaits_next(job: Future[Record | Callable[[], Record]]) -> bool:
    """Return whether a job, when it is done, has only begun a record; errors are met later."""
    return job.exception() is None and callable(job.result())


def _ended(job: Future[Record | Callable[[], Record]], background: Background) -> Record:
    """Return the result of a job, which may have to be finished after the next one."""
    begun = job.result()
    return begun if isinstance(begun, Record) else background.submit(begun).result()


def say_written(
    files: Sequence[Path], quiet: bool, what: str, comparisons: Sequence[Path] = ()
) -> None:
    """Say in one line where results, each a `what`, and their comparisons were written."""
    paths = [*files, *comparisons]
    if paths and max(len(files), len(comparisons)) == 1:
        say(f"wrote {' and '.join(map(str, paths))}", quiet)
    elif paths:
        where = os.path.commonpath({path.parent for path in paths}) or "."
        pictures = f" and {counted(len(comparisons), 'comparison')}" if comparisons else ""
        say(f"wrote {counted(len(files), what)}{pictures} to {where}/", quiet)


# ---- What is done of each part -------------------------------------------------------------------


def status_of(
    inputs: Sequence[str],
    options: Tracked,
    verb: str,
    image: str = "blur",
    blur: str = "blur",
    dataset: bool = False,
) -> NoReturn:
    """Act as `show_status` for results that have the names of the items that `find_items` finds.

    Raises UsageError for streams, and for frames of films that are results of their own.
    """
    if any(map(sources.is_stream, inputs)):
        raise UsageError("--status requires files as inputs, not a stream")
    found = sources.find_items(inputs, image=image, blur=blur)
    if getattr(options, "frames", False):
        raise UsageError("--status cannot count frames; leave out --frames")
    for where, reason in found.left_out:
        say_error(where, reason)
    part = sources.part_among(parse_part(options.part), found.items)
    show_status(sources.outlines(found.items), part, options, verb, dataset)


def show_status(
    results: Iterable[Record],
    whole: WorkPart,
    options: Tracked,
    verb: str,
    dataset: bool,
    origin: Callable[[str], str] = str,
) -> NoReturn:
    """Print how many of the `results` each part has, then the parts that lack some, and end.

    The latter are on standard output, as the option of SLURM that starts them again. The `verb` is
    as for `RecordBatch`; the folder of a `dataset` holds shards, and `origin` returns the name of
    the result that a record in a shard belongs to.
    """
    if options.output == "-":
        raise UsageError("--status requires files as output, not a stream")
    names = {sources.result_name(record): record for record in results}
    quiet, missing, total = options.quiet or options.json, [], 0
    for number in range(1, whole.count + 1):
        part = replace(whole, number=number)
        own = [record for name, record in names.items() if name in part]
        done = sum(map(_finished(part, options, verb, dataset, origin), own))
        total += done
        missing += [number] * (done < len(own))
        say(f"part {part}: {done} of {len(own)} {verb}", quiet)
        if options.json:
            print_json({"part": str(part), "done": done, "missing": len(own) - done})
    say(f"in all: {total} of {len(names)} {verb}", quiet)
    if options.json:
        print_json({"done": total, "missing": len(names) - total, "array": array_of(missing)})
    elif missing:
        typer.echo(f"--array={array_of(missing)}")
    raise typer.Exit


def _finished(
    part: WorkPart, options: Tracked, verb: str, dataset: bool, origin: Callable[[str], str]
) -> Callable[[Record], bool]:
    """Return the function that says whether a part's result is finished."""
    output = options.output and part.fill(options.output)
    shards: Iterable[Path] = ()
    if output and dataset and is_folder(output):
        shards = part_shards(Path(output), part.prefix)
    elif output and is_shard(Path(output)) and not is_folder(output):
        shards = [Path(output), unfinished_stream(Path(output))]
    else:
        files = FileOptions(resume=True, format=getattr(options, "format", None))
        return open_sink(output, (), verb, files).is_done
    times = {
        origin(sources.result_name(record)): last_change(file)
        for file in shards
        for record in sources.outlines([sources.ShardSource(str(file))])
    }
    return lambda record: times.get(sources.result_name(record), -1) >= source_change(record)


# ---- Resumed batches -----------------------------------------------------------------------------

WITHOUT_EFFECT = (
    *("output", "quiet", "json", "force", "resume"),
    *("max_pixels", "device", "compare", "html", "sha256", "keep_kernel"),
)
"""Options that do not change results."""


def remember_options(options: Resumable) -> None:
    """Keep the options of a resumed run in a hidden file next to its output.

    Nothing is kept for images next to their sources and for streams; an output that is started over
    with `--force` forgets its options. Raises UsageError if an earlier run had others.
    """
    output = options.output
    if output is None or output == "-":
        return
    folder = is_folder(output)
    path = Path(output) / ".options.json" if folder else options_file(Path(output))
    if options.resume:
        compare_options(path, options, ("part",) if folder else ())
    elif options.force:
        path.unlink(missing_ok=True)


def options_file(output: Path) -> Path:
    """Return the file for the options of the runs that made the file `output`."""
    return output.with_name(f".{output.name}.options.json")


def compare_options(path: Path, options: Any, ignored: tuple[str, ...] = (), **more: Any) -> None:
    """Write the options, and `more` values, to `path`; raise UsageError if others are there."""
    left_out = {*WITHOUT_EFFECT, *ignored}
    values = {k: v for k, v in (asdict(options) | more).items() if k not in left_out}
    given = json.loads(json.dumps(values, default=str))
    with writing_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        keep_first(path, json.dumps(given))
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BlurkitError(f"{path}: damaged; remove it to go on") from error
    for key in given:
        if before.get(key) != given[key]:
            name = key.replace("_", "-")
            raise UsageError(
                f"--resume: {name} was {before.get(key)!r} and is {given[key]!r} now; give the "
                f"options of the run to resume, or remove {path}"
            )
