"""What results are worth: sharpness before and after, and warnings where something went wrong."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
from scipy.ndimage import uniform_filter1d
from skimage.measure import blur_effect
from skimage.metrics import peak_signal_noise_ratio

from blurkit.io.records import Record
from blurkit.tasks.deblur import restoration_warnings, with_sharpness
from tests.cli.command import assert_done, blurred, photo, records, run, write
from tests.cli.invoke import invoke
from tests.shared import ROOT

RETINA = Path(skimage.data.__file__).parent / "retina.jpg"


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth sharp.png, and photo.png, which is hardly blurrier: 50.3 dB."""
    folder = tmp_path_factory.mktemp("soft")
    sharp = imageio.imread(RETINA)[500:756, 500:756]
    blur = uniform_filter1d(sharp.astype(float), 2, axis=1).round().astype(np.uint8)
    write(folder / "sharp.png", sharp)
    write(folder / "photo.png", blur)
    return folder


def test_deblur_reports_sharpness(checkpoint: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "photo.png", blurred(photo(0)))
    ran = run("deblur", source, "-c", checkpoint, "-o", tmp_path / "out.h5", "--json")
    assert_done(ran)
    (record,), (line,) = records(tmp_path / "out.h5"), ran.json
    for key, role in (("sharpness_before", "blur"), ("sharpness_after", "restored")):
        expected = 1 - blur_effect(record.images[role], channel_axis=2)
        assert line[key] == record.attrs[key] == pytest.approx(expected, abs=1e-4)
    change = record.images["restored"].astype(float) - record.images["blur"]
    assert line["restored_change"] == pytest.approx(np.sqrt((change**2).mean()), abs=1e-3)
    ran = run("deblur", source, "-c", checkpoint, "-o", tmp_path / "out.png")
    assert f"photo: sharpness {line['sharpness_before']:.2f} -> " in ran.err
    assert run("deblur", source, "-c", checkpoint, "-q", "-o", tmp_path / "q.png").err == ""


def test_deblur_warns_if_next_to_nothing_changed(checkpoint: Path, tmp_path: Path) -> None:
    flat = write(tmp_path / "flat.png", np.full((64, 64, 3), 90, np.uint8))
    command = ["deblur", flat, "-c", checkpoint, "--strength", 0.02]
    ran = invoke(*command)
    assert_done(ran)
    assert "warning: flat: next to nothing was changed" in ran.err
    (line,) = invoke(*command, "--force", "--json").json
    assert "next to nothing" in line["warnings"][0]
    ran = invoke("deblur", flat, "-c", checkpoint, "--strength", 0, "--force")
    assert "warning" not in ran.err, "nothing was to be changed"


def restored(before: np.ndarray, after: np.ndarray, **attrs: float) -> Record:
    images = {"blur": before, "restored": after}
    return with_sharpness(Record("a", images, {"restored_strength": 1.0, **attrs}))


def test_warnings_of_long_blur() -> None:
    sharp = skimage.data.astronaut()
    long = uniform_filter1d(sharp, 41, axis=1)
    assert restoration_warnings(restored(blurred(sharp), sharp)) == []
    (warning,) = restoration_warnings(restored(long, blurred(long)))
    assert "still looks blurry" in warning
    estimated = restored(long, sharp, blur_length=40.0, blur_trust=0.9)
    (warning,) = restoration_warnings(estimated)
    assert "a blur of 40 pixels is longer than" in warning
    known = restored(long, sharp, blur_length=40.0, blur_trust=1.0)
    assert restoration_warnings(known) == [], "a known kernel may be long"
    large = [np.tile(image, (4, 4, 1)) for image in (long, sharp)]
    assert restoration_warnings(restored(*large, blur_length=40.0, blur_trust=0.9)) == []


def test_reblur_warns_if_it_came_no_nearer(soft: Path, tmp_path: Path) -> None:
    """The guide shows the same scene: PSNRs decide."""
    command = ["reblur", soft / "sharp.png", "--like", soft / "photo.png", "-o"]
    ran = run(*command, tmp_path / "a.png")
    assert_done(ran)
    made, sharp, blur = (
        imageio.imread(path) for path in (tmp_path / "a.png", *map(soft.joinpath, NAMES))
    )
    after, before = (peak_signal_noise_ratio(blur, image) for image in (made, sharp))
    assert after < before
    assert f"the blur was not reproduced: {after:.2f} dB against" in ran.err
    assert f"the sharp image has {before:.2f} dB" in ran.err


