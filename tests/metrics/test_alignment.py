"""RealBlur's aligned scores: the reference numbers, and what alignment is to undo."""

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import shift

from blurkit.errors import BlurkitError
from blurkit.metrics.psnr import psnr
from tests.metrics.oracle import shifted_pairs

pytest.importorskip("cv2")

from blurkit.metrics.scores import align, aligned_scores


def test_reference_pairs() -> None:
    for name, (test, ref, expected) in shifted_pairs().items():
        aligned = aligned_scores(test, ref)
        assert aligned["psnr_aligned"] == pytest.approx(expected["psnr_realblur"], abs=0.05), name
        assert aligned["ssim_aligned"] == pytest.approx(expected["ssim_realblur"], abs=0.002), name
        assert psnr(test, ref) == pytest.approx(expected["psnr_unaligned"], abs=1e-4), name
        _, mask = align(test, ref)
        assert mask.mean() == pytest.approx(expected["mask_fraction"], abs=0.002), name
        assert set(np.unique(mask)) == {0, 1}, name


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_a_known_shift_and_gain_are_undone(channels: int, depth: type) -> None:
    sharp = skimage.data.astronaut()[100:260, 100:280, :channels] / 255
    moved = shift(sharp, (2.5, -1.25, 0), order=3, mode="mirror").clip(0, 1) * 0.8
    white = 1 if depth is np.float32 else np.iinfo(depth).max
    restored, reference = ((image * white).round(3).astype(depth) for image in (moved, sharp))
    warped, mask = align(restored, reference)
    assert warped.shape == sharp.shape
    assert mask.shape == (*sharp.shape[:2], 1)
    inner = slice(8, -8)  # the gain is that of the images before they are aligned
    assert np.abs(warped - sharp)[inner, inner].mean() < 0.02
    assert np.abs(moved - sharp)[inner, inner].mean() > 0.1
    score, similarity = aligned_scores(restored, reference).values()
    assert similarity is not None and similarity > 0.95
    assert score is not None and score > psnr(restored, reference) + 8


def test_what_cannot_be_aligned() -> None:
    photo = skimage.data.astronaut()[:64, :64]
    with pytest.raises(BlurkitError, match="the restored image is black"):
        align(np.zeros_like(photo), photo)
    with pytest.raises(BlurkitError, match="ECC does not converge"):
        align(np.full_like(photo, 100), photo)
    with pytest.raises(BlurkitError, match="sizes differ"):
        align(photo[1:], photo)
