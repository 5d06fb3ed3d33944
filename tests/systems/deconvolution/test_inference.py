"""Records of every kind, deblurred by their own blur or by one that is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional

import blurkit
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.records import Record, from_float, to_float
from blurkit.options import Placement
from blurkit.synthesis.kernels import splat
from blurkit.systems.deconvolution.inference import WindowDeblurring, windows_summary
from blurkit.systems.deconvolution.nonblind import Watch, unwatched
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import Window, exposure_middle, known, shrunk
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from blurkit.tasks.deblur import masked
from tests.engine.networks import Identity, Smooth
from tests.systems.deconvolution.photos import (
    batch,
    followed,
    grown,
    photo,
    psnr,
    shake,
    taken,
    without_blur,
)

KERNEL = shake(1, 17)


def watch_in(stages: list[str]) -> Watch:
    return lambda stage, done, total: stages.append(stage)


def record(kind: type, channels: int = 3, **attrs: object) -> tuple[Record, np.ndarray]:
    """A record of a shaken photo, and the photo without blur."""
    sharp = photo("coffee", 224, 224)
    blurry = taken(sharp, KERNEL)
    if channels == 1:
        sharp, blurry = (image.mean(2, keepdims=True) for image in (sharp, blurry))
    if kind is not np.float32:
        blurry = np.rint(blurry * np.iinfo(kind).max)
    return Record("a/photo", {"blur": blurry.astype(kind)}, dict(attrs)), sharp


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        (np.uint8, 3),
        (np.uint8, 1),
        (np.uint16, 3),
        pytest.param(np.float32, 3, marks=pytest.mark.slow),
    ],
)
def test_records_keep_their_kind(deconvolution: Deconvolution, kind: type, channels: int) -> None:
    given, sharp = record(kind, channels, camera="one")
    done = WindowDeblurring(deconvolution, "some.pt")(given)
    blurry, restored = given.images["blur"], done.images["restored"]
    assert restored.dtype == kind and restored.shape == (224, 224, channels)
    assert done.name == "a/photo" and done.images["blur"] is blurry
    assert psnr(to_float(restored), sharp, 15) > psnr(to_float(blurry), sharp, 15) + 0.5
    attrs = done.attrs
    assert attrs["camera"] == "one" and attrs["restored_by"] == "some.pt"
    assert attrs["restored_with"] == "window=384 overlap=48 precision=float32 device=cpu"
    assert (attrs["restored_windows"], attrs["restored_believed"]) == (1, 1)
    assert attrs["restored_strength"] == 1 and attrs["restored_seconds"] > 0
    assert 3 < attrs["blur_length"] < 20 and 0 <= attrs["blur_angle"] <= 180
    assert "kernel" not in attrs and "restored_by" not in given.attrs
    told = windows_summary(done)
    assert told.startswith(f"blur of {attrs['blur_length']:.0f} pixels at ")
    assert told.endswith(" degrees undone in the whole photo")
    black = np.zeros((*restored.shape[:2], 1), np.uint8)
    black[:, :9] = 255
    assert windows_summary(masked(done, black)).endswith(" undone where the mask is not black")


def test_a_line_tells_what_a_blur_does_not_explain(
    deconvolution: Deconvolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    blurry, middle = followed(photo("astronaut"), KERNEL)
    window = Window(0, 0, 256, 256, batch(KERNEL)[0])
    monkeypatch.setattr(deconvolution, "windows", lambda *_: [window])
    done = WindowDeblurring(deconvolution, "some.pt")(Record("a", {"blur": blurry}))
    share = done.attrs["restored_unexplained"]
    assert abs(share - middle.mean()) < 0.1
    rest = f"but for {share:.0%} with more detail than it leaves"
    assert windows_summary(done).endswith(f" undone in the whole photo, {rest}")


def test_a_known_kernel_and_a_part_of_the_strength(deconvolution: Deconvolution) -> None:
    given, sharp = record(np.float32)
    whole, half, none = (
        WindowDeblurring(deconvolution, "some.pt", KERNEL, strength=s, keep_kernel=True)(given)
        for s in (1.0, 0.5, 0.0)
    )
    blurry, restored = given.images["blur"], whole.images["restored"]
    assert psnr(restored, sharp, 15) > psnr(blurry, sharp, 15) + 3
    inside = (restored > 0) & (restored < 1)  # not clamped
    mean = (blurry + restored) / 2
    np.testing.assert_allclose(half.images["restored"][inside], mean[inside], atol=1e-5)
    np.testing.assert_array_equal(none.images["restored"], blurry)
    assert whole.attrs["kernel"].dtype == np.float64
    np.testing.assert_allclose(whole.attrs["kernel"], KERNEL, atol=1e-6)
    assert half.attrs["restored_strength"] == 0.5


def test_a_grey_photo_is_the_mean_of_its_channels(deconvolution: Deconvolution) -> None:
    given, _ = record(np.float32, 1)
    done = WindowDeblurring(deconvolution, "some.pt", KERNEL)(given)
    colour = np.repeat(given.images["blur"], 3, axis=2)
    channels = without_blur(deconvolution, colour, known(colour, KERNEL, deconvolution.options))
    assert np.ptp(channels, axis=2).max() > 1e-3  # the network was taught on colours
    expected = channels.mean(axis=2, keepdims=True).clip(0, 1)
    np.testing.assert_allclose(done.images["restored"], expected, atol=1e-5)


class Told(Deconvolution):
    """Finds the blur in windows at a photo's left, and does not believe what it finds elsewhere."""

    def windows(self, image: np.ndarray, watch: Watch = unwatched, *_: object) -> list[Window]:
        watch("estimate blur", 1, 1)
        kernel = batch(KERNEL)[0]
        return [
            replace(place, kernel=kernel, trust=0.8, believed=place.left == 0, centred=False)
            for place in self.places(image)
        ]


