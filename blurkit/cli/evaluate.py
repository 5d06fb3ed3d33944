"""`blurkit eval`: measure results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli.common import print_json, refuse_missing, refuse_two_streams, width_and_height
from blurkit.cli.options import PART, SEED, Device, Networks, Writing, at_hand
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.writing import locked, writing_errors
from blurkit.nn.size import SizeRequirement
from blurkit.options import ANY, option
from blurkit.reports.progress import say, track
from blurkit.reports.values import to_json

if TYPE_CHECKING:
    from blurkit.cli.eval_networks import NetworkRuns
    from blurkit.data.collection import RestorationRuns
    from blurkit.io.records import Record
    from blurkit.metrics.evaluation import Comparison, ImageScores, NetworkCost, Report, Rows
    from blurkit.metrics.frequency import Frequency
    from blurkit.metrics.lpips import Lpips
    from blurkit.metrics.statistics import Scored


@dataclass(frozen=True)
class EvaluationOptions(Networks, Device, Writing):
    """The options of `blurkit eval`."""

    reference: str | None = option(
        None, "Folder or shard of sharp images; every input is then a run to score."
    )
    blurry: str | None = option(None, "Folder of the blurry images, to form subsets by their PSNR.")
    image: Literal["restored", "reblurred", "blur", "sharp"] | None = option(
        None, "Image of each record to measure; default: restored, or else what it has."
    )
    target: Literal["sharp", "blur"] = option("sharp", "Image of each record to compare it with.")
    ssim: tuple[str, ...] = option(
        ("basicsr", "matlab"),
        "SSIM to report: basicsr, matlab, scikit-image or basicsr-y; repeatable.",
        metavar="KIND",
    )
    metric: tuple[str, ...] = option(
        (), "Also report this metric, such as psnr-y or aligned; repeatable.", metavar="NAME"
    )
    y_psnr: bool = option(False, "Also report the PSNR of the luma, as --metric psnr-y.")
    align: bool = option(
        False, "Also report RealBlur's scores after alignment, as --metric aligned."
    )
    lpips: Path | None = option(
        None,
        "Also report LPIPS with this file: torchvision's AlexNet, VGG-16 or SqueezeNet 1.1; "
        "default: BLURKIT_LPIPS.",
    )
    lpips_heads: Path | None = option(
        None, "File of LPIPS's linear layers; default: BLURKIT_LPIPS_HEADS.", rare=True
    )
    frequency: bool = option(
        False, "Also report how entropies of high and low frequencies diverge at three scales."
    )
    patch: int | None = option(
        None, "Side of the squares for --frequency, pixels; default: whole images.", ANY, rare=True
    )
    figure: Path | None = option(
        None, "Plot the results of --frequency: a .png, .pdf or .svg file (matplotlib).", rare=True
    )
    by_sequence: bool = option(False, "Also report the means of each sequence.")
    confidence: float | None = option(
        None, "Report confidence intervals of the means at this level, such as 0.95.", ANY
    )
    seed: int = SEED
    networks: tuple[str, ...] = option(
        (),
        "Restore pairs by these networks and compare them: files, addresses, names; repeatable.",
        metavar="NETWORK...",
    )
    checkpoint: str | None = option(
        None, "Checkpoint whose parameters and MACs to report.", flags=("--checkpoint", "-c")
    )
    input_size: str = option(
        "256x256", "Image size in pixels for the MACs.", metavar="WxH", rare=True
    )
    output: tuple[Path, ...] = option(
        (), "Report file: .csv, .json or .md; repeatable.", flags=("--output", "-o")
    )
    pictures: Path | None = option(
        None, "Folder for side-by-side pictures; of several runs, the worst and best images."
    )
    html: Path | None = option(
        None,
        "Folder for a report with pictures, to open in a browser; implies --confidence 0.95.",
        metavar="FOLDER",
    )
    part: str = PART
    resume: bool = option(
        False, "With -o: keep a log of scores beside the report, and measure what it lacks."
    )
    merge: bool = option(
        False, "The inputs are JSON reports of parts (--part): make one report of them."
    )

    @property
    def level(self) -> float | None:
        """The confidence level of the means' intervals, None if there are none."""
        return 0.95 if self.confidence is None and self.html is not None else self.confidence

    @property
    def metrics(self) -> list[str]:
        """The names of all requested metrics other than PSNR and SSIM."""
        named = {"psnr-y": self.y_psnr, "aligned": self.align}
        return [*self.metric, *(name for name, requested in named.items() if requested)]


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Shards or - with restored and sharp images; RESTORED/ SHARP/; or runs to compare."
        ),
    ],
    options: EvaluationOptions,
) -> None:
    """Measure PSNR and SSIM against sharp images, and compare runs.

    SSIM has several definitions. Two are reported by default: per channel (BasicSR, scikit-image)
    and MATLAB's in 3-D, which the papers use in their GoPro tables. Values of any depth are first
    rounded to 8 bits. The report describes how every number is computed.

    --networks restores the blurry images of pairs by several networks in one run, and reports the
    seconds and the memory that each takes, too. What comes with blurkit has names: auto, shake and
    network, which are methods of deblur, and msdi.

    Examples: blurkit eval restored.h5; blurkit eval restored/ sharp/; ... | blurkit eval - --json;
    blurkit eval reblurred.h5 --image reblurred --target blur;
    blurkit eval ours/ theirs/ --reference sharp/ --confidence 0.95 -o scores.md;
    blurkit eval --networks a.pth b.onnx auto pairs.h5;
    blurkit eval --merge part1.json part2.json -o all.json
    """
    if options.networks:
        _refuse(options, WITHOUT_NETWORKS, "--networks excludes {}")
        from blurkit.cli.eval_networks import with_networks  # imports numpy

        networks = options.networks
        inputs, networks = with_networks(inputs, networks, options.sha256, options.quiet)
        Evaluation(inputs, replace(options, networks=networks)).run()
        return
    if options.checkpoint is not None:
        refuse_two_streams(inputs, options.files)
        width_and_height("--input-size", options.input_size)
    elif options.encoder:
        raise UsageError("--encoder requires --checkpoint")
    refuse_missing([options.lpips], "file (from --lpips)")
    refuse_missing([options.lpips_heads], "file (from --lpips-heads)")
    if not options.frequency and (options.patch is not None or options.figure is not None):
        raise UsageError("--patch and --figure require --frequency")
    if options.merge:
        others = [field.name for field in fields(options) if field.name not in FOR_REPORTS]
        _refuse(options, others, "--merge excludes {}; give it to parts")
        merge(inputs, options)
        return
    if options.resume and (options.force or options.frequency or not options.output):
        raise UsageError("--resume requires -o and excludes --force and --frequency")

    Evaluation(inputs, at_hand(options)).run()


