"""A step in parts is the step as a whole, and activations computed again are the same bits."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import UsageError
from blurkit.nn.blocks import spectral_conv
from blurkit.systems.msdi.config import DeblurConfiguration
from blurkit.systems.msdi.networks import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe
from blurkit.training.configuration import Configuration, Run
from blurkit.training.distributed import Processes
from blurkit.training.memory import estimate, measure
from blurkit.training.recipe import Batch, Losses, Recipe
from blurkit.training.steps import Steps, gather_values
from tests.training.plain_descent import apart, descend, distances
from tests.training.runs import read_log, tensors

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
def start(stage: str, request: pytest.FixtureRequest) -> Path:
    """The checkpoint from which a training starts, if it needs one."""
    return request.getfixturevalue("stage_1") if stage == "deblur" else Path("none")


def both(
    stage: str,
    shards: Path,
    start: Path,
    folder: Path,
    how: dict[str, Any],
    changed: dict[str, Any],
) -> tuple[Path, Path]:
    """The checkpoints of the same descent in one go and as a run with the options `how`."""
    plain, other = folder / "plain.pt", folder / "other.pt"
    descend(stage, shards, start, plain, **changed)
    descend(stage, shards, start, other, how, **changed)
    return plain, other


@pytest.mark.parametrize("stage", unless_slow(WITHOUT_BATCH_NORM))
def test_four_parts_are_the_whole_batch(
    stage: str, training_shards: Path, start: Path, tmp_path: Path
) -> None:
    """Also losses of all crops together, and spectral norms, which change in every pass."""
    descent = stage, training_shards, start, tmp_path
    one, four = both(*descent, {"accumulate": 4}, WITHOUT_BATCH_NORM[stage])
    assert max(distances(one, four).values()) <= 1e-6
    for own, whole in zip(read_log(four), read_log(one), strict=True):
        # The critic's loss is a difference of means of 1e-4, exact to 1e-5 of those.
        assert own["losses"] == pytest.approx(whole["losses"], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("stage", unless_slow(WITH_BATCH_NORM))
def test_activations_computed_again_are_the_same_bits(
    stage: str, training_shards: Path, start: Path, tmp_path: Path
) -> None:
    """Buffers too: running statistics and power iterations do not run twice."""
    descent = stage, training_shards, start, tmp_path
    kept, again = both(*descent, {"checkpointing": "on"}, WITH_BATCH_NORM[stage])
    own, wanted = tensors(again), tensors(kept)
    assert [key for key in wanted if not torch.equal(own[key], wanted[key])] == []


def test_two_processes_with_parts_and_unequal_shares_follow_one(
    training_shards: Path, tmp_path: Path
) -> None:
    """Five crops: one process has two parts of one crop, the other parts of one and two."""
    changed = {"batch": 5, "discriminator": "spectral", "real_share": 0.0}
    found = apart("bgan", training_shards, Path(), tmp_path, {"accumulate": 2}, **changed)
    assert max(found.values()) <= 1e-5


@pytest.mark.slow
def test_batch_norm_of_two_processes_with_unequal_shares(
    training_shards: Path, tmp_path: Path
) -> None:
    changed = {"batch": 3, "layers": "official"}
    found = apart("msfs", training_shards, Path(), tmp_path, **changed)
    assert max(found.values()) <= 5e-5


class Twice(Recipe):
    """Two optimisers, a spectral norm and a batch norm; the second loss sees the first update."""

    def __init__(self, learning_rate: float = 1.0) -> None:
        super().__init__(Configuration(batch=4, crop=32, learning_rate=learning_rate))
        torch.manual_seed(0)
        self.first = nn.Sequential(spectral_conv(3, 4), nn.BatchNorm2d(4))
        self.second = nn.Conv2d(4, 1, 3)
        self.networks = {"first": self.first, "second": self.second}
        self.optimizers = {name: self.adam(network) for name, network in self.networks.items()}
        self.seen: list[Tensor] = []

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        if optimizer == "first":
            loss = self.second(self.first(batch["blur"])).square().mean()
        else:
            with torch.no_grad():
                features = self.first(batch["blur"])
            self.seen.append(features)
            values = gather_values(self.second(features).mean((1, 2, 3)))
            loss = values.square().mean() / values.abs().mean()
        return loss, {optimizer: loss}


def crops() -> dict[str, Tensor]:
    values = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return {"blur": values, "sharp": values}


def test_running_statistics_of_parts_are_means() -> None:
    halves, parts = Twice(learning_rate=0), [Twice() for _ in range(2)]
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
    recipe = Twice()
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

    monkeypatch.setattr(Processes, "reducing", reducing)
    monkeypatch.setattr(
        Processes, "close", lambda group: left.append(sum(r() is not None for r in reducers))
    )
    measure(Twice(), Run(str(tmp_path / "x.pt"), "cpu"), 1)
    descend("msfs", training_shards, Path("none"), tmp_path / "a.pt")
    assert len(reducers) > 2 and left == [0, 0]


def test_more_parts_than_crops() -> None:
    with pytest.raises(UsageError, match="--accumulate 5: a process has only 4 crops"):
        Steps(Twice(), Processes(torch.device("cpu")), accumulate=5)


def test_blocks_computed_again_need_a_quarter_of_the_memory() -> None:
    """Of stage 2 in the proportions of the paper's; measured: 0.24 of it."""

    def build() -> DeblurRecipe:
        stage_1 = {"encoder": DegradationEncoder(1, 16), "latents": PriorUpsampling(1, 16)}
        c = DeblurConfiguration.resolve("paper", batch=8, width=16, hidden=32)
        return DeblurRecipe(c, stage_1)

    kept, again, parts = (
        estimate(build, accumulate=count, recompute=recompute)["activations"]
        for count, recompute in ((1, False), (1, True), (4, False))
    )
    assert again < kept / 3
    assert kept / 4 < parts < kept / 3.5
