"""Record steps of the official training code, which tests/systems/test_official.py follows.

python -m tests.tools.official msdi CHECKOUT       # of github.com/dasongli1/Learning_degradation
python -m tests.tools.official nafnet CHECKOUT     # of github.com/megvii-research/NAFNet

It writes tests/systems/official/NAME.json: the options of the released option file, the losses of
some steps, and two numbers for each tensor after them. Networks, losses, optimisers, clipping,
schedule and the order of a step are the checkout's. Only what surrounds them is replaced: logging,
metrics, the GPU, the pretrained weights and the batches; all weights and images are made from their
names, in float64, and channels are a sixteenth of the released ones. It needs PyYAML, as the
official code does.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, patch
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.io.writing import replacing
from blurkit.nn.features import BACKBONES
from blurkit.reports.progress import say
from tests.tools.program import program

STEPS = 4
SCHEDULE = 6
"""The length of the cosine, in steps: short, so that the learning rate falls."""
CROPS, SIDE = 2, 32
NARROWER = 16

FOLDER = Path(__file__).parents[1] / "systems" / "official"

# ---- What both sides have in common --------------------------------------------------------------


def drawn(name: str, shape: Sequence[int]) -> Tensor:
    """Return values between -1 and 1 that depend on `name` and shape alone, in float64."""
    values = np.random.default_rng(crc32(name.encode())).uniform(-1, 1, tuple(shape))
    return torch.from_numpy(values)


@torch.no_grad()
def fill(network: nn.Module, prefix: str = "") -> None:
    """Give every floating-point tensor of a network values by its key, of a usual size."""
    for key, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        values = drawn(prefix + key, tensor.shape)
        if key.endswith(("weight_u", "weight_v")):
            values = nn.functional.normalize(values, dim=0)
        elif key.endswith("running_var"):
            values = 1 + values / 2
        elif tensor.ndim > 1 and tensor[0].numel() > 1:
            values *= (3 / tensor[0].numel()) ** 0.5
        else:
            values = values / 10 + key.endswith("weight")
        tensor.copy_(values)


def batch(step: int) -> dict[str, Tensor]:
    """Return smooth `sharp` images (N, 3, H, W) in [0, 1], and `blur`, their means of rows."""
    coarse = drawn(f"batch {step}", (CROPS, 3, SIDE // 4 + 1, SIDE // 4 + 1))
    size = (SIDE, SIDE)
    sharp = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False) / 2 + 0.5
    blur = sum(sharp.roll(shift, 2) for shift in range(-2, 3))
    return {"sharp": sharp, "blur": torch.as_tensor(blur) / 5}


def digest(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, list[float]]:
    """Return the norm of each floating-point tensor and its product with drawn values."""

    def numbers(key: str, tensor: Tensor) -> list[float]:
        return [tensor.norm().item(), (tensor * drawn(f"to {key}", tensor.shape)).sum().item()]

    floating = {key: tensor for key, tensor in state.items() if tensor.is_floating_point()}
    return {prefix + key: numbers(key, tensor) for key, tensor in floating.items()}


@contextmanager
def narrower() -> Iterator[None]:
    """Build networks of constant widths with a sixteenth of their channels, meanwhile."""

    def narrow(channels: int) -> int:
        return channels // NARROWER if channels % (2 * NARROWER) == 0 else channels

    def narrowed(kind: type[nn.Module]) -> Any:
        build = kind.__init__

        def init(self: nn.Module, first: int, second: int, *args: Any, **options: Any) -> None:
            build(self, narrow(first), narrow(second), *args, **options)

        return patch.object(kind, "__init__", init)

    normalisation = nn.modules.batchnorm._NormBase
    build = normalisation.__init__

    def init(self: Any, channels: int, *args: Any, **options: Any) -> None:
        given = signature(build).bind(self, channels, *args, **options)
        given.apply_defaults()
        learned = given.arguments["affine"] or given.arguments["track_running_stats"]
        build(self, narrow(channels) if learned else channels, *args, **options)

    with (
        narrowed(nn.Conv2d),
        narrowed(nn.ConvTranspose2d),
        patch.object(normalisation, "__init__", init),
    ):
        yield


# ---- The official side ---------------------------------------------------------------------------


@contextmanager
def imported(checkout: Path) -> Iterator[None]:
    """Let the checkout's modules be imported and run on the CPU in float64, meanwhile."""
    folders = {
        "basicsr": checkout / "basicsr",
        "basicsr.models": checkout / "basicsr/models",
        "basicsr.models.archs": checkout / "basicsr/models/archs",
    }
    modules: dict[str, Any] = {name: ModuleType(name) for name in folders}
    for name, folder in folders.items():
        modules[name].__path__ = [str(folder)]
    modules["basicsr.models.archs"].define_network = defined
    modules["basicsr.metrics"] = modules["basicsr.utils"] = MagicMock()
    modules["basicsr.utils.dist_util"] = MagicMock(master_only=lambda function: function)

    def vgg19(pretrained: bool) -> Any:
        return SimpleNamespace(features=nn.Sequential(*BACKBONES[0].build()))

    modules["torchvision"] = SimpleNamespace(models=SimpleNamespace(vgg19=vgg19))
    default = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(patch.dict(sys.modules, modules))
        stack.enter_context(patch("torch.FloatTensor", torch.DoubleTensor))
        for kind in (Tensor, nn.Module):
            stack.enter_context(patch.object(kind, "cuda", lambda self, *args: self))
        stack.callback(torch.set_default_dtype, default)
        torch.set_default_dtype(torch.float64)
        yield


