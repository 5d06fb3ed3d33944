"""LPIPS: the official package's numbers on the same weights, and files of other things."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import load_file, save_file

from blurkit.errors import BlurkitError
from blurkit.metrics.lpips import Lpips, load_lpips
from tests.metrics.oracle import noisy, pairs, synthetic_backbone, synthetic_digest
from tests.shared import shared_folder, vgg11

NETS = {
    "alex": ("AlexNet", "alexnet", 101),
    "vgg": ("VGG-16", "vgg16", 102),
    "squeeze": ("SqueezeNet 1.1", "squeezenet1_1", 103),
}


@pytest.fixture(scope="module")
def heads() -> Path:
    return shared_folder("weights", "BLURKIT_WEIGHTS") / "lpips_v0.1_linear_heads.safetensors"


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic backbones, with a classifier as torchvision's files have one."""
    folder = tmp_path_factory.mktemp("trunks")
    for net, (name, key, seed) in NETS.items():
        weights = synthetic_backbone(name, seed)
        values = b"".join(array.tobytes() for array in weights.values())
        assert hashlib.sha256(values).hexdigest() == synthetic_digest(key)
        state = {key: torch.from_numpy(array) for key, array in weights.items()}
        torch.save({**state, "classifier.1.weight": torch.zeros(2, 2)}, folder / f"{net}.pth")
    return folder


@pytest.mark.parametrize("net", NETS)
def test_reference_pairs(net: str, backbones: Path, heads: Path) -> None:
    lpips = load_lpips(backbones / f"{net}.pth", heads)
    assert NETS[net][0] in lpips.protocol
    for name, (test, ref, expected) in pairs().items():
        assert lpips(test, ref) == pytest.approx(expected[f"lpips_{net}_synth"], rel=1e-4), name


@pytest.fixture(scope="module")
def alex(backbones: Path, heads: Path) -> Lpips:
    return load_lpips(backbones / "alex.pth", heads)


def test_depth_and_color_make_no_difference(alex: Lpips) -> None:
    photo = skimage.data.camera()[:80, :96, None]
    expected = alex(noisy(photo), photo)
    assert expected > 0
    for change in (
        lambda image: np.repeat(image, 3, axis=2),
        lambda image: image.astype(np.uint16) * 257,
        lambda image: np.float32(image) / 255,
    ):
        assert alex(change(noisy(photo)), change(photo)) == pytest.approx(expected, rel=1e-4)


def test_images_it_cannot_take(alex: Lpips) -> None:
    small = skimage.data.astronaut()[:30, :40]
    with pytest.raises(BlurkitError, match="AlexNet cannot process 40x30 pixels"):
        alex(small, small)
    with pytest.raises(BlurkitError, match="sizes differ"):
        alex(small, small[1:])


def heads_of(net: str, heads: Path) -> dict[str, torch.Tensor]:
    """What the official file of one backbone's heads holds."""
    tensors = load_file(heads).items()
    return {key.removeprefix(f"{net}."): v for key, v in tensors if key.startswith(f"{net}.")}


def test_official_files_of_heads(
    alex: Lpips, backbones: Path, heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is named, and that of the installed package, of which nothing is imported."""
    folder = tmp_path / "lpips/weights/v0.1"
    folder.mkdir(parents=True)
    (tmp_path / "lpips/__init__.py").write_text("raise AssertionError")
    torch.save(heads_of("alex", heads), folder / "alex.pth")
    photo = skimage.data.astronaut()[:64, :64]
    expected = alex(noisy(photo), photo)
    named = load_lpips(backbones / "alex.pth", folder / "alex.pth")
    assert named(noisy(photo), photo) == expected
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("BLURKIT_LPIPS_HEADS", raising=False)
    assert load_lpips(backbones / "alex.pth")(noisy(photo), photo) == expected


def test_unusable_files(
    backbones: Path, heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blurkit.metrics.lpips.find_spec", lambda name: None)
    for variable in ("BLURKIT_LPIPS", "BLURKIT_LPIPS_HEADS"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(BlurkitError, match="give --lpips FILE or set BLURKIT_LPIPS"):
        load_lpips()
    with pytest.raises(BlurkitError, match="give --lpips-heads FILE or set BLURKIT_LPIPS_HEADS"):
        load_lpips(backbones / "alex.pth")
    with pytest.raises(BlurkitError, match=r"none\.pth: no such file .from --lpips-heads"):
        load_lpips(backbones / "alex.pth", tmp_path / "none.pth")
    with pytest.raises(BlurkitError, match=r"vgg\.pth: not the LPIPS heads for AlexNet: lin0"):
        load_lpips(backbones / "alex.pth", backbones / "vgg.pth")
    save_file(heads_of("vgg", heads), tmp_path / "vgg.safetensors")
    with pytest.raises(BlurkitError, match=r"for AlexNet: lin1\.model\.1\.weight is missing or"):
        load_lpips(backbones / "alex.pth", tmp_path / "vgg.safetensors")
    small = vgg11()
    with pytest.raises(BlurkitError, match=r"LPIPS accepts AlexNet, VGG-16, .*this is VGG-11"):
        load_lpips(small, heads)
    monkeypatch.setenv("BLURKIT_LPIPS", str(backbones / "alex.pth"))
    monkeypatch.setenv("BLURKIT_LPIPS_HEADS", str(heads))
    assert "AlexNet" in load_lpips().protocol