FOR_REPORTS = ("by_sequence", "confidence", "seed", "output", "quiet", "json", "force", "merge")
"""The options that make sense with `--merge`; the others are those of the parts."""


WITHOUT_NETWORKS = (
    *("reference", "blurry", "image", "target", "checkpoint", "encoder", "input_size"),
    *("resume", "merge"),
)
"""The options that exclude `--networks`."""


def _refuse(options: EvaluationOptions, names: Iterable[str], reason: str) -> None:
    """Raise UsageError if one of the options `names` is given; "{}" in `reason` is its name."""
    for name in names:
        if getattr(options, name) != getattr(EvaluationOptions, name):
            raise UsageError(reason.format(f"--{name.replace('_', '-')}"))


# ---- The run -------------------------------------------------------------------------------------


class Evaluation:
    """What a run of `eval` measures of its inputs, and the scores of each restoration of them.

    Raises UsageError before torch is imported.
    """

    def __init__(self, inputs: list[str], options: EvaluationOptions) -> None:
        from blurkit.cli.batch import Problems, choose_part
        from blurkit.metrics.frequency import Frequency
        from blurkit.metrics.scores import Measures
        from blurkit.reports.page import ReportFolder

        self.inputs, self.options = inputs, options
        self.problems = Problems(
            [*inputs, options.reference or "", options.blurry or ""],
            part=choose_part(options.part, options.quiet),
        )
        _check(inputs, options)
        self.page = ReportFolder(options.html, options.force) if options.html is not None else None
        self.measures = Measures(
            options.ssim, options.metrics, _lpips(options), options.image, options.target
        )
        self.log = ScoreLog(options.output[0], inputs, options) if options.resume else None
        self.runs = self._runs()
        self.spectrum = Frequency(self.measures, options.patch) if options.frequency else None
        self.rows: Rows = {}

    def run(self) -> None:
        """Score all records, and report the results."""
        from blurkit.cli.eval_networks import NETWORK_COSTS, NetworkRuns, restorations
        from blurkit.data.places import WHOLE
        from blurkit.metrics.evaluation import make_report

        options, problems, log = self.options, self.problems, self.log
        network = None if options.checkpoint is None else network_cost(options)
        hardware = options.device, options.max_pixels
        restored_by = restorations(options.networks, *hardware) if options.networks else {}
        with NetworkRuns(restored_by, problems) as networks:
            scenes = self._scenes(networks)
            names = networks.names or (self.runs.runs if self.runs else [""])
            self.rows = {run: [] for run in names}
            for scored in log.scored.values() if log else ():
                self._add(scored)
            for scene in track(scenes, "eval", None, "record", options.quiet):
                with problems.guard(next(iter(scene.values())).name):
                    self._score(scene)
        if options.networks:
            self.rows = {name: self.rows[name] for name in networks.names} or {"": []}
        if log is not None:
            log.close()
        result = make_report(
            self.rows,
            self.measures,
            options.by_sequence,
            options.level,
            options.seed,
            network,
            self.spectrum,
            "" if problems.part == WHOLE else "{}/{}".format(*problems.part),
            NETWORK_COSTS if options.networks else None,
        )
        _publish(result, self.spectrum, options)
        if result.images:
            if self.page is not None:
                self.page.write("blurkit eval", result)
                say(f"wrote {self.page.page}", options.quiet)
            if self.runs and result.comparison and options.pictures is not None:
                self._show_extremes(self.runs, result.comparison, options.pictures)
        problems.finish(len(result.images), "evaluated")

    def _score(self, scene: Mapping[str, Record]) -> None:
        """Add the scores of a scene, by run, to the rows, the log and the spectrum."""
        from blurkit.cli.eval_networks import network_costs
        from blurkit.data.collection import side_by_side_record
        from blurkit.metrics.evaluation import ImageScores
        from blurkit.metrics.statistics import Scored
        from blurkit.reports.page import scene_pictures
        from blurkit.reports.pictures import write_comparison

        options, measures = self.options, self.measures
        first = next(iter(scene.values()))
        scores = {run: measures.score(r) | network_costs(r) for run, r in scene.items()}
        if self.spectrum is not None:
            self.spectrum.add(scene)
        if self.page is not None:
            self.page.add(first.name, *scene_pictures(scene, measures))
        folder = options.blurry or ""
        scored = {run: Scored.of(r, scores[run], folder) for run, r in scene.items()}
        if self.log is not None:
            self.log.add(ImageScores.of(scored, measures.ranking))
        self._add(scored)
        if options.pictures is not None and len(scene) == 1:
            write_comparison(options.pictures, first, options.force)
        elif options.pictures is not None and options.networks:
            record = side_by_side_record(scene)
            write_comparison(options.pictures, record, options.force, tuple(record.images))

    def _add(self, scored: Mapping[str, Scored]) -> None:
        """Add the scores of one scene to the rows of its runs, and print them with `--json`."""
        from blurkit.metrics.evaluation import ImageScores

        for run, row in scored.items():
            self.rows[run].append(row)
        if self.options.json:
            print_json(ImageScores.of(scored, self.measures.ranking).as_dict())

    def _show_extremes(self, runs: RestorationRuns, comparison: Comparison, folder: Path) -> None:
        """Write the worst and best images of all runs side by side."""
        from blurkit.data.collection import side_by_side_record
        from blurkit.reports.pictures import write_comparison

        for name in dict.fromkeys(case.name for case in [*comparison.worst, *comparison.best]):
            with self.problems.guard(name):
                record = side_by_side_record(runs.load(name))
                write_comparison(folder, record, self.options.force, tuple(record.images))

    # ---- inputs ----------------------------------------------------------------------------------

    def _runs(self) -> RestorationRuns | None:
        """Return the inputs paired by name with those of `--reference` and `--blurry`, if given."""
        from blurkit.data.collection import RestorationRuns, are_two_sides

        inputs, reference, blurry = self.inputs, self.options.reference, self.options.blurry
        if reference is None and blurry is None:
            return None
        if reference is None:
            if not (are_two_sides(inputs) and Path(inputs[0]).is_dir()):
                raise UsageError("--blurry requires two folders RESTORED/ SHARP/, or --reference")
            inputs, reference = inputs[:1], inputs[1]
        return RestorationRuns(inputs, reference, blurry, self.problems.add)

    def _scenes(self, networks: NetworkRuns) -> Iterator[dict[str, Record]]:
        """Yield the records of unfinished scenes, by run or network; "" if there is only one."""
        if self.runs is not None:
            return self.runs.part(self.problems.part, self.log.scored if self.log else {})
        if self.options.networks:
            return networks.scenes(self._records("blur"))
        return ({"": record} for record in self._records("restored"))

    def _records(self, first: str) -> Iterator[Record]:
        """Yield the records of the inputs that are not finished; see `Problems.pairs`."""
        records = self.problems.pairs(self.inputs, first)
        finished = self.log.scored if self.log else {}
        records.drop(lambda outline: outline.name in finished)
        return (record for record in records if record.name not in finished)


