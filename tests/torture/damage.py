"""Damaged files: shards, streams, checkpoints, states of trainings; images, kernels and videos.

Of files that blurkit has written, whatever is read must be what was written, or an error. Formats
without checksums cannot tell; there, other values are an outcome of their own, `other values`.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import av
import h5py
import imageio.v3 as imageio
import numpy as np
import scipy.io
import skimage.data
import torch

from blurkit.data.films import clip_records, find_clips
from blurkit.data.lists import read_lists
from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import (
    Checkpoint,
    leaf_checksums,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
    with_checksums,
)
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Record
from blurkit.io.streams import shard_bytes
from blurkit.synthesis.averaging import Averaging
from blurkit.synthesis.kernels import read_kernels
from blurkit.systems.system import load_shipped
from blurkit.training.state import read_state
from blurkit.version import STATE_VERSION
from tests.io import scenes
from tests.torture.campaign import Campaign, Case

# ---- what disks, copies and memory do to bytes, and worse ----------------------------------------

HEAD = 1 << 16
"""So many bytes from the start hold most of a format's structures."""

EXTREMES = [b"\xff" * 8, bytes(8), *((1 << n).to_bytes(8, "little") for n in (7, 31, 40, 62))]


def bit(data: bytearray, r: random.Random) -> None:
    """One bit, anywhere."""
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def bit_in_head(data: bytearray, r: random.Random) -> None:
    """One bit of the structures."""
    data[r.choice(used(data))] ^= 1 << r.randrange(8)


def values(data: bytearray, r: random.Random) -> None:
    """Some bytes of the structures."""
    for _ in range(r.randrange(1, 20)):
        data[r.choice(used(data))] = r.randrange(256)


def extreme(data: bytearray, r: random.Random) -> None:
    """An aligned number of the structures, which becomes a length or address that is none."""
    start = r.choice(used(data)) & ~7
    data[start : start + 8] = r.choice(EXTREMES)[: len(data) - start]


def end(data: bytearray, r: random.Random) -> None:
    """A byte near the end, where archives have their index."""
    data[-1 - r.randrange(min(len(data), 3000))] = r.randrange(256)


def block(data: bytearray, r: random.Random, most: int) -> tuple[int, int]:
    """Where a block of fewer bytes than `most` begins, and its size."""
    start = r.randrange(len(data))
    return start, min(r.randrange(1, most), len(data) - start)


def zeros(data: bytearray, r: random.Random) -> None:
    """A block that was never written."""
    start, size = block(data, r, 4096)
    data[start : start + size] = bytes(size)


def noise(data: bytearray, r: random.Random) -> None:
    """A block of something else."""
    start, size = block(data, r, 512)
    data[start : start + size] = r.randbytes(size)


def repeated(data: bytearray, r: random.Random) -> None:
    """A block in the place of another."""
    size = r.randrange(1, min(4096, len(data)))
    here, there = (r.randrange(len(data) - size + 1) for _ in range(2))
    data[here : here + size] = data[there : there + size]


def lost(data: bytearray, r: random.Random) -> None:
    """A block that is missing."""
    start = r.randrange(len(data))
    del data[start : start + r.randrange(1, 4096)]


def added(data: bytearray, r: random.Random) -> None:
    """A block too many."""
    start = r.randrange(len(data))
    data[start:start] = r.randbytes(r.randrange(1, 4096))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(bit, bit_in_head, values, extreme, end, zeros, noise, repeated, lost, added),
)


def used(data: bytearray) -> list[int]:
    """The places of the structures that are not zero."""
    return [place for place, byte in enumerate(data[:HEAD]) if byte] or [0]


def corrupted(data: bytes, r: random.Random) -> bytes:
    """Return bytes that differ from those given in one of the ways above."""
    while True:
        changed = bytearray(data)
        r.choice(MUTATIONS)(changed, r)
        if changed != data:
            return bytes(changed)


def truncated(data: bytes, r: random.Random) -> bytes:
    """Return the first bytes of those given, as often as not fewer than 4096."""
    return data[: r.randrange(min(4096, len(data)) if r.random() < 0.5 else len(data))]


# ---- what is read --------------------------------------------------------------------------------

Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: dict[str, Damage] = {"truncated": truncated, "corrupted": corrupted}

PHOTO = skimage.data.astronaut()
AVERAGING = Averaging(4)


