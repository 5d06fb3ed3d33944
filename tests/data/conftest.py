"""Small dataset trees planted from crops of real photos."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import pytest
import skimage.data

from tests.data.trees import Plant
from tests.shared import shared_folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return shared_folder("data", "BLURKIT_DATA")


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """plant("blur/1.png", scene): a 24x32 crop of a photo, the darker half of it when blurred.

    Each number is another part of the photo, so that a wrong pairing shows in the pixels.
    """
    photo = skimage.data.astronaut()

    def write(where: str, scene: int, blurred: bool = False) -> None:
        path = tmp_path / where
        path.parent.mkdir(parents=True, exist_ok=True)
        top, left = 40 * (scene // 10), 45 * (scene % 10)
        crop = photo[top : top + 24, left : left + 32]
        imageio.imwrite(path, crop // 2 if blurred else crop)

    return write


@pytest.fixture
def plant_pairs(plant: Plant) -> Plant:
    """plant_pairs("blur/1.png", "sharp/1.png", scene): both files of a pair."""

    def write(blur: str, sharp: str, scene: int) -> None:
        plant(blur, scene, blurred=True)
        plant(sharp, scene)

    return write
