"""What results are worth: sharpness before and after, and warnings where something went wrong."""

from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
from scipy.ndimage import uniform_filter1d
from skimage.measure import blur_effect

from blurkit.cli import deblur as cli_deblur
from blurkit.io.records import Record
from blurkit.tasks.deblur import restoration_warnings, with_sharpness
from tests.cli import guides
from tests.cli.command import records
from tests.cli.invoke import done
from tests.cli.pictures import blurred, photo, write
from tests.shared import ROOT

RETINA = Path(skimage.data.__file__).parent / "retina.jpg"


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A smooth sharp.png, and photo.png, which is hardly blurrier: 50.3 dB."""
    folder = tmp_path_factory.mktemp("soft")
    sharp = imageio.imread(RETINA)[500:756, 500:756]
    blur = uniform_filter1d(sharp.astype(float), 2, axis=1).round().astype(np.uint8)
    return write(folder / "sharp.png", sharp), write(folder / "photo.png", blur)


def psnr(first: Path, second: Path) -> float:
    return guides.psnr(imageio.imread(second), imageio.imread(first))


def sharpness(image: np.ndarray) -> float:
    return float(1 - blur_effect(image, channel_axis=2))


def test_deblur_reports_sharpness(checkpoint: Path) -> None:
    command = ["deblur", write("photo.png", blurred(photo(0))), "-c", checkpoint, "-o"]
    (line,) = done(*command, "out.h5", "--json").json
    (record,) = records("out.h5")
    for key, role in (("sharpness_before", "blur"), ("sharpness_after", "restored")):
        expected = pytest.approx(sharpness(record.images[role]), abs=1e-4)
        assert line[key] == record.attrs[key] == expected
    change = record.images["restored"].astype(float) - record.images["blur"]
    assert line["restored_change"] == pytest.approx(np.sqrt((change**2).mean()), abs=1e-3)
    assert f"photo: sharpness {line['sharpness_before']:.2f} -> " in done(*command, "out.png").err
    assert done(*command, "q.png", "-q").err == ""


def test_deblur_warns_if_next_to_nothing_changed(checkpoint: Path) -> None:
    flat = write("flat.png", np.full((64, 64, 3), 90, np.uint8))
    command = ["deblur", flat, "-c", checkpoint, "--force", "--strength"]
    assert "warning: flat: next to nothing was changed" in done(*command, 0.02).err
    (line,) = done(*command, 0.02, "--json").json
    assert "next to nothing" in line["warnings"][0]
    assert "warning" not in done(*command, 0).err, "nothing was to be changed"


def test_photos_left_as_they_are_are_counted_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(record: Record) -> Record:
        attrs = {"restored_strength": 1.0, "restored_seconds": 0.1}
        attrs |= {"restored_windows": 4, "restored_believed": 0}
        attrs["restored_left"] = 3 if record.name == "2" else 4  # one was changed a little
        attrs["restored_guided"] = 0.2 if record.name == "3" else 0.001
        images = record.images | {"restored": record.images["blur"]}
        return Record(record.name, images, record.attrs | attrs)

    monkeypatch.setattr(cli_deblur, "deblurring", lambda *_: (leave, None))
    named = [write(f"{number}.png", photo(number)) for number in range(4)]
    ran = done("deblur", *named, "-o", "out")
    assert "2 of 4 were left as they are: no blur was found that could be undone" in ran.lines
    (mixed,) = [line for line in ran.lines if "of neighbouring frames mixed in" in line]
    assert mixed.startswith("3: ") and "left as it is, with 20% of neighbouring" in mixed
    warned = [line for line in ran.lines if "warning" in line]
    assert [line.split(":")[1].strip() for line in warned] == ["2", "3"]
    assert all("next to nothing was changed" in line for line in warned)
    ran = done("deblur", named[0])
    assert "1 of 1 was left as it is: no blur was found that could be undone" in ran.lines
    assert "warning" not in ran.err


def restored(before: np.ndarray, after: np.ndarray, **attrs: float) -> Record:
    images = {"blur": before, "restored": after}
    return with_sharpness(Record("a", images, {"restored_strength": 1.0, **attrs}))


def test_deblur_warns_if_the_result_still_looks_blurry() -> None:
    sharp = skimage.data.astronaut()
    long = uniform_filter1d(sharp, 41, axis=1)
    assert restoration_warnings(restored(blurred(sharp), sharp)) == []
    (warning,) = restoration_warnings(restored(long, blurred(long)))
    assert "still looks blurry" in warning


@pytest.mark.slow
def test_reblur_and_transfer_warn_if_they_came_no_nearer(soft: tuple[Path, Path]) -> None:
    """The guide shows the same scene: PSNRs decide."""
    sharp, blur = soft
    ran = done("reblur", sharp, "--like", blur, "-o", "a.png")
    before, after = psnr(blur, sharp), psnr(blur, Path("a.png"))
    assert after < before
    assert f"the blur was not reproduced: {after:.2f} dB against" in ran.err
    assert f"the sharp image has {before:.2f} dB" in ran.err
    ran = done("transfer", sharp, sharp, blur, "--system", "msdi", "-o", "b.png")
    assert "warning: sharp: the blur was not reproduced" in ran.err


def test_reblur_warns_where_it_came_no_nearer(joint: Path) -> None:
    """The guide shows something else: its sharpness decides."""
    sharp = write("sharp.png", blurred(photo(0)))
    guide = write("guide.png", blurred(blurred(blurred(photo(3)))))
    line = done("reblur", sharp, "--like", guide, "-c", joint, "-o", "a.h5", "--json").json[0]
    (record,) = records("a.h5")
    before, after = (sharpness(record.images[role]) for role in ("sharp", "reblurred"))
    like = sharpness(imageio.imread(guide))
    assert line["sharpness_after"] == pytest.approx(after, abs=1e-4)
    assert line["sharpness_like"] == pytest.approx(like, abs=1e-4)
    assert abs(after - like) > abs(before - like)
    assert "came no nearer to the blur of guide" in line["warnings"][0]
    assert "reblurred_psnr" not in record.attrs


def test_interpolate_measures_both_ends(soft: tuple[Path, Path]) -> None:
    sharp, blur = soft
    command = ["interpolate", blur, sharp, "--steps", 2, "-o"]
    ran = done(*command, "frames/")
    assert "warning: photo/0: is blurrier than the blurry image" in ran.err
    assert "warning: photo/1: the blur was not reproduced" in ran.err
    assert "falls at every step for 0 of 1 pairs" in ran.err
    ran = done(*command, "frames.h5", "--json")
    first, second, last = ran.json
    assert last["total"] == {"pairs": 1, "falling": 0} and ran.err.count("warning") == 0
    assert second["reblurred_psnr"] == pytest.approx(psnr(blur, Path("frames/photo/1.png")))
    assert "reblurred_psnr" not in first


def test_frames_that_reach_the_blur_are_not_warned_of() -> None:
    """A blur that the weights know: amount 1 is nearer to the blurry photo than the sharp one."""
    image = skimage.data.astronaut()[:256, :256]
    sharp = write("sharp.png", image)
    blur = write("blurry.png", uniform_filter1d(uniform_filter1d(image, 9, axis=1), 3, axis=0))
    ran = done("interpolate", blur, sharp, "--steps", 2, "-o", "frames/")
    assert "warning" not in ran.err and "for 1 of 1 pairs" in ran.err
    assert psnr(blur, Path("frames/blurry/1.png")) > psnr(blur, sharp)


@pytest.mark.parametrize(
    "part", [np.s_[80:336, 170:426], pytest.param(np.s_[:], marks=pytest.mark.slow)]
)
def test_the_first_result_of_the_readme_is_visible(part: Any) -> None:
    """The photo that it began with before changed by 0.25 dB, which nobody sees."""
    shown = "examples/shaken.jpg"
    assert f"blurkit deblur {shown} --compare" in (ROOT / "README.md").read_text()
    photo = write("shaken.png", imageio.imread(ROOT / shown)[part])
    (told,) = done("deblur", photo, "-o", "a.png", "--compare", "--json").json
    assert told["sharpness_after"] > told["sharpness_before"] + 0.08
    assert told["restored_change"] > 5 and told["warnings"] == []
    assert Path("a.compare.jpg").exists()
