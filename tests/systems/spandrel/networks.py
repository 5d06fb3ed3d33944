"""Small networks of spandrel with random weights, in files as their projects write them."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from blurkit.systems.spandrel.inference import known_architectures

if known_architectures() is None:
    pytest.skip("spandrel is missing: pip install 'blurkit[spandrel]'", allow_module_level=True)

import spandrel
from spandrel.architectures import (
    ESRGAN,
    FDAT,
    DnCNN,
    FFTformer,
    KBNet,
    LaMa,
    RestoreFormer,
    SwinIR,
    Uformer,
)

extra = pytest.importorskip("spandrel_extra_arches")
extra.install(ignore_duplicates=True)
from spandrel_extra_arches.architectures import M3SNet, MIRNet2, MPRNet, Restormer  # noqa: E402

ONES = [1] * 9


def plain(state: dict[str, Any]) -> dict[str, Any]:
    return state


def basicsr(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as BasicSR saves it."""
    return {"params": state}


def averaged(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as BasicSR saves it with averages, which are the ones to run."""
    return {"params": {k: v * 2 for k, v in state.items()}, "params_ema": state}


def resumable(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict as the training scripts of MPRNet and Uformer save it."""
    optimizer = {"state": {}, "param_groups": [{"lr": 2e-4}]}
    parallel = {f"module.{key}": value for key, value in state.items()}
    return {"epoch": 3, "state_dict": parallel, "optimizer": optimizer}


Wrapping = Callable[[dict[str, Any]], dict[str, Any]]
Kind = tuple[Callable[[], nn.Module], Wrapping]
BLOCKS = {"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1, 1], "dec_blk_nums": [1, 1]}
FEW = {"num_blocks": [1] * 4, "num_refinement_blocks": 1, "heads": [1, 2, 4, 8]}
NARROW = {"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 2}
WINDOWS = {"dd_in": 3, "embed_dim": 4, "depths": ONES, "num_heads": ONES}
RESTORING: dict[str, Kind] = {
    "Restormer": (partial(Restormer.Restormer, dim=8, **FEW), basicsr),
    "MPRNet": (partial(MPRNet.MPRNet, **NARROW), resumable),
    "Uformer": (partial(Uformer.Uformer, **WINDOWS, token_projection="linear"), resumable),
    "MIRNet2": (partial(MIRNet2.MIRNet2, n_feat=16, n_MRB=1), averaged),
    "FFTformer": (
        partial(FFTformer.FFTformer, dim=8, num_blocks=[1] * 3, num_refinement_blocks=1),
        plain,
    ),
    "M3SNet": (partial(M3SNet.M3SNet, **BLOCKS), basicsr),
}
WHOLE = {
    **{"upscale": 1, "upsampler": "", "window_size": 8, "img_size": 64},
    **{"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2]},
}
OTHERS: dict[str, Kind] = {
    "KBNet": (partial(KBNet.KBNet_s, **BLOCKS), basicsr),
    "SwinIR": (partial(SwinIR.SwinIR, **WHOLE), basicsr),
    "DnCNN": (partial(DnCNN.DnCNN, in_nc=1, out_nc=1, nc=8, nb=4), plain),
    "FDAT": (
        partial(FDAT.FDAT, embed_dim=12, num_groups=1, depth_per_group=1, num_heads=2, scale=3),
        plain,
    ),
    "ESRGAN": (partial(ESRGAN.ESRGAN, num_filters=8, num_blocks=1), averaged),
}
NETWORKS = RESTORING | OTHERS

FACES: dict[str, Any] = {
    **{"n_embed": 16, "embed_dim": 32, "z_channels": 32, "ch": 32, "ch_mult": (1, 2, 2, 4, 4, 8)},
    **{"in_channels": 3, "out_ch": 3, "num_res_blocks": 1},
    **{"attn_resolutions": (16,), "resolution": 512},
}
OTHER_PURPOSES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "RestoreFormer": (partial(RestoreFormer.RestoreFormer, **FACES), "aligned faces only"),
    "LaMa": (LaMa.LaMa, "fills holes and needs a mask"),
}

MODULATED = {
    **{"dd_in": 3, "img_size": 128, "embed_dim": 32, "depths": [1, 2, 8, 8, 2, 8, 8, 2, 1]},
    **{"token_projection": "linear", "token_mlp": "leff", "modulator": True},
}
FULL: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "Restormer": (Restormer.Restormer, 26.1),
    "MPRNet": (partial(MPRNet.MPRNet, n_feat=96, scale_unetfeats=48, scale_orsnetfeats=32), 20.1),
    "Uformer": (partial(Uformer.Uformer, **MODULATED), 50.9),
    "MIRNet2": (MIRNet2.MIRNet2, 5.9),
    "FFTformer": (FFTformer.FFTformer, 16.6),
}
"""Networks of the sizes that their papers measured, with their parameters in millions."""


def write(name: str, folder: Path, suffix: str = ".pth", full: bool = False) -> Path:
    """Write the network called `name` and return its file; safetensors have a bare state dict."""
    torch.manual_seed(0)
    small, wrapped = NETWORKS[name]
    state, path = (FULL[name][0] if full else small)().state_dict(), folder / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(wrapped(state), path)
    return path


@lru_cache
def loaded(path: Path) -> Any:
    """The network of a file, as spandrel reads it by itself."""
    return spandrel.ModelLoader().load_from_file(path).eval()


def by_spandrel(path: Path, image: np.ndarray) -> np.ndarray:
    """The result of a file's network for 8-bit pixels (H, W, C), in 0 to 255, not rounded."""
    pixels = torch.from_numpy(image / 255).float().permute(2, 0, 1)[None].contiguous()
    return np.asarray(loaded(path)(pixels)[0].permute(1, 2, 0) * 255)
