"""What networks reach of a processor: whole commands, training steps, and the share of its peak."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.data.sampler import CropSampler
from blurkit.systems.dbgan.networks import DBGAN
from blurkit.systems.msdi.networks import JointGenerator
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.system import load_shipped, shipped_file
from blurkit.systems.uses import network_for
from blurkit.tasks.inspect import macs
from tests.benchmarks.measure import (
    Result,
    alternate,
    command,
    make_pairs,
    make_photos,
    run,
    seconds,
)

MATRIX = 2048
"""The side of the matrices whose product shows a processor's peak."""

TILE = (1, 3, 256, 256)

RECIPE = """--preset small --generator single --unshuffle 2 --width 16 --injection none
    --blur-weight 0 --pixel-loss l1 --crop 192 --batch 5 --precision fp32 --ema 0
    --no-samples --validate-every 0"""
"""The options with which most of the shipped weights' training ran, without averaged weights."""


def deblurring(folder: Path) -> list[Result]:
    """Whole processes: the shipped network by ONNX Runtime and by torch, and importing torch."""
    make_photos(folder)
    results = []
    for size, name in (("1280x720", "photo.jpg"), ("4000x3000", "large.jpg")):
        file = folder / name
        options = ["--method", "network", "--precision", "fp32", "--device", "cpu", "-q", "--force"]
        deblur = [*command("deblur", file, *options), "-o", f"{folder}/restored.jpg"]
        by_torch = [*deblur, "--encoder", str(shipped_file("msdi"))]
        light, heavy, ratio, least, most = alternate(
            lambda deblur=deblur: run(deblur)[0], lambda by_torch=by_torch: run(by_torch)[0], 5
        )
        memory = run(deblur)[1], run(by_torch)[1]
        results.append(
            Result(
                f"blurkit deblur --method network, {size}: torch against ONNX Runtime",
                f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
                "the further",
                f"whole process: {heavy:.2f} s and {memory[1]:.0f} MiB against {light:.2f} s and "
                f"{memory[0]:.0f} MiB",
            )
        )
    return results


def peak() -> float:
    """Multiply-accumulates a second of a large matrix product, in units of 1e9."""
    a, b = torch.rand(2, MATRIX, MATRIX)
    fastest = min(seconds(lambda: a @ b) for _ in range(7))
    return MATRIX**3 / fastest / 1e9


def roofline(folder: Path) -> list[Result]:
    """The share of the processor's peak that each network reaches on a tile, in float32."""
    shipped = {
        "MSDI-Net, as shipped": network_for("deblurring", load_shipped()),
        "deconvolution, as shipped (its U-Net)": network_for(
            "deconvolving", load_shipped("deconvolution")
        ).one.network,  # type: ignore[union-attr]
        "kernel space, as shipped": network_for("reblurring", load_shipped("kernel-space")),
    }
    built = {"MSFS-Net of the paper": MSFSNet(), "DBGAN of the paper": DBGAN()}
    results = []
    for name, network in {**shipped, **built}.items():
        shapes: list[Any] = [TILE] * (3 if name.startswith("kernel") else 1)
        if name.startswith("deconvolution"):
            shapes = [(1, network.first.in_channels, 128, 128)]  # type: ignore[union-attr]
        results.append(_share(name, network.eval(), shapes))
    return results


@torch.inference_mode()
def _share(name: str, network: nn.Module, shapes: list[Any]) -> Result:
    inputs = [torch.rand(shape).to(memory_format=torch.channels_last) for shape in shapes]
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    count = macs(network, *shapes) / 1e9
    network(*inputs)
    rounds = 3 if count > 20 else 7
    rates = [(count / seconds(lambda: network(*inputs)), peak()) for _ in range(rounds)]
    shares = sorted(rate / most for rate, most in rates)
    rate, most = max(rates)
    return Result(
        f"share of the processor's peak: {name}",
        f"{shares[len(shares) // 2]:.0%} ({shares[0]:.0%}-{shares[-1]:.0%})",
        "-",
        f"{count:.1f} GMACs a tile: {rate:.0f} of {most:.0f} GMACs/s",
    )


def training(folder: Path) -> list[Result]:
    """Steps of the recipe of the shipped weights against the same written down in plain torch."""
    tree = make_pairs(folder / "tree", 8)
    run(command("prepare", tree, "-o", f"{folder}/shards/", "--quiet"))
    options = {"width": 16, "injection": "none", "unshuffle": 2}
    sampler = CropSampler([folder / "shards" / "train-00000.h5"], 192, ("blur", "sharp"))
    network = JointGenerator(**options).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def plain(steps: int) -> None:
        for step in range(steps):
            blur, sharp = map(_floats, sampler.batch(0, step, 5))
            optimizer.zero_grad(set_to_none=True)
            (network(blur) - sharp).abs().mean().backward()
            optimizer.step()

    def ours(steps: int) -> None:
        output = ["-o", f"{folder}/net.pt", "--force", "-q", "--iterations", str(steps)]
        run(command("train-deblur", f"{folder}/shards", *RECIPE.split(), *output))

    def rate(work: Callable[[int], None]) -> float:
        """Seconds a step, without what a run takes to start and to end."""
        short, long = (seconds(partial(work, steps)) for steps in (3, 15))
        return (long - short) / 12

    plain(1)
    own, other, ratio, least, most = alternate(partial(rate, ours), partial(rate, plain), 3)
    flops = 3 * macs(JointGenerator(**options), (5, 3, 192, 192)) / 1e9
    return [
        Result(
            "a training step against plain torch",
            f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
            "1x",
            f"{own * 1000:.0f} ms against {other * 1000:.0f} ms, {flops / own:.0f} of "
            f"{peak():.0f} GMACs/s",
        )
    ]


def _floats(images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return pixels.contiguous(memory_format=torch.channels_last)
