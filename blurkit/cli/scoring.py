"""The run of `eval`: several networks restore the images, scores are measured and reported."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from subprocess import PIPE, Popen
from typing import Any

from blurkit.cli.batch import Problems, compare_options, options_file, say_written
from blurkit.cli.common import print_json, width_and_height
from blurkit.cli.deblur import DeblurOptions, deblurring
from blurkit.cli.options import EvaluationOptions
from blurkit.data.collection import RestorationRuns, are_two_sides, side_by_side_record
from blurkit.data.places import WHOLE, parse_part
from blurkit.engine.engine import Engine, SizeRequirement
from blurkit.errors import BlurkitError, UsageError, memory_errors
from blurkit.io.records import Record
from blurkit.io.writing import locked, writing_errors
from blurkit.metrics.evaluation import (
    ImageScores,
    NetworkCost,
    Report,
    Rows,
    make_report,
    merge_reports,
    read_scored,
)
from blurkit.metrics.frequency import Frequency
from blurkit.metrics.scores import Measures, NoReference, Scores
from blurkit.metrics.sharpness import sharper
from blurkit.metrics.statistics import Scored, check_level
from blurkit.model import Work
from blurkit.reports.page import ReportFolder, scene_pictures
from blurkit.reports.pictures import write_bands, write_comparison
from blurkit.reports.plots import check_plot, draw_frequency
from blurkit.reports.progress import say, say_warning, track
from blurkit.reports.tables import check_report, print_report, write_report
from blurkit.reports.values import to_json
from blurkit.systems.system import paper_tables


class Evaluation:
    """What a run of `eval` measures of its inputs, and the scores of each restoration of them.

    The `networks`, if any, restore the inputs first. UsageError is raised before torch is imported.
    """

    def __init__(
        self, inputs: list[str], options: EvaluationOptions, networks: Mapping[str, DeblurOptions]
    ) -> None:
        self.inputs, self.options, self.networks = inputs, options, networks
        folders = [*inputs, options.reference or "", options.blurry or ""]
        self.problems = Problems(folders, part=parse_part(options.part), quiet=options.quiet)
        _check(inputs, options)
        replaced = options.force or options.resume
        self.page = ReportFolder(options.html, replaced) if options.html is not None else None
        o, lpips, alone = options, None, None
        by_lpips = o.lpips or o.lpips_heads or os.environ.get("BLURKIT_LPIPS")
        if by_lpips or o.alone:
            from blurkit.engine.torch_runner import choose_device  # imports torch
            from blurkit.metrics.lpips import load_lpips

            device = choose_device(o.device)
            lpips = load_lpips(o.lpips, o.lpips_heads, device) if by_lpips else None
            alone = NoReference(o.alone, str(device)) if o.alone else None
        self.measures = Measures(o.ssim, o.metrics, lpips, o.image, o.target, o.crop_border, alone)
        self.log = ScoreLog(options.output[0], inputs, options) if options.resume else None
        self.runs = self._runs()
        self.spectrum = Frequency(self.measures, options.patch) if options.frequency else None
        self.rows: Rows = {}
        self._sharper: list[float] = []

    def run(self) -> None:
        """Score all records, and report the results."""
        options, problems, log = self.options, self.problems, self.log
        network = None if options.checkpoint is None else network_cost(options)
        size = width_and_height("--input-size", options.input_size)
        costs = {name: text.format(options.input_size) for name, text in NETWORK_COSTS.items()}
        with NetworkRuns(self.networks, problems, size, bool(options.alone)) as networks:
            scenes = self._scenes(networks)
            names = networks.running or (self.runs.runs if self.runs else [""])
            self.rows = {run: [] for run in names}
            for scored in log.scored.values() if log else ():
                self._add(scored)
            for scene in track(scenes, "eval", None, "image", options.quiet):
                name = next(iter(scene.values())).name
                with problems.guard(name):
                    if log is None or name not in log.scored:
                        self._score(scene)
                    self._show(scene)
        if self.networks:
            self.rows = {name: self.rows[name] for name in networks.running} or {"": []}
        if log is not None:
            log.close()
        level = options.level_for(len(next(iter(self.rows.values()))))
        part = "" if problems.part == WHOLE else str(problems.part)
        how = options.by_sequence, level, options.seed, network, self.spectrum, part
        result = make_report(self.rows, self.measures, *how, costs if self.networks else None)
        result = _beside(result, options, self._seeds())
        if self._sharper and fmean(self._sharper) > MUCH:
            say_warning(BLURRIER.format(options.reference or self.inputs[1]))
        _publish(result, self.spectrum, options)
        if result.images:
            if self.page is not None:
                with problems.guard(str(options.html)):
                    self.page.write("blurkit eval", result)
                    say(f"wrote {self.page.page}", options.quiet)
            if self.runs and result.comparison and options.pictures is not None:
                extremes = [*result.comparison.worst, *result.comparison.best]
                for name in dict.fromkeys(name for name, _ in extremes):
                    with problems.guard(name):
                        self._show_side_by_side(self.runs.load(name), options.pictures)
        problems.finish(len(result.images), "evaluated")

    def _seeds(self) -> Mapping[str, Sequence[str]]:
        """Return the networks that differ in nothing but their seed, in groups."""
        files = {name: o.checkpoint for name, o in self.networks.items() if name in self.rows}
        if len(files) < 2:
            return {}
        from blurkit.tasks.inspect import seed_groups  # imports torch

        return seed_groups({name: file for name, file in files.items() if file is not None})

    def _score(self, scene: Mapping[str, Record]) -> None:
        """Add the scores of a scene, by run, to the rows, the log and the spectrum."""
        options, measures = self.options, self.measures
        if (self.runs or are_two_sides(self.inputs)) and len(self._sharper) < ENOUGH:
            self._sharper.append(sharper("restored", "sharp", scene.values()))
        scored = {
            run: Scored.of(r, measures.score(r) | network_costs(r), options.blurry or "")
            for run, r in scene.items()
        }
        if self.spectrum is not None:
            self.spectrum.add(scene)
        if self.log is not None:
            self.log.add(ImageScores.of(scored, measures))
        self._add(scored)

    def _show(self, scene: Mapping[str, Record]) -> None:
        options, first = self.options, next(iter(scene.values()))
        if self.page is not None:
            with self.problems.guard(str(options.html)):
                self.page.add(first.name, *scene_pictures(scene, self.measures))
        if (folder := options.pictures) is None:
            return
        if self.spectrum is not None:
            captioned, _ = scene_pictures(scene, self.measures)
            write_bands(folder, first.name, captioned, options.force)
        if len(scene) == 1:
            write_comparison(folder, first, options.force)
        elif self.networks:
            self._show_side_by_side(scene, folder)

    def _add(self, scored: Mapping[str, Scored]) -> None:
        for run, row in scored.items():
            self.rows[run].append(row)
        if self.options.json:
            print_json(ImageScores.of(scored, self.measures).as_dict())

    def _show_side_by_side(self, scene: Mapping[str, Record], folder: Path) -> None:
        record = side_by_side_record(scene)
        write_comparison(folder, record, self.options.force, tuple(record.images))

    # ---- inputs ----------------------------------------------------------------------------------

    def _runs(self) -> RestorationRuns | None:
        """Return the inputs paired by name with those of `--reference` and `--blurry`, if given.

        Several inputs that are measured without a reference are paired with each other.
        """
        inputs, reference, blurry = self.inputs, self.options.reference, self.options.blurry
        if self.options.alone and reference is None and not self.networks and len(inputs) > 1:
            return RestorationRuns(inputs, None, blurry, self.problems.add)
        if reference is None and blurry is None:
            return None
        if reference is None:
            if not (are_two_sides(inputs) and Path(inputs[0]).is_dir()):
                raise UsageError("--blurry requires two folders RESTORED/ SHARP/, or --reference")
            inputs, reference = inputs[:1], inputs[1]
        return RestorationRuns(inputs, reference, blurry, self.problems.add, self.problems.say)

    def _scenes(self, networks: NetworkRuns) -> Iterator[dict[str, Record]]:
        """Yield the records of unfinished scenes, by run or network; "" if there is only one."""
        if self.runs is not None:
            return self.runs.part(self.problems.part, self._left_out())
        if self.networks:
            return networks.scenes(self._records("blur"))
        return ({"": record} for record in self._records("restored"))

    def _left_out(self) -> Mapping[str, object]:
        """Return the scenes, by name, that are finished and need not be read for their pictures."""
        return self.log.scored if self.log is not None and self.page is None else {}

    def _records(self, first: str) -> Iterator[Record]:
        """Yield the records of the inputs that are not finished; see `Problems.pairs`."""
        records, finished = self.problems.pairs(self.inputs, first), self._left_out()
        records.drop(lambda outline: outline.name in finished)
        return (record for record in records if record.name not in finished)


BLURRIER = "the pictures in {} are blurrier than those to measure; name RESTORED/, then SHARP/"
ENOUGH, MUCH = 16, 0.05
"""So many pictures, if so much sharper, tell that those to compare with are blurry."""


def merge(inputs: list[str], options: EvaluationOptions) -> None:
    """Make one report of the reports of parts. Raises UsageError if they do not fit together."""
    _check([], options)
    merged = merge_reports([Path(text) for text in inputs])
    by_sequence, level, seed = options.by_sequence, options.confidence, options.seed
    result = make_report(merged.rows, merged, by_sequence, level, seed, merged.network)
    result = _beside(result, options, merged.seeds)
    if options.json:
        for image in result.images:
            print_json(image.as_dict())
    _publish(result, None, options)


def _check(inputs: list[str], options: EvaluationOptions) -> None:
    """Raise UsageError for outputs that cannot be written and options that exclude each other."""
    resumed = options.resume and score_log(options.output[0]).exists()
    for file in options.output:
        check_report(file, options.force or resumed)
    if options.confidence is not None:
        check_level(options.confidence)
    if options.figure is not None:
        check_plot(options.figure, options.force)
    separate = options.reference is not None or options.blurry is not None or are_two_sides(inputs)
    if separate and (options.image is not None or options.target != "sharp"):
        raise UsageError(
            "--image and --target choose among the images of records; leave them out if restored "
            "and sharp images are separate inputs"
        )


def _beside(
    result: Report, options: EvaluationOptions, seeds: Mapping[str, Sequence[str]]
) -> Report:
    """Return a report with the means over `seeds`, and with the rows of `--paper`."""
    table = options.paper or ""
    known = {score for run in result.runs.values() for score in run.total}
    printed = paper_tables()[table] if table else {}
    rows = {f"{name} ({table})": s for name, s in printed.items() if known.intersection(s)}
    alike = "mean and standard deviation (n - 1) of runs that differ in their seed alone"
    told = {"seeds": alike} if seeds else {}
    if rows:
        told["paper"] = f"rows with ({table}) are numbers of that table, as printed"
    return replace(result, seeds=seeds, paper=rows, protocol=result.protocol | told)


def _publish(result: Report, spectrum: Frequency | None, options: EvaluationOptions) -> None:
    """Print the report, and write it to files; of a part also without images, for `--merge`."""
    if options.json:
        print_json(result.as_dict(images=False))
    if not (result.images or result.part):
        return
    if not result.images:
        say(f"part {result.part}: nothing was measured", options.quiet)
    elif not options.quiet:
        print_report(result)
    for file in options.output:
        write_report(file, result, options.force or options.resume)
    say_written(options.output, options.quiet, "file")
    if spectrum is not None and options.figure is not None:
        draw_frequency(options.figure, spectrum.curves(), result.frequency or [])


def network_cost(options: EvaluationOptions) -> NetworkCost:
    """Return the name, parameters and GMACs of the checkpoint's deblurring network.

    Raises UsageError if the network does not take images of `--input-size`.
    """
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.systems.code import with_code
    from blurkit.systems.registry import network_name
    from blurkit.systems.uses import network_for
    from blurkit.tasks.inspect import macs, parameters

    first, *others = map(load_checkpoint, filter(None, options.files))
    first = with_code(first, options.network, say_warning)
    network = network_for("deblurring", first, *others)
    width, height = width_and_height("--input-size", options.input_size)
    name, shape = network_name(network), (height, width)
    needs: SizeRequirement = getattr(network, "size", SizeRequirement())
    if needs.padded(*shape) != shape:
        raise UsageError(
            f"--input-size {options.input_size}: {name} takes sides that are multiples of "
            f"{needs.multiple} and at least {needs.minimum} pixels{', both equal' * needs.square}"
        )
    gmacs = macs(network, (1, 3, *shape)) / 1e9
    return NetworkCost(name, parameters(network), gmacs, options.input_size)


# ---- The log of `eval --resume` ------------------------------------------------------------------


class ScoreLog:
    """JSON lines next to a report, one for each image that this or an earlier run has scored.

    `scored` are the scores of the earlier runs by image and run. Raises UsageError if those had
    other options or inputs, and BlurkitError if the log is damaged or another process writes it.
    """

    def __init__(self, report: Path, inputs: list[str], options: EvaluationOptions) -> None:
        compare_options(options_file(report), options, inputs=inputs)
        self.path = score_log(report)
        self.scored: dict[str, dict[str, Scored]] = {}
        with ExitStack() as stack, writing_errors(self.path):
            stack.enter_context(locked(self.path))
            text = self.path.read_text() if self.path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            self._file = stack.enter_context(self.path.open("a"))
            self._file.truncate(len(whole.encode()))
            self._stack = stack.pop_all()
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self.scored[entry["name"]] = read_scored(entry)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise BlurkitError(f"{self.path}: damaged; remove it to start over") from error

    def add(self, image: ImageScores) -> None:
        """Append the scores of an image."""
        with writing_errors(self.path):
            self._file.write(f"{to_json(image.as_dict())}\n")
            self._file.flush()

    def close(self) -> None:
        """Let other processes write the log."""
        self._stack.close()


def score_log(report: Path) -> Path:
    """Return the file of the log of a report."""
    return report.with_name(f".{report.name}.scores.jsonl")


# ---- The networks that are compared --------------------------------------------------------------

NETWORK_COSTS = {
    "seconds": "time to restore an image, the networks in turn, each after an untimed first image",
    "memory": "MB, the most that the network's own process has had in memory, with Python and its "
    "libraries, or has reserved on a GPU",
    "parameters": "millions, of the network",
    "gmacs": "10^9 multiply-accumulates of convolutions and matrix products, for an image of {}",
}
"""The costs of networks, and how they are measured; {} is the size of the image, WxH. Estimates of
blur have no parameters."""


Sizes = dict[str, float]
"""The parameters and GMACs of a network, empty for what is not a network of torch."""

Answer = Record | BlurkitError | Sizes
"""The sizes of a network that is loaded, then a restored record, or a problem."""


class NetworkRuns(AbstractContextManager["NetworkRuns"]):
    """Networks that restore records, each loaded in a process of its own.

    Records need a sharp image, unless `alone`. `size` is the width and height for the MACs. One
    that cannot be loaded, that fails on its first record while another does not, or whose process
    ends is reported to `problems` and left out; the others are `running`.
    """

    def __init__(
        self,
        networks: Mapping[str, DeblurOptions],
        problems: Problems,
        size: tuple[int, int],
        alone: bool,
    ) -> None:
        self._problems, self._alone = problems, alone
        self._sizes: dict[str, Sizes] = {}
        with ExitStack() as stack:
            self.running = {name: stack.enter_context(_Process()) for name in networks}
            for name, process in self.running.items():
                process.send((networks[name], size))
            for name, process in [*self.running.items()]:
                if isinstance(answer := process.receive(), BlurkitError):
                    self._leave_out(name, answer)
                elif isinstance(answer, dict):
                    self._sizes[name] = {f"network_{key}": n for key, n in answer.items()}
            self._stack = stack.pop_all()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def scenes(self, records: Iterable[Record]) -> Iterator[dict[str, Record]]:
        """Yield every record as each network restores it, by name, unless one fails on it."""
        for record in records if self.running else ():
            with self._problems.guard(record.name):
                if scene := self._restored(record):
                    yield scene

    def _restored(self, record: Record) -> dict[str, Record]:
        """Return a pair as each network restores it, empty if one fails."""
        if not self._alone:
            record.image("sharp")
        blurry = Record(record.name, {"blur": record.image("blur")})
        restored: dict[str, Record] = {}
        failed: dict[str, BlurkitError] = {}
        for name, process in self.running.items():
            answer = process.ask(blurry)
            if isinstance(answer, Record):
                attrs = record.attrs | answer.attrs | self._sizes[name]
                restored[name] = Record(record.name, record.images | answer.images, attrs)
            else:
                failed[name] = answer
        whole = True
        for name, problem in failed.items():
            process = self.running[name]
            if process.ended or (restored and not process.done):
                self._leave_out(name, problem)
            else:
                whole = False
                self._problems.add(record.name, BlurkitError(f"{record.name}: {name}: {problem}"))
        return restored if whole else {}

    def _leave_out(self, name: str, problem: BlurkitError) -> None:
        del self.running[name]
        self._problems.add(name, BlurkitError(f"left out: {problem}"))


def network_costs(record: Record) -> Scores:
    """Return what it took a network to restore a record, empty if that was not measured."""
    attrs = record.attrs
    return {key: attrs[f"network_{key}"] for key in NETWORK_COSTS if f"network_{key}" in attrs}


class _Process(AbstractContextManager["_Process"]):
    """A process that runs `serve`, which ends with the block."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "blurkit.cli.scoring"]
        self._process: Any = Popen(command, stdin=PIPE, stdout=PIPE, start_new_session=True)
        self.done, self.ended = 0, False

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, question: tuple[DeblurOptions, tuple[int, int]] | Record) -> None:
        """Send the options of the network and a width and height, or a record to restore."""
        with suppress(OSError):  # it has ended, which `receive` reports
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()

    def receive(self) -> Answer:
        try:
            return pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            self.ended = True
            status = self._process.wait()
            return BlurkitError(f"its process ended with status {status}; is memory too small?")

    def ask(self, record: Record) -> Record | BlurkitError:
        self.send(record)
        answer = self.receive()
        assert not isinstance(answer, dict)
        self.done += isinstance(answer, Record)
        return answer