class Sharpening(Identity):
    """Adds what a pixel has beyond the mean around it."""

    def forward(self, image: Tensor) -> Tensor:
        return 2 * image - functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False)


class Everywhere(Told):
    """Believes the given kernels of all windows."""

    def __init__(self, told: Told, kernels: tuple[np.ndarray, ...]) -> None:
        super().__init__(told.undo.network, told.options, "cpu", "fp32")
        self.kernels = kernels

    def windows(self, image: np.ndarray, watch: Watch = unwatched, *_: object) -> list[Window]:
        return [
            replace(place, kernel=batch(kernel)[0], trust=0.8, believed=True)
            for place, kernel in zip(self.places(image), self.kernels, strict=True)
        ]


@pytest.fixture(scope="module")
def told(deconvolution: Deconvolution) -> Told:
    # two rows of two windows, in which a network need not promise anything
    options = replace(deconvolution.options, window=128, overlap=32, much=-100.0)
    return Told(deconvolution.undo.network, options, "cpu", "fp32")


def test_the_picture_is_that_of_the_middle_of_the_exposure(deconvolution: Deconvolution) -> None:
    """A camera pans along an arc, whose middle is a pixel beside its centroid."""
    time = np.linspace(-0.5, 0.5, 400)
    kernel = splat(12 * time**2 + 15, 24 * time + 15, 31)
    sharp = photo("astronaut")
    blurry = taken(sharp, kernel)
    done = WindowDeblurring(deconvolution, "some.pt")(Record("pan", {"blur": blurry}))
    np.testing.assert_allclose(done.attrs["restored_offset"], (-1, 0), atol=0.4)
    centred = without_blur(deconvolution, blurry, deconvolution.windows(blurry))
    assert psnr(done.images["restored"], sharp, 20) > psnr(centred, sharp, 20) + 1
    frame = Record("pan", {"blur": blurry}, {"film": "pan.mp4", "frame": 0})
    still = WindowDeblurring(deconvolution, "some.pt")(frame)  # the next ones would jump
    assert "restored_offset" not in still.attrs
    np.testing.assert_allclose(still.images["restored"], centred.clip(0, 1), atol=1e-6)
    given = known(blurry, kernel, deconvolution.options)
    assert exposure_middle(given) == (0, 0)  # the origin of a known kernel is its middle


