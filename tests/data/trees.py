"""What the tests of dataset trees share; the trees are planted by the fixtures in conftest.py."""

import re
from collections.abc import Callable, Iterable

import numpy as np

from blurkit.data.places import Scene
from blurkit.data.sources import load_scene
from blurkit.errors import BlurkitError

Plant = Callable[..., None]
Give = Callable[[bytes], None]

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
R = "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"

A, B, C = "GOPR0372_07_00-000047", "GOPR0384_11_00-000001", "GOPR0384_11_05-000001"
CLOSE, LONG = "109fromGOPR1096.MP4", "110fromGOPR1096.MP4"

LAYOUTS: dict[str, dict[str, tuple[str, str | None]]] = {
    "GoPro": {
        "train/GOPR0372_07_00/[blur|sharp]/000047.png": ("GOPR0372_07_00/000047", "train"),
        "train/GOPR0372_07_01/[blur|sharp]/000047.png": ("GOPR0372_07_01/000047", "train"),
        "test/GOPR0384_11_00/[blur|sharp]/000001.png": ("GOPR0384_11_00/000001", "test"),
    },
    "GoPro flattened for MIMO-UNet": {
        "train/[blur|sharp]/GOPR0372_07_00_000047.png": ("GOPR0372_07_00_000047", "train"),
        "test/[blur|sharp]/GOPR0384_11_00_000001.png": ("GOPR0384_11_00_000001", "test"),
    },
    "GoPro flattened for MPRNet": {
        "train/[input|target]/GOPR0372_07_00-000047.png": ("GOPR0372_07_00-000047", "train"),
        "test/[input|target]/GOPR0384_11_00-000001.png": ("GOPR0384_11_00-000001", "test"),
    },
    "GoPro flattened for Restormer": {
        f"train/GoPro/[input|target]_crops/{A}-1.png": (f"train/GoPro/{A}-1", "train"),
        f"val/GoPro/[input|target]_crops/{B}-1.png": (f"val/GoPro/{B}-1", "val"),
        f"test/GoPro/[input|target]/{C}.png": (f"test/GoPro/{C}", "test"),
    },
    "REDS": {
        "train/train_[blur|sharp]/000/00000000.png": ("train/000/00000000", "train"),
        "train/train_[blur|sharp]/000/00000001.png": ("train/000/00000001", "train"),
        "val/val_[blur|sharp]/000/00000000.png": ("val/000/00000000", "val"),
    },
    "clip tree": {
        "[blur|sharp]_imgs/000/00000000.png": ("000/00000000", None),
        "[blur|sharp]_imgs/001/00000000.png": ("001/00000000", None),
    },
    "RealBlur": {
        f"{J}/scene001/[blur/blur|gt/gt]_2.png": (f"{J}/scene001/blur_2", None),
        f"{J}/scene001/[blur/blur|gt/gt]_10.png": (f"{J}/scene001/blur_10", None),
        f"{R}/scene001/[blur/blur|gt/gt]_2.png": (f"{R}/scene001/blur_2", None),
    },
    "RSBlur": {
        "RSBlur/0001/000001/[real_blur/real_blur|gt/gt_sharp].png": ("RSBlur/0001/000001", None),
        "RSBlur/0001/000002/[real_blur/real_blur|gt/gt_sharp].png": ("RSBlur/0001/000002", None),
        "RSBlur/0002/000021/[real_blur/1|gt/1].png": ("RSBlur/0002/000021/1", None),
    },
    "GoPro of RSBlur's authors": {
        f"GOPR0372_07_0{n}/000001/[avg_inter_img/avg_blur|gt/gt_sharp].png": (
            *(f"GOPR0372_07_0{n}/000001", None),
        )
        for n in (0, 1)
    },
    "HIDE": {
        "[train|GT]/1fromGOPR0950.png": ("1fromGOPR0950", "train"),
        f"[test/test-close-ups|GT]/{CLOSE}.png": (f"test-close-ups/{CLOSE}", "test"),
        f"[test/test-long-shot|GT]/{LONG}.png": (f"test-long-shot/{LONG}", "test"),
    },
    "pairs": {"[blurry|sharp]/a.png": ("a", None)},
    "pairs by other names": {
        "train/[lq|gt]/a.png": ("train/a", "train"),
        "validation/[lq|gt]/a.png": ("val/a", "val"),
    },
    "pairs in source and target": {"train/[source|target]/a.png": ("a", "train")},
    "pairs in blur_image and gt_image": {"test/[blur_image|gt_image]/a.png": ("a", "test")},
    "pairs in input and target, in a clip": {"001/[input|target]/a.png": ("001/a", None)},
}
"""By layout, the paths of its pairs, as [blurred|sharp], with the names and splits expected."""


def alternatives(path: str) -> tuple[str, str]:
    """The blurred and the sharp file that a path with [blurred|sharp] stands for."""
    before, blurred, sharp, after = re.split(r"[\[|\]]", path)
    return before + blurred + after, before + sharp + after


TREES: dict[str, tuple[list[tuple[str, str]], dict[str, str | None]]] = {
    layout: ([alternatives(path) for path in paths], dict(paths.values()))
    for layout, paths in LAYOUTS.items()
}
"""By layout, the files of its pairs, and the splits expected by name."""


class Reports(list[tuple[str, str]]):
    """Where something was wrong, and the error: keeps what is reported when it is called."""

    def __call__(self, where: str, error: BlurkitError) -> None:
        self.append((where, str(error)))


def assert_pair(images: dict[str, np.ndarray], tolerance: float = 0) -> None:
    """`blur` is what `plant` made of the same scene as `sharp`."""
    error = np.abs(images["blur"].astype(float) - images["sharp"] // 2)
    assert error.mean() <= tolerance


def assert_pairs(scenes: Iterable[Scene], tolerance: float = 0) -> None:
    """The same of each scene's images."""
    for scene in scenes:
        assert_pair(load_scene(scene).images, tolerance)
