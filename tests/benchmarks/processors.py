"""What networks reach of a processor: commands, training, searches, the share of its peak."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.data.sampler import CropSampler
from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import Record
from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.blind_search import TiledSearch
from blurkit.systems.dbgan.networks import DBGAN
from blurkit.systems.kernel_space.networks import (
    CodeExtractor,
    EncodedBlur,
    KernelSpace,
    LightKernelSpace,
)
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.kernel_space.priors import ImagePrior
from blurkit.systems.kernel_space.search import advance
from blurkit.systems.msdi.networks import JointGenerator
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.search_options import SearchOptions
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
from tests.engine.networks import states

MATRIX = 2048
"""The side of the matrices whose product shows a processor's peak."""

SIDE = 256
STEPS = 3
"""Iterations that are timed at once."""

TILE = (1, 3, 256, 256)

RECIPE = """--preset small --generator single --unshuffle 2 --width 16 --injection none
    --blur-weight 0 --pixel-loss l1 --crop 192 --batch 5 --precision fp32 --ema 0
    --no-samples --validate-every 0"""
"""The options with which most of the shipped weights' training ran, without averaged weights."""


def deblurring(folder: Path) -> Iterator[Result]:
    """Whole processes: the shipped network by ONNX Runtime and by torch, and importing torch."""
    make_photos(folder)
    for size, name in (("1280x720", "photo.jpg"), ("4000x3000", "large.jpg")):
        file = folder / name
        options = ["--method", "network", "--precision", "fp32", "--device", "cpu", "-q", "--force"]
        deblur = [*command("deblur", file, *options), "-o", f"{folder}/restored.jpg"]
        by_torch = [*deblur, "--encoder", str(shipped_file("msdi"))]
        found = alternate(partial(elapsed, deblur), partial(elapsed, by_torch), 5)
        light, heavy = run(deblur)[1], run(by_torch)[1]
        what = f"blurkit deblur --method network, {size}: torch against ONNX Runtime"
        how = f"whole process: {found.second:.2f} s and {heavy:.0f} MiB against "
        how += f"{found.first:.2f} s and {light:.0f} MiB"
        yield Result(what, found.told(), "the further", how)


def elapsed(arguments: list[str]) -> float:
    return run(arguments)[0]


def peak() -> float:
    """Multiply-accumulates a second of a large matrix product, in units of 1e9."""
    a, b = torch.rand(2, MATRIX, MATRIX)
    fastest = min(seconds(lambda: a @ b) for _ in range(7))
    return MATRIX**3 / fastest / 1e9


def roofline(folder: Path) -> Iterator[Result]:
    """The share of the processor's peak that each network reaches on a tile, in float32."""
    deconvolver: Any = network_for("deconvolving", load_shipped("deconvolution"))
    unet = deconvolver.one.network
    space = network_for("reblurring", load_shipped("kernel-space"))
    networks: dict[str, tuple[nn.Module, list[Any]]] = {
        "MSDI-Net, as shipped": (network_for("deblurring", load_shipped()), [TILE]),
        "deconvolution, as shipped (its U-Net)": (unet, [(1, unet.first.in_channels, 128, 128)]),
        "kernel space, as shipped": (space, [TILE] * 3),
        "MSFS-Net of the paper": (MSFSNet(), [TILE]),
        "DBGAN of the paper": (DBGAN(), [TILE]),
    }
    return (_share(name, network.eval(), shapes) for name, (network, shapes) in networks.items())


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
    ratio = f"{shares[len(shares) // 2]:.0%} ({shares[0]:.0%}-{shares[-1]:.0%})"
    how = f"{count:.1f} GMACs a tile: {rate:.0f} of {most:.0f} GMACs/s"
    return Result(f"share of the processor's peak: {name}", ratio, "-", how)


def training(folder: Path) -> Iterator[Result]:
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
    found = alternate(partial(rate, ours), partial(rate, plain), 3)
    flops = 3 * macs(JointGenerator(**options), (5, 3, 192, 192)) / 1e9
    rates = f"{flops / found.first:.0f} of {peak():.0f} GMACs/s"
    how = f"{found.first * 1000:.0f} ms against {found.second * 1000:.0f} ms, {rates}"
    yield Result("a training step against plain torch", found.told(), "1x", how)


def _floats(images: np.ndarray) -> Tensor:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return pixels.contiguous(memory_format=torch.channels_last)


# ---- the blind search ----------------------------------------------------------------------------


