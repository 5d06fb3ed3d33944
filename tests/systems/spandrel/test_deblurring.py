"""Networks of other projects: `deblur` gives what they give when spandrel runs them."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
import torch

import blurkit
from blurkit.engine.engine import starts
from blurkit.errors import BlurkitError
from blurkit.systems import from_state_dict
from blurkit.systems.registry import describe
from blurkit.systems.spandrel.inference import deblurring
from tests.cli.command import Ran, assert_refused, records
from tests.cli.invoke import done, invoke
from tests.cli.pictures import plant_tree
from tests.cli.pictures import write as write_image
from tests.systems.spandrel.networks import (
    FULL,
    NETWORKS,
    OTHER_PURPOSES,
    RESTORING,
    by_spandrel,
    loaded,
    write,
)

TILE, OVERLAP = 128, 32
HALF = 0.51
"""Results are rounded to 8 bits."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("networks")
    return {name: write(name, folder) for name in NETWORKS}


def cut(height: int, width: int) -> np.ndarray:
    """A photo of this size, mirrored where it must be larger than the photo there is."""
    photo = skimage.data.coffee()
    below, right = max(height - photo.shape[0], 0), max(width - photo.shape[1], 0)
    return np.pad(photo, ((0, below), (0, right), (0, 0)), "reflect")[:height, :width]


def deblurred(photo: np.ndarray, folder: Path, *options: object) -> np.ndarray:
    given, made = write_image(folder / "photo.png", photo), folder / "restored.png"
    ran = invoke("deblur", given, "-o", made, "--precision", "fp32", "--force", "-q", *options)
    assert (ran.status, ran.err) == (0, "")
    return np.asarray(imageio.imread(made), dtype=float)


def check_whole(network: Path, photo: np.ndarray, folder: Path) -> None:
    """Run in one piece, each pixel is the one that spandrel gives."""
    result = deblurred(photo, folder, "-c", network, "--protocol", "whole")
    assert result.shape == photo.shape
    assert np.abs(result - photo).mean() > 1
    assert np.abs(result - by_spandrel(network, photo)).max() < HALF


def check_tiles(network: Path, photo: np.ndarray, folder: Path) -> None:
    """Where one tile is alone, its pixels are spandrel's; at seams they are between the tiles'."""
    result = deblurred(photo, folder, "-c", network, "--tile", TILE, "--overlap", OVERLAP)
    multiple = loaded(network).size_requirements.multiple_of
    below, right = (-side % multiple for side in photo.shape[:2])
    padded = np.pad(photo, ((0, below), (0, right), (0, 0)), "reflect")
    least, most = np.full(padded.shape, np.inf), np.full(padded.shape, -np.inf)
    for top in starts(padded.shape[0], TILE, OVERLAP):
        for left in starts(padded.shape[1], TILE, OVERLAP):
            place = np.s_[top : top + TILE, left : left + TILE]
            tile = by_spandrel(network, padded[place])
            least[place] = np.minimum(least[place], tile)
            most[place] = np.maximum(most[place], tile)
    shown = np.s_[: photo.shape[0], : photo.shape[1]]
    assert (least == most)[shown].mean() > 0.05
    assert (result > least[shown] - HALF).all() and (result < most[shown] + HALF).all()


