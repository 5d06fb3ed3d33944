"""Own checkpoints: the class and options in a file build the network that was saved."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import (
    CHECKPOINT_FORMAT,
    CHECKPOINT_VERSION,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    with_checksums,
)
from blurkit.nn.blocks import blueprint, blueprints
from blurkit.systems.dbgan.networks import BGAN
from blurkit.systems.deconvolution.estimator import BlurEstimator
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import BlurCodes, KernelSpace
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    JointModel,
    MSDINet,
    PriorUpsampling,
)
from blurkit.systems.registry import load_networks, rebuild
from blurkit.systems.system import network_class, network_classes, systems
from blurkit.tasks.inspect import input_shapes
from tests.systems.test_registry import NETWORKS as RECOGNISED
from tests.systems.test_registry import outputs
from tests.tools.pack import stored

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **RECOGNISED,
    "joint without reblurring": lambda: JointModel(
        DegradationEncoder(1, 4), PriorUpsampling(1, 4), None, JointGenerator(4, 6)
    ),
    "msdi-net of another width": lambda: MSDINet(
        DegradationEncoder(1, 6),
        PriorUpsampling(1, 6),
        width=4,
        hidden=6,
        modulation="paper",
        latent_width=6,
    ),
    "kernel space": partial(KernelSpace, 8, 16, 1, 2, 1),
    "kernel space, variational": partial(KernelSpace, 8, 16, 2, 1, 1, True),
    "light": partial(LightKernelSpace, 8, 4, 2),
    "light, variational": partial(LightKernelSpace, 8, 4, 1, True),
    "mapping": partial(StyleGANMapping, 16, 3),
    "synthesis": partial(StyleGANSynthesis, (16, 8, 4), 16),
    "stylegan2": partial(StyleGAN2, (16, 8, 4), 16, 2),
    "deconvolver": partial(Deconvolver, (4, 8)),
    "estimator": partial(BlurEstimator, width=8, kernel_width=4),
    "codes": lambda: stored([torch.rand(5, 2, 2) for _ in range(3)], [4.0, 9.0, 30.0]),
}


@cache
def recognised_classes() -> set[str]:
    return {type(build()).__name__ for build in RECOGNISED.values()}


def result(network: nn.Module) -> list[Tensor]:
    """What it makes of drawn inputs."""
    generator = torch.Generator().manual_seed(3)

    def drawn(shape: Any) -> Any:
        if isinstance(shape, list):
            return [drawn(one) for one in shape]
        return torch.rand(shape, generator=generator)

    torch.manual_seed(3)
    if type(network).__name__ in recognised_classes():
        return [value for value in outputs(network) if value is not None]
    if isinstance(network, (Deconvolver, BlurEstimator, BlurCodes)):
        return [*network.state_dict().values()]
    found = network(*(drawn(shape) for shape in input_shapes(network, 256, 256)))
    return [found] if isinstance(found, Tensor) else [v for v in found if isinstance(v, Tensor)]


def test_every_class_that_a_system_describes_is_here() -> None:
    described = [a.network for s in systems().values() for a in s.architectures]
    assert len(network_classes()) == len(described)  # each name is one class's
    assert {type(build()).__name__ for build in NETWORKS.values()} == {*network_classes()}
    for name, found in network_classes().items():
        assert network_class(*found).__name__ == name


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same_network(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    result(network)  # in train mode, so that the spectral norms are no longer random
    network.eval()
    wanted = result(network)
    suffix = ".safetensors" if len(name) % 2 else ".pt"
    file = tmp_path / f"network{suffix}"
    states = {"it": network.state_dict()}
    save_checkpoint(Checkpoint(states, blueprints=blueprints({"it": network})), file)
    read = load_checkpoint(file)
    assert json.dumps(read.blueprints)  # plain values
    _, again = rebuild(read.blueprints["it"], read.networks["it"])
    assert type(again) is type(network) and not again.training
    assert again.options == network.options and blueprint(again) == blueprint(network)
    for one, other in zip(result(again), wanted, strict=True):
        assert torch.equal(one, other)


def test_a_blueprint_goes_before_the_keys() -> None:
    """With `injection="none"` keys say nothing of a width of latents: a blueprint does."""
    network = JointGenerator(4, injection="none", latent_width=6)
    state = {"deblur": network.state_dict()}
    found = load_networks(Checkpoint(state))["deblur"]
    assert found.options["latent_width"] == 4
    found = load_networks(Checkpoint(state, blueprints=blueprints({"deblur": network})))["deblur"]
    assert found.options["latent_width"] == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "Module"}, "no system in this version of blurkit has a network 'Module'"),
        ({"class": "os.system"}, "no system in this version of blurkit has a network 'os.system'"),
        ({"options": {"depth": 3}}, "BGAN does not accept the options {'depth': 3}"),
        ({"options": {"width": {"class": "x", "options": {}}}}, "has a network 'x'"),
        ({"options": {"width": 8, "blocks": 1, "noise": 4}}, "not a whole BGAN generator; wrong"),
    ],
)
def test_blueprints_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    network = BGAN(4, 1, 4)
    plan = {"bgan": {**blueprint(network), **change}}
    checkpoint = Checkpoint({"bgan": network.state_dict()}, where="x.pt", blueprints=plan)
    with pytest.raises(BlurkitError, match=r"x\.pt \(bgan\): ") as caught:
        load_networks(checkpoint)
    assert words in str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_changed_weight_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bgan{suffix}"
    network = BGAN(4, 1, 4)
    made = blueprints({"bgan": network})
    save_checkpoint(Checkpoint({"bgan": network.state_dict()}, blueprints=made), path)
    load_checkpoint(path)
    if suffix == ".pt":
        content = torch.load(path, weights_only=True)
        content["networks"]["bgan"]["head.weight"][0, 0, 0, 0] += 1e-3
        torch.save(content, path)
    else:
        tensors = load_file(path)
        length = int.from_bytes(path.read_bytes()[:8], "little")
        about = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
        tensors["bgan/head.weight"][0, 0, 0, 0] += 1e-3
        save_file(tensors, path, metadata=about)
    changed = "damaged, 'networks/bgan/head.weight' has changed"
    with pytest.raises(BlurkitError, match=changed) as told:
        load_checkpoint(path)
    assert str(told.value).startswith(f"{path}: ")


@pytest.mark.parametrize("roles", [3, {"bgan": 3}, {"bgan": {"class": "BGAN"}}])
def test_roles_that_are_no_table(roles: Any, tmp_path: Path) -> None:
    file = io.BytesIO()
    network = BGAN(4, 1, 4)
    content = {
        "format": CHECKPOINT_FORMAT,
        "version": CHECKPOINT_VERSION,
        "networks": {"bgan": network.state_dict()},
        "roles": roles,
    }
    torch.save(with_checksums(content), file)
    (tmp_path / "x.pt").write_bytes(file.getvalue())
    with pytest.raises(BlurkitError, match="damaged, its table of roles is invalid"):
        load_checkpoint(tmp_path / "x.pt")
