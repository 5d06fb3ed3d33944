"""Feature backbones: recognised by their keys, true to their files, found where they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from blurkit.errors import BlurkitError
from blurkit.nn.features import (
    BACKBONES,
    PRE_ACTIVATION,
    Backbone,
    FeatureNetwork,
    find_features,
    load_features,
    map_distance,
)
from blurkit.training.recipe import feature_network
from tests import shared


@pytest.fixture(scope="module")
def vgg11() -> Path:
    return shared.vgg11()


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 80), dtype=np.float32))


MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def convolved(w: dict[str, Tensor], x: Tensor, name: object, **options: int) -> Tensor:
    """One of a file's convolutions."""
    return F.conv2d(x, w[f"features.{name}.weight"], w[f"features.{name}.bias"], **options)


def test_vgg11_follows_its_file(vgg11: Path, image: Tensor) -> None:
    backbone = load_features(vgg11)
    w = {key: value.float() for key, value in load_file(vgg11).items()}

    def conv(x: Tensor, i: int) -> Tensor:
        part = f"features.{i + 1}"
        scale = w[f"{part}.weight"] / (w[f"{part}.running_var"] + 1e-5).sqrt()
        shift = w[f"{part}.bias"] - w[f"{part}.running_mean"] * scale
        return convolved(w, x, i, padding=1) * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    relu1 = F.relu(conv((image - MEAN) / STD, 0))
    relu2 = F.relu(conv(F.max_pool2d(relu1, 2), 4))
    relu3 = F.relu(conv(F.max_pool2d(relu2, 2), 8))
    last = conv(relu3, 11)
    expected = [relu1, relu2, relu3, F.relu(last)]
    torch.testing.assert_close(backbone(image), expected, rtol=1e-4, atol=1e-5)
    assert backbone.weights == [1 / 8, 1 / 4, 1 / 2, 1]

    # Before the ReLU means after the batch norm.
    before, after = load_features(vgg11, (PRE_ACTIVATION, "relu3_2"))(image)
    torch.testing.assert_close(before, last, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after, expected[-1], rtol=1e-4, atol=1e-5)


