"""The training of the deconvolution: what it learns from, and which weights change."""

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage, signal

from blurkit.data.sources import read_records
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import to_float
from blurkit.synthesis.kernels import draw_path
from blurkit.systems.deconvolution import samples
from blurkit.systems.deconvolution.config import FULL, DeconvolutionConfiguration
from blurkit.systems.deconvolution.samples import MARGIN, DeconvolutionSamples
from blurkit.systems.system import shipped_file
from tests.cli.command import assert_done, run
from tests.tools.walls import WALL_SIDE, main

JUDGES = ("judge.", "draft_judge.")
"""How the names of weights begin that predict errors."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of a sharp photo to train on, a pair, and a photo to validate with."""
    folder = tmp_path_factory.mktemp("data")
    pictures = {"train": skimage.data.astronaut(), "test": skimage.data.coffee()}
    for name, image in pictures.items():
        path = folder / name / "photo.png"
        path.parent.mkdir()
        imageio.imwrite(path, image)
        shard = folder / f"shards/{name}-photo.h5"
        assert_done(run("prepare", path.parent, "--as", "sharp", "-q", "-o", shard))
    kind = ["--synthesize", "objects", "--kernel-size", "5", "9", "-q"]
    assert_done(run("prepare", folder / "train", *kind, "-o", folder / "shards/train-pair.h5"))
    return folder / "shards"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo" / "coffee.png"
    path.parent.mkdir()
    imageio.imwrite(path, skimage.data.coffee()[:256, 100:356])
    return path


def repetition(image: np.ndarray) -> float:
    """How alike an image (H, W) and a copy shifted by 8 to 110 pixels are, at the best shift."""
    detail = image - ndimage.gaussian_filter(image, 3)
    products = signal.fftconvolve(detail, detail[::-1, ::-1], mode="same") / np.square(detail).sum()
    rows, columns = np.indices(image.shape)
    far = np.hypot(rows - image.shape[0] // 2, columns - image.shape[1] // 2)
    return float(products[(far >= 8) & (far <= 110)].max())


def made(photos: Path, output: Path, count: int, seed: int = 0) -> list[np.ndarray]:
    """The walls that the command makes, (H, W, 3) in [0, 1]."""
    options = ["--count", str(count), "--seed", str(seed)]
    assert main([str(photos), "-o", str(output), *options]) == 0
    return [to_float(record.image("sharp")) for record in read_records([output], image="sharp")]


def test_walls_repeat_a_piece_of_a_photo(photo: Path, tmp_path: Path) -> None:
    pictures = made(photo.parent, tmp_path / "walls.h5", 6)
    assert [picture.shape for picture in pictures] == [(WALL_SIDE, WALL_SIDE, 3)] * 6
    found = [repetition(picture.mean(2)) for picture in pictures]
    assert min(found) > 4 * repetition(to_float(imageio.imread(photo)).mean(2))


def test_walls_depend_on_the_seed_alone(photo: Path, tmp_path: Path) -> None:
    first, again, other = (
        made(photo, tmp_path / f"{number}.h5", 2, seed) for number, seed in enumerate((1, 1, 2))
    )
    assert np.array_equal(first, again)
    assert not any(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_a_folder_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "-o", str(tmp_path / "out.h5")]) == 1
    assert str(tmp_path) in capsys.readouterr().err


def drawn(shards: Path, pairs: bool = True, **options: int) -> DeconvolutionSamples:
    files = [shards / f"train-{name}.h5" for name in ("photo", *(["pair"] if pairs else []))]
    return DeconvolutionSamples(files, DeconvolutionConfiguration(seed=1, crop=64, **options))


def test_a_sample_depends_on_its_step_and_number_alone(shards: Path) -> None:
    made = drawn(shards, batch=6)
    whole, part = made.load(5, slice(0, 6)), made.load(5, slice(1, 4))
    assert all(np.array_equal(whole[name][1:4], part[name]) for name in whole)
    assert not np.array_equal(whole["blur"], made.load(6, slice(0, 6))["blur"])


