"""`blurkit deblur --method shake` and `auto`, and blur that is told by `--kernel`."""

import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

import blurkit
from blurkit.io.records import Record
from blurkit.synthesis.kernels import read_kernels
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded, shape
from blurkit.systems.system import WEIGHTS
from tests.cli.command import Ran, assert_done, assert_failed, assert_refused, files, records
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import write
from tests.systems.deconvolution.photos import batch, noise, photo, psnr, shake, taken
from tests.systems.kernel_space.searches import QUICK_CONFIG

KERNEL = shake(1, 17)
SIZE = (240, 272)


def bytes_of(image: np.ndarray) -> np.ndarray:
    """An image in [0, 1] at 8 bits."""
    return np.rint(image * 255).astype(np.uint8)


def quality(path: Path) -> float:
    """The PSNR of a restored photo, in dB, without its border."""
    return psnr(imageio.imread(path) / 255, photo("coffee", *SIZE), 15)


@pytest.fixture(scope="module")
def blurry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo that a shaken camera took."""
    path = tmp_path_factory.mktemp("shaken") / "photo.png"
    return write(path, bytes_of(taken(photo("coffee", *SIZE), KERNEL)))


@pytest.fixture(scope="module")
def kernel(blurry: Path) -> Path:
    """Its kernel, a picture of 16 bits."""
    values = np.rint(KERNEL / KERNEL.max() * 65535).astype(np.uint16)
    return write(blurry.with_name("kernel.png"), values)


@pytest.fixture(scope="module")
def tiny(blurry: Path) -> Path:
    """A photo that is too small to estimate anything on it."""
    image = taken(photo("astronaut", 40, 60), np.full((1, 7), 1 / 7))
    return write(blurry.with_name("tiny.png"), bytes_of(image))


def test_a_shaken_photo_becomes_sharper(blurry: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    ran = done("deblur", blurry, "--method", "shake", "--json", "-o", output)
    assert quality(output) > quality(blurry) + 0.5
    (told,) = ran.json
    assert (told["name"], told["width"], told["height"]) == ("photo", SIZE[1], SIZE[0])
    assert (told["restored_windows"], told["restored_believed"]) == (1, 1)
    true = shape(batch(KERNEL)[0])
    assert told["blur_length"] == pytest.approx(true.length, rel=0.5)
    assert abs((told["blur_angle"] - true.angle + 90) % 180 - 90) < 25
    assert told["strength"] == 1 and told["seconds"] > 0
    assert "weights that come with blurkit (deconvolution, " in ran.lines[0]
    length, angle = told["blur_length"], told["blur_angle"]
    assert f"photo: blur of {length:.0f} pixels at {angle:.0f} degrees undone in the " in ran.err
    before, after = (told[f"sharpness_{which}"] for which in ("before", "after"))
    assert after > before and f"; sharpness {before:.2f} -> {after:.2f}\n" in ran.err


def test_a_known_kernel_is_undone(blurry: Path, kernel: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    ran = done("deblur", blurry, "--kernel", kernel, "-o", output, "--json", "-q")
    assert ran.err == ""
    assert quality(output) > quality(blurry) + 3
    (told,) = ran.json
    true = shape(batch(KERNEL)[0])
    assert told["blur_length"] == pytest.approx(true.length, abs=0.2)
    assert told["blur_angle"] == pytest.approx(true.angle, abs=0.5)

    np.save(tmp_path / "turned.npy", KERNEL[::-1, ::-1])
    turned = tmp_path / "turned.png"
    arguments = ["--kernel", tmp_path / "turned.npy", "--method", "auto", "-o", turned, "-q"]
    done("deblur", blurry, *arguments)
    assert quality(turned) < quality(output) - 3


@pytest.mark.slow
def test_the_kernel_that_was_found_is_kept(blurry: Path, tmp_path: Path) -> None:
    shard, picture = tmp_path / "out.h5", tmp_path / "found.png"
    shake = ["deblur", blurry, "--method", "shake", "--json", "-o", shard]
    ran = done(*shake, "--keep-kernel", picture)
    assert f"wrote {picture}" in ran.err
    (record,) = records(shard)
    found = record.attrs["kernel"]
    (told,) = ran.json
    np.testing.assert_array_equal(np.array(told["kernel"]), found)
    assert 0.68 <= told["blur_trust"] <= 1 and told["blur_gamma"] in (1.0, 2.2)
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
    assert found.shape[0] == found.shape[1] and found.shape[0] % 2 == 1
    assert found.sum() == pytest.approx(1, abs=1e-5) and found.min() >= 0
    assert float(kernel_agreement(batch(found), batch(KERNEL))) > 0.75
    assert str(record.attrs["restored_by"]).startswith("deconvolution.pt")
    assert record.attrs["restored_believed"] == record.attrs["restored_windows"] == 1

    ((_, own),) = read_kernels(picture)
    assert float(kernel_agreement(batch(own), batch(found))) > 0.9999
    # What was kept is a kernel file to others.
    np.save(tmp_path / "found.npy", found)
    output = tmp_path / "again.png"
    done("deblur", blurry, "--kernel", tmp_path / "found.npy", "-o", output, "-q")
    assert quality(output) > quality(blurry) + 0.5


def test_a_picture_of_the_kernel_goes_round_and_can_be_mended(blurry: Path, tmp_path: Path) -> None:
    """Given back, it gives the same photo to one level; also if an editor has saved it again."""
    found, first, again = (tmp_path / name for name in ("found.png", "first.png", "again.png"))
    done("deblur", blurry, "--keep-kernel", found, "-o", first, "-q")
    done("deblur", blurry, "--kernel", found, "-o", again, "-q")
    before, after = (imageio.imread(path).astype(int) for path in (first, again))
    assert quality(first) > quality(blurry) + 0.5
    assert np.abs(after - before).max() <= 1

    drawn = imageio.imread(found)
    assert drawn.dtype == np.uint16 and drawn.max() == 65535
    eight = np.rint(drawn / 257).astype(np.uint8)
    write(found, np.stack([eight] * 3, axis=2))  # in colours and without its text
    done("deblur", blurry, "--kernel", found, "-o", again, "-q", "--force")
    assert quality(again) > quality(first) - 0.2

    eight[1:-1, 1:-1] = 0
    middle = eight.shape[0] // 2
    eight[middle, middle] = 255  # a dot: no blur
    write(found, eight)
    ran = done("deblur", blurry, "--kernel", found, "-o", again, "--force")
    assert "left as it is" in ran.err
    np.testing.assert_array_equal(imageio.imread(again), imageio.imread(blurry))

    write(found, np.hstack([eight, eight[:, 3:]]))  # cut in a second cell
    ran = invoke("deblur", blurry, "--kernel", found, "-o", again, "--force")
    assert_refused(ran, f"{found}: a white line between its kernels is damaged")


@pytest.mark.slow
def test_kernels_of_windows_go_round(tmp_path: Path) -> None:
    """A photo of which a part is sharp, a part shaken, and a part too plain to tell."""
    whole = photo("coffee", 400, 600)
    image = np.hstack([taken(whole, KERNEL)[:, :400], whole[:, :350], np.full((400, 330, 3), 0.5)])
    source = write(tmp_path / "mixed.png", bytes_of(image))
    found, first, again = (tmp_path / name for name in ("found.png", "first.png", "again.png"))
    ran = done("deblur", source, "--keep-kernel", found, "-o", first, "--json")
    (told,) = ran.json
    assert 0 < told["restored_believed"] < told["restored_windows"]
    done("deblur", source, "--kernel", found, "-o", again)
    before, after = (imageio.imread(path).astype(int) for path in (first, again))
    assert np.abs(after - before).max() <= 1


def test_pictures_of_kernels_go_to_a_folder(blurry: Path, tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    both = ["deblur", blurry, tiny, "--method", "shake", "-o", f"{tmp_path}/out/"]
    ran = invoke(*both, "--keep-kernel", tmp_path / "one.png")
    assert_refused(ran, "one.png is one picture, but there are several photos", status=2)
    ran = done(*both, "--keep-kernel", f"{folder}/")
    assert "tiny: no kernel was found, and none is written" in ran.err
    assert list(files(folder)) == ["photo.png"]
    shutil.rmtree(tmp_path / "out")
    ran = invoke(*both, "--keep-kernel", f"{folder}/")
    assert_failed(ran, "photo", "photo.png: exists already; give --force")


def test_a_comparison_shows_the_blur(blurry: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    done("deblur", blurry, "--method", "shake", "--compare", "-o", output, "-q")
    shown = imageio.imread(tmp_path / "out.compare.jpg")[: SIZE[0], : SIZE[1]].astype(int)
    changed = np.abs(shown - imageio.imread(blurry)).mean(2) > 40
    side = round(0.3 * SIZE[0])
    inside = changed[-side:, :side]
    assert inside.mean() > 0.5 and changed.sum() - inside.sum() < 0.01 * changed.size
    assert (shown[-side:, :side].min(axis=(0, 1)) < 30).all(), "black around the kernel"


def test_a_preview_restores_the_middle(blurry: Path, tmp_path: Path) -> None:
    middle = photo("coffee", 400, 600)
    source = write(tmp_path / "photo.jpg", bytes_of(taken(middle, KERNEL)))
    ran = done("deblur", tmp_path, "--preview", "--json")
    assert list(files(tmp_path)) == ["photo.jpg", "photo.previewed.jpg"]
    assert "photo: the middle 384x384 pixels of 600x400: blur of " in ran.err
    assert " undone in all of it; " in ran.err
    (told,) = ran.json
    assert (told["width"], told["height"], told["restored_windows"]) == (384, 384, 1)
    shown = imageio.imread(tmp_path / "photo.previewed.jpg")
    assert shown.shape[1] == 2 * 384 + 8
    before = shown[:250, :384].astype(int)  # above the picture of the kernel
    assert np.abs(before - imageio.imread(source)[8:258, 108:492]).mean() < 4
    ran = invoke("deblur", tmp_path, "--preview", "-q")
    assert_failed(ran, "photo", "photo.previewed.jpg: exists already")
    assert done("deblur", source, "--preview", "--status").err.endswith("1 of 1 previewed\n")
    done("deblur", source, "--preview", "-o", tmp_path / "look.png", "-q")
    assert imageio.imread(tmp_path / "look.png").shape == shown.shape


def test_what_records_claim_about_their_blur_does_no_harm(tiny: Path, tmp_path: Path) -> None:
    """A shard from elsewhere has the attributes and an image that results and previews have."""
    pixels = imageio.imread(tiny)
    claims = {"blur_kernels": np.zeros((2, 2, 3, 3), np.float32), "blur_side": 1, "blur_gamma": 1.0}
    claims |= {"part_of": np.array([10**9, 1])}
    shard = tmp_path / "in.h5"
    blurkit.write_records([Record("a", {"blur": pixels, "preview": pixels[:9, :9]}, claims)], shard)
    command = ["deblur", shard, "--method", "shake", "-o", f"{tmp_path}/out/"]
    done(*command, "--compare", "--keep-kernel", f"{tmp_path}/kernels")
    assert list(files(tmp_path / "out")) == ["a.compare.jpg", "a.png"]
    np.testing.assert_array_equal(imageio.imread(tmp_path / "out/a.png"), pixels)
    assert not (tmp_path / "kernels").exists()


def test_auto_takes_the_better_way(blurry: Path, tiny: Path, tmp_path: Path) -> None:
    """Estimated blur for the large photo; the small one is left to the network."""
    both = ["deblur", blurry, tiny, "-o"]
    ran = done(*both, f"{tmp_path}/auto/", "--json")
    large, small = ran.json
    for told, count in ((large, 1), (small, 0)):
        assert told["restored_believed"] == told["restored_windows"] == count
    assert "blur_length" in large and "blur_length" not in small
    assert "tiny: no uniform blur found in any part; restored by the network; " in ran.err
    assert quality(tmp_path / "auto/photo.png") > quality(blurry) + 0.5

    done(*both, f"{tmp_path}/shake/", "--method", "shake", "-q")
    done("deblur", tiny, "-o", f"{tmp_path}/network/", "--method", "network", "-q")
    result, network, shaken = (
        imageio.imread(tmp_path / way / "tiny.png") for way in ("auto", "network", "shake")
    )
    np.testing.assert_array_equal(result, network)
    assert (network != shaken).mean() > 0.2
    np.testing.assert_array_equal(shaken, imageio.imread(tiny))


def test_auto_leaves_a_sharp_photo_as_it_is(tmp_path: Path) -> None:
    """The network alone changes some of its pixels."""
    path, output = tmp_path / "sharp.png", tmp_path / "out.png"
    noisy = photo("coffee") * 255 + noise((256, 256, 3), 1)
    write(path, np.rint(noisy).clip(0, 255).astype(np.uint8))
    ran = done("deblur", path, "-o", output, "--json")
    assert "sharp: no uniform blur found in any part; left as it is; " in ran.err
    assert ran.json[0]["restored_left"] == ran.json[0]["restored_windows"] == 1
    np.testing.assert_array_equal(imageio.imread(output), imageio.imread(path))

    network = tmp_path / "network.png"
    done("deblur", path, "-o", network, "--method", "network", "-q")
    assert (imageio.imread(network) != imageio.imread(path)).any()


def test_several_kernels_are_refused(blurry: Path, tmp_path: Path) -> None:
    path = tmp_path / "three.npz"
    np.savez(path, *[shake(seed, 9) for seed in range(3)])
    ran = invoke("deblur", blurry, "--kernel", path, "-o", tmp_path / "out.png")
    assert_refused(ran, f"--kernel {path}: holds 3 kernels (three-1, three-2, three-3", status=2)
    assert list(files(tmp_path)) == ["three.npz"]


FOR_A_NETWORK = "--encoder, --protocol, --tile and --overlap are for --method"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--method shake --encoder x.pt", FOR_A_NETWORK),
        ("--method auto --protocol whole", FOR_A_NETWORK),
        ("--kernel KERNEL --encoder x.pt", FOR_A_NETWORK),
        ("--method shake --strength 2", "--strength 2: must be from 0 (unchanged) to 1"),
        ("--method network --keep-kernel a.png", "--keep-kernel requires --method shake or auto"),
        ("--kernel KERNEL --keep-kernel a.png", "requires --method shake or auto, and no --kernel"),
        ("--keep-kernel a.h5", "a.h5: name a .png or a folder/; records (-o found.h5) hold it"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    blurry: Path, kernel: Path, tmp_path: Path, options: str, words: str
) -> None:
    given = [kernel if option == "KERNEL" else option for option in options.split()]
    refused = invoke("deblur", blurry, *given, "-o", tmp_path / "out.png")
    assert_refused(refused, words, status=2)
    assert files(tmp_path) == {}


def test_files_that_do_not_fit_are_refused(blurry: Path, tmp_path: Path) -> None:
    colour = write(tmp_path / "colour.png", bytes_of(photo("coffee", 15, 15)))
    other = ("-c", WEIGHTS / "kernel_space.pt", "-q")
    cases: dict[tuple[object, ...], str] = {
        ("--kernel", tmp_path / "none.png"): "none.png: no such file",
        ("--kernel", colour): "colour.png: is a colour image; a kernel is grey",
        ("--method", "shake", *other): "kernel_space.pt: holds kernel_space",
    }
    assert_each_refused(cases, "deblur", blurry, "-o", tmp_path / "out.png", status=1)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    ran = invoke("deblur", broken, blurry, "--method", "shake", "-o", f"{tmp_path}/out/", "-q")
    assert_failed(ran, "broken", "broken.png")
    assert list(files(tmp_path / "out")) == ["photo.png"]


# ---- as a start of the blind search --------------------------------------------------------------


def blind(*arguments: object) -> Ran:
    """A short blind search from the estimate, in this process."""
    short = ["--config", QUICK_CONFIG, "--iterations", 2, "--kernel-size", 25]
    options = ["--operator", "convolution", *short, "--start-estimate", "--precision", "fp32"]
    return invoke("blind-deblur", *options, *arguments)


@pytest.mark.slow
def test_a_blind_search_starts_from_what_shake_finds(blurry: Path, tmp_path: Path) -> None:
    found, searched = tmp_path / "found.h5", tmp_path / "searched.h5"
    exact = ["--precision", "fp32", "-q", "-o", found]
    done("deblur", blurry, "--method", "shake", *exact)
    assert_done(blind(blurry, "--keep-kernel", "-o", searched))
    (estimate,), (record,) = records(found), records(searched)
    assert record.attrs["blind_started"] == 1 and record.attrs["blind_trust"] >= 0.6
    assert "start=estimate" in record.attrs["restored_with"]
    kernels = [padded(batch(r.attrs["kernel"]), 25) for r in (estimate, record)]
    assert float(kernel_agreement(*kernels)) > 0.999
    options = {"prior_width": 8, "warm_up": 1, "iterations": 2, "kernel_size": 25}
    options |= {"operator": "convolution"}
    again = blurkit.load(precision="fp32").blind_deblur(
        Record(record.name, {"blur": record.images["blur"]}), **options, start_estimate=True
    )
    assert np.array_equal(again.images["restored"], record.images["restored"])


def test_a_search_without_an_estimate_says_so(tiny: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    ran = blind(tiny, "-o", output)
    assert_done(ran)
    line = "warning: tiny: no estimated blur is believed (trust 0.00); the search starts as usual"
    assert ran.lines.count(line) == 1
    (record,) = records(output)
    assert record.attrs["blind_started"] == 0
