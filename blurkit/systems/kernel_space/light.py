"""A light encoded blur kernel space: F and G that two processor cores can train and run.

The paper's F has to learn from examples alone how a code blurs, and its G what a blur is, which
takes millions of crops. Here both begin with what is known. G reads off the blur where it shows:
in the quotient of the two images' spectra, which is the kernel wherever one kernel explains the
pair. F's layers are scaled by the code, so that a weighted sum of filters, which a blur by a kernel
is, is what they do by nature.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import leaky
from blurkit.systems.kernel_space.networks import CODE_STRIDE, EncodedBlur

SHRINK = 4
"""F works on blocks of 4x4 pixels, laid out as channels."""

WINDOW = 2 * CODE_STRIDE
"""Each place of a code is read off a window of 256 pixels around it."""

REACH = 32
"""How far a blur may carry light, pixels to each side."""

DAMPING = 1e-3
"""What keeps the quotient of spectra from blowing up noise, as a share of their mean power."""


class LightKernelSpace(EncodedBlur):
    """F as a residual network scaled by the code, G on the quotient of spectra.

    The code of a place holds for 128x128 pixels; between places it is blended.
    """

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
        nn.init.zeros_(self.last.weight)  # F begins by changing nothing
        nn.init.zeros_(self.last.get_parameter("bias"))
        if variational:  # and deviations small against the mean
            values = self.spectral_encoder.look[-1]
            values.get_parameter("weight").data[code:] *= 0.1
            values.get_parameter("bias").data[code:] = 0.1

    @torch.no_grad()
    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Give codes with this mean and deviation, both (code,), mean 0 and deviation 1.

        G's last layer and what of F takes in a code change by it, F(x, G(x, y)) does not; but
        normal noise then is a code like any (`reblur --random`).
        """
        last = self.spectral_encoder.look[-1]
        weight, bias = last.get_parameter("weight"), last.get_parameter("bias")
        bias[: len(mean)] -= mean
        repeated = deviation.repeat(len(bias) // len(mean))
        weight.div_(repeated[:, None])
        bias.div_(repeated)
        for block in self.scaled:
            scale = block.get_submodule("scale")
            entering = scale.get_parameter("weight")
            scale.get_parameter("bias").add_(entering[:, :, 0, 0] @ mean)
            entering.mul_(deviation[:, None, None])

    def _features(self, image: Tensor) -> Tensor:
        return image

    def _encode(self, sharp: Tensor, blur: Tensor) -> Tensor:
        values: Tensor = self.spectral_encoder(sharp, blur)
        return values

    def _blur(self, sharp: Tensor, features: Tensor, code: Tensor) -> Tensor:
        x = self.first(F.pixel_unshuffle(features, SHRINK))
        code = F.interpolate(code, size=x.shape[-2:], mode="bilinear", align_corners=False)
        for block in self.scaled:
            x = block(x, code)
        return sharp + F.pixel_shuffle(self.last(x), SHRINK)


class ScaledBlock(nn.Module):
    """Two 3x3 convolutions added to their input, the channels between them scaled by the code."""

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
        """Features (N, width, H, W) and a code of that size (N, code, H, W) to features."""
        y: Tensor = x + self.conv2(F.leaky_relu(self.conv1(x) * (1 + self.scale(code)), 0.5))
        return y


class SpectralEncoder(nn.Module):
    """G: what of every window the quotient of the spectra looks like, as a code."""

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
        """A pair (N, 3, H, W) to values (N, values, H / 128, W / 128)."""
        kernels = residual_kernels(sharp.float(), blur.float())
        count, rows, columns = kernels.shape[:3]
        values: Tensor = self.look(kernels.flatten(0, 2).unsqueeze(1))
        return values.view(count, rows, columns, -1).permute(0, 3, 1, 2)


def residual_kernels(sharp: Tensor, blur: Tensor) -> Tensor:
    """The kernels that make `blur` - `sharp` of `sharp`, both (N, 3, H, W), sides at least 128.

    (N, H / 128, W / 128, 64, 64), one for each window of 256x256 pixels, from its gray values: the
    damped quotient of spectra, cut to `REACH`, no motion at [32, 32]. Scaled so that a kernel's
    values are about 1.
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
