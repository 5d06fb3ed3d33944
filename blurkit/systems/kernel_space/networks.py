"""The encoded blur kernel space: F, which blurs by a code, and G, which finds the code.

"Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021, Eq. 4. Keys are those of the
released checkpoints, which swap the two names. Images are RGB in [0, 1]; outputs are unclamped.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import InputShapes, SizeRequirement
from blurkit.errors import UsageError
from blurkit.nn.blocks import Recomputable, Residual, conv, initialise, leaky, zero
from blurkit.systems.kernel_space.config import CODE_STRIDE
from blurkit.systems.system import Shapes

RESIDUAL_SLOPE = 0.1
"""The LeakyReLU slope outside F's U-Net."""


class EncodedBlur(nn.Module, ABC):
    """F and G of one kernel space, whatever their layers are (Section 3.1).

    A code is (N, code, H / 128, W / 128). The sides of F's images are multiples of 128, those of
    G's at least 256 as well. With the option `variational` G predicts a mean and a standard
    deviation (of either sign) for every value of the code, so new blurs can be drawn.
    """

    size = SizeRequirement(minimum=2 * CODE_STRIDE, multiple=CODE_STRIDE)
    options: dict[str, Any]
    head: ClassVar[str]
    """Where the keys of G's layers begin whose size depends on `variational`."""

    def _features(self, image: Tensor) -> Tensor:
        """Return the features of an image that both F and G use, by default the image itself."""
        return image

    @abstractmethod
    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        """Return G of the features of a pair: the values of a code, then any deviations."""

    @abstractmethod
    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        """Return F of an image and its features."""

    def encode(self, sharp: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
        """Return G's code, which turns `sharp` into `blur`, both (N, 3, H, W), and its deviation.

        The standard deviation is 0 if G is not variational. Raises UsageError if sides are not
        multiples of 128 or are below 256, or if the images differ in size.
        """
        self._check_pair(sharp, blur)
        return self._split(self._encode(self._features(sharp), self._features(blur)))

    def blur(self, sharp: Tensor, code: Tensor) -> Tensor:
        """Return F: `sharp` (N, 3, H, W), blurred by `code` (N, code, H / 128, W / 128).

        Raises UsageError if sides are not multiples of 128, or if the code has another shape.
        """
        _check_size(sharp, 1)
        wanted = (self.options["code"], *(side // CODE_STRIDE for side in sharp.shape[-2:]))
        if code.shape[1:] != wanted:
            raise UsageError(
                f"a blur code of {by(code.shape[1:])} for an image that needs {by(wanted)}"
            )
        return self._blur(sharp, self._features(sharp), code)

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, 3, height, width), (1, 3, height, width)]

    def forward(self, sharp: Tensor, blur: Tensor, noise: Tensor | None = None) -> Reblurred:
        """Return F(x, G(x, y)), both (N, 3, H, W); `noise` offsets the code, in deviations."""
        self._check_pair(sharp, blur)
        features = self._features(sharp)
        code, deviation = self._split(self._encode(features, self._features(blur)))
        drawn = code if noise is None else code + deviation * noise
        return Reblurred(self._blur(sharp, features, drawn), code, deviation)

    def _check_pair(self, sharp: Tensor, blur: Tensor) -> None:
        if sharp.shape != blur.shape:
            raise UsageError(
                f"a sharp image of {by(sharp.shape[:1:-1])} and a blurry one of "
                f"{by(blur.shape[:1:-1])}; both must have the same size"
            )
        _check_size(sharp, 2)

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        if not self.options["variational"]:
            return values, torch.zeros_like(values)
        mean, deviation = values.chunk(2, dim=1)
        return mean, deviation


class Reblurred(NamedTuple):
    """F(x, G(x, y)), with the mean and the standard deviation of the code."""

    image: Tensor
    code: Tensor
    deviation: Tensor


class KernelSpace(EncodedBlur):
    """The paper's F and G, which share their first layers.

    Only positive values of a code have an effect, since a ReLU follows where it enters.
    """

    head = "kernel_extractor."

    def __init__(
        self,
        width: int = 64,
        code: int = 512,
        front_blocks: int = 10,
        back_blocks: int = 20,
        code_blocks: int = 4,
        variational: bool = False,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "code": code,
            "front_blocks": front_blocks,
            "back_blocks": back_blocks,
            "code_blocks": code_blocks,
            "variational": variational,
        }
        self.feature_extractor = nn.Sequential(
            *(conv(3, width), nn.LeakyReLU(RESIDUAL_SLOPE)),
            *(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.LeakyReLU(RESIDUAL_SLOPE)),
            *(nn.Conv2d(width, width, 3, stride=2, padding=1), nn.LeakyReLU(RESIDUAL_SLOPE)),
            *(_residual_block(width) for _ in range(front_blocks)),
        )
        values = 2 * code if variational else code
        self.kernel_extractor = CodeExtractor(2 * width, width, values, code_blocks)
        self.adapter = Adapter(width, code)
        self.recon_trunk = nn.Sequential(
            *(_residual_block(width) for _ in range(back_blocks)),
            *(*_enlarged(width), *_enlarged(width)),
            *(conv(width, width), nn.LeakyReLU(RESIDUAL_SLOPE), conv(width, 3)),
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> KernelSpace:
        width = shapes["feature_extractor.0.weight"][0]
        bottleneck = shapes["adapter.model." + 4 * "submodule." + "up.1.weight"]
        code = bottleneck[0] - bottleneck[1]
        return cls(
            width,
            code,
            front_blocks=shapes.count(r"feature_extractor\.\d+\.conv1\.weight"),
            back_blocks=shapes.count(r"recon_trunk\.\d+\.conv1\.weight"),
            code_blocks=shapes.count(r"kernel_extractor\.model\.\d+\.conv_block\.1\.weight"),
            variational=shapes["kernel_extractor.model.16.weight"][0] == 2 * code,
        )

    def _features(self, image: Tensor) -> Tensor:
        return self.feature_extractor(image)

    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        return self.kernel_extractor(torch.cat([sharp, blur], 1))

    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        return self.recon_trunk(self.adapter(features, code)) + sharp


def _check_size(image: Tensor, least: int) -> None:
    height, width = image.shape[-2:]
    if height % CODE_STRIDE or width % CODE_STRIDE or min(height, width) < least * CODE_STRIDE:
        raise UsageError(
            f"an image of {width}x{height}; blur codes need sides of "
            f"{least * CODE_STRIDE} pixels or more, in multiples of {CODE_STRIDE}"
        )


def by(sizes: Sequence[int]) -> str:
    """Return sizes as in `3x256x256`."""
    return "x".join(map(str, sizes))


def _residual_block(width: int) -> Residual:
    """Return two 3x3 convolutions with a ReLU between, whose initial weights are small."""
    block = Residual(conv1=conv(width, width), relu=nn.ReLU(), conv2=conv(width, width))
    initialise(block, kaiming=0.1)
    return block


def _enlarged(width: int) -> tuple[nn.Module, ...]:
    return conv(width, 4 * width), nn.PixelShuffle(2), nn.LeakyReLU(RESIDUAL_SLOPE)


def code_block(width: int, bias: bool) -> Residual:
    """Return two 3x3 convolutions with mirrored borders, for features of 2x2 pixels or more."""
    layers = nn.Sequential(
        *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), nn.Identity()),
        nn.ReLU(),
        *(nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3, bias=bias), nn.Identity()),
    )
    return Residual(conv_block=layers)


