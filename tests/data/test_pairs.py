"""Two folders or files that belong together are paired by name, never by position."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.data.collection import are_two_sides, find_two_sides, read_two_sides
from blurkit.errors import BlurkitError
from tests.data.trees import Plant, assert_pair

ROLES = ("blur", "sharp")


def test_what_two_sides_are(tmp_path: Path, plant: Plant) -> None:
    plant("one/a.png", 1)
    plant("two/a.jpg", 1)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/a.h5").write_bytes(b"")
    one, two, shards = (str(tmp_path / name) for name in ("one", "two", "shards"))
    photo = f"{one}/a.png"
    assert are_two_sides([one, two]) and are_two_sides([photo, f"{two}/a.jpg"])
    assert are_two_sides([photo, f"{two}/missing.png"]), "a file that lacks is told when read"
    for inputs in ([one], [one, two, one], [one, shards], [shards, one], [photo, two], [one, "-"]):
        assert not are_two_sides(inputs)
    assert not are_two_sides([photo, f"{shards}/a.h5"])


def test_folders_are_paired_by_name(tmp_path: Path, plant_pairs: Plant, plant: Plant) -> None:
    for number in (1, 2, 10):
        plant_pairs(f"b/x/{number}.png", f"s/x/{number}.bmp", number)
    plant("b/0.png", 20, blurred=True)
    plant("s/x/3.png", 21)
    told: dict[str, str] = {}
    sides = str(tmp_path / "b"), str(tmp_path / "s")

    def note(where: str, error: BlurkitError) -> None:
        told[where] = str(error)

    records = list(read_two_sides(*sides, on_error=note, roles=ROLES))
    assert [r.name for r in records] == ["x/1", "x/2", "x/10"]
    for record in records:
        assert list(record.images) == ["blur", "sharp"]
        assert_pair(record.images)
        assert record.attrs["source"].endswith(f"{record.name}.png")
    assert told.keys() == {"0", "x/3"}
    assert told["0"] == f"{tmp_path}/b/0.png: no partner of that name in {sides[1]}"
    assert told["x/3"] == f"{tmp_path}/s/x/3.png: no partner of that name in {sides[0]}"
    scenes = find_two_sides(*sides, ROLES, note)
    assert [scene.name for scene in scenes] == ["x/1", "x/2", "x/10"]
    parts = [[r.name for r in read_two_sides(*sides, (part, 2), on_error=note)] for part in (1, 2)]
    assert sorted([*parts[0], *parts[1]]) == ["x/1", "x/10", "x/2"]
    with pytest.raises(BlurkitError, match="no partner"):
        find_two_sides(*sides, ROLES)


def test_two_files_whatever_their_names(tmp_path: Path, plant: Plant) -> None:
    plant("blurry.png", 3, blurred=True)
    plant("elsewhere/sharp.bmp", 3)
    files = str(tmp_path / "blurry.png"), str(tmp_path / "elsewhere/sharp.bmp")
    (record,) = read_two_sides(*files, roles=ROLES)
    assert record.name == "blurry"
    assert_pair(record.images)


def test_pairs_that_cannot_be_read_go_on(tmp_path: Path, plant_pairs: Plant) -> None:
    for number in range(4):
        plant_pairs(f"b/{number}.png", f"s/{number}.png", number)
    (tmp_path / "b/1.png").write_bytes(b"\x89PNG")
    imageio.imwrite(tmp_path / "s/2.png", np.zeros((10, 12, 3), np.uint8))
    told: dict[str, str] = {}
    sides = str(tmp_path / "b"), str(tmp_path / "s")
    records = list(
        read_two_sides(*sides, on_error=lambda w, e: told.update({w: str(e)}), roles=ROLES)
    )
    assert [record.name for record in records] == ["0", "3"]
    assert "1.png" in told["1"]
    assert "blur is 32x24, sharp is 12x10" in told["2"]
    with pytest.raises(BlurkitError):
        list(read_two_sides(str(tmp_path / "no.png"), str(tmp_path / "s/0.png")))
