"""reblur --like by the blur that is estimated in the other photo, which has a direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.metrics
from PIL import Image

import blurkit
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.tasks.reblur import EstimatedBlur
from tests.cli.command import assert_done, assert_refused, photo
from tests.cli.invoke import invoke


def stroke(length: int, degrees: float) -> np.ndarray:
    """A straight line, antialiased, that sums to 1; degrees counterclockwise from the right."""
    across = np.arange(length + 4) - (length + 3) / 2
    columns, rows = np.meshgrid(across, across)
    angle = np.radians(degrees)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    aside = columns * np.sin(angle) + rows * np.cos(angle)
    line = np.clip(length / 2 + 0.5 - abs(along), 0, 1) * np.clip(1 - abs(aside), 0, 1)
    return line / line.sum()


def shaken(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """An 8-bit photo whose light was blurred by a kernel."""
    light = (image / 255) ** 2.2
    blurred = scipy.ndimage.convolve(light, kernel[:, :, None], mode="nearest")
    return np.rint(255 * np.clip(blurred, 0, 1) ** (1 / 2.2)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blurry photo, a sharp one of something else, and how that should look with its blur."""
    folder = tmp_path_factory.mktemp("estimated")
    coffee, cat = skimage.data.coffee()[80:336, 150:406], skimage.data.chelsea()[20:276, 90:346]
    Image.fromarray(shaken(coffee, stroke(13, 30))).save(folder / "blurry.png")
    Image.fromarray(coffee).save(folder / "still.png")
    Image.fromarray(cat).save(folder / "cat.png")
    Image.fromarray(shaken(cat, stroke(13, 30))).save(folder / "wanted.png")
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_the_direction_of_blur_survives(folder: Path) -> None:
    wanted = pixels(folder / "wanted.png")[16:-16, 16:-16]
    scores = {}
    for method in ("auto", "network"):
        made = folder / f"{method}.png"
        given = (folder / "cat.png", "--like", folder / "blurry.png", "--method", method)
        ran = invoke("reblur", *given, "-o", made, "--json")
        assert_done(ran)
        found = ran.json[0]
        assert not found["warnings"]
        assert ("reblurred_length" in found) == (method == "auto")
        scores[method] = skimage.metrics.peak_signal_noise_ratio(
            wanted, pixels(made)[16:-16, 16:-16]
        )
        if method == "auto":
            assert abs(found["reblurred_angle"] - 30) < 6
            assert abs(found["reblurred_length"] - 13) < 3
    assert scores["auto"] > max(33, scores["network"] + 3), scores


def test_a_photo_without_blur_to_find(folder: Path) -> None:
    given = (folder / "cat.png", "--like", folder / "still.png", "-o", folder / "still-cat.png")
    ran = invoke("reblur", *given)
    assert_done(ran)
    assert "cat: no uniform blur found in still, so blurred by the network" in ran.lines
    ran = invoke("reblur", *given, "--method", "shake", "--force")
    assert ran.status == 1
    assert "error: cat: no uniform blur is found in still; --method network needs none" in ran.lines


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "auto"), "--method auto requires --like"),
        (("--method", "shake", "--random"), "--method shake requires --like"),
        (
            ("--like", "blurry.png", "--method", "shake", "--system", "msdi"),
            "--system, --tile and --overlap are for --method network",
        ),
    ],
)
def test_what_excludes_an_estimate(
    options: tuple[str, ...], told: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert_refused(invoke("reblur", "cat.png", *options), told, status=2)


def test_python_does_what_the_command_does(folder: Path) -> None:
    weights, cat = blurkit.load(), pixels(folder / "cat.png")
    made = weights.reblur(cat, pixels(folder / "blurry.png"))
    invoke("reblur", folder / "cat.png", "--like", folder / "blurry.png", "-o", folder / "same.png")
    np.testing.assert_array_equal(made, pixels(folder / "same.png"))
    with pytest.raises(BlurkitError, match="no uniform blur is found"):
        weights.reblur(cat, pixels(folder / "still.png"), method="shake")
    with pytest.raises(UsageError, match="takes no networks"):
        blurkit.load(system="msdi").reblur(cat, cat, method="auto")


def test_many_photos_like_one_take_one_estimate() -> None:
    estimates = []

    def estimate(image: np.ndarray) -> dict[str, object]:
        estimates.append(image)
        about = {"blur_length": 3.0, "blur_angle": 0.0, "blur_trust": 0.9, "blur_gamma": 1.0}
        return {"kernel": np.full((1, 3), 1 / 3)} | about

    like, other = (Record(name, {"blur": photo(4)}) for name in ("like", "other"))
    blurred = EstimatedBlur(estimate)
    for number in range(3):
        sharp = photo(number)
        made = blurred(Record(f"{number}", {"sharp": sharp}), like).images["reblurred"]
        wanted = scipy.ndimage.uniform_filter1d(sharp.astype(float), 3, axis=1)[:, 1:-1]
        assert np.abs(made[:, 1:-1] - wanted).max() <= 1
    assert len(estimates) == 1
    blurred(Record("3", {"sharp": photo(3)}), other)
    assert len(estimates) == 2
    with pytest.raises(BlurkitError, match="no uniform blur"):
        EstimatedBlur(lambda image: {})(Record("4", {"sharp": photo(4)}), like)
