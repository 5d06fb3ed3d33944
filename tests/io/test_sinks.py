"""Where records go: the kinds of output, names that would escape, and numbered shards."""

import io
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest.mock import DEFAULT, Mock

import numpy as np
import pytest

from blurkit.data.sampler import find_shards
from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io import image_sinks, sinks
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Record
from blurkit.io.shards import read_shard
from blurkit.io.sinks import ShardFolder, StreamSink
from blurkit.io.streams import read_stream
from tests.io.films import make_video
from tests.io.scenes import assert_all_same, pair, write_all

SHOW = ("restored", "sharp")


def files(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_kinds_of_output(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    kinds = {
        "new/": image_sinks.ImageFolder,
        "there": image_sinks.ImageFolder,
        "a.h5": sinks.ShardSink,
        "a.png": image_sinks.ImageFile,
        "a.JPG": image_sinks.ImageFile,
    }
    for name, kind in kinds.items():
        assert type(open_sink(f"{tmp_path}/{name}", SHOW, "deblur")) is kind
    assert type(open_sink(None, SHOW, "deblur")) is image_sinks.ImagesBeside
    for name in ("a.txt", "a"):
        with pytest.raises(UsageError, match="name an image, a film, a folder"):
            open_sink(f"{tmp_path}/{name}", SHOW, "deblur")


def test_shown_image_alpha_and_depth(tmp_path: Path) -> None:
    record = pair("a", depth="sixteen")
    record.images["restored"] = record.images["sharp"][::-1]
    record.images["alpha"] = record.images["sharp"][:, :, :1]
    write_all(open_sink(f"{tmp_path}/a.png", SHOW, "deblur"), [record])
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, record.images["restored"])
    np.testing.assert_array_equal(picture.alpha, record.images["alpha"])
    blurry = Record("a", {"blur": record.images["blur"]})
    with pytest.raises(BlurkitError, match="record 'a' holds blur; restored or sharp is needed"):
        open_sink(f"{tmp_path}/b.png", SHOW, "deblur").write(blurry)


def test_images_beside_their_sources(tmp_path: Path) -> None:
    record = pair("a")
    for name in ("a.png", "b.c.jpg"):
        write_image(tmp_path / name, record.images["blur"])
        record.attrs["source"] = str(tmp_path / name)
        write_all(open_sink(None, SHOW, "deblur"), [record])
    assert files(tmp_path) == ["a.deblur.png", "a.png", "b.c.deblur.jpg", "b.c.jpg"]
    for source in ("", str(tmp_path / "elsewhere" / "a.png")):
        record.attrs["source"] = source
        with pytest.raises(UsageError, match="name an output with -o"):
            open_sink(None, SHOW, "deblur").claim(record)
    assert len(files(tmp_path)) == 4


def test_several_frames_beside_one_source(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", pair("a").images["blur"])
    with open_sink(None, SHOW, "interpolated") as sink:
        for number in (0, 1, 10):
            frame = pair(f"a/{number}", number)
            frame.attrs |= {"source": str(tmp_path / "a.jpg"), "frame": number}
            sink.claim(frame)
            sink.write(frame)
        with pytest.raises(BlurkitError, match="'a/10' was written there already"):
            sink.claim(frame)
    assert files(tmp_path) == [*(f"a.interpolated-{n}.jpg" for n in (0, 1, 10)), "a.jpg"]


def test_existing_files_and_names_that_come_twice(tmp_path: Path) -> None:
    for output in ("out/", "out/a.png", "out/a.h5"):
        sink = open_sink(f"{tmp_path}/{output}", SHOW, "deblur", FileOptions(force=True))
        write_all(sink, [pair("a")])
        with pytest.raises(BlurkitError, match="exists already; give --force"):
            open_sink(f"{tmp_path}/{output}", SHOW, "deblur").claim(pair("a"))
    with open_sink(f"{tmp_path}/out/", SHOW, "deblur", FileOptions(force=True)) as sink:
        sink.write(pair("a", 1))
        with pytest.raises(BlurkitError, match="'a' was written there already"):
            sink.claim(pair("a", 2))
    written = read_image(tmp_path / "out/a.png").pixels
    np.testing.assert_array_equal(written, pair("a", 1).images["sharp"])


def test_nothing_is_replaced_where_case_or_unicode_form_are_ignored(tmp_path: Path) -> None:
    """A link stands for the other name under which such a file system has a file."""
    with open_sink(f"{tmp_path}/", SHOW, "deblur", FileOptions(force=True)) as sink:
        for number, (name, other) in enumerate((("A", "a"), ("Stra\xdfe", "STRASSE"))):
            sink.write(pair(name, number))
            (tmp_path / f"{other}.png").hardlink_to(tmp_path / f"{name}.png")
            for call in (sink.claim, sink.write):
                with pytest.raises(BlurkitError, match=f"'{other}' was written there already"):
                    call(pair(other))
            written = read_image(tmp_path / f"{name}.png").pixels
            np.testing.assert_array_equal(written, pair(name, number).images["sharp"])
        for name in ("b", "B"):  # two files everywhere else
            sink.write(pair(name))
    assert sink.done == len(sink.files) == 4


def test_a_film_that_is_open_is_finished_before_its_file_is_compared(tmp_path: Path) -> None:
    for name in ("in", "IN"):
        make_video(tmp_path / f"{name}.mp4", audio=False)
    lower, upper = (list(read_records([tmp_path / f"{n}.mp4"]))[:2] for n in ("in", "IN"))
    (tmp_path / "out").mkdir()
    with open_sink(f"{tmp_path}/out", ("blur",), "x", FileOptions(force=True)) as sink:
        for record in (*lower, *upper):
            sink.write(record)
        assert sink.done == 1
    assert (sink.done, sink.films) == (2, 2) and files(tmp_path / "out") == ["IN.mp4", "in.mp4"]


ESCAPING = ("../a", "a/../../b", "/a", "C:a", "c:\\a", "a\\..\\b", "a\nb", "a\0b", "", ".", "a/..")


@pytest.mark.parametrize("name", ESCAPING)
def test_names_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    sink = open_sink(f"{tmp_path}/x/y/out/", SHOW, "deblur")
    for call in (sink.claim, sink.write):
        with pytest.raises(BlurkitError, match="is not a plain relative path; not written"):
            call(pair(name))
    assert files(tmp_path) == []


@pytest.mark.parametrize("split", ["../a", "/a", "a/b", "a\\b", ".."])
def test_splits_never_leave_the_folder(tmp_path: Path, split: str) -> None:
    record = pair("a")
    record.attrs["split"] = split
    with ShardFolder(tmp_path / "x", 1 << 30) as sink, pytest.raises(BlurkitError, match="plain"):
        sink.write(record)
    assert files(tmp_path) == []


def test_a_stream(tmp_path: Path) -> None:
    stream = io.BytesIO()
    write_all(StreamSink(stream), scenes(3))
    stream.seek(0)
    assert_all_same(read_stream(stream), scenes(3))


# -- numbered shards -------------------------------------------------------------------------------


def scenes(count: int) -> list[Record]:
    """Records of which every third is of the split `val`."""
    found = [pair(f"scene {n}", n) for n in range(count)]
    for n, record in enumerate(found):
        record.attrs["split"] = "val" if n % 3 == 2 else "train"
    return found


SIZE = 3 * pair("a").bytes


def fill(folder: Path, records: list[Record], **options: bool) -> ShardFolder:
    with ShardFolder(folder, SIZE, **options) as sink:
        for record in records:
            if record.name not in sink.finished.get(record.attrs["split"], []):
                sink.write(record)
    return sink


def content(folder: Path) -> dict[str, list[str]]:
    return {p.name: [r.name for r in read_shard(p)] for p in sorted(folder.glob("*.h5"))}


def test_shards_rotate_by_size_and_split(tmp_path: Path) -> None:
    sink = fill(tmp_path, scenes(15))
    shards = content(tmp_path)
    assert [*shards] == [*(f"train-0000{n}.h5" for n in range(4)), "val-00000.h5", "val-00001.h5"]
    assert [*map(len, shards.values())] == [3, 3, 3, 1, 3, 2]
    assert sorted(sink.paths) == sorted(tmp_path.iterdir())
    train = [name for shard, names in shards.items() if "train" in shard for name in names]
    assert train == [r.name for r in scenes(15) if r.attrs["split"] == "train"]


def test_resuming_gives_the_same_records(tmp_path: Path) -> None:
    fill(tmp_path / "whole", scenes(15))
    with pytest.raises(KeyboardInterrupt), ShardFolder(tmp_path / "cut", SIZE) as sink:
        for record in scenes(11):
            sink.write(record)
        raise KeyboardInterrupt
    assert files(tmp_path / "cut") == ["train-00000.h5", "train-00001.h5"]
    resumed = fill(tmp_path / "cut", scenes(15), resume=True)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert sorted(resumed.paths) == sorted((tmp_path / "cut").iterdir())
    for path in (tmp_path / "cut").iterdir():
        assert_all_same(read_shard(path), read_shard(tmp_path / "whole" / path.name))


def test_resuming_never_overwrites(tmp_path: Path) -> None:
    fill(tmp_path, scenes(15))
    (tmp_path / "train-00001.h5").unlink()
    fill(tmp_path, scenes(15), resume=True)
    names = [name for names in content(tmp_path).values() for name in names]
    assert sorted(names) == sorted(record.name for record in scenes(15))


def test_nothing_is_written_after_a_shard_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a resumed run would take an item for finished of which a part in the middle is missing."""
    first = BlurkitError("x: cannot be written (Input/output error)")
    opened = Mock(wraps=sinks.ShardWriter, side_effect=[first, DEFAULT])
    monkeypatch.setattr(sinks, "ShardWriter", opened)
    sink = ShardFolder(tmp_path / "x", 1 << 30)
    for number in range(2):
        with pytest.raises(BlurkitError, match="Input/output"):
            sink.write(pair(f"photo-00{number + 1}"))
    sink.finish()
    assert opened.call_count == 1 and not [*(tmp_path / "x").glob("*.h5")]


def test_shards_are_not_overwritten_unasked(tmp_path: Path) -> None:
    fill(tmp_path, scenes(2))
    with pytest.raises(BlurkitError, match="holds 1 shards already; give --resume"):
        ShardFolder(tmp_path, SIZE)
    with pytest.raises(BlurkitError, match="holds 1 shards already; give --force to start over"):
        ShardFolder(tmp_path, SIZE, resume=None)
    write_all(ShardFolder(tmp_path, SIZE, force=True, resume=None), [pair("new")])
    assert content(tmp_path) == {"train-00000.h5": ["new"]}


def test_force_replaces_the_old_shards_only_when_done(tmp_path: Path) -> None:
    fill(tmp_path, scenes(15))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "mine.h5").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError), ShardFolder(tmp_path, SIZE, force=True) as sink:
        for record in reversed(scenes(12)):
            sink.write(record)
        raise KeyError
    fill(tmp_path, [], force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    sink = fill(tmp_path, scenes(4), force=True)
    assert files(tmp_path) == ["mine.h5", "notes.txt", "train-00000.h5", "val-00000.h5"]
    assert sorted(path.name for path in sink.paths) == ["train-00000.h5", "val-00000.h5"]
    assert all(path.is_file() for path in sink.paths)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from blurkit.io.records import Record
from blurkit.io.sinks import ShardFolder
count, real = 0, Path.replace
def replace(self, target):
    global count
    count += ".unfinished" in str(self) and ".partial" not in str(self)
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replace
with ShardFolder(Path(sys.argv[1]), max_bytes=1, force=True) as folder:
    for n in range(4):
        folder.write(Record(f"new {n}", {"blur": np.full((4, 4, 3), 200, np.uint8)}))
"""


@pytest.mark.parametrize("at", [1, 2, 4])
def test_shards_are_replaced_all_or_none(tmp_path: Path, at: int) -> None:
    """Killed in the middle of the moves, and then gone on with."""
    old = (Record(f"old {n}", {"blur": np.zeros((4, 4, 3), np.uint8)}) for n in range(6))
    write_all(ShardFolder(tmp_path, max_bytes=1), old)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(at)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    with pytest.raises(BlurkitError, match="not wholly replaced; complete it with"):
        find_shards([tmp_path], "train")
    with ShardFolder(tmp_path, max_bytes=1, resume=True) as folder:
        assert folder.finished == {"train": [f"new {n}" for n in range(4)]}
    found = (record for path in find_shards([tmp_path], "train") for record in read_shard(path))
    assert [record.name for record in found] == [f"new {n}" for n in range(4)]
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())


def test_parts_of_one_folder_keep_apart(tmp_path: Path) -> None:
    for part in ("p1of2-", "p2of2-", ""):
        write_all(ShardFolder(tmp_path, SIZE, part=part), [pair(part or "all")])
    write_all(ShardFolder(tmp_path, SIZE, part="p2of2-", force=True), [pair("again")])
    assert content(tmp_path) == {
        "train-00000.h5": ["all"],
        "train-p1of2-00000.h5": ["p1of2-"],
        "train-p2of2-00000.h5": ["again"],
    }


def test_a_full_disk_is_told_and_whole_shards_stay(small_disk: Path) -> None:
    records = [pair(str(n), n, side=200) for n in range(8)]
    full = pytest.raises(BlurkitError, match="disk is full")
    with full, ShardFolder(small_disk, 480_000) as sink:
        for record in records:
            with suppress(BlurkitError):  # as a batch goes on
                sink.write(record)
    assert content(small_disk) == {"train-00000.h5": ["0", "1"], "train-00001.h5": ["2", "3"]}
    assert files(small_disk) == ["train-00000.h5", "train-00001.h5"]