def clear(*errors: object) -> str:
    """The outcome of messages that are not one printable line each, or nothing."""
    bad = next((str(error) for error in errors if not str(error).isprintable()), None)
    return "" if bad is None else f"unclear: {bad!r}"


# ---- shards --------------------------------------------------------------------------------------


def records() -> list[Record]:
    """Five pairs with every kind of attribute."""
    found = []
    for number in range(5):
        crop = PHOTO[40 * number :][:64, 150:230]
        attrs = {"source": f"/photos/{number}.png", "suffix": ".png", "split": "train"}
        more = {"psnr_blur": 20.5 + number, "seed": number, "flag": True}
        kernel = np.random.default_rng(number).random((9, 9))
        images = {"blur": crop[::-1].copy(), "sharp": crop.copy()}
        found.append(Record(f"scene/{number}", images, {**attrs, **more, "kernel": kernel}))
    return found


def write_shard(path: Path, kind: str) -> None:
    """Write the records: plain, compressed, or as a saved stream."""
    if kind == "stream":
        path.write_bytes(b"".join(map(shard_bytes, records())))
    else:
        scenes.write_shard(path, records(), "gzip" if kind == "compressed" else None)


def same(one: Record, other: Record) -> bool:
    """Whether two records have the same images and attributes, of the same types."""
    try:
        scenes.assert_same(one, other)
    except AssertionError:
        return False
    return True


def shard_case(kind: str, damage: Damage, folder: Path) -> Case:
    """Read damaged shards as every command does."""
    write_shard(folder / "whole.h5", kind)
    data = (folder / "whole.h5").read_bytes()
    written = {record.name: record for record in read_records([str(folder / "whole.h5")])}
    assert len(written) == 5

    def case(number: int, r: random.Random, scratch: Path) -> str:
        path, errors = scratch / "x.h5", []
        path.write_bytes(damage(data, r))
        found = list(read_records([str(path)], on_error=lambda _, error: errors.append(error)))
        names = [record.name for record in found]
        if unclear := clear(*errors):
            return unclear
        right = all(r.name in written and same(r, written[r.name]) for r in found)
        if len({*names}) < len(names) or not right:
            return f"{'wrong' if errors else 'silent'}: of {len(found)} records"
        if errors:
            return "salvaged" if found else "reported"
        return "unaffected" if len(found) == len(written) else "silent: a record is missing"

    return case


# ---- checkpoints and states ----------------------------------------------------------------------


def small_checkpoint() -> Checkpoint:
    """A checkpoint of a few layers with all that others have."""
    drawn = (torch.Generator().manual_seed(n) for n in range(6))
    weights = {f"{n}.weight": torch.randn(16, 8, 3, 3, generator=g) for n, g in enumerate(drawn)}
    provenance = {"iterations": 5, "metrics": {"psnr": 20.0}}
    return Checkpoint({"deblur": weights}, "msdi", {"crop": 128, "seed": 0}, provenance)


def whole(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    """The checksums of all that a checkpoint says."""
    parts = ("system", "networks", "configuration", "provenance", "blueprints")
    return sorted(leaf_checksums({part: getattr(checkpoint, part) for part in parts}))


def checkpoint_case(source: str, suffix: str, damage: Damage, folder: Path) -> Case:
    """Load damaged checkpoints as `--checkpoint` does."""
    path = folder / f"whole{suffix}"
    given = load_shipped("kernel-space") if source == "shipped" else small_checkpoint()
    save_checkpoint(given, path)
    return read_case(path, damage, lambda p: whole(load_checkpoint(p)))


def state_case(damage: Damage, folder: Path) -> Case:
    """Load damaged states of trainings as `--resume` does."""
    network = torch.nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 3, 9, 9)).sum().backward()
    optimizer.step()
    state = {"version": STATE_VERSION, "step": 3, "configuration": {"seed": 1}}
    state |= {"networks": {"deblur": network.state_dict()}, "optimizers": [optimizer.state_dict()]}
    save_tensors(with_checksums(state), folder / "x.state.pt")
    return read_case(folder / "x.state.pt", damage, lambda p: sorted(leaf_checksums(read_state(p))))


def read_case(
    path: Path,
    damage: Damage,
    read: Callable[[Path], object],
    wrong: str = "silent",
    accepted: str = "unaffected",
) -> Case:
    """Read a damaged file; what is read must be what the whole one holds, or an error."""
    data, expected = path.read_bytes(), read(path)

    def case(number: int, r: random.Random, scratch: Path) -> str:
        file = scratch / path.name
        file.write_bytes(damage(data, r))
        try:
            found = read(file)
        except BlurkitError as error:
            return clear(error) or "reported"
        return accepted if found == expected else f"{wrong}: other values than were written"

    return case


