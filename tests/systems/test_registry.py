"""Networks come back from checkpoints: by class and options, by keys and shapes, by role."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils._pytree import tree_leaves

from blurkit.engine.engine import SizeRequirement
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import (
    CHECKPOINT_FORMAT,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    with_checksums,
)
from blurkit.nn.blocks import blueprint, blueprints
from blurkit.systems import from_state_dict
from blurkit.systems.dbgan.networks import (
    BGAN,
    DBGAN,
    CropDiscriminator,
    SpectralVGGDiscriminator,
    VGGDiscriminator,
)
from blurkit.systems.deconvolution.estimator import BlurEstimator
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.kernel_space.networks import BlurCodes, KernelSpace, LightKernelSpace
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
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
from blurkit.systems.registry import assemble, describe, describe_networks, load_networks, rebuild
from blurkit.systems.system import network_class, network_classes, systems
from blurkit.tasks.inspect import input_shapes
from blurkit.version import CHECKPOINT_VERSION
from tests.engine.networks import steered
from tests.tools.pack import stored

PAPER = {"modulation": "paper", "inject_bottleneck": True}
BOTH = {"inject_stages": "both"}


def msdi_net(version: int, layers: str = "official", code: str = "2d", **options: Any) -> MSDINet:
    encoder = DegradationEncoder(version, 4, layers, code=code)
    return MSDINet(encoder, PriorUpsampling(version, 4), width=4, hidden=6, **options)


def joint_model(version: int, generator: Callable[..., nn.Module], **options: object) -> JointModel:
    generators = (generator(4, 6, **options) for _ in range(2))
    return JointModel(DegradationEncoder(version, 4), PriorUpsampling(version, 4), *generators)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "encoder 1": partial(DegradationEncoder, 1, 4),
    "encoder 2": partial(DegradationEncoder, 2, 6),
    "encoder paper": partial(DegradationEncoder, 1, 4, "paper"),
    "encoder gray": partial(DegradationEncoder, 1, 4, in_channels=1),
    "blur encoder": partial(BlurEncoder, 4),
    "prior 1": partial(PriorUpsampling, 1, 4),
    "prior 2": partial(PriorUpsampling, 2, 6),
    "joint generator": partial(JointGenerator, 4, 6),
    "joint generator paper": partial(JointGenerator, 6, 10, **PAPER),
    "stacked": partial(StackedGenerator, 4, 6),
    "stacked paper": partial(StackedGenerator, 6, 10, **BOTH, **PAPER),
    "stacked both": partial(StackedGenerator, 4, 6, **BOTH),
    "stacked bottleneck": partial(StackedGenerator, 4, 6, inject_bottleneck=True),
    "msdi-net 1": partial(msdi_net, 1),
    "msdi-net 2": partial(msdi_net, 2),
    "msdi-net paper": partial(msdi_net, 1, "paper", **BOTH, **PAPER),
    "joint 1": partial(joint_model, 1, JointGenerator),
    "joint 2": partial(joint_model, 2, JointGenerator),
    "joint stacked": partial(joint_model, 2, StackedGenerator, **BOTH, **PAPER),
    "joint concat": partial(joint_model, 1, JointGenerator, injection="concat"),
    "discriminator": partial(MultiscaleDiscriminator, 4, 5),
    "encoder 1-d": partial(DegradationEncoder, 1, 4, code="1d"),
    "encoder 1-d 2": partial(DegradationEncoder, 2, 4, code="1d"),
    "encoder 1-d paper": partial(DegradationEncoder, 1, 4, "paper", code="1d"),
    "msdi-net 1-d": partial(msdi_net, 2, code="1d"),
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
    "kernel space": partial(KernelSpace, 8, 16, 1, 2, 1),
    "kernel space, variational": partial(KernelSpace, 8, 16, 2, 1, 1, True),
    "light": partial(LightKernelSpace, 8, 4, 2),
    "light, variational": partial(LightKernelSpace, 8, 4, 1, True),
    "mapping": partial(StyleGANMapping, 16, 3),
    "synthesis": partial(StyleGANSynthesis, (16, 8, 4), 16),
    "stylegan2": partial(StyleGAN2, (16, 8, 4), 16, 2),
    "wide": partial(JointGenerator, 6, 4, latent_width=4, **PAPER),
    "wide lowest": partial(JointGenerator, 4, 4, injection="lowest", **PAPER),
}
for kind in ("lowest", "input", "concat", "none"):
    single = partial(JointGenerator, 4, 6, injection=kind)
    stacked = partial(StackedGenerator, 4, 6, injection=kind)
    NETWORKS |= {
        f"single {kind}": single,
        f"single {kind} paper": partial(single, **PAPER),
        f"single {kind} blocks": partial(single, unshuffle=2),
        f"stacked {kind}": stacked,
        f"stacked {kind} paper": partial(stacked, **BOTH, **PAPER),
        f"stacked {kind} blocks": partial(stacked, **BOTH, unshuffle=2),
    }
    if kind != "none":
        NETWORKS[f"msdi-net {kind}"] = partial(msdi_net, 1, injection=kind)
        paper = partial(msdi_net, 1, "paper", injection=kind, **BOTH, **PAPER)
        NETWORKS[f"msdi-net {kind} paper"] = paper

BY_BLUEPRINT: dict[str, Callable[[], nn.Module]] = {
    "joint without reblurring": lambda: JointModel(
        DegradationEncoder(1, 4), PriorUpsampling(1, 4), None, JointGenerator(4, 6)
    ),
    "msdi-net of another width": lambda: MSDINet(
        *(DegradationEncoder(1, 6), PriorUpsampling(1, 6)),
        **{"width": 4, "hidden": 6, "modulation": "paper", "latent_width": 6},
    ),
    "deconvolver": partial(Deconvolver, (4, 8)),
    "estimator": partial(BlurEstimator, width=8, kernel_width=4),
    "codes": lambda: stored([torch.rand(5, 2, 2) for _ in range(3)], [4.0, 9.0, 30.0]),
}
"""Networks that are tested here with class and options alone."""


def outputs(network: nn.Module) -> list[Tensor]:
    """What the network gives for drawn inputs that fit it, flattened, and its tensors."""
    generator = torch.Generator().manual_seed(3)

    def drawn(shape: Any) -> Any:
        if isinstance(shape, list):
            return [drawn(one) for one in shape]
        return torch.rand(shape, generator=generator)

    if isinstance(network, (Deconvolver, BlurEstimator, BlurCodes)):
        return [*network.state_dict().values()]
    torch.manual_seed(3)
    shapes = input_shapes(network, 64, 96)
    if isinstance(network, JointModel):
        shapes = 2 * shapes  # blurry and sharp
    elif isinstance(network, CropDiscriminator):
        shapes = [(2, *shapes[0][1:])]  # batch norms need two values
    elif isinstance(network, DegradationEncoder):
        shapes = [(1, network.layer1[0].in_channels, 64, 64)]
    run = network.features if isinstance(network, BlurEncoder) else network
    made = tree_leaves(run(*map(drawn, shapes)))
    return [*(leaf for leaf in made if leaf is not None), *network.state_dict().values()]


def test_every_class_that_a_system_describes_is_here() -> None:
    described = [a.network for s in systems().values() for a in s.architectures]
    assert len(network_classes()) == len(described)  # each name is one class's
    made = (NETWORKS | BY_BLUEPRINT).values()
    assert {type(build()).__name__ for build in made} == {*network_classes()}
    for name, found in network_classes().items():
        assert network_class(*found).__name__ == name


@pytest.mark.parametrize("name", NETWORKS | BY_BLUEPRINT)
@torch.no_grad()
def test_a_network_comes_back(name: str, tmp_path: Path) -> None:
    """From its file by class and options, and from its tensors alone, with the same outputs."""
    torch.manual_seed(0)
    network = (NETWORKS | BY_BLUEPRINT)[name]()
    outputs(network)  # in train mode, so that the spectral norms are no longer random
    network.eval()
    state_dict = network.state_dict()
    file = tmp_path / f"network{'.safetensors' if len(name) % 2 else '.pt'}"
    save_checkpoint(Checkpoint({"it": state_dict}, blueprints=blueprints({"it": network})), file)
    read = load_checkpoint(file)
    assert json.dumps(read.blueprints)  # plain values
    again = [rebuild(read.blueprints["it"], read.networks["it"])[1]]
    assert blueprint(again[0]) == blueprint(network)
    if name in NETWORKS:
        again.append(from_state_dict(state_dict))
        assert describe(again[1]) == describe(network)
    expected = [tensor.clone() for tensor in outputs(network)]
    # What is returned owns its tensors: what happens to the given ones does not reach it.
    for tensor in state_dict.values():
        tensor.zero_()
    for found in again:
        assert type(found) is type(network) and not found.training
        assert found.options == network.options
        assert list(found.state_dict()) == list(state_dict)
        for ours, theirs in zip(outputs(found), expected, strict=True):
            assert torch.isfinite(ours).all() and torch.equal(ours, theirs)


# ---- by keys and shapes --------------------------------------------------------------------------


@torch.no_grad()
def test_wrapping_and_half_precision() -> None:
    network = JointGenerator(4, 6).eval()
    plain = network.state_dict()
    wrappings = ("module.", "_orig_mod.", "model.", "net.", "network.", "module._orig_mod.")
    wrapped = [{prefix + key: value for key, value in plain.items()} for prefix in wrappings]
    averaged = AveragedModel(network).state_dict()
    for given in (*wrapped, averaged, {"params": wrapped[0]}, {"state_dict": plain, "epoch": 3}):
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


def test_msdi_net_freezes_its_encoder() -> None:
    about = describe(msdi_net(1))
    trainable = sum(p.numel() for p in StackedGenerator(4, 6).parameters())
    assert about["trainable"] == trainable < about["parameters"]


def test_encoder_features() -> None:
    encoder = DegradationEncoder(1, 4).eval()
    x = torch.rand(1, 3, 256, 256)
    maps = encoder.features(x, layers="all")
    sizes = [(4, 128), (4, 128), (8, 64), (16, 32), (32, 16)]
    assert [f.shape[1:] for f in maps[:5]] == [(width, side, side) for width, side in sizes]
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


# ---- by class and options ------------------------------------------------------------------------


def test_a_blueprint_goes_before_the_keys() -> None:
    """With `injection="none"` keys say nothing of a width of latents: a blueprint does."""
    network = JointGenerator(4, injection="none", latent_width=6)
    state = {"deblur": network.state_dict()}
    assert load_networks(Checkpoint(state))["deblur"].options["latent_width"] == 4
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
    path, network = tmp_path / f"bgan{suffix}", BGAN(4, 1, 4)
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
    content = {
        **{"format": CHECKPOINT_FORMAT, "version": CHECKPOINT_VERSION, "roles": roles},
        "networks": {"bgan": BGAN(4, 1, 4).state_dict()},
    }
    torch.save(with_checksums(content), tmp_path / "x.pt")
    with pytest.raises(BlurkitError, match="damaged, its table of roles is invalid"):
        load_checkpoint(tmp_path / "x.pt")


# ---- under their roles, put together from several files ------------------------------------------


def states(**networks: nn.Module) -> Checkpoint:
    """A checkpoint of blurkit's own, with a state dict for each role."""
    return Checkpoint({role: dict(n.state_dict()) for role, n in networks.items()}, where="own.pt")


