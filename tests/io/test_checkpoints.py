"""Checkpoints come back whole, and no file is trusted to run code."""

import io
import os
import pickle
import re
from argparse import Namespace
from collections import OrderedDict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import (
    CHECKPOINT_FORMAT,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    with_checksums,
)
from tests.io.scenes import refusal

STATE = {"0.weight": torch.arange(6.0).reshape(2, 3), "0.bias": torch.ones(2), "n": torch.tensor(3)}


def example() -> Checkpoint:
    networks = {
        "encoder": dict(nn.Conv2d(3, 4, 3).state_dict()),
        "deblur": dict(nn.BatchNorm2d(4).half().state_dict()),
    }
    configuration = {"crop": 256, "rate": 1e-4, "name": "ä", "list": [1, 2], "none": None}
    return Checkpoint(networks, "msdi", configuration, {"command": "blurkit train", "psnr": 31.5})


@pytest.mark.parametrize("name", ["a.pt", "new/folder/a.pth", "a.safetensors", "a.ckpt"])
def test_checkpoints_come_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save_checkpoint(example(), path)
    again = load_checkpoint(path)
    first = example()
    assert (again.system, again.where) == ("msdi", str(path))
    assert (again.configuration, again.provenance) == (first.configuration, first.provenance)
    assert again.networks.keys() == first.networks.keys()
    for role, state in first.networks.items():
        assert again.networks[role].keys() == state.keys()
        for key, tensor in state.items():
            assert again.networks[role][key].dtype == tensor.dtype
            assert again.networks[role][key].shape == tensor.shape
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_values_are_exact_whatever_the_layout(tmp_path: Path, name: str) -> None:
    shared = torch.randn(4, 6)
    views = {"a": shared, "b": shared, "c": shared.t(), "d": shared[:, 1:3]}
    state = views | {"e": nn.Parameter(shared)}
    save_checkpoint(Checkpoint({"encoder": state}), tmp_path / name)
    again = load_checkpoint(tmp_path / name).networks["encoder"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"params": STATE},
        {"state_dict": STATE, "epoch": 3},
        {"model": {"state_dict": STATE}},
        {"g": {"other": torch.ones(1)}, "g_ema": STATE, "args": Namespace(size=256, rate=0.002)},
        {"params": STATE, "best": np.float64(31.5), "epoch": np.int32(3), "ok": np.bool_(True)},
        {"params": STATE, "rng": np.random.RandomState(0).get_state(), "log": [np.eye(2) > 0]},
        {"params": STATE, "args": {"out": Path("runs"), "days": np.datetime64("2020-01-01")}},
    ],
    ids=[
        *("bare", "ordered", "params", "state_dict", "nested", "averaged, with options"),
        *("with numbers", "with arrays", "with paths"),
    ],
)
def test_files_of_other_programs(tmp_path: Path, content: Any, legacy: bool) -> None:
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    again = load_checkpoint(path)
    assert list(again.networks) == ["network"]
    assert again.networks["network"].keys() == STATE.keys()
    assert all(torch.equal(again.networks["network"][key], STATE[key]) for key in STATE)
    assert again.configuration == again.provenance == {}


def test_numbers_beside_weights_are_not_made_by_numpy(tmp_path: Path) -> None:
    """A type of numbers that would crash NumPy, and one that would call what a field names."""
    for state in (
        (3, "|", None, ("f",), {"f": 7}, -1, 1, 63),
        (9,) * 20,
        "x",
        ({"shape": 1 << 60},),
    ):

        class Number:
            given = state

            def __reduce__(self) -> tuple[Any, ...]:
                return np.dtype, ("O8", False, True), self.given

        torch.save({"params": STATE, "best": Number()}, tmp_path / "a.pth")
        assert load_checkpoint(tmp_path / "a.pth").networks["network"].keys() == STATE.keys()


