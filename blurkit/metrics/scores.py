"""Scoring of records: what to measure, and the scores of one image pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.opencv import gray, opencv
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import check_comparable, psnr, psnr_y
from blurkit.metrics.ssim import SSIM_KINDS, WINDOW_RADIUS, fits, ssim_map, ssims

if TYPE_CHECKING:
    from blurkit.metrics.lpips import Lpips

Scores = dict[str, float | None]

PROTOCOL = {
    "values": "rounded to 8 bits, RGB, whole image",
    "psnr": "all channels together, mean of the images' PSNR",
    "ssim": "per channel, Gaussian 11x11, sigma 1.5, valid region (scikit-image, BasicSR)",
    "ssim_matlab": "3-D Gaussian 11x11x11 over the RGB volume, replicated (MATLAB ssim, papers)",
    "ssim_skimage": "per channel, uniform 7x7, sample covariance (scikit-image's default)",
    "ssim_y": "as ssim, luma of BT.601 alone (BasicSR test_y_channel)",
}
"""How PSNR and the kinds of SSIM are computed; printed and stored with the scores."""


@dataclass(frozen=True)
class Metric:
    """Scores that `eval --metric NAME` adds to PSNR and SSIM.

    `score` maps two 8-bit images (H, W, C), the measured one first, to its scores by name, None
    where the images are too small; `protocol` says how each is computed. `require` raises
    BlurkitError if a package is missing. Images and runs are ranked by `ranking` if it is set.
    """

    name: str
    protocol: Mapping[str, str]
    score: Callable[[Image, Image], Mapping[str, float | None]]
    require: Callable[[], object] = lambda: None
    ranking: str = ""


METRICS = (
    Metric(
        "psnr-y",
        {"psnr_y": "luma of BT.601 alone (BasicSR test_y_channel)"},
        lambda made, target: {"psnr_y": psnr_y(made, target)},
    ),
    Metric(
        "aligned",
        {
            "psnr_aligned": "after gain and ECC homography, inside the mask, not rounded again "
            "(RealBlur)",
            "ssim_aligned": "as ssim, after gain and ECC homography, inside the mask (RealBlur)",
        },
        lambda made, target: aligned_scores(made, target),
        require=lambda: opencv(ALIGNMENT),
        ranking="psnr_aligned",
    ),
)
"""Every metric that can be added, in the order in which scores are printed."""

MEASURED_IMAGES = {"sharp": ("restored", "reblurred", "blur"), "blur": ("reblurred", "sharp")}
"""By target, the images that may be compared with it: the first that a record has is measured. The
others were made from the last one."""

ALONE = "of the image alone"
"""What the protocol says of measures without a reference."""

LOWER_WORDS = "lower is better"
"""What the protocol's line on such a measure ends with if its lowest value is the best."""


class NoReference:
    """Measures of an image alone, by the library pyiqa: `eval --no-reference NAME`.

    pyiqa downloads the weights of a measure when it is first used. Raises BlurkitError if pyiqa
    cannot be imported or a measure cannot be made, and UsageError for a name that it does not have.
    """

    def __init__(self, names: Sequence[str], device: str = "cpu") -> None:
        try:
            import pyiqa
        except (ImportError, RuntimeError) as error:  # torchvision raises either
            what = "--no-reference needs pyiqa and the torchvision of this torch"
            remedy = "pip install 'blurkit[no-reference]'"
            raise BlurkitError(f"{what} ({one_line(error)}): {remedy}") from error
        _refuse_others("--no-reference", names, pyiqa.list_models(metric_mode="NR"))
        self._measures, self.protocol = {}, {}
        for name in dict.fromkeys(names):
            try:
                measure = self._measures[name] = pyiqa.create_metric(name, device=device)
            except Exception as error:
                raise BlurkitError(f"--no-reference {name}: {one_line(error)}") from error
            better = LOWER_WORDS if measure.lower_better else "higher is better"
            self.protocol[name] = f"pyiqa {pyiqa.__version__}, {ALONE}, {better}"

    def score(self, image: Image) -> Scores:
        """Return the value of each measure of an 8-bit image (H, W, 1 or 3), as pyiqa gives it."""
        import torch

        rgb = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32) / 255
        batch = torch.from_numpy(rgb).permute(2, 0, 1)[None]
        scores: Scores = {}
        for name, measure in self._measures.items():
            try:
                with torch.no_grad():
                    scores[name] = float(measure(batch))
            except Exception as error:
                raise BlurkitError(f"{name}: {one_line(error)}") from error
        return scores