# ---- formats of others ---------------------------------------------------------------------------


def pixels(path: Path) -> bytes:
    """All that matters of an image file."""
    image = read_image(path).pixels
    return f"{image.dtype}{image.shape}".encode() + image.tobytes()


def image_case(suffix: str, damage: Damage, folder: Path) -> Case:
    """Read damaged images."""
    path, crop = folder / f"whole{suffix}", PHOTO[60:180, 200:360]
    deep = {"16": crop.astype(np.uint16) * 257, "float": (crop / 255).astype(np.float32)}
    write_image(path, deep.get(suffix.partition(".")[0], crop))
    return read_case(path, damage, pixels, "other values")


def kernels(path: Path) -> list[bytes]:
    """All that matters of a file of kernels."""
    return [name.encode() + kernel.tobytes() for name, kernel in read_kernels(path)]


def kernel_case(suffix: str, damage: Damage, folder: Path) -> Case:
    """Read damaged files of kernels."""
    path, kernel = folder / f"whole{suffix}", np.hanning(13)[:, None] * np.hanning(15) + 1e-3
    if suffix == ".npy":
        np.save(path, kernel)
    elif suffix == ".npz":
        np.savez(path, kernel=kernel)
    elif suffix == "7.mat":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["kernel"] = kernel
    elif suffix == ".mat":
        scipy.io.savemat(path, {"kernel": kernel})
    else:
        imageio.imwrite(path, (kernel / kernel.max() * 255).astype(np.uint8))
    return read_case(path, damage, kernels, "other values")


def list_case(damage: Damage, folder: Path) -> Case:
    """Read damaged lists of pairs."""
    path = folder / "train_pairs.txt"
    rows = [f"sharp/{number}.png blur/{number}.png" for number in range(200)]
    path.write_text("\n".join(rows) + "\n")
    return read_case(path, damage, lambda p: read_lists([p]), "other values")


def averages(path: Path) -> list[bytes]:
    """The averaged frames of a video. Raises BlurkitError if something is reported."""
    clips = find_clips([str(path)], AVERAGING.average)
    errors = [BlurkitError(reason) for _, reason in clips.left_out]
    found = []
    for clip in clips.items:
        found += clip_records(clip, AVERAGING, lambda _, error: errors.append(error))
    if errors:
        raise errors[0]
    return [record.images["blur"].tobytes() for record in found]


def video_case(damage: Damage, folder: Path) -> Case:
    """Read damaged videos."""
    path = folder / "whole.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(12):
            crop = np.ascontiguousarray(PHOTO[10 * number :][:96, :128])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(crop)))
        file.mux(stream.encode())
    return read_case(path, damage, averages, "other values")


# ---- all -----------------------------------------------------------------------------------------


IMAGES = (".png", "16.png", ".jpg", ".webp", ".bmp", ".ppm", ".tif", "16.tif", "float.tif")


def _campaigns() -> Iterator[tuple[str, Callable[..., Case], Sequence[str], int, int]]:
    """Name, case, its arguments, and how many files are truncated and corrupted."""
    for kind in ("plain", "compressed", "stream"):
        yield f"shard, {kind}", shard_case, (kind,), 500, 900
    for suffix in (".pt", ".safetensors"):
        yield f"checkpoint{suffix}", checkpoint_case, ("small", suffix), 400, 1000
        yield f"shipped checkpoint{suffix}", checkpoint_case, ("shipped", suffix), 50, 150
    yield "state of a training", state_case, (), 300, 600
    for suffix in IMAGES:
        yield f"image{suffix}", image_case, (suffix,), 50, 200
    for suffix in (".mat", "7.mat", ".npy", ".npz", ".png"):
        yield f"kernels{suffix}", kernel_case, (suffix,), 25, 75
    yield "list of pairs", list_case, (), 25, 75
    yield "video", video_case, (), 25, 75


CAMPAIGNS = [
    Campaign(f"{name}, {damage}", count, partial(make, *arguments, DAMAGES[damage]))
    for name, make, arguments, *counts in _campaigns()
    for damage, count in zip(DAMAGES, counts, strict=True)
]
