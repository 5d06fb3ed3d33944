"""The report of an evaluation: its plain values are those that the command prints and writes."""

import json
from pathlib import Path

import pytest

from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.metrics.evaluation import Report, make_report, merge_reports
from blurkit.metrics.frequency import Frequency
from blurkit.metrics.scores import Measures
from blurkit.metrics.statistics import Scored
from blurkit.reports.tables import write_report
from blurkit.reports.values import to_json
from tests.cli.invoke import done
from tests.cli.pictures import blurred, photo, write
from tests.metrics.oracle import noisy

IMAGES = 10
MADE = {"a": noisy, "b": blurred}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders a/ and b/ of restored images, and sharp/ and blur/, here."""
    monkeypatch.chdir(tmp_path)
    for number in range(IMAGES):
        sharp = photo(number)
        images = {run: make(sharp) for run, make in MADE.items()}
        for name, image in (images | {"sharp": sharp, "blur": blurred(sharp)}).items():
            write(tmp_path / name / f"s{number % 2}/{number}.png", image)


def reported(*runs: str) -> Report:
    """The report of these runs, made from the images themselves."""
    measures = Measures()
    frequency = Frequency(measures)
    rows: dict[str, list[Scored]] = {run: [] for run in runs}
    for number in sorted(range(IMAGES), key=lambda n: (n % 2, n)):
        name, sharp = f"s{number % 2}/{number}", photo(number)
        own = {"sharp": sharp, "blur": blurred(sharp)}
        scene = {run: Record(name, {"restored": MADE[run](sharp), **own}) for run in runs}
        frequency.add(scene)
        for run, record in scene.items():
            rows[run].append(Scored.of(record, measures.score(record), "blur"))
    return make_report(rows, measures, True, 0.9, 3, frequency=frequency)


@pytest.mark.parametrize("runs", [("a",), ("a", "b")])
def test_the_plain_values_are_those_of_the_command(folders: None, runs: tuple[str, ...]) -> None:
    report = reported(*runs)
    options = ["--reference", "sharp", "--blurry", "blur", "--by-sequence", "--confidence", 0.9]
    files = ["s.json", "s.csv", "s.md"]
    options += ["--seed", 3, "--frequency", *(word for file in files for word in ("-o", file))]
    *images, last = done("eval", *runs, *options, "--json", "-q").json
    found = json.loads(to_json(report.as_dict()))
    assert list(found) == [*last, "images"]
    assert found.pop("images") == images
    assert found == last == json.loads(to_json(report.as_dict(images=False)))
    for file in files:
        write_report(Path("again") / file, report)
        assert (Path("again") / file).read_bytes() == Path(file).read_bytes()
    assert json.loads(Path("s.json").read_text()) == {**last, "images": images}


def test_one_run_has_its_means_at_the_top_and_several_have_them_by_name() -> None:
    one, two = reported("a"), reported("a", "b")
    assert one.comparison is None
    last = ["frequency", "protocol", "images"]
    assert list(one.as_dict()) == ["total", "subsets", "sequences", "confidence", *last]
    assert list(two.as_dict()) == ["runs", "worst", "best", "ranking", *last]
    assert two.as_dict()["runs"]["a"]["total"] == one.as_dict()["total"]
    assert two.comparison is not None
    assert two.as_dict()["runs"]["b"]["wins"] == two.comparison.wins["b"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("part", None), ("part", "1/99999999"), ("network", [1]), ("network", {"a": 1})),
        *(("protocol", {"psnr": 5}), ("protocol", "psnr"), ("runs", 3)),
        ("images", [{"name": "a"}]),
        ("images", [{"name": "a", "sequence": "", "psnr": "high"}]),
    ],
)
def test_reports_with_values_of_other_types_are_refused(
    key: str, value: object, tmp_path: Path
) -> None:
    images = [{"name": "a", "sequence": "", "psnr": 2.5}]
    report = {"protocol": {"psnr": "in dB"}, "images": images, "part": "1/1"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report))
    assert [*merge_reports([path]).rows] == [""]
    path.write_text(json.dumps(report | {key: value}))
    with pytest.raises(BlurkitError, match=r"a\.json: is not a whole report"):
        merge_reports([path])
