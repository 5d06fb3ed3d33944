"""Feature trunks: recognised by their keys, true to their files, found where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from blurkit.errors import BlurkitError
from blurkit.models.features import TRUNKS, FeatureTrunk, find_features, load_features
from tests.shared import shared_folder


@pytest.fixture(scope="module")
def weights() -> Path:
    return shared_folder("weights", "BLURKIT_WEIGHTS")


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 80), dtype=np.float32))


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def test_vgg11_follows_its_file(weights: Path, image: Tensor) -> None:
    path = weights / "vgg11_bn_trunk.safetensors"
    trunk = load_features(path)
    w = {key: value.float() for key, value in load_file(path).items()}

    def conv(x: Tensor, i: int) -> Tensor:
        x = F.conv2d(x, w[f"features.{i}.weight"], w[f"features.{i}.bias"], padding=1)
        part = f"features.{i + 1}"
        scale = w[f"{part}.weight"] / (w[f"{part}.running_var"] + 1e-5).sqrt()
        shift = w[f"{part}.bias"] - w[f"{part}.running_mean"] * scale
        return F.relu(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1))

    relu1 = conv((image - MEAN) / STD, 0)
    relu2 = conv(F.max_pool2d(relu1, 2), 4)
    relu3 = conv(F.max_pool2d(relu2, 2), 8)
    expected = [relu1, relu2, relu3, conv(relu3, 11)]
    for ours, theirs in zip(trunk(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert trunk.weights == [1 / 8, 1 / 4, 1 / 2, 1]


def test_squeezenet_follows_its_file(weights: Path, image: Tensor) -> None:
    path = weights / "squeezenet1_1_caffe_features.safetensors"
    trunk = load_features(path, layers=("relu1", "fire3"))
    w = {key: value.float() for key, value in load_file(path).items()}

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        name = f"features.{name}"
        return F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options))

    def fire(x: Tensor, i: int) -> Tensor:
        x = conv(x, f"{i}.squeeze")
        return torch.cat([conv(x, f"{i}.expand1x1"), conv(x, f"{i}.expand3x3", padding=1)], 1)

    relu1 = conv((image - MEAN) / STD, "0", stride=2)
    fire3 = fire(fire(F.max_pool2d(relu1, 3, 2, ceil_mode=True), 3), 4)
    for ours, theirs in zip(trunk(image), [relu1, fire3], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert trunk.weights == [1, 1]
    deepest = load_features(path)(image)[-1]
    assert deepest.shape == (1, 512, 3, 4)
    assert torch.isfinite(deepest).all()


def test_trunks_stay_frozen(weights: Path) -> None:
    trunk = load_features(weights / "vgg11_bn_trunk.safetensors").train()
    assert not any(module.training for module in trunk.modules())
    assert not any(parameter.requires_grad for parameter in trunk.parameters())


def test_normalisation_is_an_option(weights: Path, image: Tensor) -> None:
    trunk = load_features(weights / "vgg11_bn_trunk.safetensors", layers=("relu3_2",))
    (expected,) = trunk(image)
    trunk.normalise = False
    torch.testing.assert_close(trunk((image - MEAN) / STD)[0], expected)


def test_vgg19_file_with_classifier(tmp_path: Path, image: Tensor) -> None:
    torch.manual_seed(0)
    made = FeatureTrunk(TRUNKS[0])
    state_dict = {**made.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}
    torch.save(state_dict, tmp_path / "vgg19.pth")
    loaded = load_features(tmp_path / "vgg19.pth")
    assert not loaded.normalise
    assert loaded.weights == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    for ours, theirs in zip(loaded(image), made(image), strict=True):
        assert torch.equal(ours, theirs)
    assert [f.shape[1:] for f in made(image)] == [
        (64, 64, 80),
        (128, 32, 40),
        (256, 16, 20),
        (512, 8, 10),
        (512, 4, 5),
    ]


def test_unusable_files(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(BlurkitError, match=r"text\.pth: cannot be read"):
        load_features(tmp_path / "text.pth")
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BlurkitError, match="none of the known feature networks"):
        load_features(tmp_path / "other.safetensors")
    path = weights / "vgg11_bn_trunk.safetensors"
    part = {key: value for key, value in load_file(path).items() if key != "features.4.bias"}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(BlurkitError, match=r"features\.4\.bias is missing"):
        load_features(tmp_path / "part.safetensors")
    with pytest.raises(BlurkitError, match="no layer 'relu9_9'; it has relu1_1"):
        load_features(path, layers=("relu9_9",))


def test_finding_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    with pytest.raises(BlurkitError, match=r"--features FILE or BLURKIT_FEATURES.*--perceptual"):
        find_features()
    cached = tmp_path / "checkpoints" / "vgg19-dcbb9e9d.pth"
    cached.parent.mkdir()
    cached.touch()
    assert find_features() == cached
    named = tmp_path / "named.pth"
    monkeypatch.setenv("BLURKIT_FEATURES", str(named))
    with pytest.raises(BlurkitError, match=r"no such file .from BLURKIT_FEATURES"):
        find_features()
    named.touch()
    assert find_features() == named
    assert find_features(cached) == cached


def test_a_failing_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file:// address that leads nowhere fails as an unreachable host does, at once.
    monkeypatch.setattr("blurkit.models.features.VGG19_URL", (tmp_path / "no.pth").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    with pytest.raises(BlurkitError, match=r"no\.pth: .*--features FILE"):
        find_features(download=True)