NAMES = ("sharp.png", "photo.png")


def test_reblur_warns_where_it_came_no_nearer(joint: Path, tmp_path: Path) -> None:
    """The guide shows something else: its sharpness decides."""
    sharp = write(tmp_path / "sharp.png", blurred(photo(0)))
    guide = write(tmp_path / "guide.png", blurred(blurred(blurred(photo(3)))))
    ran = invoke("reblur", sharp, "--like", guide, "-c", joint, "-o", tmp_path / "a.h5", "--json")
    assert_done(ran)
    (record,), line = records(tmp_path / "a.h5"), ran.json[0]
    before, after = (
        1 - blur_effect(record.images[role], channel_axis=2) for role in ("sharp", "reblurred")
    )
    assert line["sharpness_after"] == pytest.approx(after, abs=1e-4)
    like = 1 - blur_effect(imageio.imread(guide), channel_axis=2)
    assert line["sharpness_like"] == pytest.approx(like, abs=1e-4)
    assert abs(after - like) > abs(before - like)
    assert "came no nearer to the blur of guide" in line["warnings"][0]
    assert "reblurred_psnr" not in record.attrs


def test_transfer_warns_of_a_blur_it_does_not_reproduce(soft: Path, tmp_path: Path) -> None:
    photos = [soft / "sharp.png", soft / "sharp.png", soft / "photo.png"]
    ran = run("transfer", *photos, "--system", "msdi", "-o", tmp_path / "a.png")
    assert_done(ran)
    assert "warning: sharp: the blur was not reproduced" in ran.err


def test_interpolate_measures_both_ends(soft: Path, tmp_path: Path) -> None:
    pair = [soft / "photo.png", soft / "sharp.png"]
    ran = run("interpolate", *pair, "--steps", 2, "-o", f"{tmp_path}/frames/")
    assert_done(ran)
    assert "warning: photo/0: is blurrier than the blurry image" in ran.err
    assert "warning: photo/1: the blur was not reproduced" in ran.err
    assert "falls at every step for 0 of 1 pairs" in ran.err
    ran = run("interpolate", *pair, "--steps", 2, "-o", tmp_path / "frames.h5", "--json")
    *frames, last = ran.json
    assert last["total"] == {"pairs": 1, "falling": 0} and ran.err.count("warning") == 0
    made, blur = imageio.imread(tmp_path / "frames/photo/1.png"), imageio.imread(pair[0])
    assert frames[1]["reblurred_psnr"] == pytest.approx(peak_signal_noise_ratio(blur, made))
    assert "reblurred_psnr" not in frames[0]


def test_frames_that_reach_the_blur_are_not_warned_of(tmp_path: Path) -> None:
    """A blur that the weights know: amount 1 is nearer to the blurry photo than the sharp one."""
    sharp = skimage.data.astronaut()[:256, :256]
    blur = uniform_filter1d(uniform_filter1d(sharp, 9, axis=1), 3, axis=0)
    pair = [write(tmp_path / "blurry.png", blur), write(tmp_path / "sharp.png", sharp)]
    ran = run("interpolate", *pair, "--steps", 2, "-o", f"{tmp_path}/frames/")
    assert_done(ran)
    assert "warning" not in ran.err and "for 1 of 1 pairs" in ran.err
    made = imageio.imread(tmp_path / "frames/blurry/1.png")
    assert peak_signal_noise_ratio(blur, made) > peak_signal_noise_ratio(blur, sharp)


def test_the_first_result_of_the_readme_is_visible(tmp_path: Path) -> None:
    """The photo that it began with before changed by 0.25 dB, which nobody sees."""
    shown = "examples/shaken.jpg"
    assert f"blurkit deblur {shown} --compare" in (ROOT / "README.md").read_text()
    ran = invoke("deblur", ROOT / shown, "-o", tmp_path / "a.png", "--compare", "--json")
    assert_done(ran)
    (told,) = ran.json
    assert told["sharpness_after"] > told["sharpness_before"] + 0.08
    assert told["restored_change"] > 5 and told["warnings"] == []
    assert (tmp_path / "a.compare.jpg").exists()
