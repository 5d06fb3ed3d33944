"""The project's benchmarks: `just bench` prints the table; `--write` puts it in the docs.

Figures are ratios of two things measured in turn in the same run, so that a noisy machine moves
both; the medians of a few rounds are shown with the least and largest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest import mock

import h5py
import imageio.v3 as imageio
import numpy as np
import torch

from blurkit.data.sampler import CropSampler
from blurkit.engine.torch_runner import torch_engine
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.shards import read_shard
from blurkit.options import Placement
from blurkit.reports.tables import print_table
from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling
from tests.benchmarks.gpu import on_device
from tests.benchmarks.measure import (
    Result,
    alternate,
    command,
    free,
    machine,
    make_pairs,
    run,
    seconds,
    shell,
)
from tests.benchmarks.processors import deblurring, roofline, training
from tests.benchmarks.search import searching

DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
MARK = "<!-- measured -->"


def small_network() -> MSDINet:
    """An MSDI-Net as `--preset small` makes it, with settled spectral norms."""
    torch.manual_seed(0)
    network = MSDINet(DegradationEncoder(1, 12), PriorUpsampling(1, 12), width=12, hidden=24)
    with torch.no_grad():
        network.train()(torch.rand(1, 3, 64, 64))
    return network.eval()


def training_crops(folder: Path) -> list[Result]:
    """Random 256x256 crops: mapped shards against decoding PNG and h5py hyperslabs."""
    tree = make_pairs(folder / "tree", 24)
    run(command("prepare", tree, "-o", f"{folder}/shards/", "--quiet"))
    sampler = CropSampler([folder / "shards" / "train-00000.h5"], 256, ("blur",))
    files = sorted((tree / "train" / "scene" / "blur").glob("*.png"))
    shard = h5py.File(folder / "shards" / "train-00000.h5")
    datasets = [shard[key]["blur"] for key in shard]
    rng = np.random.default_rng(0)

    def corner() -> tuple[int, int]:
        return int(rng.integers(720 - 256)), int(rng.integers(1280 - 256))

    def mapped(count: int) -> None:
        for step in range(count // 64):
            sampler.batch(0, step, 64)

    def hyperslabs(count: int) -> None:
        for number in range(count):
            y, x = corner()
            np.ascontiguousarray(datasets[number % 24][y : y + 256, x : x + 256])

    def decoded(count: int) -> None:
        for number in range(count):
            y, x = corner()
            np.ascontiguousarray(imageio.imread(files[number % 24])[y : y + 256, x : x + 256])

    def each(work: Callable[[int], None], count: int) -> float:
        return seconds(partial(work, count)) / count

    mapped(640)
    results = []
    slow: tuple[tuple[str, Callable[[int], None], int, str], ...] = (
        ("a PNG-decoding dataset", decoded, 48, "at least 100x"),
        ("h5py hyperslabs", hyperslabs, 3200, "at least 3x"),
    )
    for name, work, count, goal in slow:
        fast, other, ratio, least, most = alternate(
            partial(each, mapped, 6400),
            partial(each, work, count),
            5,
        )
        how = f"{1 / fast:,.0f} crops/s against {1 / other:,.0f}"
        results.append(
            Result(
                f"training crops against {name}",
                f"{ratio:.1f}x ({least:.1f}-{most:.1f})",
                goal,
                how,
            )
        )
    return results


def preparing(folder: Path) -> list[Result]:
    """`prepare` on two processes against one, and its memory over the number of records."""
    few, many = make_pairs(folder / "few", 24), make_pairs(folder / "many", 240)

    def prepare(tree: Path, jobs: int) -> tuple[float, float]:
        output = folder / "shards"
        free(output)
        return run(
            command(
                "prepare",
                tree,
                "-o",
                f"{output}/",
                "--jobs",
                str(jobs),
                "--quiet",
                "--shard-size",
                "64",
            )
        )

    prepare(few, 2)
    two, one, ratio, least, most = alternate(
        lambda: prepare(many, 2)[0], lambda: prepare(many, 1)[0], 3
    )
    small, large = prepare(few, 1)[1], prepare(many, 1)[1]
    return [
        Result(
            "prepare on 2 processes against 1",
            f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
            "at least 1.8x",
            f"240 PNG pairs of 1280x720: {two:.1f} s against {one:.1f} s",
        ),
        Result(
            "prepare: peak memory, 240 records against 24",
            f"{large / small:.2f}x",
            "flat",
            f"{large:.0f} MiB against {small:.0f} MiB",
        ),
    ]


def keeping(folder: Path) -> list[Result]:
    """What checksums and waiting for the disk cost."""
    tree, path = make_pairs(folder / "tree", 48), folder / "shards" / "train-00000.h5"

    def prepare(synchronise: str) -> float:
        free(path.parent)
        with mock.patch.dict(os.environ, BLURKIT_SYNC=synchronise):
            return run(command("prepare", tree, "-o", f"{path.parent}/", "--quiet"))[0]

    def read(verify: bool) -> float:
        with h5py.File(path) as file:
            stated = iter([file[f"{key}/{name}"].attrs["checksum"].decode()
                           for key in file for name in ("blur", "sharp")])  # fmt: skip
        known = mock.patch("blurkit.io.shards.array_checksum", lambda pixels: next(stated))
        with nullcontext() if verify else known:
            return seconds(lambda: sum(1 for _ in read_shard(path)))

    rows = []
    fast, slow, *ratios = alternate(partial(prepare, "0"), partial(prepare, "1"), 5)
    rows.append(("prepare that waits for the disk against one that does not", fast, slow, ratios))
    read(verify=True)
    fast, slow, *ratios = alternate(partial(read, False), partial(read, True), 7)
    rows.append(("reading 265 MB of records with their checksums", fast, slow, ratios))
    return [
        Result(
            what,
            f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
            "see docs/reliability.md",
            f"{slow:.2f} s against {fast:.2f} s",
        )
        for what, fast, slow, (ratio, least, most) in rows
    ]


def piping(folder: Path) -> list[Result]:
    """A three-stage pipe against its slowest stage alone, and its memory."""
    tree, more = make_pairs(folder / "tree", 8), make_pairs(folder / "more", 16)
    network = folder / "network.pt"
    state = small_network().state_dict()
    save_checkpoint(Checkpoint({"deblur": state}, "msdi", {"crop": 256}), network)
    python = sys.executable
    stages = f"{python} -m blurkit deblur - -c {network} -o - --quiet"

    def pipe(source: Path) -> str:
        return (
            f"{python} -m blurkit prepare {source} -o - --jobs 1 --quiet | {stages} | "
            f"{python} -m blurkit eval - --json --quiet > /dev/null"
        )

    shell(f"{python} -m blurkit prepare {tree} -o {folder}/in.h5 --force --quiet")
    alone = f"{stages} < {folder}/in.h5 > {folder}/out.h5"
    start = statistics.median(run(command("deblur", "--help"))[0] for _ in range(3))
    slowest, piped, ratio, least, most = alternate(
        lambda: shell(alone) + start, lambda: shell(pipe(tree)), 3
    )
    peaks = [
        run(
            [
                "bash",
                "-c",
                f"{python} -m blurkit prepare {source} -o - --jobs 1 --quiet | {stages}"
                f" > /dev/null",
            ]
        )[1]
        for source in (tree, more)
    ]
    return [
        Result(
            "three-stage pipe against its slowest stage",
            f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
            "at most 1.15x",
            f"8 pairs of 1280x720: {piped:.1f} s against {slowest:.1f} s",
        ),
        Result(
            "pipe: peak memory, 16 records against 8",
            f"{peaks[1] / peaks[0]:.2f}x",
            "flat",
            f"{peaks[1]:.0f} MiB against {peaks[0]:.0f} MiB, the largest process",
        ),
    ]


def forward(folder: Path) -> list[Result]:
    """MSDI-Net forward on the CPU: the engine's choices against plain eager float32."""
    image = np.random.default_rng(0).random((512, 512, 3), dtype=np.float32)
    plain = small_network()

    def eager() -> float:
        tiles = [
            torch.from_numpy(image[y : y + 256, x : x + 256].transpose(2, 0, 1)[None].copy())
            for y in (0, 128, 256)
            for x in (0, 128, 256)
        ]

        def work() -> None:
            with torch.no_grad():
                for tile in tiles:
                    plain(tile)

        return seconds(work)

    results = []
    wanted = {"fp32": "at least 1x", "auto": "the further ratio"}
    for precision, goal in wanted.items():
        engine = torch_engine(small_network(), Placement("cpu", precision, 256, 128))
        engine(image)
        ours, theirs, ratio, least, most = alternate(
            partial(seconds, partial(engine, image)), eager, 5
        )
        chosen = engine.describe()["precision"]
        results.append(
            Result(
                f"MSDI-Net forward, engine in {precision} ({chosen}, channels last)",
                f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
                goal,
                f"9 tiles of 256x256, width 12: {ours:.2f} s against {theirs:.2f} s eager",
            )
        )
    try:
        compiled = torch.compile(small_network().to(memory_format=torch.channels_last))
        tile = torch.from_numpy(image[:256, :256].transpose(2, 0, 1)[None].copy())
        tile = tile.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            first = seconds(lambda: compiled(tile))
            after = statistics.median(seconds(lambda: compiled(tile)) for _ in range(9))
        engine = torch_engine(small_network(), Placement("cpu", tile=256, overlap=128))
        uncompiled = seconds(lambda: engine(image)) / 9
        results.append(
            Result(
                "the same compiled, against the engine in auto",
                f"{uncompiled / after:.2f}x",
                "-",
                f"but {first:.0f} s to compile first, so auto leaves it out",
            )
        )
    except Exception as error:  # no compiler on this machine
        results.append(
            Result("the same compiled", "-", "-", f"not available: {type(error).__name__}")
        )
    return results


