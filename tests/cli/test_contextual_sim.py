"""`blurkit contextual-sim`: on images, folders, shards and pipes, and the decoupling experiment."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.systems.msdi.networks import DegradationEncoder, JointGenerator, PriorUpsampling
from blurkit.tasks.decoupling import PAPER
from tests.cli.command import assert_failed, assert_refused, files, records
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.engine.networks import stored
from tests.shared import vgg11


@pytest.fixture(autouse=True)
def features(monkeypatch: pytest.MonkeyPatch) -> Path:
    path = vgg11()
    monkeypatch.setenv("BLURKIT_FEATURES", str(path))
    return path


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of the joint stage whose reblurred image is the sharp one: G_r adds nothing."""
    torch.manual_seed(0)
    generator = JointGenerator(4, 6)
    torch.nn.init.zeros_(generator.last.weight)
    torch.nn.init.zeros_(generator.last.bias)
    parts = {"encoder": DegradationEncoder(1, 4), "latents": PriorUpsampling(1, 4)}
    path = tmp_path_factory.mktemp("still") / "enc.pt"
    return stored(path, {**parts, "reblur": generator}, crop=64)


@pytest.fixture
def two_images() -> tuple[Path, Path]:
    sharp = photo(1)
    return write("blurry.png", blurred(sharp)), write("sharp.png", sharp)


def distance(x: np.ndarray, y: np.ndarray, **options: Any) -> Any:
    """About that of x from y by the call from Python."""
    return pytest.approx(blurkit.contextual_similarity(x, y, **options).distance, rel=1e-4)


def test_two_images(two_images: tuple[Path, Path], features: Path) -> None:
    ran = done("contextual-sim", *two_images, "--features", features, "--json")
    row, last = ran.json
    assert row["name"] == "blurry" and row["positions"] == [12 * 16, 12 * 16]
    assert row["distance"] == distance(*map(imageio.imread, two_images))
    assert last["total"] == {k: row[k] for k in ("distance", "similarity")} | {"images": 1}
    told = last["protocol"]
    assert "VGG-11" in told["features"] and "relu3_2" in told["features"]
    assert (told["bandwidth"], told["distance"], told["pixels"]) == ("1", "cosine", "whole image")
    for words in ("blurry", "mean of 1", "bandwidth: 1", "smaller is more similar"):
        assert words in ran.err.replace("\n", " ")


def test_images_of_two_sizes_and_options() -> None:
    small, large = photo(1, 40, 40), photo(1, 80, 96)
    pair = write("small.png", small), write("large.png", large)
    row, _ = done("contextual-sim", *pair, "--json", "-q").json
    assert row["positions"] == [100, 20 * 24] and row["distance"] == distance(small, large)
    options = ("--crop", 32, "--layer", "relu2_1", "--bandwidth", 0.5, "--distance", "l2")
    row, last = done("contextual-sim", *pair, *options, "--json", "-q").json
    given = {"layers": ["relu2_1"], "bandwidth": 0.5, "distance": "l2"}
    assert row["distance"] == distance(small[4:36, 4:36], large[24:56, 32:64], **given)
    assert last["protocol"]["pixels"] == "central 32x32"
    assert "relu2_1" in last["protocol"]["features"]


def test_folders_are_paired_by_name() -> None:
    for number in range(3):
        write(f"x/in/{number}.png", blurred(photo(number)))
        write(f"y/in/{number}.bmp", photo(number))
    command = ["contextual-sim", Path("x"), Path("y"), "--json", "-q"]
    ran = done(*command)
    assert ran.err == ""
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["in/0", "in/1", "in/2"]
    for number, row in enumerate(rows):
        assert row["distance"] == distance(blurred(photo(number)), photo(number))
    assert last["total"]["distance"] == pytest.approx(np.mean([row["distance"] for row in rows]))
    part, _ = done(*command, "--part", "2/3").json
    assert part["name"] == "in/1"


def test_trees_shards_and_streams_agree_and_images_can_be_named(tree: Path, shard: Path) -> None:
    command = ["contextual-sim", "--json", "-q"]
    ran = done(*command, tree)
    assert len(ran.json) == 5
    assert done(*command, shard).out == done(*command, "-", input=shard.read_bytes()).out == ran.out
    *rows, last = done(*command, shard, "--images", "sharp", "blur").json
    for row, record in zip(rows, records(shard), strict=True):
        assert row["distance"] == distance(record.images["sharp"], record.images["blur"])
    assert (last["protocol"]["X"], last["protocol"]["Y"]) == ("sharp", "blur")


