"""Scores after alignment, as the RealBlur benchmark measures them.

RealBlur's pairs come from two cameras, so a restored image may be shifted relative to its sharp
image and differ in brightness. The benchmark corrects both before it compares the images (Rim et
al., ECCV 2020, `evaluation_RealBlur_ecc.py`). Requires OpenCV: `pip install 'blurkit[align]'`.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.opencv import gray, opencv
from blurkit.io.records import Image, to_float
from blurkit.metrics.psnr import check_comparable
from blurkit.metrics.ssim import WINDOW_RADIUS, fits, ssim_map

ECC_ITERATIONS = 100
GAUSSIAN_SIZE = 5
"""ECC's maximum number of iterations, and the size of the Gaussian that smooths both images."""

ALIGNMENT_PURPOSE = "alignment"
"""The purpose that the error message of `opencv` names if OpenCV is missing."""


def align(restored: Image, sharp: Image) -> tuple[np.ndarray, np.ndarray]:
    """Return `restored` aligned with `sharp`, and the mask of the pixels that it covers.

    Applies one gain to all channels, found by least squares, then the homography that maximises the
    enhanced correlation coefficient (ECC; Evangelidis and Psarakis 2008) of the gray images, with
    cubic interpolation. Both images are (H, W, C) and have the same depth. The aligned image is
    float32 (H, W, C) in about [0, 1], not rounded; the mask is (H, W, 1) and holds 0 and 1.
    Raises BlurkitError if the images differ in shape or depth, if the restored image is black, or
    if ECC does not converge or moves the image out of the frame.
    """
    cv2 = opencv(ALIGNMENT_PURPOSE)
    check_comparable(restored, sharp)
    moving, fixed = to_float(restored), to_float(sharp)
    power = float(np.vdot(moving, moving))
    if power == 0:
        raise BlurkitError("cannot be aligned: the restored image is black")
    moving = moving * np.float32(np.vdot(fixed, moving) / power)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_ITERATIONS, 0)
    try:
        _, homography = cv2.findTransformECC(
            gray(cv2, fixed),
            gray(cv2, moving),
            np.eye(3, dtype=np.float32),
            cv2.MOTION_HOMOGRAPHY,
            criteria,
            None,
            GAUSSIAN_SIZE,
        )
    except cv2.error as error:
        raise BlurkitError("cannot be aligned: ECC does not converge on this pair") from error
    warp = partial(cv2.warpPerspective, M=homography, dsize=sharp.shape[1::-1])
    cubic, nearest = (kind | cv2.WARP_INVERSE_MAP for kind in (cv2.INTER_CUBIC, cv2.INTER_NEAREST))
    warped = warp(moving, flags=cubic, borderMode=cv2.BORDER_REFLECT)
    mask = warp(np.ones(sharp.shape[:2], np.float32), flags=nearest)  # 0 beyond the border
    if not mask.any():
        raise BlurkitError("cannot be aligned: ECC moved the restored image out of the frame")
    return warped.reshape(sharp.shape), mask[:, :, None]


def aligned_scores(restored: Image, sharp: Image) -> tuple[float, float | None]:
    """Return (PSNR in dB, SSIM) of the images inside the mask, after `align`.

    PSNR is computed over the pixels of the mask, with white at 1. SSIM is the mean over channels of
    the per-channel Gaussian map (`ssim_map`) of the masked images, inside the mask; it is None if a
    side has fewer than 11 pixels or the mask covers nothing of the map.
    Raises BlurkitError as `align` does.
    """
    warped, mask = align(restored, sharp)
    warped = (warped * mask).astype(np.float64)
    fixed = (to_float(sharp) * mask).astype(np.float64)
    difference = warped - fixed
    mse = float(np.vdot(difference, difference)) / (float(mask.sum()) * sharp.shape[2])
    psnr = math.inf if mse == 0 else -10 * math.log10(mse)
    inner = mask[WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]
    if not fits(sharp) or not inner.any():
        return psnr, None
    return psnr, float((ssim_map(warped, fixed) * inner).mean(axis=2).sum() / inner.sum())
