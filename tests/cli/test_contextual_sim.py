"""`blurkit contextual-sim`: on images, folders, shards and pipes, and the decoupling experiment."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
from blurkit.systems.msdi.networks import DegradationEncoder, JointGenerator, PriorUpsampling
from blurkit.tasks.decoupling import PAPER
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    records,
    run,
    shell,
    write,
)
from tests.cli.invoke import invoke
from tests.shared import shared_folder


@pytest.fixture(scope="session")
def vgg11() -> Path:
    return shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"


@pytest.fixture(autouse=True)
def features(vgg11: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLURKIT_FEATURES", str(vgg11))


@pytest.fixture(scope="session")
def measure(vgg11: Path) -> ContextualSimilarity:
    return ContextualSimilarity(contextual_network(vgg11))


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of the joint stage whose reblurred image is the sharp one: G_r adds nothing."""
    torch.manual_seed(0)
    encoder, latents, generator = DegradationEncoder(1, 4), PriorUpsampling(1, 4), None
    generator = JointGenerator(4, 6)
    torch.nn.init.zeros_(generator.last.weight)
    torch.nn.init.zeros_(generator.last.bias)
    networks = {"encoder": encoder, "latents": latents, "reblur": generator}
    states = {
        role: {key: value.clone() for key, value in network.state_dict().items()}
        for role, network in networks.items()
    }
    path = tmp_path_factory.mktemp("still") / "enc.pt"
    save_checkpoint(Checkpoint(states, "msdi", {"crop": 64}), path)
    return path


@pytest.fixture
def two_images(tmp_path: Path) -> tuple[Path, Path]:
    sharp = photo(1)
    return write(tmp_path / "blurry.png", blurred(sharp)), write(tmp_path / "sharp.png", sharp)


# -- images ----------------------------------------------------------------------------------------


def test_two_images(
    two_images: tuple[Path, Path], measure: ContextualSimilarity, vgg11: Path
) -> None:
    ran = run("contextual-sim", *two_images, "--features", vgg11, "--json")
    assert_done(ran)
    row, last = ran.json
    expected = measure(*map(imageio.imread, two_images))
    assert row["name"] == "blurry"
    assert row["distance"] == pytest.approx(expected.distance, rel=1e-4)
    assert row["similarity"] == pytest.approx(expected.similarity, rel=1e-4)
    assert row["positions"] == [12 * 16, 12 * 16]
    assert last["total"] == {k: row[k] for k in ("distance", "similarity")} | {"images": 1}
    told = last["protocol"]
    assert "VGG-11" in told["features"] and "relu3_2" in told["features"]
    assert (told["bandwidth"], told["distance"], told["pixels"]) == ("1", "cosine", "whole image")
    assert "smaller is more similar" in told["values"]
    for words in ("blurry", "mean of 1", "bandwidth: 1", "smaller is more similar"):
        assert words in ran.err.replace("\n", " ")


def test_images_of_two_sizes_and_options(
    tmp_path: Path, vgg11: Path, measure: ContextualSimilarity
) -> None:
    small, large = photo(1, 40, 40), photo(1, 80, 96)
    pair = write(tmp_path / "small.png", small), write(tmp_path / "large.png", large)
    (row, _) = invoke("contextual-sim", *pair, "--json", "-q").json
    assert row["positions"] == [100, 20 * 24]
    assert row["distance"] == pytest.approx(measure(small, large).distance, rel=1e-4)
    options = ("--crop", 32, "--layer", "relu2_1", "--bandwidth", 0.5, "--distance", "l2")
    row, last = invoke("contextual-sim", *pair, *options, "--json", "-q").json
    network = contextual_network(vgg11, ["relu2_1"])
    expected = ContextualSimilarity(network, 0.5, "l2")(small[4:36, 4:36], large[24:56, 32:64])
    assert row["distance"] == pytest.approx(expected.distance, rel=1e-4)
    assert last["protocol"]["pixels"] == "central 32x32"
    assert "relu2_1" in last["protocol"]["features"]


def test_folders_are_paired_by_name(tmp_path: Path, measure: ContextualSimilarity) -> None:
    for number in range(3):
        write(tmp_path / f"x/in/{number}.png", blurred(photo(number)))
        write(tmp_path / f"y/in/{number}.bmp", photo(number))
    ran = invoke("contextual-sim", tmp_path / "x", tmp_path / "y", "--json", "-q")
    assert_done(ran)
    assert ran.err == ""
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["in/0", "in/1", "in/2"]
    for number, row in enumerate(rows):
        expected = measure(blurred(photo(number)), photo(number)).distance
        assert row["distance"] == pytest.approx(expected, rel=1e-4)
    mean = np.mean([row["distance"] for row in rows])
    assert last["total"]["distance"] == pytest.approx(mean)
    half = invoke("contextual-sim", tmp_path / "x", tmp_path / "y", "--part", "2/3", "--json", "-q")
    assert [row["name"] for row in half.json[:-1]] == ["in/1"]


def test_trees_shards_and_pipes_agree(tree: Path, shard: Path, vgg11: Path, tmp_path: Path) -> None:
    from_tree = invoke("contextual-sim", tree, "--json", "-q")
    assert_done(from_tree)
    assert len(from_tree.json) == 5
    assert invoke("contextual-sim", shard, "--json", "-q").json == from_tree.json
    piped = shell(f"blurkit contextual-sim - --features {vgg11} --json -q < {shard}", tmp_path)
    assert_done(piped)
    for ours, theirs in zip(piped.json[:-1], from_tree.json[:-1], strict=True):
        assert ours["distance"] == pytest.approx(theirs["distance"], rel=1e-4)


