"""What the tests of dataset trees share; the trees are planted by the fixtures in conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Plant = Callable[..., None]

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"

# layout: (files of the pairs as (blurred, sharp), names and splits expected)
TREES: dict[str, tuple[list[tuple[str, str]], dict[str, str | None]]] = {
    "GoPro": (
        [
            ("train/GOPR0372_07_00/blur/000047.png", "train/GOPR0372_07_00/sharp/000047.png"),
            ("train/GOPR0372_07_01/blur/000047.png", "train/GOPR0372_07_01/sharp/000047.png"),
            ("test/GOPR0384_11_00/blur/000001.png", "test/GOPR0384_11_00/sharp/000001.png"),
        ],
        {
            "GOPR0372_07_00/000047": "train",
            "GOPR0372_07_01/000047": "train",
            "GOPR0384_11_00/000001": "test",
        },
    ),
    "GoPro flattened for MIMO-UNet": (
        [
            ("train/blur/GOPR0372_07_00_000047.png", "train/sharp/GOPR0372_07_00_000047.png"),
            ("test/blur/GOPR0384_11_00_000001.png", "test/sharp/GOPR0384_11_00_000001.png"),
        ],
        {"GOPR0372_07_00_000047": "train", "GOPR0384_11_00_000001": "test"},
    ),
    "GoPro flattened for MPRNet": (
        [
            ("train/input/GOPR0372_07_00-000047.png", "train/target/GOPR0372_07_00-000047.png"),
            ("test/input/GOPR0384_11_00-000001.png", "test/target/GOPR0384_11_00-000001.png"),
        ],
        {"GOPR0372_07_00-000047": "train", "GOPR0384_11_00-000001": "test"},
    ),
    "GoPro flattened for Restormer": (
        [
            (
                "train/GoPro/input_crops/GOPR0372_07_00-000047-1.png",
                "train/GoPro/target_crops/GOPR0372_07_00-000047-1.png",
            ),
            (
                "val/GoPro/input_crops/GOPR0384_11_00-000001-1.png",
                "val/GoPro/target_crops/GOPR0384_11_00-000001-1.png",
            ),
            (
                "test/GoPro/input/GOPR0384_11_05-000001.png",
                "test/GoPro/target/GOPR0384_11_05-000001.png",
            ),
        ],
        {
            "train/GoPro/GOPR0372_07_00-000047-1": "train",
            "val/GoPro/GOPR0384_11_00-000001-1": "val",
            "test/GoPro/GOPR0384_11_05-000001": "test",
        },
    ),
    "REDS": (
        [
            ("train/train_blur/000/00000000.png", "train/train_sharp/000/00000000.png"),
            ("train/train_blur/000/00000001.png", "train/train_sharp/000/00000001.png"),
            ("val/val_blur/000/00000000.png", "val/val_sharp/000/00000000.png"),
        ],
        {
            "train/000/00000000": "train",
            "train/000/00000001": "train",
            "val/000/00000000": "val",
        },
    ),
    "clip tree": (
        [
            ("blur_imgs/000/00000000.png", "sharp_imgs/000/00000000.png"),
            ("blur_imgs/001/00000000.png", "sharp_imgs/001/00000000.png"),
        ],
        {"000/00000000": None, "001/00000000": None},
    ),
    "RealBlur": (
        [
            (f"{J}/scene001/blur/blur_2.png", f"{J}/scene001/gt/gt_2.png"),
            (f"{J}/scene001/blur/blur_10.png", f"{J}/scene001/gt/gt_10.png"),
            (f"{R}/scene001/blur/blur_2.png", f"{R}/scene001/gt/gt_2.png"),
        ],
        {
            f"{J}/scene001/blur_2": None,
            f"{J}/scene001/blur_10": None,
            f"{R}/scene001/blur_2": None,
        },
    ),
    "HIDE": (
        [
            ("train/1fromGOPR0950.png", "GT/1fromGOPR0950.png"),
            ("test/test-close-ups/109fromGOPR1096.MP4.png", "GT/109fromGOPR1096.MP4.png"),
            ("test/test-long-shot/110fromGOPR1096.MP4.png", "GT/110fromGOPR1096.MP4.png"),
        ],
        {
            "1fromGOPR0950": "train",
            "test-close-ups/109fromGOPR1096.MP4": "test",
            "test-long-shot/110fromGOPR1096.MP4": "test",
        },
    ),
    "pairs": ([("blurry/a.png", "sharp/a.png")], {"a": None}),
    "pairs by other names": (
        [
            ("train/lq/a.png", "train/gt/a.png"),
            ("validation/lq/a.png", "validation/gt/a.png"),
        ],
        {"train/a": "train", "val/a": "val"},
    ),
}


def assert_pair(images: dict[str, np.ndarray], tolerance: float = 0) -> None:
    """`blur` is what `plant` made of the same scene as `sharp`."""
    error = np.abs(images["blur"].astype(float) - images["sharp"] // 2)
    assert error.mean() <= tolerance
