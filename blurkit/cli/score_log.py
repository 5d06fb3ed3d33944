"""The log of `eval --resume`: the scores of every image, as soon as they are known."""

from __future__ import annotations

import json
from pathlib import Path

from blurkit.cli.evaluate import EvaluationOptions
from blurkit.cli.resuming import compare_options, options_file
from blurkit.errors import BlurkitError
from blurkit.io.writing import locked, writing_errors
from blurkit.metrics.evaluation import ImageScores, read_scored
from blurkit.metrics.statistics import Scored
from blurkit.reports.values import to_json


class ScoreLog:
    """JSON lines next to a report, one for each image that this or an earlier run has scored.

    `scored` are the scores of the earlier runs by image and run. Raises UsageError if those runs
    had other options or inputs, and BlurkitError if the log cannot be read or another process
    writes it.
    """

    def __init__(self, report: Path, inputs: list[str], options: EvaluationOptions) -> None:
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
