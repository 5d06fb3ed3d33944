"""The options of the blind search: presets, files for `--config`, values that make no sense."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from blurkit.errors import BlurkitError, UsageError
from blurkit.options import NOTES
from blurkit.systems.kernel_space.objective import OBJECTIVES, Objective
from blurkit.systems.search_options import PRESETS, SearchOptions, preset_file
from tests.shared import ROOT

PAGE = (ROOT / "docs/commands/blind-deblur.md").read_text()
NAMES = [(prior, name) for prior, names in PRESETS.items() for name in names]


def constants() -> list[str]:
    return [f.name for f in fields(SearchOptions) if f.metadata["constant"]]


@pytest.mark.parametrize(("prior", "name"), NAMES)
def test_a_preset_is_a_file_for_config(prior: str, name: str) -> None:
    """Every value has its source, and the file gives the preset whatever else is a default."""
    file = preset_file(name, prior)
    content = json.loads(file.read_text())
    assert SearchOptions.resolve(config=file) == SearchOptions.resolve(name, prior=prior)
    if name != "small":  # whose values are all ours
        assert content["sources"].keys() == content.keys() - {*NOTES, "prior"}
    assert content["about"]


def test_small_is_the_default_of_all_options() -> None:
    assert SearchOptions.resolve() == SearchOptions.resolve("small") == SearchOptions()


def test_the_page_explains_every_constant() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", PAGE, re.M)
    explained = {name: (default, help) for name, default, help in rows if name in constants()}
    assert list(explained) == constants()
    for f in fields(SearchOptions):
        if f.name in explained:
            assert explained[f.name] == (json.dumps(f.default), f.metadata["help"])


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(),
        SearchOptions.resolve("official", prior="stylegan", seed=7),
        SearchOptions.resolve("selfdeblur", gradient=(0.5, 1), start_estimate=True),
    ],
)
def test_what_a_record_stores_is_a_file_for_config(options: SearchOptions, tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    file.write_text(json.dumps(options.as_dict()))
    assert SearchOptions.resolve(config=file) == options
    assert SearchOptions.resolve(**json.loads(file.read_text())) == options


def test_options_replace_the_file_and_the_file_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    file.write_text('{"image_rate": 1, "iterations": 7, "gradient": [0, 1]}')
    options = SearchOptions.resolve("official", file, iterations=9)
    assert (options.image_rate, options.iterations, options.warm_up) == (1, 9, 300)
    assert options.gradient == (0, 1)


def test_objectives_are_those_of_the_paper_and_of_the_released_code() -> None:
    assert Objective.from_options(SearchOptions.resolve("paper")) == OBJECTIVES["paper"]
    assert Objective.from_options(SearchOptions.resolve("official")) == OBJECTIVES["official"]
    style = Objective.from_options(SearchOptions.resolve("official", prior="stylegan"))
    assert style == Objective(code_norm=(1e-4, 1e-4), squared=(100, 100), geocross=(0.1, 0.1))
    options = SearchOptions.resolve("official", similarity=(0, 3), gradient_power=0.8)
    given = Objective.from_options(options)
    assert (given.similarity, given.power, given.perceptual) == ((0, 3), 0.8, (0.6, 1))


def test_the_paper_s_stylegan_search_is_algorithm_1_on_the_sphere() -> None:
    options = SearchOptions.resolve("paper", prior="stylegan")
    assert (options.search, options.first_turn, options.image_steps) == ("alternating", "kernel", 1)
    assert options.restart_blur and options.latents == "sphere" and options.noise_maps == 0
    assert options.result == "last" and not options.align_picture
    objective = Objective.from_options(options)
    assert objective.geocross == objective.squared == (0, 0)
    assert objective.charbonnier == (1, 1)


def test_an_image_is_warmed_up_to_what_it_starts_from() -> None:
    assert SearchOptions.resolve().warm_up == 0
    assert SearchOptions.resolve(start_estimate=True).warm_up == 100
    assert SearchOptions.resolve("official", start_estimate=True).warm_up == 300
    assert SearchOptions.resolve("selfdeblur", start_estimate=True, warm_up=7).warm_up == 7


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latents": "sphere"}, "latents sphere requires --prior stylegan"),
        ({"objective": "mine"}, "--objective mine: use one of paper, official"),
        ({"charbonnier": (1, -1)}, "charbonnier"),
        ({"restart_blur": True}, "restart_blur requires --search alternating"),
        ({"switch_at": 1.0}, "switch_at 1.0: must be at least 0 and below 1"),
        ({"steps": 3}, "unknown options: steps"),
        (
            {"preset": "selfdeblur", "prior": "stylegan"},
            "--preset selfdeblur: with --prior stylegan, use one of",
        ),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchOptions.resolve(**{"preset": "small"} | options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"image_rates": 1}', "'image_rates' is not an option; did you mean 'image_rate'?"),
        ('{"redraw": true}', "'redraw' is not an option"),
        ('{"warm_up": 1.5}', "warm_up 1.5: must be a whole number"),
        ('{"warm_up": true}', "warm_up true: must be a whole number"),
        ('{"image_rate": "fast"}', 'image_rate "fast": must be a number'),
        ('{"restart_blur": 1}', "restart_blur 1: must be true or false"),
        ('{"gradient": [1]}', "gradient [1]: must be two numbers"),
        ('{"gradient": [1, "2"]}', 'gradient [1, "2"]: must be a number'),
        ('{"gradient": [1, -2]}', "gradient [1, -2]: must be at least 0"),
        ('{"switch_at": 1}', "switch_at 1: must be at least 0 and below 1"),
        ('{"step_noise": NaN}', "step_noise NaN: must be at least 0"),
        ('{"result": "first"}', 'result "first": use one of best, last'),
        ('{"prior": 3}', "prior 3: must be a text"),
        ("[1]", "is not a JSON object of options"),
        ('{"seed": 1', "is not JSON"),
    ],
)
def test_bad_files_are_one_line(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "search.json"
    file.write_text(text)
    with pytest.raises(BlurkitError) as raised:
        SearchOptions.resolve(config=file)
    assert str(raised.value).startswith(f"{file}: {words}")
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    words = r"no\.json: No such file or directory \(from --config\)"
    with pytest.raises(BlurkitError, match=words):
        SearchOptions.resolve(config=tmp_path / "no.json")
