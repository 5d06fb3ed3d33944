"""Every reader, given files that Hypothesis has damaged: what is read, or one clear line.

By default each kind gets a few dozen files, the same ones every time. With FUZZ_SECONDS set, all
kinds together take so long, and every file is another one: `just fuzz`. The last file of a kind is
kept in FUZZ_FOLDER, if that is set, so one that crashes the process is known.
"""

import io
import json
import os
import resource
import struct
import sys
import tarfile
import time
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
import skimage.data
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import blurkit
from blurkit.data.lists import read_lists, read_names
from blurkit.data.sources import read_records
from blurkit.engine.onnx_runner import Exported
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_checkpoint, save_checkpoint, save_tensors, with_checksums
from blurkit.io.codecs.metadata import Metadata, with_iptc
from blurkit.io.films import is_film, read_film, stated_length
from blurkit.io.formats import WRITTEN_SUFFIXES
from blurkit.io.images import encode_image, read_image
from blurkit.io.streams import shard_bytes
from blurkit.metrics.evaluation import merge_reports
from blurkit.options import read_options
from blurkit.reports.plots import read_log
from blurkit.synthesis.averaging import read_response
from blurkit.synthesis.kernels import read_kernels
from blurkit.systems.search_options import SearchOptions
from blurkit.training.configuration import read_configuration
from blurkit.training.state import read_state
from blurkit.version import STATE_VERSION
from tests.io.films import make_animation, make_pages, make_video
from tests.io.films import pictures as pictures_of
from tests.io.scenes import exif
from tests.io.test_carried import FILM, FLOAT, PQ, deep_avif, multi, pfm
from tests.io.test_images import write_raw
from tests.torture.damage import EXTREMES, records, small_checkpoint

SECONDS = float(os.environ.get("FUZZ_SECONDS", 0))
EXAMPLES = 200 if SECONDS else 25
LONGEST = 10.0
"""The seconds of this process's time that one file may take, however busy the machine is."""

MEMORY = 1 << 30
"""The bytes that reading thousands of files may add to the largest memory of the process."""

PHOTO = skimage.data.astronaut()[60:84, 200:230]
ALPHA = PHOTO[:, :, :1]


# ---- whole files ---------------------------------------------------------------------------------


Write = Callable[[Path], object]


def image(suffix: str, deep: bool = False) -> Write:
    """Write a picture with alpha and all metadata that its format holds."""

    def write(path: Path) -> None:
        pixels = PHOTO.astype(np.uint16) * 257 if deep else PHOTO
        texts = {"xmp": b"<x:xmpmeta/>", "photoshop": with_iptc(b"", b"\x1c\2\x50\0\1A")}
        metadata = Metadata(exif=exif(6), comment=b"c", resolution=(72, 72, 0.0254), **texts)
        path.write_bytes(encode_image(suffix, pixels, ALPHA, metadata.attributes()))

    return write


def pillow(kind: str, mode: str = "RGB", **options: Any) -> Write:
    return lambda path: PIL.Image.fromarray(PHOTO).convert(mode).save(path, kind, **options)


def holding(data: bytes) -> Write:
    return lambda path: path.write_bytes(data)


def tiff(pixels: np.ndarray = PHOTO, **options: Any) -> Write:
    return lambda path: tifffile.imwrite(path, pixels, photometric="rgb", **options)


def stack(path: Path) -> None:
    """Planes of which ImageJ describes the first."""
    described = {"description": "ImageJ=1.54f\nimages=3\n", "metadata": None}
    tifffile.imwrite(path, PHOTO[..., 0], photometric="minisblack", **described)
    path.write_bytes(path.read_bytes() + PHOTO[..., 1:].tobytes())


def deep_video(path: Path) -> None:
    silent = {"x265-params": "log-level=none"}
    make_video(path, pictures_of(4), "libx265", "yuv420p10le", encoder=silent)


def shard(path: Path) -> None:
    path.write_bytes(b"".join(shard_bytes(record) for record in records()[:2]))


def matlab(path: Path) -> None:
    import scipy.io

    scipy.io.savemat(path, {"k": np.hanning(9)[:, None] * np.hanning(9)}, do_compression=True)


def state(path: Path) -> None:
    weights = {"deblur": torch.nn.Conv2d(3, 8, 3).state_dict()}
    content = {"version": STATE_VERSION, "step": 3, "configuration": {"seed": 1}}
    save_tensors(with_checksums(content | {"networks": weights, "optimizers": []}), path)


def network(path: Path) -> None:
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3, "h", "w"]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", sides[:1], sides[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.metadata_props.add(key="blurkit", value=Exported("deblurring").text())
    onnx.save(model, path)


