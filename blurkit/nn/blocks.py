"""Parts that systems share: layers, initial weights, buffers, blueprints and losses."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypedDict, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.nn.utils import spectral_norm
from torch.utils.checkpoint import checkpoint

Copied = TypeVar("Copied")

SLOPE = 0.2
"""The LeakyReLU slope of all MSDI-Net networks and of most others."""


class Recomputable(nn.Module):
    """A part of a network whose activations the backward pass may compute again, to save memory.

    If it is `recomputed`, only its inputs and outputs are kept for the backward pass, which runs it
    a second time (Chen et al., "Training deep nets with sublinear memory cost", 2016). The second
    run starts from the same buffers as the first and leaves no trace in them.
    """

    recomputed = False

    def __call__(self, *inputs: Any) -> Any:
        if not (self.recomputed and torch.is_grad_enabled()):
            return super().__call__(*inputs)
        return checkpoint(
            super().__call__,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,  # no layer draws random numbers
            context_fn=self._contexts,
        )

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of the first run and of the second one."""
        buffers = Buffers([self])
        return nullcontext(), buffers.borrowed(buffers.values())


class Residual(Recomputable):
    """Named layers, one after another, whose output times `scale` is added to their input."""

    def __init__(self, scale: float = 1, **layers: nn.Module) -> None:
        super().__init__()
        self.scale = scale
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.children():
            y = layer(y)
        return x + (y if self.scale == 1 else self.scale * y)


class Wrapper(nn.Module):
    """A network around another one, `model`, whose state dict it has, with the same keys."""

    model: nn.Module

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        return self.model.state_dict(*arguments, **named)

    def load_state_dict(self, *arguments: Any, **named: Any) -> Any:
        return self.model.load_state_dict(*arguments, **named)


def recompute_blocks(network: nn.Module, recomputed: bool = True) -> None:
    """Set whether the backward pass computes the outermost blocks of `network` again."""
    for child in network.children():
        if isinstance(child, Recomputable):
            child.recomputed = recomputed
        else:
            recompute_blocks(child, recomputed)


def meta_copy(whole: Copied, modules: Iterable[nn.Module]) -> Copied:
    """Return a copy of what holds `modules`; their tensors have shapes but no memory in it."""
    # The deep copy uses the tensors in `known` instead of copying the originals. Some tensors are
    # plain attributes of modules: the weights that spectral norm computes, which cannot be copied.
    known: dict[int, Any] = {}
    for module in nn.ModuleList(modules).modules():
        tensors = [*module.parameters(False), *module.buffers(False), *vars(module).values()]
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                if isinstance(tensor, nn.Parameter):
                    empty = nn.Parameter(empty, tensor.requires_grad)
                known[id(tensor)] = empty
    return copy.deepcopy(whole, known)


def leaky() -> nn.LeakyReLU:
    """Return a LeakyReLU of slope 0.2."""
    return nn.LeakyReLU(SLOPE)


def conv(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Conv2d:
    """Return a zero-padded convolution with bias that keeps the image size."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def spectral_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Conv2d:
    """Return a convolution normalised by its spectral norm (Miyato et al., ICLR 2018).

    `options` are `torch.nn.Conv2d`'s. Of torch's two implementations this is the older, whose keys
    (`weight_orig`, `weight_u`, `weight_v`) are those of the published checkpoints.
    """
    return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, **options))


def spectral_instance_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Sequential:
    """Return a spectrally normalised convolution without bias and a non-affine InstanceNorm."""
    conv = spectral_conv(in_channels, out_channels, kernel, bias=False, **options)
    return nn.Sequential(conv, nn.InstanceNorm2d(out_channels))


# ---- Initial weights -----------------------------------------------------------------------------


@torch.no_grad()
def initialise(network: nn.Module, deviation: float = 0.01, kaiming: float = 0.0) -> None:
    """Draw weights of convolutions and linear layers, and zero their biases; norms stay unchanged.

    Weights are from N(0, deviation^2) or, with `kaiming`, that number times Kaiming's (fan-in).
    """
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1 and kaiming:
            nn.init.kaiming_normal_(parameter).mul_(kaiming)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=deviation)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def zero(*layers: nn.Module) -> None:
    """Zero all parameters of some layers."""
    for parameter in nn.ModuleList(layers).parameters():
        nn.init.zeros_(parameter)


# ---- Buffers -------------------------------------------------------------------------------------

Values = list[Tensor]
"""The values of all buffers, in order."""


class Buffers:
    """The buffers of some modules, which every forward pass in train mode may change.

    They are the running statistics of batch norms and the vectors of spectral norms.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._places: list[tuple[dict[str, Any], str]] = [
            (part._buffers, name)
            for part in nn.ModuleList(modules).modules()
            for name, value in part._buffers.items()
            if value is not None
        ]

    def values(self) -> Values:
        """Return copies of the buffers' values."""
        return [buffers[name].clone() for buffers, name in self._places]

    def put(self, values: Values) -> None:
        """Replace the buffers by copies: a backward pass may still need the old tensors."""
        for (buffers, name), value in zip(self._places, values, strict=True):
            buffers[name] = value.clone()

    @contextmanager
    def borrowed(self, values: Values) -> Iterator[None]:
        """Give the buffers these values for a while, whatever happens to them meanwhile."""
        own = self.values()
        self.put(values)
        try:
            yield
        finally:
            self.put(own)


# ---- Blueprints ----------------------------------------------------------------------------------

Blueprint = TypedDict("Blueprint", {"class": str, "options": dict[str, Any]})
"""Plain values; an argument that is a network is replaced by its blueprint."""


def blueprint(network: nn.Module) -> Blueprint:
    """Return a network's blueprint: its `arguments` if it has any, otherwise its `options`."""
    arguments: Any = getattr(network, "arguments", None) or network.options
    return {
        "class": str(getattr(network, "name", type(network).__name__)),
        "options": {
            name: blueprint(value) if isinstance(value, nn.Module) else value
            for name, value in arguments.items()
        },
    }


def blueprints(networks: Mapping[str, nn.Module]) -> dict[str, Blueprint]:
    """Return, by role, the blueprints of those networks that are built from options."""
    built = (n for n in networks.items() if hasattr(n[1], "options"))
    return {role: blueprint(n) for role, n in built if getattr(n, "rebuilt", True)}


# ---- Losses --------------------------------------------------------------------------------------

EPSILON = 1e-6
"""Added to squares under a root, so that the loss is smooth at 0."""


def charbonnier(image: Tensor, target: Tensor) -> Tensor:
    """Return the sum of sqrt(d^2 + 1e-6) over all values of each image of a batch, (N,)."""
    return ((image - target).square() + EPSILON).sqrt().flatten(1).sum(1)


def mean_charbonnier(image: Tensor, target: Tensor) -> Tensor:
    """Return the mean of sqrt(d^2 + 1e-6) over all values of a batch."""
    return charbonnier(image, target).mean() / image[0].numel()


def psnr_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return minus the mean PSNR in dB of a batch (N, C, H, W) with peak 1."""
    error = (restored - sharp).square().mean(dim=(1, 2, 3))
    return 10 / math.log(10) * torch.log(error + 1e-8).mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": psnr_loss,
    "l1": l1_loss,
    "charbonnier": mean_charbonnier,
}
"""The losses on pixels, each a mean over a batch."""