def official(path: Path, network: nn.Module, prefix: str = "") -> Checkpoint:
    """A file as the official code saves it: one state dict, under `params`."""
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({"params": state}, path)
    return load_checkpoint(str(path))


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_official_joint_model_comes_apart(tmp_path: Path, version: int, prefix: str) -> None:
    model = steered(version=version, width=4)
    networks = load_networks(official(tmp_path / "joint.pth", model, prefix))
    assert networks.keys() == {"encoder", "latents", "reblur", "deblur"}
    for role, network in model.roles().items():
        assert same(networks[role], network) and not networks[role].training
    assert assemble(official(tmp_path / "joint.pth", model)).keys() == networks.keys()


def test_files_that_name_no_role(tmp_path: Path) -> None:
    joint = steered(width=4)
    for role, network in (
        ("encoder", joint.net_prior),
        ("latents", joint.prior_upsampling),
        ("deblur", MSDINet(joint.net_prior, joint.prior_upsampling, width=4, hidden=6)),
        ("deblur", DBGAN(4, 1, 4)),
        ("bgan", BGAN(4, 1)),
        ("blur_encoder", BlurEncoder(4)),
        ("discriminator", MultiscaleDiscriminator(4)),
        ("discriminator", VGGDiscriminator(32, 4)),
        ("discriminator", SpectralVGGDiscriminator(32, 4)),
    ):
        (found,) = load_networks(official(tmp_path / "net.pth", network)).items()
        assert found[0] == role and same(found[1], network)


