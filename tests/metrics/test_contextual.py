"""Contextual similarity: other programs' numbers, its formula written out, its memory."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import to_float
from blurkit.metrics import contextual
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network, feature_similarity
from blurkit.nn.features import FeatureNetwork, features_from_state_dict
from tests import shared
from tests.cli.pictures import blurred
from tests.io.scenes import PEAK_MEGABYTES
from tests.metrics import oracle


@pytest.fixture(scope="module")
def vgg11() -> Path:
    return shared.vgg11()


@pytest.fixture(scope="module")
def network(vgg11: Path) -> FeatureNetwork:
    return contextual_network(vgg11)


def contextual_distance(x: Tensor, y: Tensor, bandwidth: float) -> float:
    return -math.log(feature_similarity(x, y, bandwidth) + 1e-5)


def by_hand(x: np.ndarray, y: np.ndarray, h: float, distance: str = "cosine") -> float:
    """CX of (C, N) and (C, M) in float64, pair of positions by pair of positions."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    if distance == "cosine":
        mean = y.mean(axis=1, keepdims=True)
        x, y = x - mean, y - mean
        x = x / np.maximum(np.linalg.norm(x, axis=0), 1e-12)
        y = y / np.maximum(np.linalg.norm(y, axis=0), 1e-12)
    best = np.zeros(y.shape[1])
    for i in range(x.shape[1]):
        difference = y - x[:, i : i + 1]
        d = {
            "cosine": 1 - x[:, i] @ y,
            "l1": np.abs(difference).sum(axis=0),
            "l2": (difference**2).sum(axis=0),
        }[distance]
        w = np.exp((1 - d / (d.min() + 1e-5)) / h)
        best = np.maximum(best, w / w.sum())
    return float(best.mean())