def merge(inputs: list[str], options: EvaluationOptions) -> None:
    """Make one report of the reports of parts. Raises UsageError if they do not fit together."""
    from blurkit.metrics.evaluation import make_report, merge_reports

    _check([], options)
    merged = merge_reports([Path(text) for text in inputs])
    by_sequence, level, seed = options.by_sequence, options.confidence, options.seed
    result = make_report(merged.rows, merged, by_sequence, level, seed, merged.network)
    if options.json:
        for image in result.images:
            print_json(image.as_dict())
    _publish(result, None, options)


def _check(inputs: list[str], options: EvaluationOptions) -> None:
    """Raise UsageError for outputs that cannot be written and options that exclude each other."""
    from blurkit.data.collection import are_two_sides
    from blurkit.metrics.statistics import check_level
    from blurkit.reports.plots import check_plot
    from blurkit.reports.tables import check_report

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


def _publish(result: Report, spectrum: Frequency | None, options: EvaluationOptions) -> None:
    """Print the report, and write it to the files that `-o` names."""
    from blurkit.cli.batch import say_written
    from blurkit.reports.plots import draw_frequency
    from blurkit.reports.tables import print_report, write_report

    if options.json:
        print_json(result.as_dict(images=False))
    if not result.images:
        return
    if not options.quiet:
        print_report(result)
    for file in options.output:
        write_report(file, result, options.force or options.resume)
    say_written(options.output, options.quiet, "file")
    if spectrum is not None and options.figure is not None:
        draw_frequency(options.figure, spectrum.curves(), result.frequency or [])


