"""Pictures that commands are tried on: parts of a photo, blurred, alone or in a dataset tree."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import skimage.data


def photo(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A crop of a photo; each number is another part of it."""
    top, left = 37 * (number // 10) % (513 - height), 41 * (number % 10) % (513 - width)
    return skimage.data.astronaut()[top : top + height, left : left + width]


def blurred(image: np.ndarray) -> np.ndarray:
    """The mean of each pixel and its right neighbours."""
    moved = [np.roll(image, -step, axis=1).astype(np.uint16) for step in range(5)]
    return (np.sum(moved, axis=0) // 5).astype(np.uint8)


def write(name: str | Path, image: np.ndarray) -> Path:
    """Save an image, making its folders."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    imageio.imwrite(path, image)
    return path


def plant_photos(folder: str | Path, count: int, height: int = 48, width: int = 64) -> Path:
    """So many photos: FOLDER/0.png and on."""
    for number in range(count):
        write(Path(folder, f"{number}.png"), photo(number, height, width))
    return Path(folder)


def plant_pair(root: str | Path, name: str, number: int = 0, **size: int) -> None:
    """A blurred and a sharp image of one scene in a GoPro tree: SEQUENCE/{blur,sharp}/NAME.png."""
    sequence, _, stem = name.rpartition("/")
    sharp = photo(number, **size)
    write(Path(root, sequence, "blur", f"{stem}.png"), blurred(sharp))
    write(Path(root, sequence, "sharp", f"{stem}.png"), sharp)


def plant_tree(root: str | Path, count: int, **size: int) -> Path:
    """A GoPro tree of `count` test pairs, two to a sequence."""
    for number in range(count):
        plant_pair(Path(root, "test"), f"scene{number // 2}/{number % 2}", number, **size)
    return Path(root)