def photo_pair(side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A blurred crop of a photo and the crop itself."""
    sharp = skimage.data.astronaut()[40 : 40 + side, 150 : 150 + side]
    return blurred(sharp), sharp


def maps(network: FeatureNetwork, image: np.ndarray) -> np.ndarray:
    """The features (C, N) of one image."""
    batch = torch.from_numpy(to_float(image).transpose(2, 0, 1).copy())[None]
    return network(batch)[0][0].flatten(1).numpy()


# -- numbers of other programs ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cx0", "cx1", "cx2"])
@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_parity_on_features(name: str, h: float) -> None:
    x, y, expected = oracle.features(name)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        a, b = (torch.from_numpy(values).to(dtype) for values in (x, y))
        found = contextual_distance(a, b, h)
        assert found == pytest.approx(expected[f"cx_pytorch_h{h:g}"], abs=tolerance)
        itself = contextual_distance(a, a, 0.5)
        assert itself == pytest.approx(expected["cx_self_pytorch_h0.5"], abs=tolerance)


def test_parity_on_photos() -> None:
    weights = oracle.synthetic_backbone("VGG-19", 104)
    state_dict = {key: torch.from_numpy(values) for key, values in weights.items()}
    network = features_from_state_dict(state_dict, ("contextual",))
    assert (network.name, network.layers) == ("VGG-19", ("relu3_4",))
    network.normalise = True
    measure = ContextualSimilarity(network, bandwidth=0.5)
    for name, (test, ref, expected) in oracle.pairs().items():
        found = measure(test, ref)
        wanted = expected["cx_vgg19synth_relu3_4_h0.5"]
        assert found.distance == pytest.approx(wanted, abs=1e-4), name
        height, width = (side // 2 // 2 for side in ref.shape[:2])
        assert found.positions == (height * width, height * width)


# -- the formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "l1", "l2"])
@pytest.mark.parametrize("h", [0.1, 1.0])
def test_the_formula_on_random_features(distance: str, h: float) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((12, 50)), rng.standard_normal((12, 70))
    a, b = torch.from_numpy(x).view(12, 5, 10), torch.from_numpy(y)
    found = feature_similarity(a, b, h, distance)
    assert found == pytest.approx(by_hand(x, y, h, distance), rel=1e-9)


def test_it_has_a_direction() -> None:
    x, y, expected = oracle.features("cx0")
    a, b = torch.from_numpy(x).double(), torch.from_numpy(y).double()
    forth, back = contextual_distance(a, b, 0.5), contextual_distance(b, a, 0.5)
    assert abs(forth - back) > 0.01
    assert abs(forth - expected["cx_maxaxis_swapped_h0.5"]) > 0.2


@pytest.mark.parametrize("distance", ["cosine", "l1", "l2"])
def test_the_rows_held_at_a_time_change_nothing(
    distance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(rng.standard_normal((16, 101))) for _ in range(2))
    whole = feature_similarity(a, b, 0.5, distance)
    for elements in (1, 7 * 101, 100 * 101):
        monkeypatch.setattr(contextual, "ELEMENTS", elements)
        assert feature_similarity(a, b, 0.5, distance) == pytest.approx(whole, rel=1e-12)


def test_zero_vectors_and_small_bandwidths_stay_finite() -> None:
    rng = np.random.default_rng(3)
    y = torch.from_numpy(rng.integers(-9, 9, (4, 32)).astype(np.float32))  # its mean is exact
    x = y.flip(1) + 1
    x[:, :10] = y.mean(1, keepdim=True)  # zero vectors once the mean is off
    found = feature_similarity(x, y, 0.5)
    assert found == pytest.approx(by_hand(x.numpy(), y.numpy(), 0.5), rel=1e-4)
    assert 0 < feature_similarity(x, y, 1e-3) <= 1
    flat = torch.zeros(4, 9)
    assert contextual_distance(flat, flat, 1.0) == pytest.approx(math.log(9), abs=1e-3)


# -- images ----------------------------------------------------------------------------------------


def test_the_same_image_is_at_zero(network: FeatureNetwork) -> None:
    _, sharp = photo_pair()
    same = ContextualSimilarity(network, 0.5)(sharp, sharp)
    assert same.distance == pytest.approx(0, abs=1e-3)
    deep = (sharp.astype(np.uint16) * 257).astype(np.uint16)
    assert ContextualSimilarity(network, 0.5)(deep, to_float(sharp)).distance == same.distance


def test_a_blurred_image_is_nearer_to_itself_than_to_another(network: FeatureNetwork) -> None:
    blurry, sharp = photo_pair(128)
    other = skimage.data.chelsea()[80:208, 120:248]
    measure = ContextualSimilarity(network)
    same, different = measure(blurry, sharp).distance, measure(blurry, other).distance
    assert 0 < same < different / 1.6
    assert different < math.log(32 * 32)


def test_gray_images_and_images_of_two_sizes(network: FeatureNetwork) -> None:
    _, sharp = photo_pair()
    gray = sharp[:, :, :1]
    measure = ContextualSimilarity(network)
    assert measure(gray, sharp) == measure(np.repeat(gray, 3, axis=2), sharp)
    part = sharp[:64, :48]
    found = measure(part, sharp)
    assert found.positions == (16 * 12, 24 * 24)
    expected = by_hand(maps(network, part), maps(network, sharp), 1.0)
    assert found.similarity == pytest.approx(expected, rel=1e-3)


def test_layers_are_summed(vgg11: Path) -> None:
    blurry, sharp = photo_pair()

    def found(*layers: str) -> Any:
        return ContextualSimilarity(contextual_network(vgg11, layers))(blurry, sharp)

    both, one, two = found("relu2_1", "relu3_2"), found("relu2_1"), found("relu3_2")
    assert both.distance == pytest.approx(one.distance + two.distance)
    assert both.similarity == pytest.approx((one.similarity + two.similarity) / 2)
    assert both.positions == (48 * 48 + 24 * 24,) * 2


def test_the_default_layer_and_normalisation(vgg11: Path) -> None:
    default = contextual_network(vgg11)
    assert default.layers == ("relu3_2",) and default.normalise
    squeeze = vgg11.with_name("squeezenet1_1_caffe_features.safetensors")
    assert contextual_network(squeeze).layers == ("fire3",)


def test_wrong_options_and_images(network: FeatureNetwork, vgg11: Path) -> None:
    for bandwidth in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="--bandwidth"):
            ContextualSimilarity(network, bandwidth)
    with pytest.raises(UsageError, match="use cosine, l1, l2"):
        feature_similarity(torch.ones(2, 3), torch.ones(2, 3), distance="l3")
    with pytest.raises(BlurkitError, match="it has relu1_1, relu2_1, relu3_1, relu3_2"):
        contextual_network(vgg11, ["conv3_2"])
    with pytest.raises(BlurkitError, match="cannot process an image of 5x2 pixels"):
        ContextualSimilarity(network)(np.zeros((2, 5, 3), np.uint8), np.zeros((2, 5, 3), np.uint8))


@pytest.mark.slow
def test_a_720p_pair_takes_under_4_gib(vgg11: Path) -> None:
    script = f"""
import numpy as np, skimage.data
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
image = np.tile(skimage.data.astronaut(), (2, 3, 1))[:720, :1280]
found = ContextualSimilarity(contextual_network({str(vgg11)!r}))(np.roll(image, 2, 1) // 2, image)
assert found.positions == (57600, 57600), found
print({PEAK_MEGABYTES})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(done.stdout) / 2**10 < 4
