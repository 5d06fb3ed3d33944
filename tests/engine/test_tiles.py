"""Tiles cover every pixel, overlap as asked, and blend without seams."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from blurkit.engine.engine import Canvas, run_slices, slices, starts, window


def test_the_slices_of_a_gopro_frame() -> None:
    places = slices(720, 1280, 256)
    assert len(places) == 15
    assert sorted({top for top, _ in places}) == [0, 232, 464]
    assert sorted({left for _, left in places}) == [0, 256, 512, 768, 1024]
    assert slices(256, 256, 256) == [(0, 0)]


def test_tiles_cover_every_pixel_and_overlap_enough() -> None:
    for tile in (1, 2, 5, 16, 64, 256):
        for overlap in {0, 1, tile // 4, tile // 2}:
            if overlap > tile // 2:
                continue
            for length in [*range(1, 3 * tile + 2), 720, 1280, 2216, 2944]:
                found = starts(length, tile, overlap)
                case = (length, tile, overlap)
                if length <= tile:
                    assert found == [0], case
                    continue
                assert found[0] == 0 and found[-1] == length - tile, case
                steps = np.diff(found)
                assert (steps >= 1).all() and (steps <= tile - overlap).all(), case
                fewest = -(-(length - overlap) // (tile - overlap))
                assert len(found) == fewest, case


@pytest.mark.parametrize("overlap", [0, 1, 7, 16])
@pytest.mark.parametrize("tile", [(32, 32), (32, 48), (5, 9)])
def test_windows_fall_only_towards_the_border(tile: tuple[int, int], overlap: int) -> None:
    weights = window(tile, overlap)[:, :, 0]
    assert weights.shape == tile and weights.min() > 0 and weights.max() <= 1
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    inside = weights[overlap : tile[0] - overlap, overlap : tile[1] - overlap]
    assert (inside == 1).all()
    assert (np.diff(weights[: tile[0] // 2], axis=0) >= 0).all()


@pytest.mark.parametrize("overlap", [0, 5, 16])
@pytest.mark.parametrize("size", [(32, 32), (33, 71), (100, 40)])
def test_tiles_of_an_image_give_it_back(size: tuple[int, int], overlap: int) -> None:
    photo = skimage.data.astronaut()[: size[0], : size[1]] / np.float32(255)
    canvas = Canvas(*size, 3, overlap)
    for top in starts(size[0], 32, overlap):
        for left in starts(size[1], 32, overlap):
            canvas.add(top, left, photo[top : top + 32, left : left + 32])
    np.testing.assert_allclose(canvas.image(), photo, atol=1e-6)


def test_a_step_between_tiles_becomes_a_smooth_ramp() -> None:
    canvas = Canvas(32, 56, 1, 8)
    canvas.add(0, 0, np.zeros((32, 32, 1), np.float32))
    canvas.add(0, 24, np.ones((32, 32, 1), np.float32))
    row = canvas.image()[16, :, 0]
    np.testing.assert_allclose(row[24:32], np.sin(np.pi / 18 * np.arange(1, 9)) ** 2, atol=1e-6)
    assert (row[:24] == 0).all() and (row[32:] == 1).all()


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_slices_are_averaged_uniformly(batch: int) -> None:
    image = np.random.default_rng(0).random((1, 3, 70, 50), np.float32)
    seen: list[tuple[int, ...]] = []

    def numbered(tiles: np.ndarray) -> np.ndarray:
        first = sum(shape[0] for shape in seen)
        seen.append(tiles.shape)
        values = np.arange(first, first + len(tiles), dtype=np.float32)
        return tiles * 0 + values[:, None, None, None]

    result = run_slices(numbered, image, 32, batch)
    total, hits = np.zeros((70, 50)), np.zeros((70, 50))
    for number, (top, left) in enumerate(slices(70, 50, 32)):
        total[top : top + 32, left : left + 32] += number
        hits[top : top + 32, left : left + 32] += 1
    assert all(shape[1:] == (3, 32, 32) and shape[0] <= batch for shape in seen)
    for channel in result[0]:
        np.testing.assert_allclose(channel, total / hits, rtol=1e-6)
