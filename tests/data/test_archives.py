"""LMDB folders of BasicSR and tar files of WebDataset, made as those programs make them."""

import io
import tarfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.data.layouts import image_files
from blurkit.data.sources import find_items, read_records
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from tests.cli.command import assert_done, assert_failed, files, records, run
from tests.cli.pictures import blurred, photo

lmdb = pytest.importorskip("lmdb")

NAMES = ("GOPR0384_11_00/000001", "GOPR0384_11_00/000002", "GOPR0385_11_01/003011")


def png(image: np.ndarray) -> bytes:
    return bytes(imageio.imwrite("<bytes>", image, extension=".png"))


def make_lmdb(folder: Path, images: dict[str, np.ndarray]) -> None:
    """An LMDB as BasicSR's `make_lmdb_from_imgs` writes it."""
    folder.mkdir(parents=True)
    env = lmdb.open(str(folder), map_size=1 << 24)
    lines = []
    with env.begin(write=True) as transaction:
        for name, image in images.items():
            transaction.put(name.encode("ascii"), png(image))
            height, width, channels = image.shape
            lines.append(f"{name}.png ({height},{width},{channels}) 1\n")
    env.close()
    (folder / "meta_info.txt").write_text("".join(lines))


def make_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def assert_pairs(found: list[Record], names: tuple[str, ...]) -> None:
    assert [record.name for record in found] == list(names)
    for number, record in enumerate(found):
        np.testing.assert_array_equal(record.images["sharp"], photo(number))
        np.testing.assert_array_equal(record.images["blur"], blurred(photo(number)))


def test_lmdbs_of_either_side_are_paired_by_key(tmp_path: Path) -> None:
    root = tmp_path / "train"
    sharp = {name: photo(number) for number, name in enumerate(NAMES)}
    make_lmdb(root / "blur_crops.lmdb", {name: blurred(sharp[name]) for name in NAMES})
    make_lmdb(root / "sharp_crops.lmdb", {name: sharp[name] for name in NAMES[::-1]})
    assert_pairs(list(read_records([root])), NAMES)
    assert_done(run("prepare", root, "-o", tmp_path / "out.h5", "--jobs", 2, "-q"))
    made = records(tmp_path / "out.h5")
    assert_pairs(made, NAMES)
    assert made[0].attrs["split"] == "train"
    assert made[2].attrs["sequence"] == "GOPR0385_11_01"
    alone = list(read_records([root / "sharp_crops.lmdb"], image="sharp"))
    assert [record.name for record in alone] == list(NAMES)
    ran = run("eval", root / "blur_crops.lmdb", root / "sharp_crops.lmdb", "--json", "-q")
    assert_done(ran)
    assert [line["name"] for line in ran.json[:-1]] == list(NAMES)


@pytest.mark.parametrize(
    ("blur", "sharp"),
    [
        ("data.lmdb/blur", "data.lmdb/sharp"),
        ("train_blur.lmdb/blur", "train_sharp.lmdb/sharp"),
        ("input.lmdb/train/input", "target.lmdb/train/target"),
    ],
)
def test_keys_that_hold_folders_and_repeat(blur: str, sharp: str, tmp_path: Path) -> None:
    """Keys may name the role, too, and meta_info.txt may list a key again."""
    archives: dict[str, dict[str, np.ndarray]] = {}
    for number, name in enumerate(NAMES):
        for side, image in ((blur, blurred(photo(number))), (sharp, photo(number))):
            archive, _, folder = side.partition("/")
            archives.setdefault(archive, {})[f"{folder}/{name}"] = image
    for archive, images in archives.items():
        make_lmdb(tmp_path / archive, images)
        meta = tmp_path / archive / "meta_info.txt"
        meta.write_text(meta.read_text() * 2)
    made = [*read_records([tmp_path])]
    top = "data/" if len(archives) == 1 else ""
    assert_pairs(made, tuple(f"{top}{name}" for name in NAMES))
    assert {r.attrs.get("split") for r in made} == {None if top else "train"}


