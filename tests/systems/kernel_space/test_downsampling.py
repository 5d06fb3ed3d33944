"""PULSE's operator in a blind search: image and photo are compared downsampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from blurkit.systems.blind_search import TiledSearch
from blurkit.systems.kernel_space.operators import Downsampling
from tests.systems.kernel_space.searches import context, photo, record, searched


def test_it_is_bicubic_downsampling() -> None:
    image = photo(64, 96)
    values = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
    made = Downsampling(4).blur(values, torch.zeros(1, 1))[0].permute(1, 2, 0).numpy()
    # Pillow's window is as long, with a = -0.5 too; its border is another.
    known = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BICUBIC))
    assert made.shape == known.shape
    np.testing.assert_allclose(255 * made[2:-2, 2:-2], known[2:-2, 2:-2], atol=1)


@pytest.mark.parametrize("search", ["joint", "alternating"])
def test_a_search_makes_an_image_that_is_like_the_photo_once_small(search: str) -> None:
    shared = context(
        "downsampling", search=search, iterations=40, kernel_steps=2, image_rate=1e-2, patience=0
    )
    job = TiledSearch(record(height=62, width=66), shared)
    result = searched(job)
    assert result.images["restored"].shape == (62, 66, 3)
    assert result.attrs["blind_objective"] > 0
    small = [
        np.asarray(Image.fromarray(image).resize((16, 15), Image.Resampling.BICUBIC)).astype(int)
        for image in (result.images["restored"], photo(62, 66))
    ]
    assert np.abs(small[0] - small[1]).mean() < 20 < np.abs(128 - small[1]).mean()
