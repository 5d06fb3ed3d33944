"""The log of a run, and TensorBoard's events, which hold the same and the sample pictures."""

import io
import json
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from tests.cli.command import assert_refused, files
from tests.cli.invoke import done, invoke
from tests.training.runs import beside, plain


def test_events_are_the_log_and_the_samples(training_shards: Path, tmp_path: Path) -> None:
    """Of a run that was stopped and resumed, where another run had begun before."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    output = tmp_path / "x.pt"
    validated = ("--validate-on", 2, "--validate-every", 2, "--tensorboard")
    learn = plain(training_shards, output, 3, *validated)
    done(*learn, "--seed", 3, "--minutes", 1e-9)
    done(*learn, "--force", "--minutes", 1e-9)
    done(*learn, "--resume")

    events = accumulator.EventAccumulator(str(beside(output, "tensorboard")))
    events.Reload()
    found = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    wanted: dict[str, list[tuple[int, float]]] = {}
    for line in beside(output, "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        for name in entry.keys() - {"step", "time"}:
            values = entry[name] if isinstance(entry[name], dict) else {"": entry[name]}
            for key, number in values.items():
                tag = f"{name}/{key}".rstrip("/")
                wanted.setdefault(tag, []).append((entry["step"], number))
    assert {"losses/psnr", "learning_rates/deblur", "validation/psnr"} < wanted.keys()
    assert found.keys() == wanted.keys()
    for tag, points in wanted.items():
        np.testing.assert_allclose(found[tag], points, rtol=1e-6, err_msg=tag)

    pictures = sorted(beside(output, "samples").glob("*.png"))
    assert len(pictures) == 4
    shown = {
        f"{event.step:07d}-{tag}.png": imageio.imread(io.BytesIO(event.encoded_image_string))
        for tag in events.Tags()["images"]
        for event in events.Images(tag)
    }
    np.testing.assert_equal(shown, {path.name: imageio.imread(path) for path in pictures})


def test_without_the_package_one_line_says_what_to_install(
    training_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    learn = plain(training_shards, tmp_path / "x.pt", 3, "--tensorboard")
    words = ("--tensorboard needs", "pip install 'blurkit[tensorboard]'")
    assert_refused(invoke(*learn), *words, status=2)
    assert files(tmp_path) == {}