def test_squeezenet_follows_its_file(vgg11: Path, image: Tensor) -> None:
    path = vgg11.with_name("squeezenet1_1_caffe_features.safetensors")
    backbone = load_features(path, layers=("relu1", "fire3"))
    w = {key: value.float() for key, value in load_file(path).items()}

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return F.relu(convolved(w, x, name, **options))

    def fire(x: Tensor, i: int) -> Tensor:
        x = conv(x, f"{i}.squeeze")
        return torch.cat([conv(x, f"{i}.expand1x1"), conv(x, f"{i}.expand3x3", padding=1)], 1)

    relu1 = conv((image - MEAN) / STD, "0", stride=2)
    fire3 = fire(fire(F.max_pool2d(relu1, 3, 2, ceil_mode=True), 3), 4)
    torch.testing.assert_close(backbone(image), [relu1, fire3], rtol=1e-4, atol=1e-5)
    assert backbone.weights == [1, 1]
    before, fire9 = load_features(path, (PRE_ACTIVATION, "fire9"))(image)
    x = F.max_pool2d(fire3, 3, 2, ceil_mode=True)
    x = F.max_pool2d(fire(fire(x, 6), 7), 3, 2, ceil_mode=True)
    x = conv(fire(fire(fire(x, 9), 10), 11), "12.squeeze")
    sums = [convolved(w, x, f"12.expand{n}x{n}", padding=n // 2) for n in (1, 3)]
    torch.testing.assert_close(before, torch.cat(sums, 1), rtol=1e-4, atol=1e-3)
    assert before.min() < 0 and torch.equal(fire9, before.clamp(min=0))
    deepest = load_features(path)(image)[-1]
    assert deepest.shape == (1, 512, 3, 4) and torch.isfinite(deepest).all()


def test_trunks_stay_frozen(vgg11: Path) -> None:
    backbone = load_features(vgg11).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_normalisation_is_an_option(vgg11: Path, image: Tensor) -> None:
    backbone = load_features(vgg11, layers=("relu3_2",))
    (expected,) = backbone(image)
    backbone.normalise = False
    torch.testing.assert_close(backbone((image - MEAN) / STD)[0], expected)


def test_distance() -> None:
    torch.manual_seed(0)
    backbone = FeatureNetwork(BACKBONES[0])
    rng = np.random.default_rng(0)
    both = torch.from_numpy(rng.random((2, 2, 3, 32, 40), dtype=np.float32))
    image, target = (photos.clone().requires_grad_() for photos in both)
    maps = [[array.detach().double().numpy() for array in backbone(x)] for x in (image, target)]
    means = [np.abs(a - b).mean(axis=(1, 2, 3)) for a, b in zip(*maps, strict=True)]
    for weights in ((1 / 32, 1 / 16, 1 / 8, 1 / 4, 1), (0.2, 0.4, 0.8, 1.0, 3.0)):
        distance = map_distance(backbone(image), backbone(target), weights)
        if weights[-1] == 1:
            distance = backbone.distance(image, backbone(target))
        np.testing.assert_allclose(distance.detach(), np.dot(weights, means), rtol=1e-5)
    distance.sum().backward()
    assert target.grad is None
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_vgg19_file_with_classifier(tmp_path: Path, image: Tensor) -> None:
    torch.manual_seed(0)
    made = FeatureNetwork(BACKBONES[0])
    state_dict = {**made.state_dict(), "classifier.0.weight": torch.zeros(2, 2)}
    torch.save(state_dict, tmp_path / "vgg19.pth")
    loaded = load_features(tmp_path / "vgg19.pth")
    assert not loaded.normalise
    assert loaded.weights == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1]
    torch.testing.assert_close(loaded(image), made(image), rtol=0, atol=0)
    sizes = [(64, 64, 80), (128, 32, 40), (256, 16, 20), (512, 8, 10), (512, 4, 5)]
    assert [f.shape[1:] for f in made(image)] == sizes


def test_files_may_end_where_the_layers_do(tmp_path: Path) -> None:
    """Small files of VGG-19 without the layers behind conv5_1 serve as they did."""
    whole = _vgg(VGGS["VGG-19"][0])
    part = {k: v for k, v in whole.items() if not k.startswith(("features.3", "classifier"))}
    save_file(part, tmp_path / "part.safetensors")
    assert load_features(tmp_path / "part.safetensors").layers[-1] == "relu5_1"
    with pytest.raises(BlurkitError, match=r"not a whole VGG-19: features\.30\.weight is missing"):
        load_features(tmp_path / "part.safetensors", (PRE_ACTIVATION,))


def test_losses_before_the_activation_see_what_it_hides() -> None:
    """Where the ReLU is closed, features before it still have gradients."""
    backbone = FeatureNetwork(BACKBONES[1], (PRE_ACTIVATION, "relu3_2"))
    with torch.no_grad():
        backbone.features[12].bias.fill_(-100)
    image = torch.rand(1, 3, 16, 16).requires_grad_()
    before, after = backbone(image)
    assert not after.any()
    before.square().sum().backward()
    assert image.grad.abs().max() > 0


def _torchvision(convolutions: dict[int, tuple[int, int, int]]) -> dict[str, Tensor]:
    """A file's tensors: index in `features` to (in, out, kernel), and a classifier."""
    generator = torch.Generator().manual_seed(0)
    state_dict = {"classifier.6.weight": torch.zeros(2, 2)}
    for index, (narrow, wide, side) in convolutions.items():
        weight = torch.randn(wide, narrow, side, side, generator=generator)
        state_dict[f"features.{index}.weight"] = weight / (narrow * side * side) ** 0.5
        state_dict[f"features.{index}.bias"] = torch.randn(wide, generator=generator) / 10
    return state_dict


# torchvision's `features` of AlexNet, VGG-19 and VGG-16.
ALEXNET = {
    **{0: (3, 64, 11), 3: (64, 192, 5), 6: (192, 384, 3), 8: (384, 256, 3), 10: (256, 256, 3)}
}
Blocks = tuple[tuple[int, ...], ...]
VGGS: dict[str, tuple[Blocks, dict[str, int]]] = {
    "VGG-19": (
        ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34)),
        {"relu5_1": 28, "relu5_4": 34},
    ),
    "VGG-16": (
        ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28)),
        {"relu1_2": 2, "relu2_2": 7, "relu3_3": 14, "relu4_3": 21, "relu5_3": 28},
    ),
}
"""By name, the convolutions of each block, and the convolutions before some layers."""


def _vgg(blocks: Blocks) -> dict[str, Tensor]:
    """The same of a VGG, whose blocks have 64, 128, 256 and twice 512 channels."""
    convolutions, narrow = {}, 3
    for block, wide in zip(blocks, (64, 128, 256, 512, 512), strict=True):
        for index in block:
            convolutions[index], narrow = (narrow, wide, 3), wide
    return _torchvision(convolutions)


@pytest.mark.parametrize("name", VGGS)
def test_other_vggs_follow_their_files(name: str, tmp_path: Path, image: Tensor) -> None:
    """All of their layers after the ReLU, and the last one before it too."""
    blocks, layers = VGGS[name]
    w = _vgg(blocks)
    torch.save(w, tmp_path / "vgg.pth")
    backbone = load_features(tmp_path / "vgg.pth", (PRE_ACTIVATION, *layers))
    assert (backbone.name, backbone.layers) == (name, (PRE_ACTIVATION, *layers))
    assert backbone.weights == [1] * (1 + len(layers))
    assert backbone.normalise == (name == "VGG-16")
    x, sums = (image - MEAN) / STD if backbone.normalise else image, {}
    for block in blocks:
        x = F.max_pool2d(x, 2) if sums else x
        for i in block:
            sums[i] = convolved(w, x, i, padding=1)
            x = F.relu(sums[i])
    expected = [sums[blocks[-1][-1]], *(F.relu(sums[i]) for i in layers.values())]
    torch.testing.assert_close(backbone(image), expected, rtol=1e-4, atol=1e-5)
    assert backbone(image)[0].min() < 0