def defined(options: Mapping[str, Any]) -> nn.Module:
    """Return the network of an option file's section, from the module that has it."""
    module, rest = ARCHITECTURES[options["type"]], dict(options)
    kind = getattr(importlib.import_module(f"basicsr.models.archs.{module}"), rest.pop("type"))
    return kind(**rest)


ARCHITECTURES = {"MSDI2E": "msdi2e_arch", "NAFNetLocal": "NAFNet_arch"}


def steps(model: Any, step: Callable[[int], Mapping[str, Any]]) -> list[dict[str, float]]:
    """Run the steps of an official model; return the terms of the loss of each."""
    losses = []
    for number in range(STEPS):
        images = batch(number)
        model.update_learning_rate(number + 1)
        model.feed_data({"lq": images["blur"], "gt": images["sharp"]})
        terms = step(number + 1)
        losses.append({name: float(value) for name, value in terms.items()})
    return losses


def msdi(options: dict[str, Any]) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Return losses and weights of MSDI-Net's stage 1, with its discriminator."""
    module = importlib.import_module("basicsr.models.image_restoration2_model")
    with narrower():
        model = module.ImageRestorationModel2(options)
    fill(model.net_g)
    fill(model.net_d, "discriminator.")
    fill_features(model.criterionVGG.vgg)

    def step(number: int) -> Mapping[str, Any]:
        model.optimize_parameters(number)
        return {**model.log_g_dict, **model.log_d_dict}

    losses, generator = steps(model, step), digest(model.net_g.state_dict())
    return losses, generator | digest(model.net_d.state_dict(), "discriminator.")


@torch.no_grad()
def fill_features(network: nn.Module) -> None:
    """Give the convolutions of VGG-19 values by their numbers, whatever their keys are."""
    for key, tensor in network.state_dict().items():
        number, kind = key.split(".")[-2:]
        values = drawn(f"features.{number}.{kind}", tensor.shape)
        tensor.copy_(values * (6 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else values / 10)


def nafnet(options: dict[str, Any]) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Return losses and weights of NAFNet, with the blocks of blurkit's preset `small`."""
    module = importlib.import_module("basicsr.models.image_restoration_model")
    blocks = {"enc_blk_nums": [1, 1, 2], "middle_blk_num": 2, "dec_blk_nums": [1, 1, 1]}
    options["network_g"] |= {**blocks, "width": 64 // NARROWER}
    model = module.ImageRestorationModel(options)
    fill(model.net_g)

    def step(number: int) -> Mapping[str, Any]:
        model.optimize_parameters(number, None)
        return dict(model.log_dict)

    return steps(model, step), digest(model.net_g.state_dict())


RECORDED = {
    "msdi": (msdi, "MSDINet2e-Train.yml"),
    "nafnet": (nafnet, "options/train/GoPro/NAFNet-width32.yml"),
}
"""How each is recorded, and the checkout's file of its options."""


def released(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the training that a released option file states."""
    train, data = options["train"], options["datasets"]["train"]
    return {
        "optimizer": train["optim_g"]["type"],
        "learning_rate": train["optim_g"]["lr"],
        "betas": train["optim_g"]["betas"],
        "weight_decay": train["optim_g"]["weight_decay"],
        "schedule": train["scheduler"]["type"],
        "schedule_iterations": train["scheduler"]["T_max"],
        "final_learning_rate": train["scheduler"]["eta_min"],
        "iterations": train["total_iter"],
        "crop": data["gt_size"],
        "batch": data["batch_size_per_gpu"] * options["num_gpu"],
    }


@program
def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("python -m tests.tools.official", description=__doc__)
    parser.add_argument("name", choices=RECORDED)
    parser.add_argument("checkout", type=Path, help="folder of the official code")
    options = parser.parse_args(arguments)
    run, file = RECORDED[options.name]
    stated = importlib.import_module("yaml").safe_load((options.checkout / file).read_text())
    recorded = {"options": released(stated), "torch": torch.__version__.partition("+")[0]}
    stated |= {"num_gpu": 0, "is_train": True, "dist": False}
    stated["train"]["scheduler"]["T_max"] = SCHEDULE
    with imported(options.checkout):
        losses, weights = run(stated)
    output = FOLDER / f"{options.name}.json"
    output.parent.mkdir(exist_ok=True)
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in weights.items()]
    text = json.dumps(recorded | {"losses": losses}, indent=1).rstrip("}\n")
    with replacing(output, force=True) as temporary:
        temporary.write_text(text + ',\n "weights": {\n  ' + ",\n  ".join(lines) + "\n }\n}\n")
    say(f"{output}: {STEPS} steps, {len(weights)} tensors")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
