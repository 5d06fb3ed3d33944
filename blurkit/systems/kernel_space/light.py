"""A light encoded blur kernel space: F and G that two processor cores can train and run.

The paper's F has to learn from examples alone how a code blurs, and its G what a blur is, which
takes millions of crops. Here both have prior knowledge built in. G reads the blur from the quotient
of the two images' spectra, which is the kernel wherever one kernel explains the pair. F's layers
are scaled by the code, so F naturally computes weighted sums of filters, and blurring by a kernel
is one.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import Recomputable, leaky
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur
from blurkit.systems.system import Shapes

SHRINK = 4
"""F works on blocks of 4x4 pixels, rearranged as channels."""

WINDOW = 2 * CODE_STRIDE
"""Side of the window that each place of a code is computed from, pixels."""

REACH = 32
"""The farthest that a blur may carry light, pixels to each side."""

DAMPING = 1e-3
"""Keeps the quotient of spectra from amplifying noise; a fraction of their mean power."""


class LightKernelSpace(EncodedBlur):
    """F as a residual network scaled by the interpolated code, G on the quotient of spectra."""

    head = "spectral_encoder.look.12."

    def __init__(
        self, width: int = 48, code: int = 64, back_blocks: int = 8, variational: bool = False
    ) -> None:
        super().__init__()
        self.options = {
            "width": width,
            "code": code,
            "back_blocks": back_blocks,
            "variational": variational,
        }
        channels = 3 * SHRINK**2
        self.spectral_encoder = SpectralEncoder(2 * code if variational else code)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.scaled = nn.ModuleList(ScaledBlock(width, code) for _ in range(back_blocks))
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)  # F starts as the identity
        nn.init.zeros_(self.last.get_parameter("bias"))
        if variational:  # deviations start small relative to the mean
            values = self.spectral_encoder.look[-1]
            values.get_parameter("weight").data[code:] *= 0.1
            values.get_parameter("bias").data[code:] = 0.1

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> LightKernelSpace:
        width, code = shapes["scaled.0.scale.weight"][:2]
        values = shapes["spectral_encoder.look.12.weight"][0]
        blocks = len(shapes.numbers(r"scaled\.(\d+)\.conv1\.weight"))
        return cls(width, code, blocks, variational=values == 2 * code)

    def _features(self, image: Tensor) -> Tensor:
        return image

    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        return self.spectral_encoder(sharp, blur)

    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(features, SHRINK))
        code = F.interpolate(code, size=x.shape[-2:], mode="bilinear", align_corners=False)
        for block in self.scaled:
            x = block(x, code)
        return sharp + F.pixel_shuffle(self.last(x), SHRINK)


class ScaledBlock(Recomputable):
    """Two 3x3 convolutions added to their input; the code scales the channels between them."""

    def __init__(self, width: int, code: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.scale = nn.Conv2d(code, width, 1)
        for convolution in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(convolution.weight)
            convolution.weight.data *= 0.3
            nn.init.zeros_(convolution.get_parameter("bias"))

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Map features (N, width, H, W) and a code of that size (N, code, H, W) to features."""
        return x + self.conv2(F.leaky_relu(self.conv1(x) * (1 + self.scale(code)), 0.5))


class SpectralEncoder(nn.Module):
    """G: maps the quotient of spectra in each window to a code."""

    def __init__(self, values: int, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for narrow, wide in pairwise((1, width, 2 * width, 4 * width, 4 * width)):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1), leaky()]
        places = (2 * REACH // 16) ** 2
        self.look = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(4 * width * places, 256),
            leaky(),
            nn.LayerNorm(256),
            nn.Linear(256, values),
        )

    def forward(self, sharp: Tensor, blur: Tensor) -> Tensor:
        """Map a pair (N, 3, H, W) to values (N, values, H / 128, W / 128)."""
        kernels = residual_kernels(sharp.float(), blur.float())
        count, rows, columns = kernels.shape[:3]
        values: Tensor = self.look(kernels.flatten(0, 2).unsqueeze(1))
        return values.view(count, rows, columns, -1).permute(0, 3, 1, 2)


def residual_kernels(sharp: Tensor, blur: Tensor) -> Tensor:
    """Return the kernels that turn `sharp` into `blur` - `sharp`, both (N, 3, H, W).

    Sides are at least 128. The result is (N, H / 128, W / 128, 64, 64): for each window of 256x256
    pixels, the damped quotient of the gray values' spectra, cut to `REACH`, with its origin at [32,
    32]. It is scaled so that the values of a kernel are about 1.
    """
    border = (WINDOW - CODE_STRIDE) // 2
    gray = torch.stack([sharp.mean(1), blur.mean(1)])
    gray = F.pad(gray, (border,) * 4, mode="reflect")
    windows = gray.unfold(2, WINDOW, CODE_STRIDE).unfold(3, WINDOW, CODE_STRIDE)
    windows = windows - windows.mean((-2, -1), keepdim=True)
    fade = torch.hann_window(WINDOW, periodic=False, device=gray.device)
    x, y = torch.fft.rfft2(windows * fade[:, None] * fade)
    power = x.abs().square()
    damping = DAMPING * power.mean((-2, -1), keepdim=True) + 1e-3
    kernels = torch.fft.irfft2(x.conj() * (y - x) / (power + damping), s=(WINDOW, WINDOW))
    return REACH * kernels.roll((REACH, REACH), (-2, -1))[..., : 2 * REACH, : 2 * REACH]
