"""Which split `prepare` puts an image into: no test image of any layout may enter training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import assert_done, blurred, photo, records, run, shard_records, write

J = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
TRAIN_SCENES, TEST_SCENES = (1, 2), (230,)


def plant_realblur(folder: Path) -> Path:
    """Three scenes of three pairs each; each pair is another part of the photo."""
    for number, scene in enumerate((*TRAIN_SCENES, *TEST_SCENES)):
        for index in (1, 2, 10):
            sharp = photo(10 * number + index % 10)
            write(folder / f"scene{scene:03d}/gt/gt_{index}.png", sharp)
            write(folder / f"scene{scene:03d}/blur/blur_{index}.png", blurred(sharp))
    return folder


def write_lists(folder: Path, start: str, letter: str = "J") -> list[Path]:
    """RealBlur's train and test list in `folder`, with lines that begin with `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, scenes in (("train", TRAIN_SCENES), ("test", TEST_SCENES)):
        rows = [
            f"{start}scene{s:03d}/gt/gt_{i}.png {start}scene{s:03d}/blur/blur_{i}.png "
            for s in scenes
            for i in (1, 2, 10)
        ]
        paths.append(folder / f"RealBlur_{letter}_{split}_list.txt")
        paths[-1].write_text("\n".join(rows))
    return paths


def names(folder: Path, split: str) -> set[str]:
    return {r.name for path in folder.glob(f"{split}-*.h5") for r in records(path)}


@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_lists_give_the_same_split_wherever_they_are(place: str, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "data" / J)
    folder = {"inside": data, "beside": data.parent, "elsewhere": tmp_path / "lists"}[place]
    lists = write_lists(folder, f"{J}/")
    options = [o for path in lists for o in ("--list", path)] if place == "elsewhere" else []
    assert_done(run("prepare", data, "-o", f"{tmp_path}/shards/", *options))
    assert names(tmp_path / "shards", "test") == {f"scene230/blur_{i}" for i in (1, 2, 10)}
    assert len(names(tmp_path / "shards", "train")) == 6
    assert len(shard_records(tmp_path / "shards")) == 9