def test_decoupling_with_a_network_that_adds_nothing(shard: Path, still: Path) -> None:
    options = ("--decoupling", "-c", still, "--precision", "fp32", "--pictures", "pictures")
    ran = done("contextual-sim", shard, *options, "--json")
    *rows, last = ran.json
    held = records(shard)
    for row, a, b in zip(rows, held[:2], held[2:], strict=True):
        assert (row["a"], row["b"], row["positions"]) == (a.name, b.name, 12 * 16)
        assert row["reblurred_same"] == pytest.approx(0, abs=2e-3)
        assert row["reblurred_other"] == distance(a.images["sharp"], b.images["sharp"])
        picture = imageio.imread(f"pictures/{a.name}.png")
        shown = [picture[:, 72 * n : 72 * n + 64] for n in range(4)]
        wanted = [*map(a.images.get, ("sharp", "blur")), b.images["blur"], a.images["sharp"]]
        np.testing.assert_array_equal(shown, wanted)
    for key in PAPER:
        values = [row[key] for row in rows]
        assert last["total"][key] == pytest.approx(np.mean(values))
        assert last["total"][f"{key}_std"] == pytest.approx(np.std(values, ddof=1))
    assert last["total"]["pairs"] == 2 and last["paper"]["reblurred_same"] == 2.65
    assert last["protocol"]["pairs"] == "halves"
    for words in ("2.7200", "5.3900", "mean of 2", "standard deviation", "times as far"):
        assert words in ran.err, ran.err
    assert_failed(invoke("contextual-sim", shard, *options, "-q"), "scene0/0", "--force")


def test_decoupling_from_a_stream_in_parts(shard: Path, still: Path) -> None:
    options = ("--decoupling", "-c", still, "--crop", 32, "--json", "-q")
    options += ("--pairing", "shuffled", "--seed", 3)
    *rows, last = done("contextual-sim", shard, *options).json
    Path("net2of2.pt").write_bytes(still.read_bytes())
    own = *options, "-c", "net{part}.pt", "--part", "2/2"
    stream = done("contextual-sim", "-", *own, input=shard.read_bytes())
    assert stream.json[0] == rows[1] and rows[0]["positions"] == 64
    assert last["protocol"]["pairs"] == "shuffled, seed 3"
    assert last["protocol"]["pixels"] == "central 32x32"


def test_bad_images(two_images: tuple[Path, Path], shard: Path) -> None:
    assert_failed(invoke("contextual-sim", two_images[0], "-q"), "blurry", "sharp is needed")
    lacking = invoke("contextual-sim", shard, "--images", "restored", "sharp", "-q")
    assert_failed(lacking, "scene0/0", "restored is needed")
    speck = write("speck.png", photo(1, 2, 2))
    assert_failed(invoke("contextual-sim", speck, speck, "-q"), "speck", "cannot process an image")


def test_wrong_options(two_images: tuple[Path, Path], shard: Path, still: Path) -> None:
    alone = stored(Path("alone.pt"), {"encoder": DegradationEncoder(1, 4)}, crop=64)
    network = ("--decoupling", "-c", still)
    wrong = {
        (*two_images, "--bandwidth", 0): "--bandwidth 0",
        (*two_images, "--bandwidth", "nan"): "--bandwidth nan",
        (*two_images, "-c", still): "require --decoupling",
        (shard, *network, "--images", "a", "b"): "--images",
        ("-", "--decoupling", "-c", "-"): "standard input",
    }
    assert_each_refused(wrong, "contextual-sim")
    bad = {
        (two_images[0], Path("no.png")): "no.png",
        (*two_images, "--layer", "conv9"): "relu1_1, relu2_1",
        (*two_images, "--features", "no.pth"): "no.pth: no such file (from --features)",
        (two_images[0], *network): "pairs of two records; 1 found",
        (shard, "--decoupling", "-c", alone): "reblurring needs",
    }
    assert_each_refused(bad, "contextual-sim", status=1)
    assert files().keys() == {"blurry.png", "sharp.png", "alone.pt"}


def test_without_features(two_images: tuple[Path, Path], no_features: None) -> None:
    ran = invoke("contextual-sim", *two_images)
    assert_refused(ran, "--features FILE", "BLURKIT_FEATURES", "--download")