def test_weights_of_drawn_photos_have_a_mean_of_one(shards: Path) -> None:
    loaded = drawn(shards, batch=8).load(0, slice(0, 8))
    pairs = loaded["drawn"] == 0
    assert 0 < pairs.sum() < 8 and loaded["drawn"].mean() == pytest.approx(1)
    assert (loaded["kernel"][pairs][:, FULL // 2, FULL // 2] == 1).all()  # nobody knows theirs
    assert loaded["kernel"].sum((1, 2)) == pytest.approx(1, abs=1e-5)
    assert (drawn(shards, pairs=False, batch=8).load(0, slice(0, 8))["drawn"] == 1).all()


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two kernels are, slightly smoothed, where they agree best, up to 1."""
    a, b = (ndimage.gaussian_filter(kernel, 1) for kernel in (a, b))
    most = signal.fftconvolve(a, b[::-1, ::-1]).max()
    return float(most / np.sqrt((a**2).sum() * (b**2).sum()))


def test_blur_that_turns_is_everywhere_that_of_its_place() -> None:
    rng, found = np.random.default_rng(4), []
    while len(found) < 5:
        kernel, everywhere = samples.drawn_kernels(rng)
        if everywhere.dim() > 2 and alike(kernel.numpy(), everywhere[0, 0].numpy()) < 0.9:
            found.append((kernel, everywhere))
    side, reach = 2 * MARGIN + 201, MARGIN - 1
    for kernel, everywhere in found:
        for row, column, true in (
            (side // 2, side // 2, kernel),
            (MARGIN, MARGIN, everywhere[0, 0]),
            (side - MARGIN, side // 2, everywhere[-1, samples.GRID // 2]),
        ):
            light = torch.zeros(3, side, side)
            light[:, row, column] = 1
            seen = samples.taken(light, everywhere)[0].numpy()
            place = seen[row - reach : row + reach + 1, column - reach : column + reach + 1]
            assert place.sum() == pytest.approx(1, abs=0.02)
            assert alike(place, true.numpy()) > (0.97 if true is kernel else 0.8)


def test_some_cameras_rest_on_their_path() -> None:
    """Where it rests, a camera leaves at least that part of the light."""
    line = draw_path(samples.rested(1j * np.linspace(0, 1, 2000), 500, 0.6), 21)[:, 10]
    assert line.sum() == pytest.approx(1) and (line[6:] > 0.01).all()  # the mean is in the middle
    assert 0.6 <= line[(place := int(line.argmax())) - 1 : place + 2].sum() < 0.7
    rng = np.random.default_rng(2)
    kernels = np.stack([samples.drawn_kernels(rng)[0].numpy() for _ in range(300)])
    long = (kernels > 1e-4).any(2).sum(1) > 15  # rows that the path crosses
    spots = [ndimage.uniform_filter(kernel, 3).max() * 9 for kernel in kernels[long]]
    assert 0.08 < np.mean(np.array(spots) > 0.5) < 0.3


def test_lights_are_far_brighter_than_white_and_clipped_in_both_pictures(shards: Path) -> None:
    rng = np.random.default_rng(0)
    wide = torch.full((3, 96, 96), 0.2)
    brightest = max(float(samples.scene(rng, wide, 2.2).max()) for _ in range(40))
    assert brightest > 3
    loaded = drawn(shards, batch=16).load(3, slice(0, 16))
    assert loaded["blur"].dtype == loaded["sharp"].dtype == np.uint8


def trained(shards: Path, output: Path, *options: object) -> tuple[Checkpoint, list[dict]]:
    """The checkpoint after some steps from the weights that come with blurkit, and its log."""
    small = ["--batch", "2", "--crop", "128", "--ema", "0", "--log-every", "1"]
    start = ["--system", "deconvolution", "--start", shipped_file("deconvolution")]
    assert_done(run("train-deblur", shards, *start, *small, "-o", output, *options))
    lines = output.with_suffix(".log.jsonl").read_text().splitlines()
    return load_checkpoint(output), [json.loads(line) for line in lines]


@pytest.mark.slow
def test_both_networks_train_by_the_common_loop(shards: Path, tmp_path: Path) -> None:
    options = ["--iterations", "2", "--validate-on", "1", "--draft", shipped_file()]
    made, lines = trained(shards, tmp_path / "both.pt", *options)
    terms = {"gap", "distance", "edges", "confidence", "agreement", "first", "l1", "spectrum"}
    found = [line["losses"].keys() for line in lines if "losses" in line]
    assert found == [terms | {"judge"}] * 2
    scores = next(line["validation"] for line in lines if "validation" in line)
    assert 0.3 < scores["agreement"] <= 1
    assert made.provenance["validation"] == "1 samples"
    assert made.provenance["draft"] == load_checkpoint(shipped_file()).provenance
    given = load_checkpoint(shipped_file("deconvolution"))
    for role in ("estimator", "deconvolution"):
        pairs = [(made.networks[role][k], v.float()) for k, v in given.networks[role].items()]
        assert not any(torch.equal(*pair) for pair in pairs if pair[0].ndim > 1)


@pytest.mark.slow
def test_what_predicts_errors_can_be_trained_alone(shards: Path, tmp_path: Path) -> None:
    options = ["--iterations", "1", "--estimator-rate", "0", "--judges-only", "--validate-on", "0"]
    made, _ = trained(shards, tmp_path / "judges.pt", *options, "--draft", shipped_file())
    given = load_checkpoint(shipped_file("deconvolution")).networks
    for role, states in made.networks.items():
        for key, values in states.items():
            same = torch.equal(values, given[role][key].float())
            assert same != (role == "deconvolution" and key.startswith(JUDGES)), key


@pytest.mark.slow
def test_the_deconvolution_network_trains_alone_in_bfloat16(shards: Path, tmp_path: Path) -> None:
    """The fixed estimator runs its first step, too, without gradients."""
    options = ["--iterations", "1", "--estimator-rate", "0", "--precision", "bf16"]
    made, _ = trained(shards, tmp_path / "alone.pt", *options, "--validate-on", "0")
    given = load_checkpoint(shipped_file("deconvolution")).networks
    for role, states in made.networks.items():
        for key in [key for key in states if key.endswith(".weight")]:
            same = torch.equal(states[key], given[role][key].float())
            assert same == (role == "estimator"), key