def test_faults_of_an_lmdb_are_one_line_each(tmp_path: Path) -> None:
    make_lmdb(tmp_path / "x.lmdb", {name: photo(0) for name in NAMES})
    meta = tmp_path / "x.lmdb/meta_info.txt"
    meta.write_text(meta.read_text() + "missing.png (48,64,3) 1\n")
    env = lmdb.open(str(tmp_path / "x.lmdb"))
    with env.begin(write=True) as transaction:
        transaction.put(NAMES[1].encode(), b"\x89PNG\r\n\x1a\n damaged")
    env.close()
    ran = run("prepare", tmp_path / "x.lmdb", "-o", tmp_path / "out.h5", "--jobs", 1)
    assert_failed(ran, NAMES[1], f"x.lmdb/{NAMES[1]}.png: ")
    assert_failed(ran, "missing", "data.mdb has no key 'missing'")
    assert len(records(tmp_path / "out.h5")) == 2
    for text, words in (
        ("0001 some other format\n", "line 1 is '0001 some other format'"),
        ("../../escape.png (48,64,3) 1\n", "not a plain relative path"),
    ):
        meta.write_text(text)
        with pytest.raises(BlurkitError, match=words):
            list(read_records([tmp_path / "x.lmdb"]))
    meta.unlink()
    with pytest.raises(BlurkitError, match=r"meta_info\.txt cannot be read"):
        list(read_records([tmp_path / "x.lmdb"]))


def test_samples_of_a_tar(tmp_path: Path) -> None:
    members = {}
    for number, name in enumerate(NAMES):
        members[f"{name}.sharp.png"] = png(photo(number))
        members[f"{name}.json"] = b"{}"
        members[f"{name}.blur.png"] = png(blurred(photo(number)))
    make_tar(tmp_path / "000000.tar", members)
    assert_pairs(list(read_records([tmp_path / "000000.tar"])), NAMES)
    assert_pairs(list(read_records([tmp_path])), tuple(f"000000/{name}" for name in NAMES))
    assert_done(run("prepare", tmp_path / "000000.tar", "-o", tmp_path / "out.h5", "-q"))
    assert_pairs(records(tmp_path / "out.h5"), NAMES)


def test_a_tar_of_either_side(tmp_path: Path) -> None:
    for side, make in (("blur", blurred), ("sharp", np.asarray)):
        images = {f"./{n}.png": png(make(photo(i))) for i, n in enumerate(NAMES)}
        make_tar(tmp_path / f"whole/{side}.tar", images)
        make_tar(tmp_path / f"parts/{side}/000000.tar", images)
    assert_pairs(list(read_records([tmp_path / "whole"])), NAMES)
    names = tuple(f"000000/{name}" for name in NAMES)
    assert_pairs(list(read_records([tmp_path / "parts"])), names)


def test_faults_of_a_tar_are_one_line_each(tmp_path: Path) -> None:
    good = {f"{number}.png": png(photo(number)) for number in range(3)}
    make_tar(tmp_path / "x.tar", good | {"1.png": b"\x89PNG", "3.png": b""})
    ran = run("prepare", tmp_path / "x.tar", "--as", "sharp", "-o", tmp_path / "out.h5")
    assert_failed(ran, "1, 3", "x.tar/1.png: ")
    assert_failed(ran, "1, 3", "x.tar/3.png: ")
    assert [record.name for record in records(tmp_path / "out.h5")] == ["0", "2"]
    (tmp_path / "cut.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1500])
    with pytest.raises(BlurkitError, match=r"cut.tar: damaged or truncated|cut.tar/0.png: trunc"):
        list(read_records([tmp_path / "cut.tar"]))
    make_tar(tmp_path / "out.tar", {"../escape.png": png(photo(0))})
    with pytest.raises(BlurkitError, match="not a plain relative path"):
        image_files(tmp_path / "out.tar")
    (tmp_path / "text.tar").write_text("no archive")
    before = files(tmp_path)
    ran = run("prepare", tmp_path / "text.tar", "-o", tmp_path / "none.h5")
    assert ran.status == 1 and "text.tar: damaged or truncated" in ran.lines[0]
    assert files(tmp_path) == before


def test_a_link_to_a_folder_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos/a").mkdir(parents=True)
    imageio.imwrite(tmp_path / "photos/a/1.png", photo(1))
    (tmp_path / "photos/a/again").symlink_to(tmp_path / "photos")
    found = read_records([tmp_path / "photos"], on_error=lambda _, error: pytest.fail(str(error)))
    assert [record.name for record in found] == ["a/1"]
    link = f"{tmp_path}/photos/a/again: a link to a folder above it; not followed"
    assert link in find_items([tmp_path / "photos"]).layouts
