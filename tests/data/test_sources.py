"""The one door: files, folders, datasets, shards and streams give the same records, in parts."""

import os
import pickle
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from blurkit.data.films import find_clips
from blurkit.data.places import Scene, WorkPart, array_of, parse_part, part_of_job
from blurkit.data.sources import ShardSource, find_items, load_scene, read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.films import is_film
from blurkit.io.streams import shard_bytes
from tests.data.trees import Give, Plant, Reports, assert_pair
from tests.io.scenes import write_shard


def test_files_folders_and_what_is_neither(tmp_path: Path, plant: Plant, reports: Reports) -> None:
    plant("a.png", 1)
    plant("b/a.png", 2)
    plant("photos/x/1.jpg", 3)
    (tmp_path / "photos/broken.png").write_bytes(b"\x89PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    names = ("a.png", "missing.png", "b/a.png", "notes.txt", "photos", "empty")
    inputs = [tmp_path / name for name in names]
    records = list(read_records(inputs, image="sharp", on_error=reports))
    assert [record.name for record in records] == [f"{tmp_path.name}/a", "b/a", "x/1"]
    assert all(list(record.images) == ["sharp"] for record in records)
    assert records[0].attrs["source"] == str(tmp_path / "a.png")
    assert records[2].attrs["sequence"] == "x"
    told = " ".join(text for _, text in reports)
    assert len(reports) == 4 and "broken.png" in told
    for part in ("missing.png: no such file", "notes.txt: is not an image", "empty: holds no"):
        assert part in told


def test_several_roots_keep_their_names_apart(tmp_path: Path, plant_pairs: Plant) -> None:
    for scene, root in enumerate(("first", "second", "third/second")):
        plant_pairs(f"{root}/blur/1.png", f"{root}/sharp/1.png", scene)
    inputs = [tmp_path / root for root in ("first", "second", "third/second")]
    records = list(read_records(inputs))
    names = [f"{tmp_path.name}/second/1", "third/second/1"]
    assert [record.name for record in records] == ["first/1", *names]
    backwards = find_items(inputs[::-1]).items
    assert [item.name for item in backwards if isinstance(item, Scene)] == [*names[::-1], "first/1"]
    for record in records:
        assert_pair(record.images)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_sockets_and_devices_are_not_opened(
    tmp_path: Path, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may never end."""
    plant("photo.png", 1)
    monkeypatch.chdir(tmp_path)
    names = ["p.jpg", "p.tif", "p.gif", "p.mp4", "p.mkv", "p.tar", "p.h5"]
    for name in names:
        os.mkfifo(name)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.mov")
    Path("z.webm").symlink_to("/dev/zero")
    found, clips = find_items(["."]), find_clips(["."], 1)
    assert [item.name for item in found.items if isinstance(item, Scene)] == ["photo"]
    skipped = [f"{name}: is not a regular file" for name in [*names, "s.mov", "z.webm"]]
    assert sorted(reason for _, reason in found.left_out) == sorted(skipped)
    assert {reason for _, reason in clips.left_out} <= {*skipped}
    with pytest.raises(BlurkitError, match=r"p\.mp4: is not a regular file"):
        list(read_records(["p.mp4"]))
    assert not is_film(Path("p.gif"))


def test_items_can_be_pickled_and_loaded_elsewhere(tmp_path: Path, plant_pairs: Plant) -> None:
    plant_pairs("train/blur/1.png", "train/sharp/1.png", 1)
    found = find_items([tmp_path])
    assert found.layouts == [f"{tmp_path}: pairs (blur, sharp), 1 scenes"]
    (item,) = pickle.loads(pickle.dumps(found.items))
    record = load_scene(item)
    assert (record.name, record.attrs["split"]) == ("1", "train")
    assert_pair(record.images)


def test_shards_and_streams(tmp_path: Path, plant: Plant, give: Give) -> None:
    for scene in range(5):
        plant(f"photos/{scene}.png", scene)
    records = list(read_records([tmp_path / "photos"]))
    shards = tmp_path / "shards"
    for name, part in (("10.h5", records[3:]), ("2.h5", records[:3])):
        write_shard(shards / name, part)
    stream = b"".join(map(shard_bytes, records))
    (tmp_path / "saved.h5").write_bytes(stream)
    give(stream)
    for inputs in ([shards], [shards / "2.h5", shards / "10.h5"], [tmp_path / "saved.h5"], ["-"]):
        for one, other in zip(records, read_records(inputs), strict=True):
            assert one.name == other.name
            np.testing.assert_equal(other.images, one.images)
    assert find_items([shards]).items == [ShardSource(str(shards / n)) for n in ("2.h5", "10.h5")]


def test_images_beside_shards_are_refused(tmp_path: Path, plant: Plant) -> None:
    plant("mixed/1.png", 1)
    (tmp_path / "mixed/1.h5").write_bytes(b"nothing")
    with pytest.raises(BlurkitError, match="mixed: holds both images and shards"):
        read_records([tmp_path / "mixed"])


def test_parts_share_the_work(tmp_path: Path, plant: Plant, give: Give) -> None:
    for scene in range(9):
        plant(f"{scene}.png", scene)
    stream = b"".join(map(shard_bytes, read_records([tmp_path])))  # names are not known at first
    parts, streamed = [], []
    for part in (WorkPart(1, 2), WorkPart(2, 2)):
        parts.append([record.name for record in read_records([tmp_path], part=part)])
        give(stream)
        streamed.append({record.name for record in read_records(["-"], part=part)})
    assert parts == [["0", "2", "4", "6", "8"], ["1", "3", "5", "7"]]
    assert all(streamed) and streamed[0] ^ streamed[1] == {*map(str, range(9))}


def test_the_number_of_records_is_known(tmp_path: Path, plant: Plant) -> None:
    for scene in range(3):
        plant(f"photos/{scene}.png", scene)
    write_shard(tmp_path / "two.h5", list(read_records([tmp_path / "photos"]))[:2])
    assert read_records([tmp_path / "two.h5", tmp_path / "photos"]).total == 5
    assert read_records([tmp_path / "photos"], part=WorkPart(1, 2)).total == 2
    assert read_records(["-"]).total is None


def test_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="once"):
        find_items(["-", "-"])
    with pytest.raises(UsageError, match="one input"):
        find_items([tmp_path, tmp_path], lists=[tmp_path / "list.txt"])


def test_parse_part() -> None:
    assert parse_part("2/8") == WorkPart(2, 8)
    for text in ("0/3", "4/3", "1", "a/b", "1/", "-1/2", "", "Auto"):
        with pytest.raises(UsageError, match="I/N"):
            parse_part(text)


def test_every_name_is_in_one_part_and_parts_are_even() -> None:
    names = [f"GOPR0384_11_00/{number:06d}" for number in range(800)] + ["a/é", "\udcff"]
    owners = [[part for part in range(1, 9) if name in WorkPart(part, 8)] for name in names]
    assert all(len(owner) == 1 for owner in owners)
    sizes = [owners.count([part]) for part in range(1, 9)]
    assert min(sizes) > 70 and max(sizes) < 130
    # This must never change: machines with different versions share work, and runs are resumed.
    assert ["photo" in WorkPart(part, 4) for part in (1, 2, 3, 4)] == [False, False, False, True]
    for count in (1, 8, 50):  # of known names, no part has more than one more than another
        parts = [WorkPart(number, count).among(names[:100]) for number in range(1, count + 1)]
        shared = [[name for name in names[:100] if name in part] for part in parts]
        assert sorted(name for own in shared for name in own) == names[:100]
        assert {len(own) for own in shared} <= {100 // count, -(-100 // count)}


def test_numbers_of_an_array() -> None:
    assert array_of([7, 1, 3, 2, 9, 10]) == "1-3,7,9-10"
    assert array_of([]) == ""


def slurm(number: int, count: int, least: int, step: int) -> str:
    """What Slurm states of a task of an array."""
    about = f"SLURM_ARRAY_TASK_MIN={least} SLURM_ARRAY_TASK_STEP={step}"
    return f"SLURM_ARRAY_TASK_ID={number} SLURM_ARRAY_TASK_COUNT={count} {about}"


def environment(variables: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in variables.split())


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        (slurm(7, 4, 4, 1), (4, 4)),
        (f"{slurm(30, 4, 10, 10)} SLURM_PROCID=0 SLURM_NTASKS=1", (3, 4)),
        ("SLURM_PROCID=2 SLURM_NTASKS=16", (3, 16)),
        ("JOB_COMPLETION_INDEX=0 JOB_COMPLETIONS=5", (1, 5)),
        ("RANK=1 WORLD_SIZE=2 SLURM_PROCID=0 SLURM_NTASKS=1", (2, 2)),
        ("AWS_BATCH_JOB_ARRAY_INDEX=9 AWS_BATCH_JOB_ARRAY_SIZE=10", (10, 10)),
        ("CLOUD_RUN_TASK_INDEX=0 CLOUD_RUN_TASK_COUNT=3", (1, 3)),
        ("BATCH_TASK_INDEX=1 BATCH_TASK_COUNT=3", (2, 3)),
        ("LSB_JOBINDEX=5 LSB_JOBINDEX_END=6 LSB_JOBINDEX_STEP=2", (3, 3)),
        ("SGE_TASK_ID=20 SGE_TASK_FIRST=10 SGE_TASK_LAST=39 SGE_TASK_STEPSIZE=10", (2, 3)),
        # As on a login node, or in a job without an array.
        ("SLURM_PROCID=1 SLURM_NTASKS=2 SGE_TASK_ID=undefined LSB_JOBINDEX=0", (2, 2)),
    ],
)
def test_the_part_of_a_job(variables: str, part: tuple[int, int]) -> None:
    found, stated = part_of_job(environment(variables))
    assert found == WorkPart(*part)
    assert variables.split()[0] in stated


@pytest.mark.parametrize(
    ("index", "ids", "parts"),
    [
        ("PBS_ARRAY_INDEX", range(1, 9), range(1, 9)),
        ("PBS_ARRAYID", range(8), (8, *range(1, 8))),
        ("JOB_COMPLETION_INDEX", range(8), range(1, 9)),
        # Some tasks of an array again: what the scheduler states is of these only.
        ("SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_ID", (3, 7), (3, 7)),
    ],
)
def test_parts_of_a_number_that_the_user_states(
    index: str, ids: Sequence[int], parts: Sequence[int]
) -> None:
    for number, part in zip(ids, parts, strict=True):
        assert part_of_job(environment(f"{index}={number}"), 8)[0] == WorkPart(part, 8)
    with pytest.raises(UsageError, match="=9 is not one of 8 parts"):
        part_of_job(environment(f"{index}=9".split()[-1]), 8)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("", "none of RANK, JOB_COMPLETION_INDEX, SLURM_ARRAY_TASK_ID, AWS_.*SLURM_PROCID is set"),
        ("JOB_COMPLETION_INDEX=0", "=0 does not say of how many parts; write auto/N"),
        ("PBS_ARRAY_INDEX=3", "PBS_ARRAY_INDEX=3 does not say of how many parts; write auto/N"),
        ("RANK=2 WORLD_SIZE=2", "RANK=2, WORLD_SIZE=2 is not one of evenly spaced parts"),
        ("RANK=x WORLD_SIZE=2", "RANK=x"),
        (slurm(7, 3, 1, 1), "evenly spaced"),
    ],
)
def test_jobs_that_state_no_part(variables: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        part_of_job(environment(variables))