def test_the_images_to_compare_can_be_named(shard: Path, measure: ContextualSimilarity) -> None:
    *rows, last = invoke("contextual-sim", shard, "--images", "sharp", "blur", "--json", "-q").json
    for row, record in zip(rows, records(shard), strict=True):
        expected = measure(record.images["sharp"], record.images["blur"]).distance
        assert row["distance"] == pytest.approx(expected, rel=1e-4)
    assert (last["protocol"]["X"], last["protocol"]["Y"]) == ("sharp", "blur")


# -- decoupling ------------------------------------------------------------------------------------


def test_decoupling_with_a_network_that_adds_nothing(
    shard: Path, still: Path, measure: ContextualSimilarity, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    options = ("--decoupling", "-c", still, "--precision", "fp32", "--pictures", folder)
    ran = invoke("contextual-sim", shard, *options, "--json")
    assert_done(ran)
    *rows, last = ran.json
    held = records(shard)
    pairs = [(held[0], held[2]), (held[1], held[3])]
    for row, (a, b) in zip(rows, pairs, strict=True):
        assert (row["a"], row["b"]) == (a.name, b.name)
        sharp, blur, other = a.images["sharp"], a.images["blur"], b.images["sharp"]
        expected = [measure(x, y).distance for y in (sharp, other) for x in (blur, sharp)]
        assert [row[key] for key in PAPER] == pytest.approx(expected, abs=2e-3)
        assert row["positions"] == 12 * 16
        picture = imageio.imread(folder / f"{a.name}.png")
        shown = [picture[:, 72 * n : 72 * n + 64] for n in range(4)]
        for image, wanted in zip(shown, (sharp, blur, b.images["blur"], sharp), strict=True):
            np.testing.assert_array_equal(image, wanted)
    for key in PAPER:
        values = [row[key] for row in rows]
        assert last["total"][key] == pytest.approx(np.mean(values))
        assert last["total"][f"{key}_std"] == pytest.approx(np.std(values, ddof=1))
    assert last["total"]["pairs"] == 2
    assert last["paper"]["reblurred_same"] == 2.65
    assert last["protocol"]["pairs"] == "halves"
    for words in ("2.7200", "5.3900", "mean of 2", "standard deviation", "times as far"):
        assert words in ran.err, ran.err
    again = invoke("contextual-sim", shard, *options, "-q")
    assert_failed(again, "scene0/0", "--force")


def test_decoupling_from_a_pipe_in_parts(
    shard: Path, still: Path, vgg11: Path, tmp_path: Path
) -> None:
    options: tuple[object, ...]
    options = ("--decoupling", "-c", still, "--crop", 32, "--pairing", "shuffled", "--json", "-q")
    *rows, last = invoke("contextual-sim", shard, *options, "--seed", 3).json
    options += ("--features", vgg11, "--seed", 3, "--part", "2/2")
    command = ["contextual-sim", "-", *options]
    piped = shell(f"blurkit {' '.join(map(str, command))} < {shard}", tmp_path)
    assert_done(piped)
    assert piped.json[0]["a"] == rows[1]["a"]
    assert piped.json[0]["blurred_other"] == pytest.approx(rows[1]["blurred_other"], rel=1e-3)
    assert rows[0]["positions"] == 64
    assert last["protocol"]["pairs"] == "shuffled, seed 3"
    assert last["protocol"]["pixels"] == "central 32x32"


# -- bad input -------------------------------------------------------------------------------------


def test_bad_images(two_images: tuple[Path, Path], tmp_path: Path, shard: Path) -> None:
    assert_failed(invoke("contextual-sim", two_images[0], "-q"), "blurry", "sharp is needed")
    assert_refused(invoke("contextual-sim", two_images[0], tmp_path / "no.png", "-q"), "no.png")
    lacking = invoke("contextual-sim", shard, "--images", "restored", "sharp", "-q")
    assert_failed(lacking, "scene0/0", "restored is needed")
    speck = write(tmp_path / "speck.png", photo(1, 2, 2))
    assert_failed(invoke("contextual-sim", speck, speck, "-q"), "speck", "cannot process an image")


def test_wrong_options(
    two_images: tuple[Path, Path], shard: Path, still: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def refused(*arguments: object, words: tuple[str, ...], status: int = 2) -> None:
        assert_refused(invoke("contextual-sim", *arguments), *words, status=status)

    refused(*two_images, "--layer", "conv9", words=("conv9", "relu1_1, relu2_1"), status=1)
    refused(*two_images, "--bandwidth", 0, words=("--bandwidth 0",))
    refused(*two_images, "--bandwidth", "nan", words=("--bandwidth nan",))
    refused(*two_images, "--features", "no.pth", words=("no.pth", "--features"), status=1)
    refused(*two_images, "-c", still, words=("require --decoupling",))
    refused(shard, "--decoupling", "-c", still, "--images", "a", "b", words=("--images",))
    refused("-", "--decoupling", "-c", "-", words=("standard input",))
    refused(two_images[0], "--decoupling", "-c", still, words=("pairs of two", "1 found"), status=1)
    alone = save_encoder(tmp_path / "alone.pt")
    refused(shard, "--decoupling", "-c", alone, words=("alone.pt", "reblurring needs"), status=1)
    assert files(tmp_path).keys() == {"blurry.png", "sharp.png", "alone.pt"}


def save_encoder(path: Path) -> Path:
    state = {key: value.clone() for key, value in DegradationEncoder(1, 4).state_dict().items()}
    save_checkpoint(Checkpoint({"encoder": state}, "msdi", {}), path)
    return path


def test_without_a_feature_network(
    two_images: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BLURKIT_FEATURES")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    ran = invoke("contextual-sim", *two_images)
    assert_refused(ran, "--features FILE", "BLURKIT_FEATURES", "--download")