# ---- what requires torch, imported only when used ------------------------------------------------


def _lpips(options: EvaluationOptions) -> Lpips | None:
    """Return LPIPS if an option or the environment requests it."""
    if not (options.lpips or options.lpips_heads or os.environ.get("BLURKIT_LPIPS")):
        return None
    from blurkit.engine.device import choose_device
    from blurkit.metrics.lpips import load_lpips

    return load_lpips(options.lpips, options.lpips_heads, choose_device(options.device))


def network_cost(options: EvaluationOptions) -> NetworkCost:
    """Return the name, parameters and GMACs of the checkpoint's deblurring network.

    Raises UsageError if the network does not take images of `--input-size`.
    """
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.metrics.evaluation import NetworkCost
    from blurkit.systems.registry import network_name
    from blurkit.systems.uses import network_for
    from blurkit.tasks.inspect import macs, parameters

    network = network_for("deblurring", *map(load_checkpoint, filter(None, options.files)))
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

    `scored` are the scores of the earlier runs by image and run. Raises UsageError if those runs
    had other options or inputs, and BlurkitError if the log cannot be read or another process
    writes it.
    """

    def __init__(self, report: Path, inputs: list[str], options: EvaluationOptions) -> None:
        from blurkit.cli.batch import compare_options, options_file
        from blurkit.metrics.evaluation import read_scored

        compare_options(options_file(report), options, inputs=inputs)
        self.path = score_log(report)
        self.scored: dict[str, dict[str, Scored]] = {}
        self._lock = locked(self.path)
        with writing_errors(self.path):
            self._lock.__enter__()
            text = self.path.read_text() if self.path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            self._file = self.path.open("a")
            self._file.truncate(len(whole.encode()))
        for line in whole.splitlines():
            try:
                entry = json.loads(line)
                self.scored[entry["name"]] = read_scored(entry)
            except (ValueError, KeyError, TypeError) as error:
                raise BlurkitError(f"{self.path}: damaged; remove it to start over") from error

    def add(self, image: ImageScores) -> None:
        """Append the scores of an image."""
        with writing_errors(self.path):
            self._file.write(f"{to_json(image.as_dict())}\n")
            self._file.flush()

    def close(self) -> None:
        """Let other processes write the log."""
        self._file.close()
        self._lock.__exit__(None, None, None)


def score_log(report: Path) -> Path:
    """Return the file of the log of a report."""
    return report.with_name(f".{report.name}.scores.jsonl")
