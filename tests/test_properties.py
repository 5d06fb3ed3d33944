"""What holds for every size, name and value: tiles, pairs, splits, depths and names."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from blurkit.data.collection import find_two_sides
from blurkit.data.layouts import find_scenes
from blurkit.data.places import Scene
from blurkit.data.prepare import Preparation, with_validation
from blurkit.data.sources import read_records
from blurkit.engine.engine import starts
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError, printable
from blurkit.io.image_sinks import ImageFolder
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Record, from_float, safe_name, to_float
from blurkit.io.streams import ShardWriter, shard_bytes
from blurkit.options import Placement
from tests.io.scenes import assert_all_same

settings.register_profile("thorough", max_examples=2000, deadline=None)
settings.register_profile("usual", max_examples=60, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "usual"))


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder for each example, which pytest's own is not."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


# ---- tiles ---------------------------------------------------------------------------------------

TILES = st.integers(1, 300).flatmap(lambda t: st.tuples(st.just(t), st.integers(0, t // 2)))


@given(st.integers(1, 5000), TILES)
def test_tiles_cover_a_side_and_overlap(length: int, tile: tuple[int, int]) -> None:
    size, overlap = tile
    places = starts(length, size, overlap)
    assert places[0] == 0 and max(length - size, 0) == places[-1]
    assert all(0 < there - here <= size - overlap for here, there in pairwise(places))
    assert len(places) == max(1, -(-(length - overlap) // (size - overlap))), "as few as can be"


class Same(torch.nn.Module):
    """A network that returns its input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image * self.weight


@given(
    st.tuples(st.integers(1, 150), st.integers(1, 150), st.sampled_from((1, 3))),
    st.integers(8, 64),
    st.floats(0, 0.5),
    st.sampled_from(("tiles", "slices", "whole")),
)
def test_tiles_put_every_pixel_where_it_was(
    shape: tuple[int, int, int], tile: int, part: float, protocol: Any
) -> None:
    if protocol == "slices":
        assume(min(shape[:2]) >= tile)
    image = np.random.default_rng(0).random(shape, np.float32)
    engine = torch_engine(Same(), Placement("cpu", "fp32", tile, int(tile * part), protocol))
    np.testing.assert_allclose(engine(image), image, atol=1e-5)


# ---- pairs and splits ----------------------------------------------------------------------------

PARTS = st.text(st.sampled_from("abAB0189äß 夜-_."), min_size=1, max_size=6).filter(
    lambda name: name.strip(". ") == name and not name.startswith("-")
)
STEMS = st.lists(PARTS, min_size=1, max_size=2).map("/".join)