class CodeExtractor(nn.Sequential):
    """G's head: maps features (N, in_channels, H, W) to codes (N, values, H / 32, W / 32)."""

    def __init__(
        self, in_channels: int, width: int, values: int, blocks: int, bias: bool = False
    ) -> None:
        first = nn.Conv2d(in_channels, width, 7, bias=bias)
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), first, nn.Identity(), nn.ReLU()]
        widths = [width, *(min(width * 2**level, values) for level in range(1, 5)), values]
        for narrow, wide in pairwise(widths):
            halving = nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=bias)
            layers += [halving, nn.Identity(), nn.ReLU()]
        layers += [code_block(values, bias) for _ in range(blocks)]
        super().__init__(OrderedDict(model=nn.Sequential(*layers)))


class Adapter(nn.Module):
    """F's U-Net: maps features, and a code at its bottleneck, to features in [-1, 1]."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        level = Level(8 * width, 8 * width, 8 * width + code)
        for outer in (4 * width, 2 * width, width):
            level = Level(outer, 2 * outer, 4 * outer, level)
        self.model = Level(width, width, 2 * width, level, outermost=True)

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """Map features (N, width, H, W) and a code (N, code, H / 32, W / 32) to features."""
        return self.model(features, code)


class Level(nn.Module):
    """One level of the U-Net around the next smaller one; the innermost receives the code."""

    def __init__(
        self,
        outer: int,
        inner: int,
        joined: int,
        submodule: Level | None = None,
        outermost: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = outermost
        halved = nn.Conv2d(outer, inner, 4, stride=2, padding=1, bias=False)
        doubled = nn.ConvTranspose2d(joined, outer, 4, stride=2, padding=1, bias=outermost)
        self.down = nn.Sequential(*([halved] if outermost else [leaky(), halved]))
        self.submodule = submodule
        self.up = nn.Sequential(nn.ReLU(), doubled, nn.Tanh() if outermost else nn.Identity())

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map (N, outer, H, W) to (N, 2 * outer, H, W), or to (N, outer, H, W) if outermost."""
        smaller = self.down(x)
        inside = self.submodule(smaller, code) if self.submodule else torch.cat([smaller, code], 1)
        result = self.up(inside)
        return result if self.outermost else torch.cat([result, x], 1)


