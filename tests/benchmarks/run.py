"""The project's benchmarks: `just bench` prints the table; `--write` puts it in the docs.

Figures are ratios of two things measured in turn in the same run, so that a noisy machine moves
both; the medians of a few rounds are shown with the least and largest.
"""

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import product
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
from tests.benchmarks import pages
from tests.benchmarks.gpu import on_device
from tests.benchmarks.measure import (
    Result,
    alternate,
    command,
    machine,
    make_pairs,
    run,
    seconds,
    shell,
)
from tests.benchmarks.processors import deblurring, roofline, searching, training


def small_network() -> MSDINet:
    """An MSDI-Net as `--preset small` makes it, with settled spectral norms."""
    torch.manual_seed(0)
    network = MSDINet(DegradationEncoder(1, 12), PriorUpsampling(1, 12), width=12, hidden=24)
    with torch.no_grad():
        network.train()(torch.rand(1, 3, 64, 64))
    return network.eval()


def training_crops(folder: Path) -> Iterator[Result]:
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
    slow: tuple[tuple[str, Callable[[int], None], int, str], ...] = (
        ("a PNG-decoding dataset", decoded, 48, "at least 100x"),
        ("h5py hyperslabs", hyperslabs, 3200, "at least 3x"),
    )
    for name, work, count, goal in slow:
        found = alternate(partial(each, mapped, 6400), partial(each, work, count), 5)
        how = f"{1 / found.first:,.0f} crops/s against {1 / found.second:,.0f}"
        yield Result(f"training crops against {name}", found.told(1), goal, how)


def preparing(folder: Path) -> Iterator[Result]:
    """`prepare` on two processes against one, and its memory over the number of records."""
    few, many = make_pairs(folder / "few", 24), make_pairs(folder / "many", 240)

    def prepare(tree: Path, jobs: int) -> tuple[float, float]:
        output = folder / "shards"
        shutil.rmtree(output, ignore_errors=True)
        options = ["-o", f"{output}/", "--jobs", f"{jobs}", "--quiet", "--shard-size", "64"]
        return run(command("prepare", tree, *options))

    prepare(few, 2)
    found = alternate(lambda: prepare(many, 2)[0], lambda: prepare(many, 1)[0], 3)
    small, large = prepare(few, 1)[1], prepare(many, 1)[1]
    how = f"240 PNG pairs of 1280x720: {found.first:.1f} s against {found.second:.1f} s"
    yield Result("prepare on 2 processes against 1", found.told(), "at least 1.8x", how)
    what, how = "240 records against 24", f"{large:.0f} MiB against {small:.0f} MiB"
    yield Result(f"prepare: peak memory, {what}", f"{large / small:.2f}x", "flat", how)


def keeping(folder: Path) -> Iterator[Result]:
    """What checksums and waiting for the disk cost."""
    tree, path = make_pairs(folder / "tree", 48), folder / "shards" / "train-00000.h5"

    def prepare(synchronise: str) -> float:
        shutil.rmtree(path.parent, ignore_errors=True)
        with mock.patch.dict(os.environ, BLURKIT_SYNC=synchronise):
            return run(command("prepare", tree, "-o", f"{path.parent}/", "--quiet"))[0]

    def read(verify: bool) -> float:
        with h5py.File(path) as file:
            stated = iter([file[f"{key}/{name}"].attrs["checksum"].decode()
                           for key in file for name in ("blur", "sharp")])  # fmt: skip
        known = mock.patch("blurkit.io.shards.array_checksum", lambda pixels: next(stated))
        with nullcontext() if verify else known:
            return seconds(lambda: sum(1 for _ in read_shard(path)))

    waiting = alternate(partial(prepare, "0"), partial(prepare, "1"), 5)
    read(verify=True)
    verified = alternate(partial(read, False), partial(read, True), 7)
    for what, found in (
        ("prepare that waits for the disk against one that does not", waiting),
        ("reading 265 MB of records with their checksums", verified),
    ):
        how = f"{found.second:.2f} s against {found.first:.2f} s"
        yield Result(what, found.told(), "see docs/reliability.md", how)