def plant(root: Path, stems: set[str]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        path = root / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@given(st.sets(STEMS, min_size=1), st.sets(STEMS), st.sets(STEMS))
def test_two_folders_are_paired_by_name(both: set[str], first: set[str], second: set[str]) -> None:
    first, second = first - both, second - both - first
    alone: list[str] = []
    with folder() as root:
        plant(root / "a", both | first)
        plant(root / "b", both | second)
        roles, lonely = ("restored", "sharp"), lambda name, _: alone.append(name)
        scenes = find_two_sides(f"{root}/a", f"{root}/b", roles, lonely)
        places = {s.name: [s.files[role].relative_to(root) for role in s.files] for s in scenes}
    assert places == {n: [Path("a", f"{n}.png"), Path("b", f"{n}.png")] for n in both}
    assert sorted(alone) == sorted(first | second)


SEQUENCES = st.dictionaries(
    st.sampled_from(("000", "001", "GOPR1", "clip_2")), st.integers(1, 4), min_size=2
)


@given(SEQUENCES, st.data(), st.sampled_from(("test", "val")))
def test_what_a_list_keeps_for_testing_never_trains(
    sequences: dict[str, int], data: st.DataObject, split: str
) -> None:
    scenes = [f"{name}/{n:03d}" for name, count in sequences.items() for n in range(count)]
    kept = data.draw(st.sets(st.sampled_from(scenes), min_size=1))
    start = data.draw(st.sampled_from(("", "data/")))
    with folder() as root:
        for scene in scenes:
            sequence, number = scene.split("/")
            plant(root / "data" / sequence, {f"blur/{number}", f"sharp/{number}"})
        lines = [
            " ".join(f"{start}{s.replace('/', f'/{side}/')}.png" for side in ("sharp", "blur"))
            for s in sorted(kept)
        ]
        (root / "data" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        found = find_scenes(root / "data")
    assert sorted(scene.name for scene in found.items) == sorted(scenes)
    assert {scene.name for scene in found.items if scene.split == split} == kept


@given(
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(0, 10**6),
    st.dictionaries(PARTS, st.integers(1, 9), min_size=2),
)
def test_validation_takes_whole_sequences(part: float, seed: int, lengths: dict[str, int]) -> None:
    numbered = [(name, n) for name, count in lengths.items() for n in range(count)]
    frames = [Scene(f"{name}/{n}", {}, None, name) for name, n in numbered]
    known = with_validation(Preparation(validation=part, seed=seed), frames)
    drawn = {scene.sequence for scene in frames if known.split_of(scene) == "val"}
    assert drawn == known.drawn and 0 < len(drawn) < len(lengths)  # none is divided
    taken = [lengths[name] for name in drawn]
    whole = sum(lengths.values())
    assert sum(taken) >= part * whole - 1e-9 or len(drawn) == len(lengths) - 1
    assert len(taken) == 1 or sum(taken) - max(taken) < part * whole
    for name in lengths:
        assert known.split_of(Record(name, {}, {"sequence": name, "split": "test"})) == "test"


# ---- depths --------------------------------------------------------------------------------------

SHAPES = st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from((1, 3)))
DEPTHS = st.sampled_from((np.uint8, np.uint16, np.float32))


def images(dtype: Any, shape: Any = SHAPES) -> Any:
    values = st.floats(0, 1, width=32) if dtype is np.float32 else None
    return arrays.arrays(dtype, shape, elements=values)


@given(st.sampled_from((np.uint8, np.uint16)).flatmap(images))
def test_depths_come_back_from_floats(image: np.ndarray) -> None:
    np.testing.assert_array_equal(from_float(to_float(image), image.dtype), image)


KEPT = {np.uint8: (".png", ".bmp", ".ppm", ".tif"), np.uint16: (".png", ".tif")}
KEPT |= {np.float32: (".tif",)}


@given(DEPTHS.flatmap(lambda d: st.tuples(images(d), st.sampled_from(KEPT[d]))))
def test_files_give_back_the_pixels(drawn: tuple[np.ndarray, str]) -> None:
    image, suffix = drawn
    with folder() as root:
        write_image(root / f"x{suffix}", image)
        back = read_image(root / f"x{suffix}").pixels
    expected = np.repeat(image, 3, 2) if back.shape[2] > image.shape[2] else image
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(back, expected)


VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
    | arrays.arrays(st.sampled_from(("u1", "f8", "i4")), arrays.array_shapes(max_dims=3))
)
TEXTS = st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1)
RECORDS = st.builds(
    Record,
    TEXTS,
    st.dictionaries(
        st.sampled_from(("blur", "sharp", "restored")), DEPTHS.flatmap(images), min_size=1
    ),
    st.dictionaries(TEXTS.map(lambda name: f"own_{name}"), VALUES, max_size=4),
)


@given(st.lists(RECORDS, min_size=1, max_size=4), st.sampled_from((None, "gzip", "stream")))
def test_shards_and_streams_give_back_records(records: list[Record], way: str | None) -> None:
    with folder() as root:
        path = root / "x.h5"
        if way == "stream":
            path.write_bytes(b"".join(map(shard_bytes, records)))
        else:
            with ShardWriter(path, compression=way) as writer:
                for record in records:
                    writer.write(record)
        assert_all_same(list(read_records([str(path)])), records)


# ---- names ---------------------------------------------------------------------------------------


@given(st.text())
def test_a_name_stays_in_its_folder_or_is_refused(name: str) -> None:
    with folder() as root:
        record = Record(name, {"blur": np.zeros((2, 2, 3), np.uint8)})
        try:
            path = safe_name(name)
            ImageFolder(root / "out", ("blur",)).write(record)
        except BlurkitError as error:
            assert str(error).isprintable()
            assert not [p for p in root.rglob("*") if p.is_file()]
            return
        written = [p for p in root.rglob("*") if p.is_file()]
        assert len(written) == 1 and written[0].is_relative_to(root / "out")
        assert written[0].relative_to(root / "out").parts[:-1] == path.parts[:-1]


@given(st.text())
def test_what_is_printed_is_one_printable_line(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    if text.isprintable() and len(text) < 200:
        assert shown == text