def test_alexnet_follows_its_file(tmp_path: Path, image: Tensor) -> None:
    w = _torchvision(ALEXNET)
    torch.save(w, tmp_path / "alexnet.pth")
    backbone = load_features(tmp_path / "alexnet.pth")
    assert (backbone.name, backbone.layers) == ("AlexNet", tuple(f"relu{n}" for n in range(1, 6)))
    assert backbone.weights == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]

    def conv(x: Tensor, i: int, **options: int) -> Tensor:
        return F.relu(convolved(w, x, i, **options))

    relu1 = conv((image - MEAN) / STD, 0, stride=4, padding=2)
    relu2 = conv(F.max_pool2d(relu1, 3, 2), 3, padding=2)
    relu3 = conv(F.max_pool2d(relu2, 3, 2), 6, padding=1)
    relu4 = conv(relu3, 8, padding=1)
    expected = [relu1, relu2, relu3, relu4, conv(relu4, 10, padding=1)]
    torch.testing.assert_close(backbone(image), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES, ids=lambda backbone: backbone.name)
def test_every_trunk_is_known_by_its_own_keys_only(backbone: Backbone) -> None:
    with torch.device("meta"):
        own = torch.nn.ModuleDict({"features": torch.nn.Sequential(*backbone.build())}).state_dict()
    known = [other.name for other in BACKBONES if all(key in own for key in other.keys)]
    assert known == [backbone.name]
    assert backbone.contextual in backbone.layers and set(backbone.weights) <= set(backbone.layers)
    layers = backbone.build()
    assert isinstance(layers[-1], torch.nn.ReLU)
    assert max(backbone.layers.values()) == len(layers) - 1
    assert not any(getattr(layer, "inplace", False) for layer in layers)


def test_other_vggs_are_not_taken_for_these(tmp_path: Path) -> None:
    # VGG-13, and VGG-16 with batch normalisation, share most indices with VGG-16.
    vgg13 = [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    vgg16_bn = [0, 1, 3, 4, 7, 8, 10, 11, 14, 15, 17, 18, 20, 21, 24, 25, 27, 28, 30, 31, 34]
    for indices in (vgg13, vgg16_bn):
        weights = {f"features.{i}.weight": torch.zeros(2) for i in indices}
        save_file(weights, tmp_path / "v.safetensors")
        with pytest.raises(BlurkitError, match="none of the known feature networks"):
            load_features(tmp_path / "v.safetensors")


def test_unusable_files(tmp_path: Path, vgg11: Path) -> None:
    (tmp_path / "text.pth").write_text("not weights")
    with pytest.raises(BlurkitError, match=r"text\.pth: is not a checkpoint"):
        load_features(tmp_path / "text.pth")
    save_file({"fc.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(BlurkitError, match="none of the known feature networks"):
        load_features(tmp_path / "other.safetensors")
    part = {key: value for key, value in load_file(vgg11).items() if key != "features.4.bias"}
    save_file(part, tmp_path / "part.safetensors")
    with pytest.raises(BlurkitError, match=r"features\.4\.bias is missing"):
        load_features(tmp_path / "part.safetensors")
    with pytest.raises(BlurkitError, match="no layer 'relu9_9'; it has relu1_1"):
        load_features(vgg11, layers=("relu9_9",))


def test_finding_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    with pytest.raises(BlurkitError, match=r"--features FILE or BLURKIT_FEATURES$"):
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


def test_a_trunk_for_losses(vgg11: Path) -> None:
    assert feature_network("none", str(vgg11)) is None
    for layers, found in (((), ("relu1_1", "relu2_1", "relu3_1", "relu3_2")), (("relu2_1",),) * 2):
        assert feature_network("auto", str(vgg11), layers=layers).layers == found
    only = feature_network("auto", str(vgg11), layers=(PRE_ACTIVATION,))
    assert only.layers == (PRE_ACTIVATION,)


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file:// address that leads nowhere fails as an unreachable host does, at once.
    monkeypatch.setattr("blurkit.nn.features.VGG19_URL", (tmp_path / "no.pth").as_uri())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("BLURKIT_FEATURES", raising=False)
    with pytest.raises(BlurkitError, match=r"no\.pth: .*--features FILE"):
        find_features(download=True)
    with pytest.raises(BlurkitError, match=r"no\.pth: .*train without it: --perceptual none"):
        feature_network("features", "")