# ---- Blur codes ----------------------------------------------------------------------------------
# Codes of realistic blur, which come with a kernel space so that `reblur --random` draws motion.
# Few codes of a normal distribution are those of a motion: independent for each place and value,
# they blur like a lens out of focus, with coloured fringes.

DRAWN_LENGTHS = 0.008, 0.055
"""The shortest and the longest blur that is drawn, as a fraction of a photo's longer side."""

DRAWN_FROM = 12
"""The number of codes of about the wanted length that one is drawn from."""


class BlurCodes(nn.Module):
    """Codes (count, code, 2, 2), one for each quarter of a photo, and the lengths of their blur.

    `lengths` (count,) are the largest distances in pixels over which a point is spread.
    """

    codes: Tensor
    lengths: Tensor

    def __init__(self, count: int, code: int) -> None:
        super().__init__()
        self.options = {"count": count, "code": code}
        self.register_buffer("codes", torch.zeros(count, code, 2, 2))
        self.register_buffer("lengths", torch.ones(count))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> BlurCodes:
        count, code, *_ = shapes["codes"]
        return cls(count, code)

    def draw(self, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
        """Return a code (code, 2, 2) for a photo of `height` x `width` pixels."""
        shortest, longest = map(math.log, DRAWN_LENGTHS)
        fraction = math.exp(generator.uniform(shortest, longest))
        nearest = (self.lengths - fraction * max(height, width)).abs().argsort()[:DRAWN_FROM]
        return self.codes[int(generator.choice(nearest.numpy()))].numpy()


# ---- The light kernel space ----------------------------------------------------------------------

SHRINK = 4
"""F works on blocks of 4x4 pixels, rearranged as channels."""

WINDOW = 2 * CODE_STRIDE
"""Side of the window that each place of a code is computed from, pixels."""

REACH = 32
"""The farthest that a blur may carry light, pixels to each side."""


class LightKernelSpace(EncodedBlur):
    """A kernel space that two processor cores can train and run.

    The paper's F and G have to learn from millions of crops what a blur is. Here G reads it from
    the quotient of the two images' spectra, which is the kernel wherever one kernel explains the
    pair. F is a residual network whose layers are scaled by the interpolated code, so it naturally
    computes weighted sums of filters, and blurring by a kernel is one.
    """

    head = "spectral_encoder.look.12."

    def __init__(
        self, width: int = 48, code: int = 64, back_blocks: int = 8, variational: bool = False
    ) -> None:
        super().__init__()
        sizes = {"width": width, "code": code, "back_blocks": back_blocks}
        self.options = {**sizes, "variational": variational}
        channels = 3 * SHRINK**2
        self.spectral_encoder = SpectralEncoder(2 * code if variational else code)
        self.first = conv(channels, width)
        self.scaled = nn.ModuleList(ScaledBlock(width, code) for _ in range(back_blocks))
        self.last = conv(width, channels)
        zero(self.last)  # F starts as the identity
        if variational:  # deviations start small relative to the mean
            values = self.spectral_encoder.look[-1]
            values.get_parameter("weight").data[code:] *= 0.1
            values.get_parameter("bias").data[code:] = 0.1

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> LightKernelSpace:
        width, code = shapes["scaled.0.scale.weight"][:2]
        values = shapes["spectral_encoder.look.12.weight"][0]
        blocks = shapes.count(r"scaled\.\d+\.conv1\.weight")
        return cls(width, code, blocks, variational=values == 2 * code)

    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        return self.spectral_encoder(sharp, blur)

    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(features, SHRINK))
        code = F.interpolate(code, size=x.shape[-2:], mode="bilinear", align_corners=False)
        for block in self.scaled:
            x = block(x, code)
        return sharp + F.pixel_shuffle(self.last(x), SHRINK)


