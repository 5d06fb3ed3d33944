"""A network of spandrel as the engine runs it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.engine.engine import SizeRequirement
from blurkit.errors import BlurkitError, one_line
from blurkit.nn.blocks import Wrapper
from blurkit.options import Protocol
from blurkit.systems.registry import Undrawn

LICENCES = {
    "spandrel": "permissive (MIT, Apache 2.0 or public domain)",
    "spandrel_extra_arches": "restrictive; read its project's before any commercial use",
}
"""Licences of the architectures, as the two packages state them; weights may have others."""


class SpandrelNetwork(Wrapper):
    """A network with spandrel's description of it, a `spandrel.ModelDescriptor`.

    `name` is its architecture's. It maps RGB images (N, 3, H, W) in [0, 1] to the same shape and
    range; in training, results are not clamped. A network for gray images runs on each channel.
    `dtypes` are the number formats that it may run in; `tiled` is whether spandrel allows tiles.
    """

    any_layout = False  # some architectures fail in channels-last, and few are faster
    protocol: Protocol = "whole"
    rebuilt = False  # but recognised by its keys

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.descriptor, self.model = descriptor, descriptor.model
        self.name: str = descriptor.architecture.name
        needs = descriptor.size_requirements
        self.size = SizeRequirement(max(needs.minimum, 1), needs.multiple_of, needs.square)
        half = {
            torch.float16: descriptor.supports_half,
            torch.bfloat16: descriptor.supports_bfloat16,
        }
        self.dtypes = (torch.float32, *(dtype for dtype, supported in half.items() if supported))
        self.tiled = descriptor.tiling.name == "SUPPORTED"

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> SpandrelNetwork | None:
        """Return the network of a state dict, in float32, or None if spandrel does not know it.

        Tensors on the meta device count as zeros. Raises BlurkitError if spandrel recognises the
        state dict but cannot load it, or if it lacks its second package, which may know it.
        """
        if (architectures := known_architectures()) is None:
            return None
        from spandrel import canonicalize_state_dict

        state = canonicalize_state_dict({key: _real(tensor) for key, tensor in tensors.items()})
        for architecture in architectures:
            if architecture.detect(state):
                try:
                    # Warnings are about how the architecture is written.
                    with Undrawn(), warnings.catch_warnings(action="ignore"):
                        return cls(architecture.load(state))
                except Exception as error:  # each architecture has its own ways to fail
                    reason = one_line(error)[:300]
                    raise BlurkitError(
                        f"spandrel takes it for {architecture.name}, but cannot load it ({reason})"
                    ) from error
        if find_spec(EXTRA) is None:
            raise BlurkitError(f"pip install {EXTRA} adds Restormer, MPRNet and others")
        return None

    @property
    def options(self) -> dict[str, Any]:
        """What spandrel says of the network, as plain values."""
        about = self.descriptor
        package = type(about.architecture).__module__.partition(".")[0]
        return {
            "known_by": package,
            "purpose": about.purpose,
            "tags": about.tags,
            "scale": about.scale,
            "channels": [about.input_channels, about.output_channels],
            "size": vars(self.size),
            "tiling": about.tiling.name.lower(),
            "number_formats": [str(dtype).removeprefix("torch.") for dtype in self.dtypes],
            "licence": LICENCES[package],
            **({"refused": reason} if (reason := self.refusal()) else {}),
        }

    def refusal(self) -> str:
        """Return why the network cannot restore a photo, or ""."""
        about = self.descriptor
        channels = about.input_channels, about.output_channels
        if about.purpose == "Inpainting":
            return f"{self.name} fills holes and needs a mask of them, which blurkit does not give"
        if about.purpose == "FaceSR":
            return f"{self.name} restores aligned faces only, not whole photos"
        if about.scale != 1:
            return f"{self.name} enlarges images {about.scale} times; blurkit keeps their size"
        if channels not in ((1, 1), (3, 3)):
            taken = "{} channels and gives {}".format(*channels)
            return f"{self.name} takes {taken}; blurkit runs networks for RGB or gray images"
        return ""

    def forward(self, image: Tensor) -> Tensor:
        """Restore (N, 3, H, W) in [0, 1]. Raises BlurkitError if it fails or is refused."""
        if reason := self.refusal():
            raise BlurkitError(reason)
        given = image.reshape(-1, self.descriptor.input_channels, *image.shape[2:])
        with warnings.catch_warnings(action="ignore"):  # about how the architecture is written
            if self.training:  # where the descriptor would record no gradients
                result: Tensor = self.descriptor._call_fn(self.model, given.contiguous())
            else:  # spandrel allows one image at a time
                result = torch.cat([self.descriptor(one.contiguous()) for one in given.split(1)])
        return result.reshape(image.shape)


def deblurring(networks: Mapping[str, nn.Module]) -> SpandrelNetwork | None:
    """Return the network that restores an image. Raises BlurkitError if it does anything else."""
    network = networks.get("deblur")
    if not isinstance(network, SpandrelNetwork):
        return None
    if reason := network.refusal():
        raise BlurkitError(reason)
    return network


def _real(tensor: Tensor) -> Tensor:
    if not tensor.is_meta:
        return tensor
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


# ---- The library ---------------------------------------------------------------------------------

EXTRA = "spandrel_extra_arches"
"""A package of more architectures, whose licences restrict their use."""

TORCHVISION = {
    "torchvision": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("InterpolationMode", "normalize", "rotate"),
}
"""What spandrel imports of torchvision: only networks that blurkit refuses use it, LaMa (which
fills holes) and RestoreFormer (for faces). A test compares this with spandrel's source."""


@lru_cache
def known_architectures() -> list[Any] | None:
    """Return spandrel's architectures in the order of their detection, None if it is missing.

    Those of `EXTRA` follow if it is installed. Raises BlurkitError if either cannot be imported.
    """
    if find_spec("spandrel") is None:
        return None
    try:
        with _without_torchvision():
            from spandrel import MAIN_REGISTRY

            registry = MAIN_REGISTRY.copy()
            if find_spec(EXTRA) is not None:
                from spandrel_extra_arches import EXTRA_REGISTRY

                registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    except Exception as error:  # what it needs may be missing, or fail in its own way
        raise BlurkitError(f"spandrel cannot be imported ({one_line(error)})") from error
    return [support.architecture for support in registry.architectures("detection")]


@contextmanager
def _without_torchvision() -> Iterator[None]:
    """Put empty modules in the place of torchvision, for a while, if it cannot be imported.

    It may be missing, or made for another torch, as pip installs it beside one without CUDA.
    """
    modules: dict[str, ModuleType] = {}
    try:
        import_module("torchvision.transforms.functional")
    except Exception:  # of any class
        modules = {name: ModuleType(name) for name in TORCHVISION}
    for name, module in modules.items():
        vars(module).update(dict.fromkeys(TORCHVISION[name]))
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
