"""Networks come back from their state dicts alone, and damaged state dicts are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError, UsageError
from blurkit.nn.size import SizeRequirement
from blurkit.systems import from_state_dict
from blurkit.systems.dbgan.networks import (
    BGAN,
    DBGAN,
    CropDiscriminator,
    SpectralVGGDiscriminator,
    VGGDiscriminator,
)
from blurkit.systems.msdi.encoder import BlurEncoder
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    JointModel,
    MSDINet,
    MultiscaleDiscriminator,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.nafnet.networks import GuidedNAFNet, NAFNet
from blurkit.systems.registry import describe

PAPER = {"modulation": "paper", "inject_bottleneck": True}
BOTH = {"inject_stages": "both"}
INJECTIONS = ("lowest", "input", "concat", "none")


def msdi_net(version: int, layers: str = "official", **options: object) -> MSDINet:
    encoder = DegradationEncoder(version, 4, layers)
    return MSDINet(encoder, PriorUpsampling(version, 4), width=4, hidden=6, **options)


def joint_model(version: int, generator: Callable[..., nn.Module], **options: object) -> JointModel:
    return JointModel(
        DegradationEncoder(version, 4),
        PriorUpsampling(version, 4),
        generator(4, 6, **options),
        generator(4, 6, **options),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "encoder 1": lambda: DegradationEncoder(1, 4),
    "encoder 2": lambda: DegradationEncoder(2, 6),
    "encoder paper": lambda: DegradationEncoder(1, 4, "paper"),
    "encoder gray": lambda: DegradationEncoder(1, 4, in_channels=1),
    "blur encoder": lambda: BlurEncoder(4),
    "prior 1": lambda: PriorUpsampling(1, 4),
    "prior 2": lambda: PriorUpsampling(2, 6),
    "joint generator": lambda: JointGenerator(4, 6),
    "joint generator paper": lambda: JointGenerator(6, 10, **PAPER),
    "stacked": lambda: StackedGenerator(4, 6),
    "stacked paper": lambda: StackedGenerator(6, 10, inject_stages="both", **PAPER),
    "stacked both": lambda: StackedGenerator(4, 6, inject_stages="both"),
    "stacked bottleneck": lambda: StackedGenerator(4, 6, inject_bottleneck=True),
    "msdi-net 1": lambda: msdi_net(1),
    "msdi-net 2": lambda: msdi_net(2),
    "msdi-net paper": lambda: msdi_net(1, "paper", inject_stages="both", **PAPER),
    "joint 1": lambda: joint_model(1, JointGenerator),
    "joint 2": lambda: joint_model(2, JointGenerator),
    "joint stacked": lambda: joint_model(2, StackedGenerator, inject_stages="both", **PAPER),
    "discriminator": lambda: MultiscaleDiscriminator(4, 5),
    "encoder 1-d": lambda: DegradationEncoder(1, 4, code="1d"),
    "encoder 1-d 2": lambda: DegradationEncoder(2, 4, code="1d"),
    "encoder 1-d paper": lambda: DegradationEncoder(1, 4, "paper", code="1d"),
    "msdi-net 1-d": lambda: MSDINet(
        DegradationEncoder(2, 4, code="1d"), PriorUpsampling(2, 4), width=4, hidden=6
    ),
    "joint concat": lambda: joint_model(1, JointGenerator, injection="concat"),
    "msfs-net": partial(MSFSNet, 16, 2, 3, 1),
    "msfs-net official": partial(MSFSNet, 8, 1, 1, 2, "official"),
    "msfs-net without fsm": partial(MSFSNet, 8, 0, 1, 1, frequency_separation=False),
    "msfs-net without csffm": partial(MSFSNet, 8, 1, 2, 1, "official", cross_scale=False),
    "msfs-net without both": partial(MSFSNet, 8, 1, 1, 1, "paper", False, False),
    "nafnet": partial(NAFNet, 8, (1, 2), 1, (1, 1)),
    "nafnet guided": lambda: GuidedNAFNet(
        *(DegradationEncoder(1, 4), PriorUpsampling(1, 4), 6),
        **{"width": 8, "encoder_blocks": [1, 1], "middle_blocks": 1, "decoder_blocks": [1, 1]},
    ),
    "dbgan": partial(DBGAN, 8, 2, 4),
    "dbgan of one block": partial(DBGAN, 6, 1, 8),
    "bgan": partial(BGAN, 6, 2),
    "bgan with other noise": partial(BGAN, 4, 1, 7),
    "bgan without blocks": partial(BGAN, 4, 0, 1),
    **{f"vgg {crop}": partial(VGGDiscriminator, crop, 4) for crop in (32, 96, 128, 160, 192, 256)},
    **{f"spectral {crop}": partial(SpectralVGGDiscriminator, crop, 6) for crop in (64, 128, 192)},
    "wide": partial(JointGenerator, 6, 4, latent_width=4, **PAPER),
    "wide lowest": partial(JointGenerator, 4, 4, injection="lowest", **PAPER),
}
for kind in INJECTIONS:
    NETWORKS |= {
        f"single {kind}": partial(JointGenerator, 4, 6, injection=kind),
        f"single {kind} paper": partial(JointGenerator, 4, 6, injection=kind, **PAPER),
        f"stacked {kind}": partial(StackedGenerator, 4, 6, injection=kind),
        f"stacked {kind} paper": partial(StackedGenerator, 4, 6, injection=kind, **BOTH, **PAPER),
    }
    NETWORKS[f"single {kind} blocks"] = partial(JointGenerator, 4, 6, injection=kind, unshuffle=2)
    NETWORKS[f"stacked {kind} blocks"] = partial(
        StackedGenerator, 4, 6, injection=kind, **BOTH, unshuffle=2
    )
    if kind != "none":
        NETWORKS[f"msdi-net {kind}"] = partial(msdi_net, 1, injection=kind)
        NETWORKS[f"msdi-net {kind} paper"] = partial(
            msdi_net, 1, "paper", injection=kind, **BOTH, **PAPER
        )


def outputs(network: nn.Module) -> list[Tensor]:
    """What the network gives for inputs that fit it, flattened to a list of tensors."""
    torch.manual_seed(1)
    width = network.options.get("latent_width", network.options["width"])
    image = torch.rand(1, 3, 64, 96)
    latents = [torch.rand(1, width * 2**i, 64 // 2**i, 64 // 2**i) for i in range(5)]
    if isinstance(network, (JointGenerator, StackedGenerator)) and not isinstance(network, MSDINet):
        out = network(image, latents)
    elif isinstance(network, JointModel):
        out = network(image, torch.rand(1, 3, 64, 96))
    elif isinstance(network, PriorUpsampling):
        channels, size = (4 * width, 4) if network.version == 1 else (32 * width, 8)
        out = network(torch.rand(1, channels, size, size), bottleneck=True)
    elif isinstance(network, MultiscaleDiscriminator):
        out = [feature for scale in network(torch.rand(1, 5, 32, 48)) for feature in scale]
    elif isinstance(network, BGAN):
        out = network(image, torch.randn(1, network.options["noise"]))
    elif isinstance(network, CropDiscriminator):
        out = network(torch.rand(2, 3, *2 * [network.options["crop"]]))
    elif isinstance(network, BlurEncoder):
        out = network.features(image)
    elif isinstance(network, DegradationEncoder):
        out = network(torch.rand(1, network.layer1[0].in_channels, 40, 40))
    else:
        out = network(image)
    return [out] if isinstance(out, Tensor) else list(out)


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_round_trip(name: str) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]()
    outputs(network)  # in train mode, so that the spectral norms are no longer random
    network.eval()
    state_dict = network.state_dict()
    loaded = from_state_dict(state_dict)

    assert type(loaded) is type(network)
    assert describe(loaded) == describe(network)
    assert list(loaded.state_dict()) == list(state_dict)
    assert not loaded.training
    expected = outputs(network)
    # The returned network owns its tensors: what happens to the given ones does not reach it.
    for tensor in state_dict.values():
        tensor.zero_()
    for ours, theirs in zip(outputs(loaded), expected, strict=True):
        assert torch.isfinite(ours).all()
        assert torch.equal(ours, theirs)


@torch.no_grad()
def test_wrapping_and_half_precision() -> None:
    network = JointGenerator(4, 6).eval()
    plain = network.state_dict()
    wrapped = {"params": {f"module.{key}": value for key, value in plain.items()}}
    for given in (wrapped, {"state_dict": plain, "epoch": 3}):
        loaded = from_state_dict(given).state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in plain.items())
    halves = {k: v.half() if v.is_floating_point() else v for k, v in plain.items()}
    assert from_state_dict(halves).conv_01.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("last.bias"), "missing: last.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda s: s.update({"last.weight": torch.zeros(3, 5, 3, 3)}),
            r"wrong shape: last.weight \[3, 5, 3, 3\] instead of \[3, 4, 3, 3\]",
        ),
        (lambda s: s.pop("net_prior.layer1.0.weight_orig"), "lacks 'net_prior.layer1.0.weight_or"),
        (lambda s: s.pop("conv_01.weight"), "lacks 'conv_01.weight'"),
    ],
)
def test_damaged_state_dicts_are_refused_by_key(change: Callable, message: str) -> None:
    state_dict = msdi_net(1).state_dict()
    change(state_dict)
    with pytest.raises(BlurkitError, match=message) as error:
        from_state_dict(state_dict)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, "2 keys: fc.weight, fc.bias"),
        ({}, "0 keys"),
        ({"optimizer": {"lr": 1}}, "'optimizer' is a dict, not a tensor"),
        ({"model.1.sub1.0.RDB1.conv1.0.weight": torch.zeros(1)}, "lacks 'model.0.weight'"),
    ],
)
def test_foreign_state_dicts_are_named(given: dict, message: str) -> None:
    with pytest.raises(BlurkitError, match=message):
        from_state_dict(given)


@pytest.mark.parametrize("kind", [VGGDiscriminator, SpectralVGGDiscriminator])
def test_damaged_discriminators_are_refused(kind: type[CropDiscriminator]) -> None:
    whole = kind(64, 4).state_dict()
    convolutions = [key for key, value in whole.items() if value.dim() == 4]
    linear = "classifier.0.weight" if kind is VGGDiscriminator else "linear0.weight_orig"
    for damaged in (
        {key: value for key, value in whole.items() if key not in convolutions[2:]},
        {key: value for key, value in whole.items() if key not in convolutions[-2:]},
        whole | {linear: torch.zeros(100, 32 * 4 + 1)},
        whole | {linear: torch.zeros(100, 7)},
    ):
        with pytest.raises(BlurkitError, match=r"not a whole|crops of"):
            from_state_dict(damaged)


def test_old_encoder_files_may_carry_unused_layers() -> None:
    state_dict = DegradationEncoder(1, 4).state_dict()
    for name in ("fc_0", "fc_1", "layer8_1.0", "layer8_2.0", "layer9_1.0", "layer9_2.0"):
        state_dict[f"{name}.weight"] = torch.zeros(3)
    assert len(from_state_dict(state_dict).state_dict()) == 43
    state_dict["fc_2.weight"] = torch.zeros(3)
    with pytest.raises(BlurkitError, match=r"unexpected: fc_2\.weight"):
        from_state_dict(state_dict)


@torch.no_grad()
def test_msdi_net_takes_latents_of_another_image() -> None:
    network = msdi_net(2, inject_bottleneck=True).eval()
    image, other = torch.rand(2, 1, 3, 32, 48)
    own, given = network(image)[-1], network(image, network.latents(image))[-1]
    assert torch.equal(own, given)
    assert not torch.equal(own, network(image, network.latents(other))[-1])


def test_msdi_net_freezes_its_encoder() -> None:
    network = msdi_net(1)
    generator = StackedGenerator(4, 6)
    trainable = sum(p.numel() for p in generator.parameters())
    assert describe(network)["trainable"] == trainable < describe(network)["parameters"]


def test_encoder_features() -> None:
    encoder = DegradationEncoder(1, 4).eval()
    x = torch.rand(1, 3, 256, 256)
    maps = encoder.features(x, layers="all")
    assert [f.shape[1:] for f in maps[:5]] == [
        (4, 128, 128),
        (4, 128, 128),
        (8, 64, 64),
        (16, 32, 32),
        (32, 16, 16),
    ]
    assert torch.equal(maps[-1], encoder(x))
    for one, other in zip(encoder.features(x), maps, strict=False):
        assert torch.equal(one, other)
    with pytest.raises(UsageError, match="first layers"):
        BlurEncoder(4).features(x, layers="all")
    with pytest.raises(UsageError, match="version 1"):
        DegradationEncoder(2, 4, "paper")


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_networks_take_their_smallest_size(unshuffle: int) -> None:
    latents = [torch.rand(1, 4 * 2**i, 8, 8) for i in range(4)]
    for kind in (JointGenerator, StackedGenerator):
        network = kind(4, 6, unshuffle=unshuffle)
        smallest = network.size.padded(1, 1)
        assert smallest == (32 * unshuffle, 32 * unshuffle)
        output = network(torch.rand(1, 3, *smallest), latents)
        assert output[-1].shape[-2:] == smallest and torch.isfinite(output[-1]).all()


@pytest.mark.parametrize(
    ("given", "padded"), [((1, 1), (32, 32)), ((32, 33), (32, 48)), ((720, 1280), (720, 1280))]
)
def test_size_requirement(given: tuple[int, int], padded: tuple[int, int]) -> None:
    assert SizeRequirement(minimum=32, multiple=16).padded(*given) == padded
    assert SizeRequirement().padded(*given) == given


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, blurkit.systems; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "system",
    [
        "msdi",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("kernel-space", "deconvolution")),
    ],
)
def test_building_a_network_imports_no_compiler(system: str) -> None:
    code = (
        "import sys; from blurkit.systems.registry import load_networks; "
        "from blurkit.systems.system import load_shipped; "
        f"load_networks(load_shipped({system!r})); "
        "assert not {'torch._dynamo', 'torch.onnx', 'sympy'} & {*sys.modules}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
