"""Random training crops straight from memory-mapped shards: no decoding, no HDF5 call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.paths import natural_key, walk
from blurkit.io.records import Image, to_float
from blurkit.io.shards import SHARD_SUFFIXES, check_whole
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Unblurred


@dataclass(frozen=True)
class StoredScene:
    """A record's images as arrays mapped from its shard, read only where they are touched.

    Images of compressed shards are HDF5 datasets instead, which are cut the same way. In a scene
    that is not `whole` the last image stands for those that the record lacks.
    """

    name: str
    images: tuple[Image | h5py.Dataset, ...]
    whole: bool = True


class CropSampler:
    """Crops of records in shards, the same window from each of the wanted images.

    What is drawn depends on the seed and the step alone, so a resumed run and a run split over
    processes see the same crops. Every record comes once in an epoch, in shuffled order.

    With `synthesis` records that hold nothing but the last of the images, the sharp one, are used
    too. Their blur is made anew for every crop, and so is that of a share `made` of the others.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        crop: int,
        images: Sequence[str],
        same: float = 0.0,
        synthesis: Synthesis | None = None,
        made: float = 0.0,
    ) -> None:
        self.crop, self.same, self.synthesis, self.made = crop, same, synthesis, made
        self.images = tuple(images)
        self.scenes = map_scenes(shards, images, partly=synthesis is not None)
        # The ways of blur begin and end about as far on either side of their mean.
        self.margin = math.ceil(0.6 * synthesis.extents[1]) if synthesis else 0

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> list[np.ndarray]:
        """The crops of one step: per wanted image (n, crop, crop, 3) uint8, uint16 or float32.

        `size` is the whole batch, `part` the share of this process. In a share `same` of the
        samples all images are the last one.
        """
        chosen, places = self._drawn(seed, step, size, part)
        crops = [self.cut(scene, *place) for scene, place in zip(chosen, places, strict=True)]
        same = self._same(seed, step, size, part)
        crops = [[crop[-1]] * len(crop) if s else crop for crop, s in zip(crops, same, strict=True)]
        return [_stack([crop[i] for crop in crops]) for i in range(len(self.images))]

    def unblurred(
        self, seed: int, step: int, size: int, part: slice = slice(None)
    ) -> list[Unblurred]:
        """Those crops of one step's `batch` whose blur is to be made, to be put in their places."""
        if self.synthesis is None:
            return []
        chosen, places = self._drawn(seed, step, size, part)
        made = np.random.default_rng([seed, 5, step]).random(size)[part] < self.made
        same = self._same(seed, step, size, part)
        found = []
        for place, number in enumerate(range(size)[part]):
            scene = self.scenes[chosen[place]]
            if same[place] or (scene.whole and not made[place]):
                continue
            photo = scene.images[-1].shape[:2]
            (top, left), _ = self._corner(photo, *places[place])
            sharp = _wide(scene.images[-1], top, left, self.crop, self.margin)
            exposure = draw_exposure(
                np.random.default_rng([seed, 6, step, number]),
                self.synthesis,
                sharp.shape[:2],
                photo,
                (top - self.margin, left - self.margin),
            )
            found.append(Unblurred(place, sharp, exposure))
        return found

    def turns(self, seed: int, step: int, size: int, part: slice = slice(None)) -> np.ndarray:
        """Which of a square's eight orientations (0 to 7) each crop of one step is turned to."""
        return np.random.default_rng([seed, 3, step]).integers(8, size=size)[part]

    def cut(self, scene: int, down: float, right: float) -> list[np.ndarray]:
        """One crop of each image of a scene, at fractions `down` and `right` in [0, 1)."""
        (top, left), (size_y, size_x) = self._corner(
            self.scenes[scene].images[0].shape[:2], down, right
        )
        window = (slice(top, top + size_y), slice(left, left + size_x))
        crops = [image[window] for image in self.scenes[scene].images]
        if (size_y, size_x) != (self.crop, self.crop):
            missing = ((0, self.crop - size_y), (0, self.crop - size_x), (0, 0))
            crops = [np.pad(crop, missing, mode="reflect") for crop in crops]
        return crops

    def _corner(
        self, photo: tuple[int, int], down: float, right: float
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """(top, left) and (height, width) of a crop, whose sides are no longer than the photo's."""
        height, width = (min(self.crop, side) for side in photo)
        corner = int(down * (photo[0] - height + 1)), int(right * (photo[1] - width + 1))
        return corner, (height, width)

    def _drawn(self, seed: int, step: int, size: int, part: slice) -> tuple[list[int], np.ndarray]:
        """The scenes of one step's crops and where in them they lie, in [0, 1)."""
        places = np.random.default_rng([seed, 1, step]).random((size, 2))[part]
        first = step * size
        return [self._scene(seed, i) for i in range(first, first + size)[part]], places

    def _same(self, seed: int, step: int, size: int, part: slice) -> np.ndarray:
        return np.random.default_rng([seed, 4, step]).random(size)[part] < self.same

    def _scene(self, seed: int, sample: int) -> int:
        epoch, place = divmod(sample, len(self.scenes))
        if getattr(self, "_shuffled", None) != (seed, epoch):
            self._shuffled = (seed, epoch)
            self._order = np.random.default_rng([seed, 2, epoch]).permutation(len(self.scenes))
        return int(self._order[place])


class UnpairedSampler:
    """Crops of records, and beside each one of another photo: `blur` of `others`, called `real`.

    Which photo stands beside which record is chance alone. All else is the `sampler`'s.
    """

    def __init__(self, sampler: CropSampler, others: CropSampler) -> None:
        self._sampler, self._others = sampler, others
        self.images = (*sampler.images, "real")
        self.unblurred, self.turns = sampler.unblurred, sampler.turns

    def __len__(self) -> int:
        return len(self._sampler)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> list[np.ndarray]:
        """The crops of `CropSampler.batch`, and last those of the other photos."""
        apart = seed + (1 << 32)  # so that the two draw nothing alike
        beside = self._others.batch(apart, step, size, part)
        return [*self._sampler.batch(seed, step, size, part), *beside]


def find_shards(inputs: Sequence[Path], split: str) -> list[Path]:
    """The shards of one split: `SPLIT-*.h5` in folders, and files named outright for `train`.

    Raises BlurkitError for an input that does not exist.
    """
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = walk(path, SHARD_SUFFIXES)
            found += [p for p in inside if p.name.startswith(f"{split}-")]
        elif not path.exists():
            raise BlurkitError(f"{path}: no such shard or folder; make it with: blurkit prepare")
        elif split == "train":
            found.append(path)
    return sorted(found, key=natural_key)


def map_scenes(
    shards: Sequence[Path], images: Sequence[str], partly: bool = False
) -> list[StoredScene]:
    """Every record of the shards that holds all of `images`, mapped, in order.

    Or `partly` those that hold the last of them.

    Raises BlurkitError for a shard that is not whole, images of two sizes in one record, or when
    no record holds them all.
    """
    needed = images[-1:] if partly else images
    scenes = [scene for shard in shards for scene in _map_shard(shard, images, needed)]
    if not scenes:
        names = ", ".join(map(str, shards)) or "no shard"
        raise BlurkitError(f"{names}: no record holds {' and '.join(needed)}")
    return scenes


def _map_shard(path: Path, images: Sequence[str], needed: Sequence[str]) -> list[StoredScene]:
    check_whole(path)
    mapped = np.memmap(path, np.uint8, mode="r").view(np.ndarray)  # slices faster
    shard = h5py.File(path, "r")
    scenes = []
    for key in sorted(shard):
        group = shard[key]
        if not all(name in group for name in needed):
            continue
        name = str(group.attrs["name"])
        whole = all(name in group for name in images)
        datasets = [group[image if image in group else images[-1]] for image in images]
        if len({dataset.shape[:2] for dataset in datasets}) > 1:
            raise BlurkitError(f"{path}: record {name!r} has images of two sizes")
        scenes.append(StoredScene(name, tuple(_map_dataset(mapped, d) for d in datasets), whole))
    return scenes


def _map_dataset(mapped: np.ndarray, dataset: h5py.Dataset) -> Image | h5py.Dataset:
    offset = dataset.id.get_offset()
    if offset is None:
        return dataset
    data = mapped[offset : offset + dataset.id.get_storage_size()]
    pixels: Image = data.view(dataset.dtype).reshape(dataset.shape)
    return pixels


def _wide(image: Image | h5py.Dataset, top: int, left: int, crop: int, margin: int) -> Image:
    """A crop with a margin on each side; beyond the image's border mirrored, as in rendering."""
    inside, missing = [], []
    for start, length in ((top, image.shape[0]), (left, image.shape[1])):
        first, last = max(0, start - margin), min(length, start + crop + margin)
        inside.append(slice(first, last))
        missing.append((first - (start - margin), start + crop + margin - last))
    wide: Image = np.pad(image[tuple(inside)], [*missing, (0, 0)], mode="symmetric")
    return wide


def _stack(crops: list[np.ndarray]) -> np.ndarray:
    """Crops as one contiguous batch (N, H, W, 3); mixed depths become float32 in [0, 1]."""
    if len({crop.dtype for crop in crops}) > 1:
        crops = [to_float(np.ascontiguousarray(crop)) for crop in crops]
    height, width = crops[0].shape[:2]
    batch = np.empty((len(crops), height, width, 3), crops[0].dtype)
    for place, crop in zip(batch, crops, strict=True):
        place[...] = crop  # a gray crop fills all three channels
    return batch
