"""A step in parts is the step as a whole, and activations computed again are the same bits."""

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import UsageError
from blurkit.training.configuration import Run
from blurkit.training.distributed import Processes
from blurkit.training.memory import measure
from blurkit.training.steps import Steps
from tests.training.plain_descent import descend, distances
from tests.training.runs import Toy, assert_same_bits, read_log, toy

MINUS = {"variant": "minus", "traditional_loss": "wgan-gp"}

WITHOUT_BATCH_NORM: dict[str, dict[str, Any]] = {
    **{"joint": {"modulation": "paper", "iterations": 2}, "deblur": {}, "kernel-space": {}},
    **{"msfs": {"layers": "paper"}, "bgan": {"real_share": 0.0, "discriminator": "spectral"}},
    "dbgan": {"discriminator": "spectral", **MINUS},
}
"""Options of every recipe's training without batch normalisation, which sees a part at a time."""

WITH_BATCH_NORM: dict[str, dict[str, Any]] = {
    **{"joint": {"modulation": "official", "iterations": 2}, "deblur": {}, "kernel-space": {}},
    **{"msfs": {"layers": "official"}, "bgan": {"real_share": 0.0}, "dbgan": MINUS},
}


def unless_slow(stages: Iterable[str]) -> list[Any]:
    """The stages as parameters, of which MSDI-Net's take the longest."""
    marks = {"deblur": [pytest.mark.slow], "joint": [pytest.mark.slow]}
    return [pytest.param(stage, marks=marks.get(stage, ())) for stage in stages]


@pytest.fixture
def both(stage: str, training_shards: Path, request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Returns the checkpoints of the same descent in one go and as a run with other options."""
    start = request.getfixturevalue("stage_1") if stage == "deblur" else Path("none")

    def run(how: dict[str, Any], changed: dict[str, Any]) -> tuple[Path, Path]:
        plain, other = tmp_path / "plain.pt", tmp_path / "other.pt"
        descend(stage, training_shards, start, plain, **changed)
        descend(stage, training_shards, start, other, how, **changed)
        return plain, other

    return run


@pytest.mark.parametrize("stage", unless_slow(WITHOUT_BATCH_NORM))
def test_four_parts_are_the_whole_batch(stage: str, both: Any) -> None:
    """Also losses of all crops together, and spectral norms, which change in every pass."""
    one, four = both({"accumulate": 4}, WITHOUT_BATCH_NORM[stage])
    assert max(distances(one, four).values()) <= 1e-6
    for own, whole in zip(read_log(four), read_log(one), strict=True):
        # The critic's loss is a difference of means of 1e-4, exact to 1e-5 of those.
        assert own["losses"] == pytest.approx(whole["losses"], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("stage", unless_slow(WITH_BATCH_NORM))
def test_activations_computed_again_are_the_same_bits(stage: str, both: Any) -> None:
    """Buffers too: running statistics and power iterations do not run twice."""
    kept, again = both({"checkpointing": "on"}, WITH_BATCH_NORM[stage])
    assert_same_bits(again, kept)


def crops() -> dict[str, Tensor]:
    values = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return {"blur": values, "sharp": values}


def test_running_statistics_of_parts_are_means() -> None:
    halves, parts = Toy(learning_rate=0), [Toy() for _ in range(2)]
    Steps(halves, Processes(torch.device("cpu")), accumulate=2).run(0, crops())
    for part, own in zip(parts, crops()["blur"].split(2), strict=True):
        for _ in range(2):  # the losses of both optimisers
            part.first(own)
    for name in ("running_mean", "running_var"):
        found, *own = (recipe.first[1].get_buffer(name) for recipe in (halves, *parts))
        torch.testing.assert_close(found, sum(own) / 2)
        assert not torch.allclose(*own)
    assert halves.first[1].num_batches_tracked == 2
    for name in ("weight_u", "weight_v"):
        found, one, two = (recipe.first[0].get_buffer(name) for recipe in (halves, *parts))
        assert torch.equal(found, one) and torch.equal(one, two)


def test_mixed_precision_sees_the_update_of_the_optimiser_before() -> None:
    """Autocast keeps copies of weights in 16 bits, which are stale after an update."""
    recipe = Toy()
    recipe.first.eval()
    Steps(recipe, Processes(torch.device("cpu")), torch.bfloat16).run(0, crops())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = recipe.first(crops()["blur"])
    assert torch.equal(recipe.seen[0], expected)


def test_reducers_are_gone_before_their_group_ends(
    training_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's deadlock: a reducer freed last ends the group's threads, which wait for Python."""
    reducers: list[weakref.ref[nn.Module]] = []
    left: list[int] = []

    def reducing(processes: Processes, module: nn.Module) -> nn.Module:
        reducer = nn.Sequential(module)
        reducers.append(weakref.ref(reducer))
        return reducer

    def close(processes: Processes) -> None:
        left.append(sum(reducer() is not None for reducer in reducers))

    monkeypatch.setattr(Processes, "reducing", reducing)
    monkeypatch.setattr(Processes, "close", close)
    measure(Toy(), Run(str(tmp_path / "x.pt"), "cpu"), 1)
    toy(training_shards, tmp_path / "a.pt")
    assert len(reducers) > 2 and left == [0, 0]


def test_more_parts_than_crops() -> None:
    with pytest.raises(UsageError, match="--accumulate 5: a process has only 4 crops"):
        Steps(Toy(), Processes(torch.device("cpu")), accumulate=5)
