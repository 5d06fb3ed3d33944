"""Blind searches that take seconds: small photos, narrow networks, few steps."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from scipy.ndimage import convolve
from scipy.signal import convolve2d

from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, to_float
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.kernel_space.networks import KernelSpace
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.kernel_space.priors import StylePrior
from blurkit.systems.kernel_space.search import advance
from blurkit.systems.kernel_space.stylegan import StyleGAN2
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.uses import network_for

QUICK_CONFIG = Path(__file__).with_name("quick.json")
"""A file for `--config`: a narrow network and a short warm-up."""


def search_config(folder: Path, **values: object) -> list[object]:
    """The option `--config` with a new file: those values and `values`."""
    file = folder / "search.json"
    file.write_text(json.dumps(json.loads(QUICK_CONFIG.read_text()) | values))
    return ["--config", file]


def kernel_checkpoint() -> Checkpoint:
    """A kernel space with few channels and codes of 16 values."""
    torch.manual_seed(5)
    network = KernelSpace(width=4, code=16, front_blocks=1, back_blocks=1, code_blocks=1)
    return Checkpoint({"kernel_space": network.state_dict()}, "kernel-space", where="kernel.pt")


def style_network(widths: Sequence[int] = (8,) * 5, kind: type[Any] = StyleGAN2) -> Any:
    """A StyleGAN with these few channels at each size from 4x4 on, whose noise shows."""
    torch.manual_seed(3)
    network = kind(widths, latent=16)
    for key, value in network.named_parameters():
        if "noise" in key:
            torch.nn.init.normal_(value)
    return network


def style_prior(sides: int = 5) -> StylePrior:
    network = style_network((8,) * sides)
    return StylePrior(network.style, network, divisor=6)


def context(operator: str = "convolution", preset: str = "small", **options: Any) -> SearchContext:
    """What a search shares; by default one by convolution, in float32."""
    style = style_prior(options.pop("sides", 5)) if options.get("prior") == "stylegan" else None
    small = {"prior_width": 8, "warm_up": 2, "iterations": 6, "kernel_size": 7}
    more = {"gaussian_samples": 1000} if style else {}
    chosen = SearchOptions.resolve(preset, operator=operator, **small | more | options)
    network = None if operator == "convolution" else network_for("search", kernel_checkpoint())
    return SearchContext(chosen, network, style, None, "cpu", "fp32")


def photo(height: int = 64, width: int = 64, top: int = 0) -> np.ndarray:
    """A crop of a photo, (H, W, 3) uint8."""
    return np.ascontiguousarray(skimage.data.astronaut()[top : top + height, 200 : 200 + width])


def record(name: str = "photo", **size: int) -> Record:
    return Record(name, {"blur": photo(**size)})


def searched(job: TiledSearch) -> Record:
    """The job's finished record."""
    (finished,) = run_searches([job])
    return finished.result("test")


def continued(
    job: Callable[[], TiledSearch], steps: int, rest: Callable[[], TiledSearch] | None = None
) -> TiledSearch:
    """A job that is stopped after some steps; its state is read by another, which is finished."""
    half, file = job(), io.BytesIO()
    half.searches[0].begin()
    for _ in range(steps):
        advance(half.searches)
    torch.save(half.state_dict(), file)
    file.seek(0)
    again = (rest or job)()
    again.load_state_dict(torch.load(file, weights_only=True))
    (finished,) = run_searches([again])
    return finished


def shaken(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Float in [0, 1]: the convolution with `kernel`, mirrored at the border."""
    return np.stack([convolve(to_float(image)[..., c], kernel, mode="mirror") for c in range(3)], 2)


def convolved(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The true convolution of a picture (H, W, 3), without what reaches beyond its border."""
    return np.stack([convolve2d(picture[..., c], kernel, "valid") for c in range(3)], 2)


class Moving(torch.nn.Module):
    """An F whose code moves what it blurs."""

    def __init__(self, network: torch.nn.Module, move: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.options, self.move = network.size, network.options, move

    def blur(self, images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return images.roll(self.move, (2, 3))
