"""Random training crops, read from memory-mapped shards without decoding or HDF5 calls."""

import math
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.hdf5 import attribute
from blurkit.io.paths import natural_key, walk
from blurkit.io.records import Image, to_float
from blurkit.io.shards import SHARD_SUFFIXES, check_whole
from blurkit.io.writing import check_replaced
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Unblurred


@dataclass(frozen=True)
class StoredScene:
    """A record's images as arrays mapped from its shard, read only where they are accessed.

    Images of compressed shards are HDF5 datasets, which are sliced in the same way. In a scene that
    is not `whole`, the last image replaces those that the record lacks.
    """

    name: str
    images: tuple[Image | h5py.Dataset, ...]
    whole: bool = True


class CropSampler:
    """Crops of records in shards; all `images` of a record are cut at the same place.

    The random draws depend only on the seed and the step, so a resumed run and a run distributed
    over processes see the same crops. Every record occurs once per epoch, in shuffled order. `same`
    is the fraction of samples in which all images are the last one.

    With `synthesis`, records that hold only the last of the images, the sharp one, are used too.
    Their blur is synthesised for every crop, as is that of a fraction `made` of the other records.
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
        # Blur trajectories extend about equally far on both sides of their mean.
        self.margin = math.ceil(0.6 * synthesis.extents[1]) if synthesis else 0

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> list[np.ndarray]:
        """Return the crops of one step, per image an array (n, crop, crop, 3).

        Its type is uint8, uint16 or float32. `size` is the whole batch, `part` this process's.
        """
        chosen, places = self._drawn(seed, step, size, part)
        crops = [self.cut(scene, *place) for scene, place in zip(chosen, places, strict=True)]
        same = self._same(seed, step, size, part)
        crops = [[crop[-1]] * len(crop) if s else crop for crop, s in zip(crops, same, strict=True)]
        return [_stack([crop[i] for crop in crops]) for i in range(len(self.images))]

    def unblurred(
        self, seed: int, step: int, size: int, part: slice = slice(None)
    ) -> list[Unblurred]:
        """Return the crops in one step's `batch` whose blur is still to be synthesised."""
        if self.synthesis is None:
            return []
        chosen, places = self._drawn(seed, step, size, part)
        made = np.random.default_rng([seed, 5, step]).random(size)[part] < self.made
        same = self._same(seed, step, size, part)
        unblurred = []
        for place, number in enumerate(range(size)[part]):
            scene = self.scenes[chosen[place]]
            if same[place] or (scene.whole and not made[place]):
                continue
            photo = scene.images[-1].shape[:2]
            top, left = self._corner(photo, *places[place])
            sharp = _wide(scene.images[-1], top, left, self.crop, self.margin)
            rng = np.random.default_rng([seed, 6, step, number])
            corner = top - self.margin, left - self.margin
            exposure = draw_exposure(rng, self.synthesis, sharp.shape[:2], photo, corner)
            unblurred.append(Unblurred(place, sharp, exposure))
        return unblurred

    def turns(self, seed: int, step: int, size: int, part: slice = slice(None)) -> np.ndarray:
        """Return the orientation of each crop of one step, one of a square's eight (0 to 7)."""
        return np.random.default_rng([seed, 3, step]).integers(8, size=size)[part]

    def cut(self, scene: int, down: float, right: float) -> list[np.ndarray]:
        """Return one crop of each image of a scene, at fractions `down` and `right` in [0, 1)."""
        images = self.scenes[scene].images
        top, left = self._corner(images[0].shape[:2], down, right)
        crops = [image[top : top + self.crop, left : left + self.crop] for image in images]
        missing = [(0, self.crop - side) for side in crops[0].shape[:2]]
        if any(after for _, after in missing):  # the photo is smaller
            crops = [np.pad(crop, [*missing, (0, 0)], mode="reflect") for crop in crops]
        return crops

    def _corner(self, photo: tuple[int, int], down: float, right: float) -> tuple[int, int]:
        """Return (top, left) of a crop; one that is larger than the photo begins at its corner."""
        rows, columns = (max(side - self.crop, 0) + 1 for side in photo)
        return int(down * rows), int(right * columns)

    def _drawn(self, seed: int, step: int, size: int, part: slice) -> tuple[list[int], np.ndarray]:
        """Return the scenes of one step's crops and the crops' positions in them, in [0, 1)."""
        places = np.random.default_rng([seed, 1, step]).random((size, 2))[part]
        count = len(self.scenes)
        samples = (divmod(step * size + i, count) for i in range(size)[part])
        return [int(_order(seed, epoch, count)[sample]) for epoch, sample in samples], places

    def _same(self, seed: int, step: int, size: int, part: slice) -> np.ndarray:
        return np.random.default_rng([seed, 4, step]).random(size)[part] < self.same


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of `count` scenes in an epoch."""
    return np.random.default_rng([seed, 2, epoch]).permutation(count)


class UnpairedSampler:
    """Crops of records, each with `real`, a random crop of another photo: `blur` of `others`."""

    def __init__(self, sampler: CropSampler, others: CropSampler) -> None:
        self._sampler, self._others = sampler, others
        self.images = (*sampler.images, "real")
        self.unblurred, self.turns = sampler.unblurred, sampler.turns

    def __len__(self) -> int:
        return len(self._sampler)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> list[np.ndarray]:
        """Return the crops of `CropSampler.batch`, then those of the other photos."""
        other_seed = seed + (1 << 32)  # so that the two samplers draw independently
        real = self._others.batch(other_seed, step, size, part)
        return [*self._sampler.batch(seed, step, size, part), *real]


def find_shards(inputs: Sequence[Path], split: str) -> list[Path]:
    """Find the shards of one split: `SPLIT-*.h5` in folders; single files belong to `train`.

    Raises BlurkitError if an input does not exist.
    """
    shards: list[Path] = []
    for path in inputs:
        if path.is_dir():
            check_replaced(path)
            shards += [p for p in walk(path, SHARD_SUFFIXES) if p.name.startswith(f"{split}-")]
        elif not path.exists():
            raise BlurkitError(f"{path}: no such shard or folder; make it with: blurkit prepare")
        elif split == "train":
            shards.append(path)
    return sorted(shards, key=natural_key)


def training_shards(inputs: Sequence[Path]) -> list[Path]:
    """Find the shards to train on. Raises BlurkitError if there are none."""
    if not (shards := find_shards(inputs, "train")):
        names = ", ".join(map(str, inputs))
        raise BlurkitError(f"{names}: holds no train-*.h5; make them with: blurkit prepare")
    return shards


def map_scenes(
    shards: Sequence[Path], images: Sequence[str], partly: bool = False
) -> list[StoredScene]:
    """Map every record of the shards that holds all of `images`, or if `partly` the last, in order.

    Raises BlurkitError if a shard is not whole, if a record has images of two sizes, or if no
    record holds the images.
    """
    needed = images[-1:] if partly else images
    scenes = [scene for shard in shards for scene in _map_shard(shard, images, needed)]
    if not scenes:
        names = ", ".join(map(str, shards)) or "no shard"
        raise BlurkitError(f"{names}: no record holds {' and '.join(needed)}")
    return scenes


def _map_shard(path: Path, images: Sequence[str], needed: Sequence[str]) -> list[StoredScene]:
    check_whole(path)
    mapped = np.memmap(path, np.uint8, mode="r").view(np.ndarray)  # slices faster than a memmap
    shard = h5py.File(path, "r", locking=False)
    scenes: list[StoredScene] = []
    with ExitStack() as stack:
        stack.callback(_close, shard)
        for group in (shard[key] for key in sorted(shard)):
            if not all(image in group for image in needed):
                continue
            name, whole = str(attribute(group, "name")), all(image in group for image in images)
            datasets = [group[image if image in group else images[-1]] for image in images]
            if len({dataset.shape[:2] for dataset in datasets}) > 1:
                raise BlurkitError(f"{path}: record {name!r} has images of two sizes")
            held = tuple(_map_dataset(mapped, dataset) for dataset in datasets)
            scenes.append(StoredScene(name, held, whole))
        if any(isinstance(image, h5py.Dataset) for scene in scenes for image in scene.images):
            stack.pop_all()
    return scenes


def _close(shard: h5py.File) -> None:
    """Close a shard that was read; h5py prints what fails if it is left to do this itself."""
    with suppress(Exception):
        shard.close()


def _map_dataset(mapped: np.ndarray, dataset: h5py.Dataset) -> Image | h5py.Dataset:
    if (offset := dataset.id.get_offset()) is None:
        return dataset
    data = mapped[offset : offset + dataset.id.get_storage_size()]
    return data.view(dataset.dtype).reshape(dataset.shape)


def _wide(image: Image | h5py.Dataset, top: int, left: int, crop: int, margin: int) -> Image:
    """Return a crop with a margin on each side, mirrored at the image's border as in rendering."""
    inside, missing = [], []
    for start, length in ((top, image.shape[0]), (left, image.shape[1])):
        first, last = max(0, start - margin), min(length, start + crop + margin)
        inside.append(slice(first, last))
        missing.append((first - (start - margin), start + crop + margin - last))
    return np.pad(image[tuple(inside)], [*missing, (0, 0)], mode="symmetric")


def _stack(crops: list[np.ndarray]) -> np.ndarray:
    """Return crops as one contiguous batch (N, H, W, 3); mixed depths become float32 in [0, 1]."""
    if len({crop.dtype for crop in crops}) > 1:
        crops = [to_float(np.ascontiguousarray(crop)) for crop in crops]
    # A gray crop fills all three channels.
    return np.stack([np.broadcast_to(crop, (*crop.shape[:2], 3)) for crop in crops])