class ScaledBlock(Recomputable):
    """Two 3x3 convolutions added to their input; a code of its size scales what is between them."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(width, width), conv(width, width)
        self.scale = nn.Conv2d(code, width, 1)
        for convolution in (self.conv1, self.conv2):
            initialise(convolution, kaiming=0.3)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x) * (1 + self.scale(code)), 0.5))


class SpectralEncoder(nn.Module):
    """G: maps the quotient of spectra in each window to a code."""

    def __init__(self, values: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((1, 32, 64, 128, 128)):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), leaky()]
        places = (2 * REACH // 16) ** 2
        self.look = nn.Sequential(
            *(*layers, nn.Flatten(), nn.Linear(128 * places, 256)),
            *(leaky(), nn.LayerNorm(256), nn.Linear(256, values)),
        )

    def forward(self, sharp: Tensor, blur: Tensor) -> Tensor:
        """Map a pair (N, 3, H, W) to values (N, values, H / 128, W / 128)."""
        kernels = residual_kernels(sharp.float(), blur.float())
        count, rows, columns = kernels.shape[:3]
        values = self.look(kernels.flatten(0, 2).unsqueeze(1))
        return values.view(count, rows, columns, -1).permute(0, 3, 1, 2)


def residual_kernels(sharp: Tensor, blur: Tensor) -> Tensor:
    """Return the kernels that turn `sharp` into `blur` - `sharp`, both (N, 3, H, W).

    Sides are at least 128. For each window of 256x256 pixels, it is the damped quotient of the gray
    values' spectra, cut to `REACH`: (N, H / 128, W / 128, 64, 64), origin [32, 32], values about 1.
    """
    border = (WINDOW - CODE_STRIDE) // 2
    gray = torch.stack([sharp.mean(1), blur.mean(1)])
    gray = F.pad(gray, (border,) * 4, mode="reflect")
    windows = gray.unfold(2, WINDOW, CODE_STRIDE).unfold(3, WINDOW, CODE_STRIDE)
    windows = windows - windows.mean((-2, -1), keepdim=True)
    fade = torch.hann_window(WINDOW, periodic=False, device=gray.device)
    x, y = torch.fft.rfft2(windows * fade[:, None] * fade)
    power = x.abs().square()
    # Keeps the quotient from amplifying noise.
    damping = 1e-3 * power.mean((-2, -1), keepdim=True) + 1e-3
    kernels = torch.fft.irfft2(x.conj() * (y - x) / (power + damping), s=(WINDOW, WINDOW))
    return REACH * kernels.roll((REACH, REACH), (-2, -1))[..., : 2 * REACH, : 2 * REACH]