def piping(folder: Path) -> Iterator[Result]:
    """A three-stage pipe against its slowest stage alone, and its memory."""
    tree, more = make_pairs(folder / "tree", 8), make_pairs(folder / "more", 16)
    network = folder / "network.pt"
    state = small_network().state_dict()
    save_checkpoint(Checkpoint({"deblur": state}, "msdi", {"crop": 256}), network)
    python = sys.executable
    stage = f"{python} -m blurkit deblur - -c {network} -o - --quiet"

    def pipe(source: Path) -> str:
        return f"{python} -m blurkit prepare {source} -o - --jobs 1 --quiet | {stage}"

    shell(f"{python} -m blurkit prepare {tree} -o {folder}/in.h5 --force --quiet")
    alone = f"{stage} < {folder}/in.h5 > {folder}/out.h5"
    whole = f"{pipe(tree)} | {python} -m blurkit eval - --json --quiet > /dev/null"
    start = statistics.median(run(command("deblur", "--help"))[0] for _ in range(3))
    found = alternate(lambda: shell(alone) + start, lambda: shell(whole), 3)
    peaks = [run(["bash", "-c", f"{pipe(source)} > /dev/null"])[1] for source in (tree, more)]
    how = f"8 pairs of 1280x720: {found.second:.1f} s against {found.first:.1f} s"
    yield Result("three-stage pipe against its slowest stage", found.told(), "at most 1.15x", how)
    how = f"{peaks[1]:.0f} MiB against {peaks[0]:.0f} MiB, the largest process"
    ratio = f"{peaks[1] / peaks[0]:.2f}x"
    yield Result("pipe: peak memory, 16 records against 8", ratio, "flat", how)


def forward(folder: Path) -> Iterator[Result]:
    """MSDI-Net forward on the CPU: the engine's choices against plain eager float32."""
    image = np.random.default_rng(0).random((512, 512, 3), dtype=np.float32)
    plain = small_network()

    def eager() -> float:
        corners = product((0, 128, 256), repeat=2)
        parts = (image[y : y + 256, x : x + 256].transpose(2, 0, 1) for y, x in corners)
        tiles = [torch.from_numpy(part[None].copy()) for part in parts]

        def work() -> None:
            for tile in tiles:
                plain(tile)

        with torch.no_grad():
            return seconds(work)

    wanted = {"fp32": "at least 1x", "auto": "the further ratio"}
    for precision, goal in wanted.items():
        engine = torch_engine(small_network(), Placement("cpu", precision, 256, 128))
        engine(image)
        found = alternate(partial(seconds, partial(engine, image)), eager, 5)
        chosen = engine.describe()["precision"]
        what = f"MSDI-Net forward, engine in {precision} ({chosen}, channels last)"
        times = f"{found.first:.2f} s against {found.second:.2f} s eager"
        yield Result(what, found.told(), goal, f"9 tiles of 256x256, width 12: {times}")
    try:
        compiled = torch.compile(small_network().to(memory_format=torch.channels_last))
        tile = torch.from_numpy(image[:256, :256].transpose(2, 0, 1)[None].copy())
        tile = tile.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            first = seconds(lambda: compiled(tile))
            after = statistics.median(seconds(lambda: compiled(tile)) for _ in range(9))
        engine = torch_engine(small_network(), Placement("cpu", tile=256, overlap=128))
        uncompiled = seconds(lambda: engine(image)) / 9
        ratio = f"{uncompiled / after:.2f}x"
        how = f"but {first:.0f} s to compile first, so auto leaves it out"
        yield Result("the same compiled, against the engine in auto", ratio, "-", how)
    except Exception as error:  # no compiler on this machine
        yield Result("the same compiled", "-", "-", f"not available: {type(error).__name__}")


def starting(folder: Path) -> Iterator[Result]:
    """`blurkit --help` against importing what it is made of."""
    script = [sys.executable, "-c", "import typer, rich"]
    found = alternate(lambda: run(script)[0], lambda: run(command("--help"))[0], 15)
    how = f"{found.second * 1000:.0f} ms against {found.first * 1000:.0f} ms"
    what = "blurkit --help against `import typer, rich`"
    yield Result(what, found.told(), "under 2x", how)


def main() -> None:
    """Run the benchmarks whose names are given, or all, or those of a GPU."""
    all_parts = (
        *(training_crops, preparing, keeping, piping, deblurring, forward, roofline, training),
        *(searching, starting),
    )
    parts = {f.__name__: f for f in all_parts}
    parser = pages.options(main.__doc__)
    parser.add_argument("names", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU, which has its own parts")
    parser.add_argument("--small", action="store_true", help="--device by networks of few channels")
    o = parser.parse_args()
    results: list[Result] = []
    if o.device != "cpu" or o.small:
        results = on_device(o.device, o.small)
    for name in (o.names or parts) if not results else []:
        with tempfile.TemporaryDirectory() as folder:
            results += parts[name](Path(folder))
    head = ("what", "ratio", "goal", "measured")
    print_table("benchmarks", head, results, note=machine())
    if o.write:
        pages.fill("measured", f"Machine: {machine()}.\n\n{pages.table(head, results)}")


if __name__ == "__main__":
    main()
