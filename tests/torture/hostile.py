"""Files made to harm: shards, checkpoints and images that no honest program writes.

They are read as commands read them, beside good ones, which must come through; no byte of another
file may be in an output, and no code may run.
"""

import argparse
import contextlib
import io
import json
import pickle
import random
import resource
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import skimage.data
import tifffile
import torch

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import CHECKPOINT_FORMAT, with_checksums
from blurkit.io.image_sinks import open_sink
from blurkit.io.images import read_image
from blurkit.io.sinks import ShardFolder
from blurkit.systems.system import load_shipped
from blurkit.version import CHECKPOINT_VERSION
from tests.cli.invoke import invoke
from tests.io.test_checkpoints import Malicious
from tests.io.test_image_errors import BAD, gif, png, tiff
from tests.io.test_shards import CASES, GOOD, SECRET, write_hostile, written
from tests.torture.campaign import Campaign, Case
from tests.torture.damage import clear, corrupted

MEMORY = 12 << 30
"""The bytes of address space that reading a hostile file may take."""

PHOTO = skimage.data.astronaut()[60:100, 200:256]


def limited(case: Case) -> Case:
    """Run a case with so much memory only."""

    def run(number: int, r: random.Random, scratch: Path) -> str:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        return case(number, r, scratch)

    return run


# ---- shards --------------------------------------------------------------------------------------


def shards(folder: Path) -> Case:
    """One hostile record between two good ones, in half of the cases damaged as well."""

    def case(number: int, r: random.Random, scratch: Path) -> str:
        libver = r.choice(("v110", "latest"))
        shard, out = write_hostile(scratch, r.choice([*CASES]), libver), scratch / "out"
        damaged = r.random() < 0.5
        if damaged:
            shard.write_bytes(corrupted(shard.read_bytes(), r))
        folder = r.random() < 0.5
        sink = open_sink(f"{out}/", ("blur",), "x") if folder else ShardFolder(out)
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors):
            done, failed = written(sink, shard)
        lines = errors.getvalue().splitlines()
        if unclear := clear(*lines):
            return unclear
        assert len(lines) == len(failed), f"{len(failed)} records failed, {len(lines)} lines"
        found = [path for path in scratch.rglob("*") if path.is_file()]
        outside = [path for path in found if path.parent != scratch and out not in path.parents]
        assert not outside, f"written elsewhere: {outside}"
        if any(SECRET[:22] in path.read_bytes() for path in found if out in path.parents):
            return "foreign: another file's bytes in the output"
        if not damaged:
            assert {*GOOD} <= {*done}, f"the good records are missing among {done}"
        return "reported" if failed else "written"

    return limited(case)


# ---- checkpoints ---------------------------------------------------------------------------------


