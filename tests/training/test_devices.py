"""A tensor left on the wrong device is found without a GPU, where everything is on torch's meta."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blurkit.engine.torch_runner import torch_engine
from blurkit.nn.features import BACKBONES, PRE_ACTIVATION, FeatureNetwork
from blurkit.options import Placement
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Unblurred
from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.systems.kernel_space.networks import KernelSpace
from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.training.batches import to_device
from blurkit.training.distributed import Processes
from blurkit.training.steps import Steps
from tests.synthesis.exposures import photo
from tests.training.plain_descent import make

META = torch.device("meta")
KINDS = ("shake", "camera", "objects", "defocus")


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices, which a GPU would refuse.

    A number may be on the CPU, and so may indices; copies between devices are what they are for.
    """

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        if name not in ("_to_copy", "copy_", "index", "index_put_", "index_put"):
            leaves = tree_leaves((args, kwargs))
            devices = {str(t.device) for t in leaves if isinstance(t, Tensor) and t.ndim}
            assert len(devices) <= 1, f"{name} of tensors on {' and '.join(sorted(devices))}"
        return function(*args, **(kwargs or {}))


def test_two_devices_are_refused() -> None:
    convolution = nn.Conv2d(3, 3, 3)  # which the meta device itself lets pass
    image = torch.empty(1, 3, 8, 8, device=META)
    convolution(image)
    with OneDevice(), pytest.raises(AssertionError, match="tensors on cpu and meta"):
        convolution(image)


def features(*layers: str) -> FeatureNetwork:
    return FeatureNetwork(BACKBONES[2], layers)


def stage_1() -> dict[str, nn.Module]:
    return {"encoder": DegradationEncoder(1, 8), "latents": PriorUpsampling(1, 8)}


DEEP = partial(features, PRE_ACTIVATION)
SHALLOW = {"encoder_blocks": 1, "latent_blocks": 1, "decoder_blocks": 1}
MINUS = {"variant": "minus", "traditional_loss": "wgan-gp"}
RECIPES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "joint": ("joint", features, {"perceptual": "features"}),
    "deblur": ("deblur", stage_1, {"frequency_weight": 0.1}),
    "deblur with all layers": ("deblur", stage_1, {"crop": 128, "blur_layers": "all"}),
    "msfs": ("msfs", None, SHALLOW | {"preset": "paper"}),
    "msfs official": ("msfs", None, SHALLOW | {"preset": "official"}),
    "kernel space": ("kernel-space", None, {"preset": "paper"}),
    "light kernel space": ("kernel-space", None, {"variational": False}),
    "bgan": ("bgan", DEEP, {"perceptual": "features", "noise_tries": 2}),
    "dbgan": ("dbgan", DEEP, {"perceptual": "features", "discriminator": "spectral"}),
    "dbgan minus": ("dbgan", None, MINUS),
}


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_step_stays_on_its_device(name: str, accumulate: int) -> None:
    """The recipe is built on the CPU and moves, as in a training."""
    stage, helper, options = RECIPES[name]
    recipe = make(stage, *([helper()] if helper else []), batch=2, **options)
    size = recipe.configuration.crop
    steps = Steps(recipe, Processes(META), accumulate=accumulate, recompute=accumulate == 2)
    image = torch.empty(2, 3, size, size, device=META)
    crops = dict.fromkeys((*recipe.images, "real"), image)
    with OneDevice():
        losses = steps.run(0, crops)
    assert losses and all(value.device == META for value in losses.values())


NETWORKS = {
    "msdi": lambda: MSDINet(DegradationEncoder(1, 8), PriorUpsampling(1, 8), width=8),
    "msfs": lambda: MSFSNet(8, 1, 1, 1),
    "dbgan": lambda: DBGAN(8, 1),
    "bgan": lambda: BGAN(8, 1),
    "kernel space": lambda: KernelSpace(8, 8, 1, 1, 1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_engine_moves_all_that_a_network_takes(name: str) -> None:
    engine = torch_engine(NETWORKS[name](), Placement("cpu"))
    runner = engine.runner
    runner.network.to(META)
    runner._device = META
    image = np.random.default_rng(0).random((256, 256, 3), np.float32)
    guides = [image] if name == "kernel space" else []
    conditions = {"noise": torch.zeros(1, 4)} if name == "bgan" else {}
    images, moved = runner.moved(engine._inputs(image, guides, conditions))
    with OneDevice(), torch.inference_mode():
        output = runner.network(*images, **moved)
    found = [tensor for tensor in tree_leaves(output) if isinstance(tensor, Tensor)]
    assert found and all(tensor.device == META for tensor in found)


@pytest.mark.parametrize("kind", KINDS)
def test_blur_is_rendered_where_the_crops_are(kind: Any) -> None:
    """From the crops in memory to the batch, as a training does it."""
    crop, size = 32, (48, 48)
    images = (255 * photo(*size)).astype(np.uint8)
    unblurred = []
    for place in range(2):
        rng = np.random.default_rng([4, place])
        exposure = draw_exposure(rng, Synthesis(kind), size, size, (0, 0))
        unblurred.append(Unblurred(place, images, exposure))
    stored = np.zeros((1, crop, crop, 3), np.uint8)
    loaded = [stored, stored], np.arange(3), unblurred
    with OneDevice():
        batch = to_device(loaded, ("blur", "sharp"), crop, META)
    found = {name: (value.device, len(value)) for name, value in batch.items()}
    assert found == dict.fromkeys(("blur", "sharp"), (META, 3))
