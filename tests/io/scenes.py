"""Records of real photos in every depth, with every kind of attribute."""

import struct
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import skimage.data
import xxhash

from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter

PHOTO = skimage.data.astronaut()
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
PEAK_MEGABYTES = "int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) // 1024"
"""Python for the most memory a process has held; what `resource` tells includes its parent's."""


def deep(image: np.ndarray) -> np.ndarray:
    """A 16-bit image whose low bytes all matter."""
    return image.astype(np.uint16) * 257 ^ 0x35


def exif(orientation: int) -> bytes:
    """An EXIF block of a camera held so."""
    block = PIL.Image.Exif()
    block[274], block[271] = orientation, "a camera"
    return block.tobytes()


LARGE_PROFILE = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
DEPTHS = {
    "eight": lambda image: image,
    "sixteen": deep,
    "float": lambda image: (image / np.float32(255)).astype(np.float32),
}


def pair(name: str, scene: int = 0, depth: str = "eight", side: int = 48) -> Record:
    """A pair of crops of a photo: the blurred one darker; each `scene` is another part."""
    top, left = 20 * (scene % 20), 30 * (scene // 20 % 15)
    crop = DEPTHS[depth](PHOTO[top : top + side, left : left + side])
    attrs = {"source": f"/photos/{name}.png", "sequence": "a", "number": scene}
    return Record(name, {"blur": crop[::-1].copy(), "sharp": crop.copy()}, attrs)


def varied() -> list[Record]:
    """Records that between them hold everything a record can."""
    records = [pair(f"{depth}/scene", 3, depth) for depth in DEPTHS]
    records.append(Record("gray", {"blur": PHOTO[:7, :5, :1].copy()}))
    records.append(
        Record(
            "mit Äöü/夜の写真",
            {"restored": PHOTO[:1, :1].copy(), "alpha": PHOTO[:1, :1, :1].copy()},
            {
                "yes": True,
                "no": False,
                "whole": -(2**40),
                "half": 0.5,
                "text": "Ünïcode\nlines",
                "empty": "",
                "long": "x" * 100_000,
                "kernel": np.eye(5, dtype=np.float64),
                "icc_profile": LARGE_PROFILE,
                "nothing": np.zeros(0, np.uint8),
            },
        )
    )
    return records


def assert_same(first: Record, second: Record) -> None:
    """Both records hold the same, down to types and order of images."""
    assert first.name == second.name
    for one, other in ((first.images, second.images), (first.attrs, second.attrs)):
        assert _kinds(other) == _kinds(one)
        np.testing.assert_equal(other, one)


def _kinds(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: (type(value), str(getattr(value, "dtype", ""))) for key, value in values.items()}


def assert_all_same(first: Iterable[Record], second: Iterable[Record]) -> None:
    """The same of as many records, in their order."""
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)


def refusal(call: Callable[..., object], path: Path, *arguments: object) -> str:
    """Why a call fails for a file: one line that begins with the file's name, and no warning."""
    with pytest.raises(BlurkitError) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        call(path, *arguments)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def write_shard(path: Path, records: Iterable[Record], compression: str | None = None) -> Path:
    write_all(ShardWriter(path, force=True, compression=compression), records)
    return path


def write_all(sink: Any, records: Iterable[Record]) -> None:
    """Write records to a sink, and finish it."""
    with sink:
        for record in records:
            sink.write(record)


def plain_shard(file: h5py.File, records: list[Record]) -> None:
    """Fill an HDF5 file as docs describe a shard, with nothing of blurkit."""
    for number, record in enumerate(records):
        group = file.create_group(f"{number:08d}")
        group.attrs["name"] = record.name
        for key, image in record.images.items():
            group[key] = image
        put_attributes(group, record.attrs)
    seal(file)


def put_attributes(group: h5py.Group, attrs: Mapping[str, Any]) -> None:
    for key, value in attrs.items():
        if isinstance(value, np.ndarray):
            group[f"attrs/{key}"] = value
        else:
            group.attrs[f"attr:{key}"] = value


def seal(file: h5py.File) -> None:
    """Make an HDF5 file a shard of the records in it, with checksums wherever there can be some."""
    file.attrs["format"], file.attrs["version"] = "blurkit", 2
    file.attrs["records"] = len(file)
    for key in file:
        if isinstance(file.get(key, getlink=True), h5py.HardLink):
            with suppress(Exception):  # what is no record
                _seal_record(file[key], int(key))


def _seal_record(group: h5py.Group, number: int) -> None:
    images = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset) and item.size < 10**6:
            images[name] = item.attrs["checksum"] = _checksum(item[()])
    attrs = {name[5:]: value for name, value in group.attrs.items() if name.startswith("attr:")}
    attrs |= {name: array[()] for name, array in group.get("attrs", {}).items()}
    parts = [str(number).encode(), group.attrs["name"].encode()]
    for name, value in sorted(attrs.items()):
        parts += [name.encode(), _value(value)]
    parts += [f"{name} {images[name]}".encode() for name in sorted(images)]
    whole = b"".join(struct.pack("<Q", len(part)) + part for part in parts)
    group.attrs["number"] = number
    group.attrs["checksum"] = xxhash.xxh3_128_hexdigest(whole)


def _checksum(array: np.ndarray) -> str:
    return xxhash.xxh3_128_hexdigest(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())


def _value(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return _checksum(value).encode()
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float):
        return b"float" + struct.pack("<d", plain)
    return f"{type(plain).__name__} {plain}".encode()