@pytest.mark.parametrize("size", [(150, 170), pytest.param((720, 1280), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RESTORING)
def test_whole_and_tiled(
    name: str, size: tuple[int, int], networks: dict[str, Path], tmp_path: Path
) -> None:
    photo = cut(*size)
    check_whole(networks[name], photo, tmp_path)
    check_tiles(networks[name], photo, tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (5, 90), (40, 7)])
def test_any_size(shape: tuple[int, int], networks: dict[str, Path], tmp_path: Path) -> None:
    """Uformer takes squares of multiples of 128 pixels."""
    for protocol in ("tiles", "whole"):
        options = ("-c", networks["Uformer"], "--protocol", protocol)
        assert deblurred(cut(*shape), tmp_path, *options).shape == (*shape, 3)


def test_a_gray_network_runs_on_each_channel(networks: dict[str, Path], tmp_path: Path) -> None:
    colour = cut(60, 70)
    for photo in (colour, colour[..., 1]):
        result = deblurred(photo, tmp_path, "-c", networks["DnCNN"], "--protocol", "whole")
        result = result.reshape(*photo.shape[:2], -1)
        for channel in range(result.shape[2]):
            gray = photo.reshape(result.shape)[..., channel : channel + 1]
            expected = by_spandrel(networks["DnCNN"], gray)
            assert np.abs(result[..., channel : channel + 1] - expected).max() < HALF


def test_a_network_not_to_be_tiled_runs_whole(networks: dict[str, Path], tmp_path: Path) -> None:
    photo = write_image(tmp_path / "photo.png", cut(100, 80))
    for options, settings in (
        ((), "protocol=whole"),
        (("--tile", 64), "protocol=tiles tile=64 overlap=32"),
        (("--overlap", 8), "protocol=tiles tile=256 overlap=8"),
    ):
        made = tmp_path / "made.h5"
        ran = done("deblur", photo, "-c", networks["SwinIR"], *options, "-o", made, "--force")
        (record,) = records(made)
        assert str(record.attrs["restored_with"]).startswith(settings)
        assert ("SwinIR is meant for whole images" in ran.err) == bool(options)


def test_safetensors_and_python(networks: dict[str, Path], tmp_path: Path) -> None:
    photo = cut(64, 72)
    model = blurkit.load(write("Restormer", tmp_path, ".safetensors"), tile=128, precision="fp32")
    expected = deblurred(photo, tmp_path, "-c", networks["Restormer"], "--tile", 128)
    np.testing.assert_array_equal(model.deblur(photo), expected)


def test_info_says_what_spandrel_knows(networks: dict[str, Path]) -> None:
    (about,) = invoke("info", networks["Uformer"], "--json").json
    assert about["format"] == "of another program"
    network = about["networks"]["deblur"]
    assert network["network"] == "Uformer" and network["known_by"] == "spandrel"
    assert network["size"] == {"minimum": 1, "multiple": 128, "square": True}
    assert (network["tiling"], network["channels"]) == ("supported", [3, 3])
    assert network["licence"].startswith("permissive")
    assert network["parameters"] > 0 and network["gmacs"] > 0
    assert network["inputs"] == [[1, 3, 256, 256]]
    for name, key, value in (
        *(("SwinIR", "tiling", "discouraged"), ("Restormer", "licence", "restrictive")),
        *(("FDAT", "scale", "3"), ("ESRGAN", "refused", "ESRGAN enlarges images 4 times")),
        ("KBNet", "network", "KBNet"),  # which is like NAFNet
    ):
        (about,) = invoke("info", networks[name], "--json").json
        assert str(about["networks"]["deblur"][key]).startswith(value)


def test_eval_names_the_network(networks: dict[str, Path], tmp_path: Path) -> None:
    photo = write_image(tmp_path / "photo.png", cut(100, 80))
    sharp = write_image(tmp_path / "sharp.png", cut(100, 80)[::-1])
    command = ("eval", photo, sharp, "-c", networks["Uformer"], "--json", "-q", "--input-size")
    assert done(*command, "128x128").json[-1]["network"]["name"] == "Uformer"
    ran = invoke(*command, "256x128")
    assert ran.status == 2 and "at least 1 pixels, both equal" in ran.err


def refused(photo: Path, *options: object) -> Ran:
    return invoke("deblur", photo, "-o", photo.with_name("made.png"), "-q", *options)


def test_what_is_refused(networks: dict[str, Path], tmp_path: Path) -> None:
    photo = write_image(tmp_path / "photo.png", cut(100, 80))
    encoder = ("--encoder", networks["Restormer"])
    for name, options, words, status in (
        ("ESRGAN", (), "ESRGAN enlarges images 4 times; blurkit keeps their size", 1),
        ("Restormer", ("--precision", "fp16"), "--precision fp16: this network does not run", 2),
        ("Uformer", ("--tile", 64), "--tile 64: this network needs a multiple of 128", 2),
        ("FFTformer", ("--protocol", "local"), "--protocol local", 2),
        ("Uformer", encoder, "holds deblur (Restormer), but no enc", 1),
    ):
        assert_refused(refused(photo, "-c", networks[name], *options), words, status=status)


@pytest.mark.parametrize("name", OTHER_PURPOSES)
def test_networks_for_other_purposes_are_refused(name: str) -> None:
    make, reason = OTHER_PURPOSES[name]
    network = from_state_dict(make().state_dict())
    with pytest.raises(BlurkitError, match=f"{name} .*{reason}"):
        deblurring({"deblur": network})
    assert describe(network)["refused"].startswith(name)


def test_a_part_of_a_network_is_refused(tmp_path: Path) -> None:
    file, photo = write("FFTformer", tmp_path), write_image(tmp_path / "photo.png", cut(100, 80))
    state = torch.load(file, weights_only=True)
    del state["decoder_level1.0.norm2.body.weight"]
    torch.save(state, file)
    words = "spandrel takes it for FFTformer, but cannot load it"
    assert_refused(refused(photo, "-c", file), words)


def test_trainings_refuse_it(networks: dict[str, Path], tmp_path: Path) -> None:
    shard = tmp_path / "pairs.h5"
    done("prepare", plant_tree(tmp_path / "tree", 2), "-o", shard, "--jobs", 1, "-q")
    options = (shard, "-o", tmp_path / "net.pt", "--preset", "small", "--crop", 32, "-q")
    start = invoke("train-deblur", *options, "--system", "msfs", "--start", networks["Restormer"])
    assert_refused(start, "its deblur is another network than this training's")
    encoder = invoke("train-deblur", *options, "--encoder", networks["Restormer"])
    assert_refused(encoder, "Restormer")


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_networks_of_the_papers_sizes(name: str, tmp_path: Path) -> None:
    file = write(name, tmp_path, full=True)
    (about,) = invoke("info", file, "--json").json
    network = about["networks"]["deblur"]
    assert network["network"] == name
    assert network["parameters"] / 1e6 == pytest.approx(FULL[name][1], abs=0.06)
    check_whole(file, cut(128, 128), tmp_path)