def test_safetensors_of_other_programs(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.bin", metadata={"format": "pt"})
    assert load_checkpoint(tmp_path / "a.bin").networks["network"].keys() == STATE.keys()


class Malicious:
    """Unpickling it runs a command that creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.marker}'",)


@pytest.mark.parametrize("place", ["alone", "beside", "inside", "as a tensor"])
@pytest.mark.parametrize("form", ["zip", "legacy", *range(pickle.HIGHEST_PROTOCOL + 1)])
def test_code_is_refused_and_not_run(tmp_path: Path, place: str, form: str | int) -> None:
    marker, path = tmp_path / "it ran", tmp_path / "a.pt"
    evil = Malicious(marker)
    content = {
        "alone": evil,
        "beside": {"params": STATE, "extra": [evil]},
        "inside": {"state_dict": {"deep": {"deeper": (1, evil)}}},
        "as a tensor": {**STATE, "1.weight": evil},
    }[place]
    if isinstance(form, int) and place == "alone":
        path.write_bytes(pickle.dumps(content, form))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert refusal(load_checkpoint, path).startswith(
        "refused, its pickle would run code; ask its author"
    )
    assert not marker.exists()
    pickle.loads(pickle.dumps(evil))  # the trap itself works
    assert marker.exists()


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    rng = np.random.default_rng(0)
    junk = [
        b"A checkpoint? No: some text.\n" * 5,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"a",
        b'1234567{"a": 1}',
        b"\xff\0\0\0\0\0\0\0{" + bytes(100),
        b"\x93" + bytes(100),  # these three begin like a pickle that names code
        b"\x95" + bytes(100),
        b"()cposix\nsystem\n" + b"\xff" * 100,
        # One of 256 files has a brace there; the length before it must be possible.
        b"\xff" * 8 + b"{" + bytes(range(256)),
    ]
    junk += [rng.integers(0, 256, 300, np.uint8).tobytes() for _ in range(50)]
    for data in junk:
        path.write_bytes(data)
        told = refusal(load_checkpoint, path)
        assert re.search("not a checkpoint|damaged|holds no network weights", told), (data, told)
        assert "run code" not in told
    path.write_bytes(b"")
    assert refusal(load_checkpoint, path) == "is empty (0 bytes)"
    assert refusal(load_checkpoint, tmp_path / "missing.pt") == "no such checkpoint"
    assert refusal(load_checkpoint, tmp_path) == "is a folder, not a checkpoint"
    assert refusal(load_checkpoint, path / "below.pt").startswith("cannot be read")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_truncated_checkpoints(tmp_path: Path, name: str) -> None:
    save_checkpoint(example(), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for size in (1, 7, 8, 9, 40, len(data) // 2, len(data) - 1):
        (tmp_path / name).write_bytes(data[:size])
        assert re.search("damaged|not a checkpoint", refusal(load_checkpoint, tmp_path / name))


def summed(**content: Any) -> dict[str, Any]:
    """The content of a checkpoint with the checksums that belong to it."""
    return with_checksums({"format": CHECKPOINT_FORMAT, "version": 2, **content})


OURS: dict[str, Any] = {"format": CHECKPOINT_FORMAT, "networks": {}}
ENDLESS = torch.zeros(1).expand(10**6, 10**6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"epoch": 1, "loss": 0.5}, r"holds no network weights \(found: epoch, loss\)"),
        ({}, "holds no network weights"),
        ([1, 2], "holds no network weights"),
        (torch.zeros(3), "holds no network weights"),
        ({1: torch.zeros(3)}, "holds no network weights"),
        ({"w": ENDLESS}, "holds no network weights"),
        ({"w": torch.zeros(3, device="meta")}, "holds no network weights"),
        (reduce(lambda inner, _: {"params": inner}, range(150), {"w": torch.zeros(3)}), "weights"),
        ({**OURS, "version": 3}, "version 3, but this blurkit reads 2; train it again"),
        ({**OURS, "version": 2}, "damaged, its checksums are missing"),
        ({**OURS, "version": 1}, "version 1, but this blurkit reads 2; train it again"),
        (OURS, "version None, but this blurkit reads 2"),
        (summed(), "holds no network weights"),
        (summed(networks={"a": {"b": 3}}), "holds no network weights"),
        (summed(networks={"a": {"w": ENDLESS}}), "holds no network weights"),
        (summed(networks={"a": {"w": torch.zeros(3, device="meta")}}), "holds no network weights"),
        (summed(configuration="x"), "damaged, its configuration"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: Any, expected: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert re.search(expected, refusal(load_checkpoint, tmp_path / "a.pt"))


def test_safetensors_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({}, path)
    assert "holds no network weights" in refusal(load_checkpoint, path)
    for about, expected in (
        ('{"version": 7}', "version 7"),
        ("[1]", "damaged, what it says of itself"),
        ("{broken", "damaged safetensors"),
    ):
        save_file({"encoder/a": torch.zeros(1)}, path, metadata={CHECKPOINT_FORMAT: about})
        assert expected in refusal(load_checkpoint, path)


def test_a_full_disk_leaves_the_old_checkpoint(small_disk: Path) -> None:
    for name in ("a.pt", "a.safetensors"):
        save_checkpoint(example(), small_disk / name)
        before = (small_disk / name).read_bytes()
        large = Checkpoint({"encoder": {"weight": torch.randn(500_000)}})
        with pytest.raises(BlurkitError, match=f"{name}: the disk is full"):
            save_checkpoint(large, small_disk / name)
        assert (small_disk / name).read_bytes() == before
    assert len(list(small_disk.iterdir())) == 2


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("file/a.pt", "folder.pt"):
        with pytest.raises(BlurkitError, match=f"{name}: cannot be written"):
            save_checkpoint(example(), tmp_path / name)
    with pytest.raises(BlurkitError, match=r"pipe\.pt: is not a regular file"):
        save_checkpoint(example(), tmp_path / "pipe.pt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.pt", "pipe.pt"]
    assert (tmp_path / "pipe.pt").is_fifo()


def test_through_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "pipe").open("w+b") as file:
        monkeypatch.setattr("sys.stdout", io.TextIOWrapper(file))
        save_checkpoint(example(), "-")
        file.seek(0)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        again = load_checkpoint("-")
    assert again.where == "checkpoint on standard input"
    assert list(again.networks) == ["encoder", "deblur"]