def test_encoder_and_latents_of_other_files() -> None:
    """Of two in one role, the later is taken."""
    first, second, third = (steered(seed, width=4) for seed in range(3))
    networks = load_networks(states(**first.roles()), states(encoder=second.net_prior))
    assert same(networks["encoder"], second.net_prior)
    assert same(networks["latents"], first.prior_upsampling)
    both = assemble(states(**first.roles()), states(**second.roles()))
    assert same(both["encoder"], second.net_prior)
    assert same(both["latents"], second.prior_upsampling)
    for role in ("reblur", "deblur"):
        assert same(both[role], first.roles()[role]), "only encoder and latents are replaced"
    others = states(encoder=second.net_prior), states(latents=third.prior_upsampling)
    mixed = assemble(states(**first.roles()), *others)
    assert same(mixed["encoder"], second.net_prior)
    assert same(mixed["latents"], third.prior_upsampling)


def test_a_whole_msdi_net_gets_them_too(tmp_path: Path) -> None:
    first, second = steered(0, width=4), steered(1, width=4)
    whole = MSDINet(first.net_prior, first.prior_upsampling, width=4, hidden=6)
    checkpoint = official(tmp_path / "msdi_net.pth", whole)
    built = assemble(checkpoint, official(tmp_path / "net_E.pth", second.net_prior))["deblur"]
    assert same(built.net_prior, second.net_prior)
    assert same(built.prior_upsampling, first.prior_upsampling)