@dataclass(frozen=True)
class Measures:
    """What to measure: PSNR, the kinds of SSIM in `ssim` (of `SSIM_KINDS`), and `metrics` by name.

    The `image` of a record is compared with its `target`, `sharp` or `blur`; by default it is the
    first of `MEASURED_IMAGES` that the record has. `border` pixels at each side do not count. With
    `alone`, images are also measured on their own, and need no target. Raises UsageError if a kind
    of SSIM or a metric is unknown, and BlurkitError if a metric needs a package that is missing.
    """

    ssim: Sequence[str] = ("basicsr", "matlab")
    metrics: Sequence[str] = ()
    lpips: Lpips | None = None
    image: str | None = None
    target: str = "sharp"
    border: int = 0
    alone: NoReference | None = None

    def __post_init__(self) -> None:
        _refuse_others("--ssim", self.ssim, SSIM_KINDS)
        _refuse_others("--metric", self.metrics, [metric.name for metric in METRICS])
        for metric in self.added:
            metric.require()

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the scores, in the order in which they are printed."""
        keys = ["psnr", *dict.fromkeys(SSIM_KINDS[kind] for kind in self.ssim)]
        keys += [key for metric in self.added for key in metric.protocol]
        keys += ["lpips"] * (self.lpips is not None)
        return (*keys, *(self.alone.protocol if self.alone else ()))

    @property
    def added(self) -> list[Metric]:
        """The rows of `METRICS` that are measured."""
        return [metric for metric in METRICS if metric.name in self.metrics]

    @property
    def ranking(self) -> str:
        """The score that ranks images and runs: aligned PSNR if measured, else PSNR."""
        return next((metric.ranking for metric in self.added if metric.ranking), "psnr")

    def protocol(self) -> dict[str, str]:
        """Return one line on how each of these scores is computed."""
        known = PROTOCOL | {k: text for metric in self.added for k, text in metric.protocol.items()}
        known |= self.alone.protocol if self.alone else {}
        lines = {key: known[key] for key in ("values", *self.keys) if key in known}
        if self.border:
            lines["values"] = f"rounded to 8 bits, RGB, without {self.border} pixels at each side"
        if self.image or self.target != "sharp":
            images = self.image or " or ".join(MEASURED_IMAGES[self.target])
            lines["compared"] = f"{images} with {self.target}"
        return lines if self.lpips is None else {**lines, "lpips": self.lpips.protocol}

    def role(self, record: Record) -> str:
        """Return the role of the image that is measured. Raises BlurkitError if there is none."""
        roles = (self.image,) if self.image else MEASURED_IMAGES[self.target]
        record.image(*roles)
        return next(role for role in roles if role in record.images)

    def score(self, record: Record) -> Scores:
        """Return the scores of a record's `image` against its `target`, both rounded to 8 bits.

        They are `keys` and `psnr_blur` (`psnr_sharp` if the target is `blur`), the PSNR of the
        image that it was made from. An SSIM is None if its window does not fit into the image.
        Without a target, there are only the measures of the image alone, if any are wanted.
        Raises BlurkitError if there is nothing to compare, the sizes differ, or alignment fails.
        """
        made = self._seen(record.images[self.role(record)])
        own = self.alone.score(made) if self.alone else {}
        if self.alone and self.target not in record.images:
            return own
        target = self._seen(record.image(self.target))
        scores: Scores = {"psnr": psnr(made, target), **ssims(made, target, self.ssim)}
        for metric in self.added:
            scores |= metric.score(made, target)
        if self.lpips is not None:
            scores["lpips"] = self.lpips(made, target)
        if (before := MEASURED_IMAGES[self.target][-1]) in record.images:
            scores[f"psnr_{before}"] = psnr(self._seen(record.images[before]), target)
        return scores | own

    def _seen(self, image: Image) -> Image:
        """Return what counts of an image, in 8 bits. Raises BlurkitError if nothing is left."""
        height, width = image.shape[:2]
        if min(height, width) <= 2 * self.border:
            raise BlurkitError(f"--crop-border {self.border}: leaves nothing of {width}x{height}")
        inner = image[self.border : height - self.border, self.border : width - self.border]
        return eight_bit(inner)


def _refuse_others(option: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"{option} {name}: choose from {', '.join(known)}")


def eight_bit(image: Image) -> Image:
    """Return `image` rounded to uint8, as an 8-bit file would store it."""
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)


# ---- RealBlur's alignment ------------------------------------------------------------------------

# The benchmark's pairs come from two cameras, so a restored image may be shifted relative to its
# sharp image and differ in brightness. Both are corrected before the images are compared (Rim et
# al., ECCV 2020, `evaluation_RealBlur_ecc.py`).

ECC_ITERATIONS = 100
GAUSSIAN_SIZE = 5
"""ECC's maximum number of iterations, and the size of the Gaussian that smooths both images."""