def test_a_blur_is_undone_where_little_shows_it(told: Told) -> None:
    """A network hardly changes what has little contrast, but the camera shook there as well."""
    sharp = photo("coffee", 128, 224)
    sharp[:, 80:] = 0.5 + 0.1 * (sharp[:, 80:] - 0.5)
    given = Record("mist", {"blur": taken(sharp, KERNEL, 1e-3)})
    engine = torch_engine(Sharpening(), Placement("cpu", "fp32", 64))
    by_same, by_other = (
        WindowDeblurring(Everywhere(told, kernels), "some.pt", otherwise=engine)(given)
        for kernels in ((KERNEL, KERNEL), (KERNEL, shake(0, 17)))
    )
    assert by_same.attrs["restored_left"] == 0
    assert by_other.attrs["restored_left"] == 1  # what is sharp would have no such kernel
    before, after = (x[:, 130:] for x in (given.image("blur"), by_same.image("restored")))
    assert psnr(after, sharp[:, 130:], 15) > psnr(before, sharp[:, 130:], 15) + 1


def test_what_is_not_believed_is_restored_otherwise(told: Told) -> None:
    engine = torch_engine(Smooth(), Placement("cpu", "fp32", 64))
    given, _ = record(np.float32)
    plain = WindowDeblurring(told, "some.pt")(given)
    mixed = WindowDeblurring(told, "some.pt", otherwise=engine)(given)
    blurry = given.images["blur"]
    smooth = engine(blurry).clip(0, 1)
    assert np.abs(smooth - blurry).max() > 0.05
    results = [done.images["restored"] for done in (plain, mixed)]
    for result, right in zip(results, (blurry, smooth), strict=True):
        np.testing.assert_allclose(result[:, 129:], right[:, 129:], atol=1e-5)
        assert np.abs(result - right)[:, :96].max() > 0.05
    assert np.abs(results[0] - results[1])[:, :95].max() > 0.01  # joined with the other's image
    for done in (plain, mixed):
        assert (done.attrs["restored_windows"], done.attrs["restored_believed"]) == (4, 2)
        assert windows_summary(done).endswith(" degrees undone in 2 of 4 windows")
    by = f"{plain.attrs['restored_with']}; else {engine.summary()}"
    assert mixed.attrs["restored_with"] == by


class Dimmed(Identity):
    """Finds nothing to restore in dark parts."""

    def forward(self, image: Tensor) -> Tensor:
        return image - 0.1 * (image > 0.25)


def test_where_the_network_finds_nothing_to_restore_no_estimate_counts(told: Told) -> None:
    engine = torch_engine(Dimmed(), Placement("cpu", "fp32", 64))
    given, _ = record(np.float32)
    blurry = given.images["blur"]
    blurry[:, :140] = 0.2
    stages: list[str] = []
    done = WindowDeblurring(told, "some.pt", otherwise=engine, watch=watch_in(stages))(given)
    np.testing.assert_allclose(done.images["restored"], engine(blurry), atol=1e-5)
    assert np.abs(done.images["restored"] - blurry)[:, 140:].max() > 0.05
    assert [done.attrs[f"restored_{what}"] for what in ("windows", "believed", "left")] == [4, 0, 2]
    assert stages == ["estimate blur"]


class Doubtful(Told):
    """Believes nothing."""

    def windows(self, image: np.ndarray, *given: Any) -> list[Window]:
        return [replace(window, believed=False) for window in super().windows(image, *given)]


def test_a_large_photo_changes_as_its_small_copy_does(told: Told) -> None:
    """What a network leaves in the copy stays to the bit, and what it adds is added."""
    options = replace(told.options, megapixels=0.02)
    large = Doubtful(told.undo.network, options, "cpu", "fp32")
    given, _ = record(np.float32)
    blurry = given.images["blur"]
    copy = shrunk(blurry, (0.02e6 / blurry[..., 0].size) ** 0.5)
    for network, most in ((Identity(), 0.0), (Dimmed(), 0.1)):
        engine = torch_engine(network, Placement("cpu", "fp32", 64))
        done = WindowDeblurring(large, "some.pt", otherwise=engine)(given).images["restored"]
        change = grown(engine(copy) - copy, *blurry.shape[:2])
        np.testing.assert_allclose(done, (blurry + change).clip(0, 1), atol=1e-5)
        assert most <= np.abs(done - blurry).max() <= 2 * most