def starting(folder: Path) -> list[Result]:
    """`blurkit --help` against importing what it is made of."""
    script = [sys.executable, "-c", "import typer, rich"]
    imports, help_, ratio, least, most = alternate(
        lambda: run(script)[0], lambda: run(command("--help"))[0], 15
    )
    return [
        Result(
            "blurkit --help against `import typer, rich`",
            f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
            "under 2x",
            f"{help_ * 1000:.0f} ms against {imports * 1000:.0f} ms",
        )
    ]


def main(arguments: list[str]) -> None:
    """Run the benchmarks whose names are given, or all, or those of a GPU."""
    all_parts = (
        *(training_crops, preparing, keeping, piping, deblurring, forward, roofline, training),
        *(searching, starting),
    )
    parts = {f.__name__: f for f in all_parts}
    given = argparse.ArgumentParser(description=main.__doc__)
    given.add_argument("names", nargs="*", choices=[*parts, []], help="default: all")
    given.add_argument("--device", default="cpu", help="cpu, or a GPU, which has its own parts")
    given.add_argument(
        "--small", action="store_true", help="with --device: networks of few channels"
    )
    given.add_argument("--write", action="store_true", help="update docs/benchmarks.md")
    o = given.parse_args(arguments)
    results: list[Result] = []
    if o.device != "cpu" or o.small:
        results = on_device(o.device, o.small)
    for name in (o.names or parts) if not results else []:
        with tempfile.TemporaryDirectory() as folder:
            results += parts[name](Path(folder))
    rows = [(r.what, r.ratio, r.goal, r.how) for r in results]
    print_table("benchmarks", ["what", "ratio", "goal", "measured"], rows, note=machine())
    if o.write:
        lines = ["| what | ratio | goal | measured |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        before = DOCUMENT.read_text().split(MARK)[0]
        DOCUMENT.write_text(
            f"{before}{MARK}\n\nMachine: {machine()}.\n\n" + "\n".join(lines) + "\n"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