def searching(folder: Path) -> Iterator[Result]:
    """A joint iteration at 256x256: the default with the light F, and the released code's."""
    photo = np.ascontiguousarray(skimage.data.astronaut()[:SIDE, :SIDE])
    torch.manual_seed(0)
    vgg = FeatureNetwork(next(backbone for backbone in BACKBONES if backbone.name == "VGG-19"))
    for name, preset, network, feature_network in (
        ("small, the light F", "small", LightKernelSpace(), None),
        ("--preset official, the paper's F", "official", KernelSpace(), vgg),
    ):
        # No warm-up, whose steps are cheap and none of what is measured.
        without = {"warm_up": 0, "kernel_warm_up": 0, "patience": 0}
        options = SearchOptions.resolve(preset, **without, iterations=10**6)
        plain = partial(seconds, direct_loop(photo, options, network, feature_network))
        checkpoint = Checkpoint(states({"kernel_space": network}), "kernel-space")
        shared = SearchContext(options, network_for("search", checkpoint), None, feature_network)
        (search,) = TiledSearch(Record("photo", {"blur": photo}), shared).searches
        search.begin()

        def steps(search: object = search) -> None:
            for _ in range(STEPS):
                advance([search])  # type: ignore[list-item]

        steps()
        assert search.kind == "joint" and search.iteration == STEPS
        plain()
        found = alternate(partial(seconds, steps), plain, 7)
        told = ""
        if feature_network is None:
            save_checkpoint(checkpoint, folder / "kernel.pt")
            write_image(folder / "photo.png", photo)
            few = ["-c", folder / "kernel.pt", "--iterations", "3", "--force", "--quiet"]
            memory = run(command("blind-deblur", folder / "photo.png", *few))[1]
            told = f"; {memory:.0f} MiB at the peak of the whole command"
        ours, theirs = STEPS / found.first, STEPS / found.second
        how = f"256x256: {ours:.2f} against {theirs:.2f} iterations/s{told}"
        what = f"blind search, {name}, against eager float32"
        yield Result(what, found.told(), "at least 1.5x", how)


def direct_loop(
    photo: np.ndarray,
    options: SearchOptions,
    network: EncodedBlur,
    feature_network: FeatureNetwork | None,
) -> Callable[[], None]:
    """`STEPS` joint steps of Eq. 5 or the released objective, as one writes them down."""
    values = int(network.options["code"])
    width = min(64, max(8, values // 8))
    y = torch.from_numpy(photo.transpose(2, 0, 1)[None] / np.float32(255))
    image = ImagePrior(8, options.prior_width).train()
    blur = CodeExtractor(width, width, values, 6, bias=True)
    z_x, z_k = 0.1 * torch.rand(1, 8, SIDE, SIDE), 0.1 * torch.rand(1, width, 64, 64)
    optimizers = [torch.optim.Adam(m.parameters(), 5e-4) for m in (image, blur)]
    network.requires_grad_(False)
    features = feature_network(y) if feature_network is not None else []

    def loop() -> None:
        for _ in range(STEPS):
            for optimizer in optimizers:
                optimizer.zero_grad()
            x = image(z_x + 1e-3 * torch.randn_like(z_x))
            k = blur(z_k + 1e-3 * torch.randn_like(z_k))
            fake = network.blur(x, k)
            loss = 5e-5 * k.norm() + 2e-2 * sparse(x)
            if feature_network is None:
                loss = loss + ((fake - y) ** 2 + 1e-6).sqrt().mean()
            else:
                maps = zip(feature_network(fake), features, strict=True)
                loss = loss + 0.6 * sum(F.l1_loss(ours, wanted) for ours, wanted in maps)
                loss = loss + 1 - similarity(fake, y)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()

    return loop


def sparse(x: Tensor) -> Tensor:
    """The hyper-Laplacian prior."""
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]]).expand(1, 3, 3, 3)
    g = [F.conv2d(x, w, padding=1) for w in (across, across.transpose(2, 3))]
    return (g[0] ** 2 + g[1] ** 2 + 1e-6).sqrt().pow(0.66).mean()


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM with five blurred images, as it is usually written."""
    offsets = torch.arange(11.0) - 5
    taps = (-0.5 * (offsets / 1.5) ** 2).exp()
    taps = taps / taps.sum()
    window = torch.outer(taps, taps).expand(3, 1, 11, 11)
    blurred = partial(F.conv2d, weight=window, padding=5, groups=3)
    a, b = blurred(x), blurred(y)
    sa, sb, sab = blurred(x * x) - a * a, blurred(y * y) - b * b, blurred(x * y) - a * b
    both = (2 * a * b + 1e-4) * (2 * sab + 9e-4)
    return (both / ((a * a + b * b + 1e-4) * (sa + sb + 9e-4))).mean()
