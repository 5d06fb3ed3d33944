"""The benchmark of a GPU runs to its end at small size."""

import pytest
import torch

from tests.benchmarks.gpu import Device, data, inference, training


@pytest.mark.slow
def test_it_runs_on_a_processor() -> None:
    on = Device(torch.device("cpu"), small=True)
    results = [*inference(on), *training(on), *data(on)]
    assert len(results) == 4 + 5 + 2
    assert all(float(result.ratio.removesuffix("x")) > 0 for result in results)
    assert all("off by" in result.how for result in results[:4])
