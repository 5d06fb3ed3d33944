"""How fast the blind search is, against the same loop written down directly in eager float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import Record
from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.blind_search import TiledSearch
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import CodeExtractor, EncodedBlur, KernelSpace
from blurkit.systems.kernel_space.objective import make_context
from blurkit.systems.kernel_space.priors import ImagePrior
from blurkit.systems.kernel_space.search import advance
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.uses import network_for
from tests.benchmarks.measure import Result, alternate, command, run, seconds

SIDE = 256
STEPS = 3
"""Iterations that are timed at once."""


def searching(folder: Path) -> list[Result]:
    """A joint iteration at 256x256: the default with the light F, and the released code's."""
    photo = np.ascontiguousarray(skimage.data.astronaut()[:SIDE, :SIDE])
    torch.manual_seed(0)
    vgg = FeatureNetwork(
        next(feature_network for feature_network in BACKBONES if feature_network.name == "VGG-19")
    )
    results = []
    for name, preset, network, feature_network in (
        ("small, the light F", "small", LightKernelSpace(), None),
        ("--preset official, the paper's F", "official", KernelSpace(), vgg),
    ):
        # No warm-up, whose steps are cheap and none of what is measured.
        without = {"warm_up": 0, "kernel_warm_up": 0, "patience": 0}
        options = SearchOptions.resolve(preset, **without, iterations=10**6)
        plain = partial(seconds, direct_loop(photo, options, network, feature_network))
        role = {"kernel_space": {k: v.clone() for k, v in network.state_dict().items()}}
        checkpoint = Checkpoint(role, "kernel-space")
        (search,) = TiledSearch(
            Record("photo", {"blur": photo}),
            make_context(options, network_for("search", checkpoint), None, feature_network),
        ).searches
        search.begin()

        def steps(search: object = search) -> None:
            for _ in range(STEPS):
                advance([search])  # type: ignore[list-item]

        steps()
        assert search.kind == "joint" and search.iteration == STEPS
        plain()
        ours, theirs, ratio, least, most = alternate(partial(seconds, steps), plain, 7)
        path = folder / "kernel.pt"
        save_checkpoint(checkpoint, path)
        memory = peak(folder, path, options) if feature_network is None else None
        told = f"; {memory:.0f} MiB at the peak of the whole command" if memory else ""
        results.append(
            Result(
                f"blind search, {name}, against eager float32",
                f"{ratio:.2f}x ({least:.2f}-{most:.2f})",
                "at least 1.5x",
                f"256x256: {STEPS / ours:.2f} against {STEPS / theirs:.2f} iterations/s{told}",
            )
        )
    return results


def peak(folder: Path, checkpoint: Path, options: SearchOptions) -> float:
    """Peak memory in MiB of `blind-deblur` of one photo of 256x256."""
    photo = folder / "photo.png"
    write_image(photo, skimage.data.astronaut()[:SIDE, :SIDE])
    few = ["--iterations", "3", "--force", "--quiet"]
    return run(command("blind-deblur", photo, "-c", checkpoint, *few))[1]


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
