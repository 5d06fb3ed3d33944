"""F and G of the blur kernel space on whole images: blur from a pair, from a code, or random."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.systems.kernel_space.networks import CODE_STRIDE, BlurCodes, EncodedBlur, by
from blurkit.systems.uses import Coder, Reblurrer


class Transfer(Reblurrer):
    """F(photo, G(sharp, blur)): applies the blur of a pair to a photo (Section 4.1)."""

    guides = ("sharp", "blur")

    def __init__(self, network: EncodedBlur) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(
        self, photo: Tensor, sharp: Tensor, blur: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Blur photos (N, 3, H, W) in [0, 1] like a pair; `noise` moves its code, in deviations."""
        code, deviation = self.network.encode(sharp, blur)
        if noise is not None:
            code = code + deviation * noise
        return self.network.blur(photo, code)

    def drawn(self, image: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        varies = self.network.options["variational"]
        return {"noise": random_map(self.network, image, generator)} if varies else {}


class CodedBlur(Coder):
    """F(photo, code); random codes are of `codes`, without them or for a scale N(0, scale^2)."""

    use, scale = "random", 1.2  # the released code's scale

    def __init__(self, network: EncodedBlur, codes: BlurCodes | None = None) -> None:
        super().__init__()
        self.size, self.network, self.codes = network.size, network, codes

    def forward(self, photo: Tensor, code: Tensor) -> Tensor:
        """Return photos (N, 3, H, W) in [0, 1], blurred by codes (N, code, H / 128, W / 128)."""
        return self.network.blur(photo, code)

    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        return {"code": scale * random_map(self.network, image, generator)}

    def typical(
        self, image: np.ndarray, generator: np.random.Generator
    ) -> tuple[dict[str, Tensor], float | None]:
        """Return one of `codes` as a code map for a photo, or a normal one and its deviation."""
        if self.codes is None:
            return super().typical(image, generator)
        height, width = image.shape[:2]
        return self.condition(self.codes.draw(height, width, generator), image), None

    def condition(self, code: np.ndarray, image: np.ndarray) -> dict[str, Tensor]:
        """Return a code (code, rows, columns) as the code map of an image (H, W, C).

        It is resized bilinearly. Raises BlurkitError if its length differs from the network's.
        """
        length = self.network.options["code"]
        if code.ndim != 3 or len(code) != length:
            raise BlurkitError(
                f"a blur code of {by(code.shape)}, but the network's codes have {length} values; "
                "use the checkpoint that the code was found with"
            )
        values = torch.from_numpy(np.ascontiguousarray(code, np.float32))
        wanted = map_size(image)
        if values.shape[1:] != wanted:
            values = F.interpolate(values[None], wanted, mode="bilinear", align_corners=False)[0]
        return {"code": values}


def reblurring(networks: Mapping[str, nn.Module]) -> Transfer | None:
    """Return F and G, which apply the blur of a pair."""
    return Transfer(network) if (network := search(networks)) else None


def coding(networks: Mapping[str, nn.Module]) -> CodedBlur | None:
    """Return F, which applies the blur of a code."""
    codes = networks.get("codes")
    codes = codes if isinstance(codes, BlurCodes) else None
    return CodedBlur(network, codes) if (network := search(networks)) else None


def random(networks: Mapping[str, nn.Module]) -> CodedBlur | None:
    """Return F, which applies random codes. Raises UsageError if there are none to draw."""
    network = search(networks)
    if network is not None and not (network.options["variational"] or "codes" in networks):
        raise UsageError(
            "new blurs can only be drawn from a variational kernel space "
            "(train-reblur --system kernel-space --variational)"
        )
    return coding(networks)


def search(networks: Mapping[str, nn.Module]) -> EncodedBlur | None:
    """Return F and G for the blind search."""
    network = networks.get("kernel_space")
    return network if isinstance(network, EncodedBlur) else None


def random_map(network: EncodedBlur, image: np.ndarray, generator: np.random.Generator) -> Tensor:
    """Return a standard normal code map for an image, (code, rows, columns) float32."""
    shape = (network.options["code"], *map_size(image))
    return torch.from_numpy(generator.standard_normal(shape, np.float32))


def map_size(image: np.ndarray) -> tuple[int, int]:
    """Return the rows and columns of an image's code map: one place per 128x128 pixels."""
    height, width = EncodedBlur.size.padded(*image.shape[:2])
    return height // CODE_STRIDE, width // CODE_STRIDE