@cache
def honest() -> dict[str, Any]:
    """A table like that of the shipped kernel space, which hostile values replace parts of."""
    found = load_shipped("kernel-space")
    about = {"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "system": found.system}
    about |= {"configuration": found.configuration, "provenance": found.provenance}
    return about | {"roles": found.blueprints, "networks": found.networks}


ESCAPES = "\x1b]0;PWNED\x07\x1b[31m\n"


def odd_value(r: random.Random) -> Any:
    """A value that has no place in a checkpoint, or the wrong place."""
    return r.choice([
        *(None, -1, 0, 3, 1e30, torch.nan, 10**30, True, "", "abc", ESCAPES, b"\xff", (), [], {}),
        *([[[]]], {"": {}}, {3: 4}, {ESCAPES: ESCAPES}, torch.zeros(2), torch.zeros(0)),
        argparse.Namespace(a=1), torch.float32, {"blur": torch.zeros(1)},
    ])  # fmt: skip


def odd_tensor(r: random.Random, tensor: torch.Tensor) -> Any:
    """What can be put in a weight's place."""
    flat = tensor.reshape(-1)
    return r.choice([
        *(tensor[:0] if tensor.ndim else tensor, flat, flat[0], tensor[None], tensor.double()),
        *(tensor.to(torch.int64), tensor.to(torch.complex64), tensor > 0, tensor.half()),
        *(torch.full_like(tensor, r.choice([torch.nan, torch.inf])), tensor.to("meta")),
        *(flat[:1].expand(10**6, 10**6), tensor.to_sparse() if tensor.ndim else tensor, "weights"),
    ])  # fmt: skip


def hostile_table(r: random.Random, marker: Path) -> Any:
    """A checkpoint's content with something wrong at a place, at any depth."""
    table: dict[Any, Any] = {**honest()}
    kind = r.randrange(8)
    if kind == 0:
        table[r.choice([*table])] = odd_value(r)
    elif kind == 1:
        table["configuration"] = {**table["configuration"]}
        table["configuration"][r.choice([*table["configuration"], "crop"])] = odd_value(r)
    elif kind == 2:
        table[r.choice(["networks", "roles"])] = {r.choice(["deblur", "latents", 3]): odd_value(r)}
    elif kind in (3, 4):
        networks = {role: {**state} for role, state in table["networks"].items()}
        state = networks[r.choice([*networks])]
        key = r.choice([*state])
        if kind == 3:
            state[key] = odd_tensor(r, state[key])
        else:
            state[r.choice([3, "", ESCAPES, None, "x" * 5000])] = state.pop(key)
        table["networks"] = networks
    elif kind == 5:
        table = {"params": odd_value(r), r.choice(["x", 7]): Malicious(marker)}
    elif kind == 6:
        for _ in range(r.choice([2, 150])):
            table = {"params": table}
    else:
        table = {"state_dict": {}}
        table["state_dict"] = table
    if kind < 5:
        with contextlib.suppress(Exception):  # what can have no checksum
            table = with_checksums(table)
    return table


def safetensors(r: random.Random) -> bytes:
    """A file in that format whose header lies."""
    about = r.choice(["[" * 100_000, "[1]", "{}", '{"version": []}', "\x1b[31m", "null"])
    header: Any = {"__metadata__": {CHECKPOINT_FORMAT: about}}
    if r.random() >= 0.8:
        header = r.choice([[], "x", 3, None, {"w": 3}, {"w": {}}])
    if isinstance(header, dict):
        shape = r.choice([[1], [1 << 40], [-1], [], [0], "1", [1, 1, 1]])
        offsets = r.choice([[0, 4], [0, 1 << 40], [4, 0], [2, 6], [-4, 0]])
        dtype = r.choice(["F32", "F8", "BOOL", "", 3])
        entry = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        header[r.choice(["w", ESCAPES, "a/b"])] = entry
    text = json.dumps(header).encode()
    size = r.choice([len(text), len(text), len(text), 1 << 40, 3, 0])
    return struct.pack("<Q", size) + text + bytes(4)


def floats(value: float) -> bytes:
    """A TIFF of floats with one other value."""
    file, pixels = io.BytesIO(), np.full((20, 30, 3), 0.5, np.float32)
    pixels[3, 3] = value
    tifffile.imwrite(file, pixels, photometric="rgb")
    return file.getvalue()


def checkpoints(folder: Path) -> Case:
    """Deblur with a hostile checkpoint, or ask what it is."""
    imageio.imwrite(folder / "photo.png", PHOTO)
    honest()

    def case(number: int, r: random.Random, scratch: Path) -> str:
        marker, path = scratch / "it ran", scratch / "x.pt"
        if r.random() < 0.2:
            path = scratch / "x.safetensors"
            path.write_bytes(safetensors(r))
        elif r.random() < 0.1:
            path.write_bytes(pickle.dumps(Malicious(marker), r.randrange(6)))
        else:
            zipped = r.random() < 0.7
            torch.save(hostile_table(r, marker), path, _use_new_zipfile_serialization=zipped)
        options: list[object] = ["info", path]
        if r.random() < 0.7:
            options = ["transfer", *[folder / "photo.png"] * 3, "-c", path, "--device", "cpu"]
            options += ["-o", f"{scratch}/out/", "-q"]
        ran = invoke(*options)
        assert not marker.exists(), "code ran"
        assert ran.status in (0, 1, 2), ran.err
        if unclear := clear(*ran.lines):
            return unclear
        assert ran.status == 0 or (ran.lines and ran.lines[-1]), "it failed without a word"
        return "reported" if ran.status else "accepted"

    return limited(case)


# ---- images --------------------------------------------------------------------------------------


def size(r: random.Random) -> int:
    return r.choice([0, 1, 2, 100, 4000, 30_000, 60_000, 65_535, 2**31 - 1, 2**32 - 1])


MAKERS: list[Callable[[random.Random], tuple[str, bytes]]] = [
    lambda r: ("x.png", png(size(r), size(r), r.choice([1, 8, 16]), zlib.compress(bytes(9999)))),
    lambda r: ("x.tif", tiff(size(r), size(r), size(r))),
    lambda r: ("x.png", gif(size(r) % 65_536, size(r) % 65_536)),
    lambda r: ("x.tif", floats(r.choice([np.nan, np.inf, -np.inf, 1e30, -0.5, 2.0]))),
    lambda r: (lambda name: (name, BAD[name][1]()))(r.choice([*BAD])),
    lambda r: (f"x{r.choice(['.png', '.jpg', '.webp', '.bmp', '.ppm', '.tif'])}", r.randbytes(500)),
    lambda r: ("x.ppm", f"P6 {size(r)} {size(r)} {size(r)}\n".encode() + r.randbytes(300)),
    lambda r: ("x.tif", stack(r)),
]  # fmt: skip


def stack(r: random.Random) -> bytes:
    """A TIFF of a type or number of dimensions that photos do not have."""
    file = io.BytesIO()
    shape = r.choice([(3, 8, 9), (5, 8, 9, 3), (8, 9), (8, 9, 2), (8, 9, 5), (1, 1, 8, 9)])
    kind = r.choice(["f8", "c8", "i2", "i4", "u4", "?", "f2", "u1"])
    tifffile.imwrite(file, np.zeros(shape, kind))
    return file.getvalue()


def images(folder: Path) -> Case:
    """Read a hostile image."""

    def case(number: int, r: random.Random, scratch: Path) -> str:
        name, data = r.choice(MAKERS)(r)
        (scratch / name).write_bytes(data)
        try:
            read_image(scratch / name)
        except BlurkitError as error:
            return clear(error) or "reported"
        return "read"

    return limited(case)


CAMPAIGNS = [
    Campaign("hostile shards", 700, shards),
    Campaign("hostile checkpoints", 600, checkpoints),
    Campaign("hostile images", 800, images),
]