def test_nothing_is_estimated_if_the_network_finds_nothing_to_restore(told: Told) -> None:
    engine = torch_engine(Identity(), Placement("cpu", "fp32", 64))
    given, _ = record(np.float32)
    stages: list[str] = []
    done = WindowDeblurring(told, "some.pt", otherwise=engine, watch=watch_in(stages))(given)
    np.testing.assert_array_equal(done.images["restored"], given.images["blur"])
    assert [done.attrs[f"restored_{what}"] for what in ("windows", "believed", "left")] == [4, 0, 4]
    assert not stages
    assert "blur_length" not in done.attrs
    assert windows_summary(done, True) == "no uniform blur found in any part; left as it is"


def test_the_kernel_that_was_found_undoes_the_blur(deconvolution: Deconvolution) -> None:
    given, sharp = record(np.uint8)
    found = WindowDeblurring(deconvolution, "some.pt", keep_kernel=True)(given).attrs["kernel"]
    assert found.sum() == pytest.approx(1, abs=1e-5)
    again = WindowDeblurring(deconvolution, "some.pt", found)(given)
    blurry, restored = (to_float(again.images[key]) for key in ("blur", "restored"))
    assert psnr(restored, sharp, 15) > psnr(blurry, sharp, 15) + 0.5


@pytest.mark.parametrize("size", [(20, 30), (47, 300), (1, 1)])
def test_a_tiny_photo_stays_as_it_is(deconvolution: Deconvolution, size: tuple[int, int]) -> None:
    blurry = (photo("coffee", *size) * 255).astype(np.uint8)
    deblur = WindowDeblurring(deconvolution, "some.pt", keep_kernel=True)
    done = deblur(Record("tiny", {"blur": blurry}))
    np.testing.assert_array_equal(done.images["restored"], blurry)
    assert (done.attrs["restored_windows"], done.attrs["restored_believed"]) == (0, 0)
    assert not {"blur_length", "blur_angle", "kernel"} & done.attrs.keys()
    assert windows_summary(done) == "no uniform blur found in any part"


@pytest.mark.parametrize("size", [(20, 30), (17, 90)])
def test_a_tiny_photo_of_known_blur_is_restored(
    deconvolution: Deconvolution, size: tuple[int, int]
) -> None:
    kernel, sharp = np.full((1, 5), 0.2), photo("astronaut", *size)
    blurry = (taken(sharp, kernel, 1e-3) * 255).round().astype(np.uint8)
    done = WindowDeblurring(deconvolution, "some.pt", kernel)(Record("tiny", {"blur": blurry}))
    restored = to_float(done.images["restored"])
    assert restored.shape == sharp.shape
    assert psnr(restored, sharp, 4) > psnr(to_float(blurry), sharp, 4) + 1
    assert done.attrs["blur_length"] == pytest.approx(4.9)  # the square root of 5^2 - 1
    assert done.attrs["blur_angle"] % 180 == 0


def test_values_below_zero_do_no_harm(deconvolution: Deconvolution) -> None:
    """As sharpening leaves them in files of floating point."""
    given, sharp = record(np.float32)
    given.images["blur"][3:6, 4:9] = -0.01
    restored = WindowDeblurring(deconvolution, "some.pt")(given).images["restored"]
    assert np.isfinite(restored).all()
    assert psnr(restored, sharp, 15) > psnr(given.images["blur"], sharp, 15) + 0.5


def test_a_record_without_a_blurry_image_is_refused(deconvolution: Deconvolution) -> None:
    with pytest.raises(BlurkitError, match="blur is needed"):
        WindowDeblurring(deconvolution, "some.pt")(Record("a", {"sharp": np.ones((9, 9, 3))}))


def test_another_checkpoint_is_named() -> None:
    with pytest.raises(BlurkitError, match="a kernel needs a deconvolution network"):
        network_for("deconvolving", load_shipped("kernel-space"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed",
    [pytest.param(1, marks=pytest.mark.xfail(reason="windows agree on a false short kernel")), 2],
)
def test_a_long_blur_has_larger_windows_than_the_network_saw(seed: int) -> None:
    sharp = photo("coffee", 400, 600).astype(np.float32)
    blurry = taken(sharp, shake(seed, 95), 0.004)
    images = {"blur": from_float(blurry, np.dtype(np.uint8))}
    restored = blurkit.load(device="cpu").deblur(Record("long", images))
    assert (restored.attrs["restored_windows"], restored.attrs["restored_believed"]) == (2, 2)
    assert restored.attrs["blur_length"] > 60
    assert psnr(to_float(restored.image("restored")), sharp) > psnr(blurry, sharp) + 0.5
