"""The run of `blurkit eval`: scores every record and reports the scores."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from blurkit.cli.batch import Problems, choose_part, say_written
from blurkit.cli.common import print_json, width_and_height
from blurkit.cli.evaluate import EvaluationOptions
from blurkit.cli.network_runs import NETWORK_COSTS, NetworkRuns, network_costs
from blurkit.cli.networks import restorations, with_networks
from blurkit.cli.score_log import ScoreLog, score_log
from blurkit.cli.shared import load_checkpoints
from blurkit.data.collection import Runs, are_two_sides, read_two_sides, side_by_side_record
from blurkit.data.places import WHOLE
from blurkit.data.sources import read_records
from blurkit.errors import UsageError
from blurkit.io.records import Record
from blurkit.metrics.evaluation import (
    Comparison,
    ImageScores,
    NetworkCost,
    Report,
    Rows,
    make_report,
    merge_reports,
)
from blurkit.metrics.frequency import Frequency
from blurkit.metrics.scores import Measures
from blurkit.metrics.statistics import Scored, check_level
from blurkit.nn.size import SizeRequirement
from blurkit.reports.page import ReportFolder, scene_pictures
from blurkit.reports.pictures import write_comparison
from blurkit.reports.plots import check_plot, draw_frequency
from blurkit.reports.progress import say, track
from blurkit.reports.tables import check_report, print_report, write_report
from blurkit.systems.registry import network_name
from blurkit.systems.uses import network_for
from blurkit.tasks.inspect import macs, parameters

if TYPE_CHECKING:
    from blurkit.metrics.lpips import Lpips


def compare_networks(inputs: list[str], options: EvaluationOptions) -> None:
    """Restore the pairs of the inputs by the networks of `--networks`, and compare the results."""
    evaluate_records(*with_networks(inputs, options))


def evaluate_records(inputs: list[str], options: EvaluationOptions) -> None:
    """Score all records of the inputs. Raises UsageError before torch is imported."""
    problems = Problems(
        [*inputs, options.reference or "", options.blurry or ""],
        part=choose_part(options.part, options.quiet),
    )
    _check(inputs, options)
    page = ReportFolder(options.html, options.force) if options.html is not None else None
    measures = Measures(
        options.ssim, options.metrics, _lpips(options), options.image, options.target
    )
    log = ScoreLog(options.output[0], inputs, options) if options.resume else None
    runs = _runs(inputs, options, problems)
    finished = log.scored if log else {}
    spectrum = Frequency(measures, options.patch) if options.frequency else None
    network = _network(options)
    with NetworkRuns(restorations(options) if options.networks else {}, problems) as networks:
        scenes = _scenes(inputs, runs, networks, options, problems, finished)
        rows: Rows = {run: [] for run in networks.names or (runs.runs if runs else [""])}
        _score(scenes, rows, measures, spectrum, page, options, problems, log)
    if options.networks:
        rows = {name: rows[name] for name in networks.names} or {"": []}
    if log is not None:
        log.close()
    result = make_report(
        rows,
        measures,
        options.by_sequence,
        options.level,
        options.seed,
        network,
        spectrum,
        "" if problems.part == WHOLE else "{}/{}".format(*problems.part),
        NETWORK_COSTS if options.networks else None,
    )
    _publish(result, spectrum, options)
    if result.images:
        if page is not None:
            page.write("blurkit eval", result)
            say(f"wrote {page.page}", options.quiet)
        if runs and result.comparison:
            _show_extremes(result.comparison, runs, options, problems)
    problems.finish(len(result.images), "evaluated")


def merge(inputs: list[str], options: EvaluationOptions) -> None:
    """Make one report of the reports of parts. Raises UsageError if they do not fit together."""
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


def _score(
    scenes: Iterable[Mapping[str, Record]],
    rows: Rows,
    measures: Measures,
    spectrum: Frequency | None,
    page: ReportFolder | None,
    options: EvaluationOptions,
    problems: Problems,
    log: ScoreLog | None,
) -> None:
    """Add the scores of every scene to the rows of its runs, those in the log first."""
    for scored in log.scored.values() if log else ():
        _add(scored, rows, measures, options)
    for scene in track(scenes, "eval", None, "record", options.quiet):
        first = next(iter(scene.values()))
        with problems.guard(first.name):
            scores = {run: measures.score(r) | network_costs(r) for run, r in scene.items()}
            if spectrum is not None:
                spectrum.add(scene)
            if page is not None:
                page.add(first.name, *scene_pictures(scene, measures))
            folder = options.blurry or ""
            scored = {run: Scored.of(r, scores[run], folder) for run, r in scene.items()}
            if log is not None:
                log.add(ImageScores.of(scored, measures.ranking))
            _add(scored, rows, measures, options)
            if options.pictures is not None and len(scene) == 1:
                write_comparison(options.pictures, first, options.force)
            elif options.pictures is not None and options.networks:
                record = side_by_side_record(scene)
                write_comparison(options.pictures, record, options.force, tuple(record.images))


def _add(
    scored: Mapping[str, Scored], rows: Rows, measures: Measures, options: EvaluationOptions
) -> None:
    """Add the scores of one scene to the rows of its runs, and print them with `--json`."""
    for run, row in scored.items():
        rows[run].append(row)
    if options.json:
        print_json(ImageScores.of(scored, measures.ranking).as_dict())


def _publish(result: Report, spectrum: Frequency | None, options: EvaluationOptions) -> None:
    """Print the report, and write it to the files that `-o` names."""
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


def _show_extremes(
    comparison: Comparison, runs: Runs, options: EvaluationOptions, problems: Problems
) -> None:
    """Write the worst and best images of all runs side by side, if `--pictures` is given."""
    if options.pictures is None:
        return
    for name in dict.fromkeys(case.name for case in [*comparison.worst, *comparison.best]):
        with problems.guard(name):
            record = side_by_side_record(runs.load(name))
            write_comparison(options.pictures, record, options.force, tuple(record.images))


# ---- inputs --------------------------------------------------------------------------------------


def _runs(inputs: list[str], options: EvaluationOptions, problems: Problems) -> Runs | None:
    """Return the inputs paired by name with those of `--reference` and `--blurry`, if given."""
    reference, blurry = options.reference, options.blurry
    if reference is None and blurry is None:
        return None
    if reference is None:
        if not (are_two_sides(inputs) and Path(inputs[0]).is_dir()):
            raise UsageError("--blurry requires two folders RESTORED/ SHARP/, or --reference")
        inputs, reference = inputs[:1], inputs[1]
    return Runs(inputs, reference, blurry, problems.add)


def _scenes(
    inputs: list[str],
    runs: Runs | None,
    networks: NetworkRuns,
    options: EvaluationOptions,
    problems: Problems,
    finished: Container[str],
) -> Iterator[dict[str, Record]]:
    """Yield the records of every scene that is not finished, by run or network; "" if only one."""
    if runs is not None:
        return runs.part(problems.part, finished)
    if options.networks:
        return networks.scenes(_records(inputs, problems, finished, "blur"))
    return ({"": record} for record in _records(inputs, problems, finished, "restored"))


def _records(
    inputs: list[str], problems: Problems, finished: Container[str], first: str
) -> Iterator[Record]:
    """Yield the records of the inputs that are not finished.

    Of two folders or images, the first one holds the images `first`, and the other the sharp ones.
    """
    if are_two_sides(inputs):
        roles = (first, "sharp")
        records = read_two_sides(inputs[0], inputs[1], problems.part, problems.add, roles)
    else:
        records = read_records(inputs, part=problems.part, on_error=problems.add)
    records.drop(lambda outline: outline.name in finished)
    return (record for record in records if record.name not in finished)


# ---- what requires torch, imported only when used ------------------------------------------------


def _lpips(options: EvaluationOptions) -> Lpips | None:
    """Return LPIPS if an option or the environment requests it."""
    if not (options.lpips or options.lpips_heads or os.environ.get("BLURKIT_LPIPS")):
        return None
    from blurkit.engine.device import choose_device
    from blurkit.metrics.lpips import load_lpips

    return load_lpips(options.lpips, options.lpips_heads, choose_device(options.device))


def _network(options: EvaluationOptions) -> NetworkCost | None:
    """Return the name, parameters and GMACs of the checkpoint's deblurring network."""
    if options.checkpoint is None:
        return None

    return network_cost(options)


def network_cost(options: EvaluationOptions) -> NetworkCost:
    """Return the name, parameters and GMACs of a deblurring network.

    Raises UsageError if the network does not take images of `--input-size`.
    """
    network = network_for("deblurring", *load_checkpoints("deblurring", options))
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