# ---- The process of a network --------------------------------------------------------------------
# It reads pickles from standard input, the options of `deblur` and then records, and answers each
# on standard output: the network's sizes once it is loaded, then the restored record, or a
# BlurkitError.

STATUS = Path("/proc/self/status")
"""Where Linux states the most memory that a process has had."""


def serve() -> None:
    """Load the network and answer until standard input ends."""
    with os.fdopen(os.dup(1), "wb") as answers, suppress(EOFError):
        os.dup2(2, 1)  # what libraries print is no answer
        options, size = pickle.load(sys.stdin.buffer)
        try:
            work, engine = deblurring(options)
            answer: Answer = {} if engine is None else _sizes(engine, *size)
        except BlurkitError as error:
            answer = error
        warm = False
        while True:
            pickle.dump(answer, answers)
            answers.flush()
            record = pickle.load(sys.stdin.buffer)
            warm = warm or isinstance(_restored(work, record), Record)
            answer = _restored(work, record)


def _sizes(engine: Engine, width: int, height: int) -> Sizes:
    """Return the parameters, in millions, and the GMACs of an engine's network, if it is torch's.

    Where the network does not take images of this size, the GMACs are left out.
    """
    network, torch = getattr(engine.runner, "network", None), sys.modules.get("torch")
    if torch is None or not isinstance(network, torch.nn.Module):
        return {}

    from blurkit.tasks.inspect import macs, parameters

    sizes = {"parameters": parameters(network) / 1e6}
    with suppress(BlurkitError):
        sizes["gmacs"] = macs(network, (1, 3, height, width)) / 1e9
    return sizes


def _restored(work: Work, record: Record) -> Record | BlurkitError:
    """Return a record with the restored image and what it took, or the problem."""
    started = time.perf_counter()
    try:
        with memory_errors():
            finished = work(record)
    except BlurkitError as error:
        return error
    costs = {"network_seconds": time.perf_counter() - started}
    if memory := _peak_memory():
        costs["network_memory"] = round(memory / 1e6)
    return Record(record.name, {"restored": finished.images["restored"]}, finished.attrs | costs)


def _peak_memory() -> float:
    """Return the most bytes that this process has reserved on a GPU, or else in main memory.

    Windows does not say the latter, nor do some containers: it is 0 there.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(max(map(torch.cuda.max_memory_reserved, range(torch.cuda.device_count()))))
    if STATUS.exists():
        peak = STATUS.read_text().partition("VmHWM:")[2]
        return int(peak.split()[0]) * 1024 if peak else 0
    try:
        import resource  # its value on Linux would include the process that started this one
    except ImportError:
        return 0
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


if __name__ == "__main__":
    serve()