def archive(path: Path) -> None:
    data = encode_image(".png", PHOTO)
    with tarfile.open(path, "w") as tar:
        for name in ("a.blur.png", "a.sharp.png"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


# ---- how they are read ---------------------------------------------------------------------------


def pictures(path: Path) -> None:
    """As pictures and films are read, and described; pictures are written again."""
    stated_length(path)
    film = is_film(path)
    blurkit.info(path)
    if film:
        for _ in read_film(path):
            pass
    else:
        picture = read_image(path)
        suffix = path.suffix if path.suffix in WRITTEN_SUFFIXES else ".png"
        encode_image(suffix, picture.pixels, picture.alpha, picture.attrs)


def reported(path: Path) -> None:
    """As records, of which bad ones are reported and passed over."""
    errors: list[BlurkitError] = []
    for _ in read_records([str(path)], on_error=lambda _, error: errors.append(error)):
        pass
    for error in errors:
        one_line(error)


def many(path: Path) -> None:
    """As records, and described."""
    reported(path)
    blurkit.info(path, on_error=lambda _, error: one_line(error))


def checkpoints(path: Path) -> None:
    load_checkpoint(path)
    blurkit.info(path, size=(32, 32))


def one_line(error: BlurkitError) -> None:
    message = str(error)
    assert message.isprintable() and 0 < len(message) < 2000, repr(message)


RESPONSE = np.linspace(0, 1, 256)
REPORT = b'{"protocol": {"psnr": ""}, "part": "1/1", '
REPORT += b'"images": [{"name": "a", "sequence": "", "psnr": 2}]}'
READERS: dict[str, tuple[Write, Callable[[Path], object]]] = {
    **{
        f"a{suffix}": (image(suffix), pictures)
        for suffix in (".png", ".jpg", ".webp", ".bmp", ".ppm", ".tif", ".avif", ".jp2", ".jxl")
    },
    **{
        f"deep{suffix}": (image(suffix, True), pictures)
        for suffix in (".png", ".tif", ".jp2", ".jxl", ".heic")
    },
    "lossless.webp": (pillow("WEBP", lossless=True), pictures),
    "a.heic": (image(".heic"), pictures),
    "hdr.avif": (holding(deep_avif(PQ)), pictures),
    # with a gain map that a list of pictures names, and a film behind it
    "several.jpg": (holding(multi(b"<x hdrgm:Version='1.0'/>") + FILM), pictures),
    "cmyk.jpg": (pillow("JPEG", "CMYK"), pictures),
    "progressive.jpg": (pillow("JPEG", progressive=True), pictures),
    "palette.png": (pillow("PNG", "P"), pictures),
    "bit.png": (pillow("PNG", "1"), pictures),
    "one.gif": (pillow("GIF"), pictures),
    "a.pfm": (holding(pfm(FLOAT)), pictures),
    "fax.tif": (pillow("TIFF", "1", compression="group4"), pictures),
    "tiles.tif": (tiff(tile=(16, 16), compression="zlib"), pictures),
    "planes.tif": (
        tiff(np.moveaxis(PHOTO, -1, 0), planarconfig="separate", compression="lzw"),
        pictures,
    ),
    "jpeg.tif": (tiff(compression="jpeg"), pictures),
    "raw.dng": (lambda path: write_raw(path, np.tile(PHOTO, (3, 3, 1))), pictures),
    "pages.tif": (make_pages, pictures),
    "stack.tif": (stack, pictures),
    **{
        f"film{suffix}": (lambda path: make_animation(path, transparent=True), pictures)
        for suffix in (".gif", ".apng", ".webp", ".avif")
    },
    "film.mp4": (make_video, pictures),
    "film.mkv": (make_video, pictures),
    "film.avi": (lambda path: make_video(path, codec="mpeg4", audio=False), pictures),
    "film.webm": (lambda path: make_video(path, codec="libvpx-vp9", audio=False), pictures),
    "film.mts": (make_video, pictures),
    "film.mov": (deep_video, pictures),
    "a.h5": (shard, many),
    "a.tar": (archive, reported),
    "a.pt": (lambda path: save_checkpoint(small_checkpoint(), path), checkpoints),
    "a.safetensors": (lambda path: save_checkpoint(small_checkpoint(), path), checkpoints),
    "a.state.pt": (state, read_state),
    "a.npy": (lambda path: np.save(path, np.hanning(9)[:, None] * np.hanning(9)), read_kernels),
    "a.npz": (lambda path: np.savez_compressed(path, k=np.ones((9, 9))), read_kernels),
    "train.txt": (
        holding(b"sharp/1.png blur/1.png\nsharp/2.png blur/2.png\n"),
        lambda path: read_lists([path]),
    ),
    "response.npy": (lambda path: np.save(path, RESPONSE), read_response.__wrapped__),
    "response.txt": (lambda path: np.savetxt(path, RESPONSE), read_response.__wrapped__),
    "names.txt": (holding(b"a.png 3\nb.png\n"), lambda path: read_names(path)),
    "search.json": (
        holding(b'{"iterations": 3, "image_rate": 0.1, "about": "x"}'),
        lambda path: read_options(path, SearchOptions),
    ),
    "log.jsonl": (
        holding(b'{"step": 1, "objective": 2.5}\n{"step": 2, "losses": {"l1": 2}}\n'),
        read_log,
    ),
    "dry.json": (holding(b'{"system": "msdi", "crop": 64, "seed": 1}'), read_configuration),
    "report.json": (holding(REPORT), lambda path: merge_reports([path])),
}
"""By name of a file: how a whole one is written, and how it is read."""

COSTLY: dict[str, tuple[Write, Callable[[Path], object]]] = {
    "a.onnx": (network, lambda path: blurkit.info(path)),
    "a.mat": (matlab, read_kernels),
}
"""Those that are read by a child process."""


@cache
def whole(name: str, folder: Path) -> bytes:
    write, read = (READERS | COSTLY)[name]
    path = folder / name
    write(path)
    read(path)
    return path.read_bytes()


# ---- damage --------------------------------------------------------------------------------------

NUMBERS = [*EXTREMES, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", b"\xff\xff", b"\0\0\0\0"]


@st.composite
def damaged(draw: st.DrawFn, data: bytes, repair: bool) -> bytes:
    """Bytes that differ from those given at a few places, more often near the beginning."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        last = max(len(changed) - 1, 0)
        place = draw(st.integers(0, min(last, 200)) | st.integers(0, last))
        how = draw(st.sampled_from(["byte", "number", "insert", "delete", "repeat", "cut"]))
        if how in ("byte", "number", "insert"):
            new = draw(
                st.sampled_from(NUMBERS) if how == "number" else st.binary(min_size=1, max_size=4)
            )
            changed[place : place + (0 if how == "insert" else len(new))] = new
        elif how == "cut":
            del changed[place:]
        else:
            size = draw(st.integers(1, 64))
            piece = changed[place : place + size]
            changed[place : place + size] = b"" if how == "delete" else piece * 2
    return with_checksums_of_png(bytes(changed)) if repair else bytes(changed)


def with_checksums_of_png(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, so that decoders see what was damaged."""
    view, place = bytearray(data), 8
    while place + 12 <= len(view):
        (size,) = struct.unpack_from(">I", view, place)
        end = place + 8 + size
        if end + 4 > len(view):
            break
        struct.pack_into(">I", view, end, zlib.crc32(view[place + 4 : end]))
        place = end + 4
    return bytes(view)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def changed_json(data: bytes) -> st.SearchStrategy[bytes]:
    """Lines of JSON in which values are others, or which are something else."""
    first = json.loads(data.splitlines()[0])
    keys = st.sampled_from([*first])
    tables = st.dictionaries(keys, VALUES, min_size=1).map(lambda new: first | new) | VALUES
    lines = st.lists(tables.map(json.dumps), min_size=1, max_size=3).map("\n".join)
    deep = st.sampled_from(["[" * 100_000, '{"a":' * 100_000])
    return (lines | deep).map(str.encode)


def files(name: str, data: bytes) -> st.SearchStrategy[bytes]:
    """Damaged files of a kind."""
    found = damaged(data, repair=False)
    if "png" in name:
        found |= damaged(data, repair=True)
    return found | changed_json(data) if "json" in name else found


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("originals")


def fuzz(name: str, folder: Path, originals: Path, examples: int, seconds: float) -> int:
    """Read damaged files of one kind, for so many seconds or once so many; return their number."""
    data, read = whole(name, originals), (READERS | COSTLY)[name][1]
    path, count, began = folder / name, 0, time.monotonic()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=not SECONDS,
        suppress_health_check=[*HealthCheck],
    )
    @given(files(name, data))
    def check(damage: bytes) -> None:
        nonlocal count
        count += 1
        path.write_bytes(damage)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read(path)
        except BlurkitError as error:
            one_line(error)
        assert time.process_time() - started < LONGEST

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    check()
    while time.monotonic() - began < seconds:
        check()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    return count


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused_in_one_line(
    name: str, tmp_path: Path, originals: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = Path(os.environ.get("FUZZ_FOLDER") or tmp_path)
    count = fuzz(name, folder, originals, EXAMPLES, SECONDS / len(READERS))
    assert capfd.readouterr().err == "", "a library has printed something"
    if SECONDS:
        with capfd.disabled():
            sys.stdout.write(f" {name}: {count} files\n")


@pytest.mark.parametrize("name", COSTLY)
def test_damaged_files_that_a_child_reads(name: str, tmp_path: Path, originals: Path) -> None:
    fuzz(name, tmp_path, originals, 100 if SECONDS else 5, 0)
