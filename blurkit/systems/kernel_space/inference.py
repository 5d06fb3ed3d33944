"""F and G of the blur kernel space on whole images: the blur of a pair, or of a given code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur
from blurkit.systems.roles import held, load_networks


class Transfer(nn.Module):
    """F(photo, G(sharp, blur)): a photo with the blur of a pair (Section 4.1).

    The three come as one tensor, three channels each, so that an `Engine` cuts them alike. Behind
    them may come the photo's `places`; then the code lies so many standard deviations off its mean
    as `noise` says, a map (code, rows, columns).
    """

    guides: tuple[str, ...] = ("sharp", "blur")
    noise: Tensor

    def __init__(self, network: EncodedBlur) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 9, H, W) in [0, 1], or (N, 12, H, W) with places, to (N, 3, H, W)."""
        photo, sharp, blur, *places = images.split(3, dim=1)
        code, deviation = self.network.encode(sharp, blur)
        if places:
            code = code + deviation * gathered(self.noise, places[0])
        return self.network.blur(photo, code)


class CodedBlur(nn.Module):
    """F(photo, `code`): a photo with the blur of a code that is given, a map (code, rows, columns).

    The photo comes with its `places`, so that a tile finds its part of the map.
    """

    code: Tensor

    def __init__(self, network: EncodedBlur) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, images: Tensor) -> Tensor:
        """(N, 6, H, W), an image in [0, 1] and its places, to (N, 3, H, W)."""
        photo, places = images.split(3, dim=1)
        return self.network.blur(photo, gathered(self.code, places))


def encoded_blur(checkpoint: Checkpoint, remedy: str) -> EncodedBlur:
    """F and G of a checkpoint. Raises BlurkitError naming what it holds when there are none, and
    what is wanted, the `remedy`.
    """
    networks = load_networks(checkpoint)
    network = networks.get("kernel_space")
    if not isinstance(network, EncodedBlur):
        raise BlurkitError(f"{checkpoint.where}: holds {held(networks)}; {remedy}")
    return network


def coded_network(checkpoint: Checkpoint, variational: bool = False) -> CodedBlur:
    """F of a checkpoint, which blurs as a code says, in eval mode.

    Raises BlurkitError naming what the checkpoint holds when there is none, UsageError when it has
    to be `variational` and is not.
    """
    network = encoded_blur(
        checkpoint,
        "codes are of a blur kernel space, as train-reblur --system kernel-space writes it",
    )
    if variational and not network.options["variational"]:
        raise UsageError(
            f"{checkpoint.where}: new blurs are drawn from a variational kernel space only "
            "(train-reblur --system kernel-space --variational)"
        )
    return CodedBlur(network).eval()


def apply_code(image: np.ndarray, code: np.ndarray, engine: Engine) -> np.ndarray:
    """`image` (H, W, C) in [0, 1] with the blur of `code` (code, rows, columns), not clamped.

    `engine` runs a `CodedBlur`. A map of another size than the image takes is resized, bilinear.
    Raises BlurkitError for a code of another length than the network's.
    """
    network = engine.network
    assert isinstance(network, CodedBlur)
    length = network.network.options["code"]
    if code.ndim != 3 or len(code) != length:
        told = "x".join(map(str, code.shape))
        raise BlurkitError(
            f"a blur code of {told} for networks whose codes have {length} values; "
            "name those that it was found with"
        )
    values = torch.from_numpy(np.ascontiguousarray(code, np.float32))
    wanted = map_size(image)
    if values.shape[1:] != wanted:
        values = F.interpolate(values[None], wanted, mode="bilinear", align_corners=False)[0]
    network.code = values
    return engine(image, places(image))


def random_map(
    network: EncodedBlur, image: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """N(0, 1) for every value of the code map that `image` (H, W, C) takes: (code, rows, columns)
    in float32."""
    shape = (network.options["code"], *map_size(image))
    return generator.standard_normal(shape, np.float32)


def map_size(image: np.ndarray) -> tuple[int, int]:
    """The rows and columns of the code map of an image (H, W, C): a place for each 128 pixels."""
    height, width = EncodedBlur.size.padded(*image.shape[:2])
    return height // CODE_STRIDE, width // CODE_STRIDE


def places(image: np.ndarray) -> np.ndarray:
    """A guide (H', W', 1) for an `Engine` that runs `image`: at each pixel the number of its place
    in the code map, counted along the rows. Its sides are those the network takes.
    """
    rows, columns = map_size(image)
    numbers = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns, 1)
    return numbers.repeat(CODE_STRIDE, axis=0).repeat(CODE_STRIDE, axis=1)


def gathered(values: Tensor, plane: Tensor) -> Tensor:
    """The part of a map (C, rows, columns) that tiles of `places` (N, 3, H, W) are of.

    (N, C, H / 128, W / 128); each takes the place in the middle of its 128 pixels.
    """
    middle = slice(CODE_STRIDE // 2, None, CODE_STRIDE)
    numbers = plane[:, 0, middle, middle].long()
    return values.to(plane.device).flatten(1)[:, numbers].transpose(0, 1)
