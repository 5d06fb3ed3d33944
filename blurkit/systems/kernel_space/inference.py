"""F and G of the blur kernel space on whole images: the blur of a pair, of a code, or a new one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Image, Record
from blurkit.systems.kernel_space.blind import Job, run
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur
from blurkit.systems.kernel_space.retrieval import retrieve
from blurkit.systems.kernel_space.search import Search
from blurkit.systems.kernel_space.search_context import SearchContext, load_context
from blurkit.systems.kernel_space.search_state import SavedSearches
from blurkit.systems.uses import Drawer, Reblurrer


class Transfer(Reblurrer):
    """F(photo, G(sharp, blur)): a photo with the blur of a pair (Section 4.1)."""

    guides = ("sharp", "blur")

    def __init__(self, network: EncodedBlur) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(
        self, photo: Tensor, sharp: Tensor, blur: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Return (N, 3, H, W) from images (N, 3, H, W) in [0, 1].

        With `noise`, a part of a map (N, code, H / 128, W / 128), the code is so many standard
        deviations off its mean.
        """
        code, deviation = self.network.encode(sharp, blur)
        if noise is not None:
            code = code + deviation * noise
        return self.network.blur(photo, code)

    def drawn(self, image: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Return the noise map of a photo, if the space is variational."""
        if not self.network.options["variational"]:
            return {}
        return {"noise": random_map(self.network, image, generator)}


class CodedBlur(Drawer):
    """F(photo, code): a photo with the blur of a code; random ones are N(0, scale^2).

    The scale is that of the released code.
    """

    use, scale = "random", 1.2

    def __init__(self, network: EncodedBlur) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, photo: Tensor, code: Tensor) -> Tensor:
        """Return (N, 3, H, W) from photos (N, 3, H, W) in [0, 1] and their parts of a code map,
        (N, code, H / 128, W / 128).
        """
        return self.network.blur(photo, code)

    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        """Return a random code map of a photo."""
        return {"code": scale * random_map(self.network, image, generator)}

    def condition(self, code: np.ndarray, image: np.ndarray) -> dict[str, Tensor]:
        """Return a code (code, rows, columns) as the map of an image (H, W, C).

        One of another size is resized, bilinear. Raises BlurkitError for a code of another length
        than the network's.
        """
        length = self.network.options["code"]
        if code.ndim != 3 or len(code) != length:
            shape = "x".join(map(str, code.shape))
            raise BlurkitError(
                f"a blur code of {shape} for networks whose codes have {length} values; "
                "name those that it was found with"
            )
        values = torch.from_numpy(np.ascontiguousarray(code, np.float32))
        wanted = map_size(image)
        if values.shape[1:] != wanted:
            values = F.interpolate(values[None], wanted, mode="bilinear", align_corners=False)[0]
        return {"code": values}


def reblurring(networks: Mapping[str, nn.Module]) -> Transfer | None:
    """Return F and G, which blur a photo like a pair."""
    network = search(networks)
    return None if network is None else Transfer(network)


def coding(networks: Mapping[str, nn.Module]) -> CodedBlur | None:
    """Return F, which blurs by a code."""
    network = search(networks)
    return None if network is None else CodedBlur(network)


def random(networks: Mapping[str, nn.Module]) -> CodedBlur | None:
    """Return F to blur by random codes. Raises UsageError unless the space is variational."""
    network = search(networks)
    if network is not None and not network.options["variational"]:
        raise UsageError(
            "new blurs are drawn from a variational kernel space only "
            "(train-reblur --system kernel-space --variational)"
        )
    return coding(networks)


def search(networks: Mapping[str, nn.Module]) -> EncodedBlur | None:
    """Return F and G themselves."""
    network = networks.get("kernel_space")
    return network if isinstance(network, EncodedBlur) else None


@dataclass
class PhotoSearch:
    """Blind searches of records, and what they share."""

    context: SearchContext

    def __post_init__(self) -> None:
        self.options, self.dtype = self.context.options, self.context.dtype

    def job(self, record: Record, tile: int | None, overlap: int | None) -> Job:
        """Return the search of a record, not yet begun."""
        return Job(record, self.context, tile, overlap)

    def run(
        self,
        jobs: Sequence[Job],
        watch: Callable[[Sequence[Search]], bool | None] = lambda group: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Iterator[Job]:
        """Search all jobs, as many together as the options say; yield each that is finished."""
        return run(jobs, self.options.batch, watch, warn)

    def saved(self, about: dict[str, Any]) -> SavedSearches:
        """Return what saves and loads searches of runs of which all this is true."""
        return SavedSearches(about)

    def retrieve(self, sharp: Image, blur: Image, seed: int) -> tuple[np.ndarray, str]:
        """Return `sharp` with the blur that was found to give `blur`, and how it was found."""
        return retrieve(self.context, sharp, blur, seed)


def blind_search(*given: Any) -> PhotoSearch:
    """Return the searches of a run, from the arguments of `load_context`."""
    return PhotoSearch(load_context(*given))


def random_map(network: EncodedBlur, image: np.ndarray, generator: np.random.Generator) -> Tensor:
    """Return N(0, 1) for every value of an image's code map, (code, rows, columns) float32."""
    shape = (network.options["code"], *map_size(image))
    return torch.from_numpy(generator.standard_normal(shape, np.float32))


def map_size(image: np.ndarray) -> tuple[int, int]:
    """Return rows and columns of an image's code map: a place for each 128 pixels."""
    height, width = EncodedBlur.size.padded(*image.shape[:2])
    return height // CODE_STRIDE, width // CODE_STRIDE
