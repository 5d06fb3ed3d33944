"""Crops cover the whole image, alike in all images of a record."""

import numpy as np
import pytest
import skimage.data

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record, central_crop, crop_record, crop_starts


@pytest.mark.parametrize(
    ("length", "size", "stride", "expected"),
    [
        (720, 512, 256, [0, 208]),
        (1280, 512, 256, [0, 256, 512, 768]),
        (512, 512, 256, [0]),
        (100, 512, 256, [0]),
        (513, 512, 256, [0, 1]),
        (10, 3, 5, [0, 5, 7]),
    ],
)
def test_starts(length: int, size: int, stride: int, expected: list[int]) -> None:
    assert crop_starts(length, size, stride) == expected


def test_all_images_are_cut_alike() -> None:
    photo = skimage.data.coffee()  # 400 x 600
    images = {"blur": photo // 2, "sharp": photo, "alpha": photo[:, :, :1]}
    record = Record("a/b", images, {"source": "b.png", "exif": np.zeros(3), "sequence": "a"})
    crops = list(crop_record(record, 256, 128))
    assert [crop.name for crop in crops] == [f"a/b-{n:03d}" for n in range(1, 13)]
    covered = np.zeros(photo.shape[:2], bool)
    corners = [(top, left) for top in (0, 128, 144) for left in (0, 128, 256, 344)]
    for crop, (top, left) in zip(crops, corners, strict=True):
        window = slice(top, top + 256), slice(left, left + 256)
        covered[window] = True
        for key, image in crop.images.items():
            np.testing.assert_array_equal(image, images[key][window])
        assert crop.attrs == {"source": "b.png", "sequence": "a"}
    assert covered.all()


def test_a_short_side_stays_whole() -> None:
    record = Record("a", {"sharp": skimage.data.coffee()[:50, :300]})
    assert [c.images["sharp"].shape for c in crop_record(record, 128, 128)] == [(50, 128, 3)] * 3


def test_wrong_crops() -> None:
    photo = skimage.data.coffee()
    with pytest.raises(UsageError, match="1 or more"):
        list(crop_record(Record("a", {"sharp": photo}), 0, 1))
    with pytest.raises(BlurkitError, match="images of one size, these are 600x399, 600x400"):
        list(crop_record(Record("a", {"blur": photo[1:], "sharp": photo}), 64, 64))


def test_central_crops() -> None:
    image = np.arange(7 * 10).reshape(7, 10, 1)
    np.testing.assert_array_equal(central_crop(image, 3, 4), image[2:5, 3:7])
    np.testing.assert_array_equal(central_crop(image, 9, 2), image[:, 4:6])