def test_misfits_are_told() -> None:
    small, wide = steered(width=4), steered(width=8)
    for other, words in (
        (wide, "DegradationEncoder width 8, .*JointGenerator width 4"),
        (steered(version=2, width=4), "DegradationEncoder version 2, PriorUpsampling version 1"),
    ):
        with pytest.raises(BlurkitError, match=f"do not fit together: {words}"):
            assemble(states(**small.roles()), states(encoder=other.net_prior))
    whole = MSDINet(small.net_prior, small.prior_upsampling, width=4, hidden=6)
    with pytest.raises(BlurkitError, match=r"own\.pt \+ own\.pt: these networks do not fit"):
        assemble(states(deblur=whole), states(encoder=wide.net_prior))
    generators = {"reblur": JointGenerator(8, 8), "deblur": JointGenerator(4, 8)}
    for width in (4, 8):
        encoder, latents = DegradationEncoder(1, width), PriorUpsampling(1, width)
        with pytest.raises(BlurkitError, match="do not fit together"):
            assemble(states(encoder=encoder, latents=latents, **generators))
    with pytest.raises(BlurkitError, match="DegradationEncoder width 4, PriorUpsampling width 8"):
        assemble(states(encoder=small.net_prior, latents=wide.prior_upsampling))


def test_an_encoder_file_without_one() -> None:
    roles = steered(width=4).roles()
    words = r"^own\.pt: holds reblur \(JointGenerator\), but no encoder or latents$"
    with pytest.raises(BlurkitError, match=words):
        assemble(states(**roles), states(reblur=roles["reblur"]))
    assert describe_networks({}) == "nothing"
    with pytest.raises(BlurkitError, match=r"own\.pt \(encoder\): "):
        load_networks(Checkpoint({"encoder": {"a": torch.zeros(3)}}, where="own.pt"))