ALIGNMENT = "alignment"
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
    cv2 = opencv(ALIGNMENT)
    check_comparable(restored, sharp)
    moving, fixed = to_float(restored), to_float(sharp)
    power = float(np.vdot(moving, moving))
    if power == 0:
        raise BlurkitError("cannot be aligned: the restored image is black")
    moving = moving * np.float32(np.vdot(fixed, moving) / power)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, ECC_ITERATIONS, 0)
    options = (np.eye(3, dtype=np.float32), cv2.MOTION_HOMOGRAPHY, criteria, None, GAUSSIAN_SIZE)
    try:
        _, homography = cv2.findTransformECC(gray(cv2, fixed), gray(cv2, moving), *options)
    except cv2.error as error:
        raise BlurkitError("cannot be aligned: ECC does not converge on this pair") from error
    warp = partial(cv2.warpPerspective, M=homography, dsize=sharp.shape[1::-1])
    cubic, nearest = (kind | cv2.WARP_INVERSE_MAP for kind in (cv2.INTER_CUBIC, cv2.INTER_NEAREST))
    warped = warp(moving, flags=cubic, borderMode=cv2.BORDER_REFLECT)
    mask = warp(np.ones(sharp.shape[:2], np.float32), flags=nearest)  # 0 beyond the border
    if not mask.any():
        raise BlurkitError("cannot be aligned: ECC moved the restored image out of the frame")
    return warped.reshape(sharp.shape), mask[:, :, None]


def aligned_scores(restored: Image, sharp: Image) -> Scores:
    """Return PSNR in dB and SSIM of the images inside the mask, after `align`, whose errors it has.

    White is at 1. SSIM is the mean over channels of the map (`ssim_map`) of the masked images,
    inside the mask; it is None if a side has fewer than 11 pixels or the mask covers nothing of it.
    """
    warped, mask = align(restored, sharp)
    warped = (warped * mask).astype(np.float64)
    fixed = (to_float(sharp) * mask).astype(np.float64)
    difference = warped - fixed
    mse = float(np.vdot(difference, difference)) / (float(mask.sum()) * sharp.shape[2])
    decibels = math.inf if mse == 0 else -10 * math.log10(mse)
    inner = mask[WINDOW_RADIUS:-WINDOW_RADIUS, WINDOW_RADIUS:-WINDOW_RADIUS]
    similarity = None
    if fits(sharp) and inner.any():
        similarity = float((ssim_map(warped, fixed) * inner).mean(axis=2).sum() / inner.sum())
    return {"psnr_aligned": decibels, "ssim_aligned": similarity}
