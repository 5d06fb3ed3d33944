"""The networks of checkpoints under their roles, put together from several files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.dbgan.networks import BGAN, DBGAN, SpectralVGGDiscriminator, VGGDiscriminator
from blurkit.systems.msdi.encoder import BlurEncoder
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    MSDINet,
    MultiscaleDiscriminator,
    PriorUpsampling,
)
from blurkit.systems.registry import assemble, describe_networks, load_networks
from tests.engine.networks import steered


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


def test_of_two_in_one_role_the_later_is_taken() -> None:
    first, second = steered(0, width=4), steered(1, width=4)
    networks = load_networks(states(**first.roles()), states(encoder=second.net_prior))
    assert same(networks["encoder"], second.net_prior)
    assert same(networks["latents"], first.prior_upsampling)


def test_encoder_and_latents_of_other_files() -> None:
    first, second, third = (steered(seed, width=4) for seed in range(3))
    both = assemble(states(**first.roles()), states(**second.roles()))
    assert same(both["encoder"], second.net_prior)
    assert same(both["latents"], second.prior_upsampling)
    for role in ("reblur", "deblur"):
        assert same(both[role], first.roles()[role]), "only encoder and latents are replaced"
    mixed = assemble(
        states(**first.roles()),
        states(encoder=second.net_prior),
        states(latents=third.prior_upsampling),
    )
    assert same(mixed["encoder"], second.net_prior)
    assert same(mixed["latents"], third.prior_upsampling)


def test_a_whole_msdi_net_gets_them_too(tmp_path: Path) -> None:
    first, second = steered(0, width=4), steered(1, width=4)
    whole = MSDINet(first.net_prior, first.prior_upsampling, width=4, hidden=6)
    checkpoint = official(tmp_path / "msdi_net.pth", whole)
    encoder = official(tmp_path / "net_E.pth", second.net_prior)
    built = assemble(checkpoint, encoder)["deblur"]
    assert isinstance(built, MSDINet)
    assert same(built.net_prior, second.net_prior)
    assert same(built.prior_upsampling, first.prior_upsampling)
    expected = MSDINet(second.net_prior, first.prior_upsampling, width=4, hidden=6)
    expected.load_state_dict(whole.state_dict() | {
        f"net_prior.{key}": value for key, value in second.net_prior.state_dict().items()
    })  # fmt: skip
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        ours, theirs, before = (n.eval()(image)[-1] for n in (built, expected, whole))
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, before)


def test_misfits_are_told() -> None:
    small, wide = steered(width=4), steered(width=8)
    second = steered(version=2, width=4)
    for other, words in {
        wide: "do not fit together: DegradationEncoder width 8, .*JointGenerator width 4",
        second: "do not fit together: DegradationEncoder version 2, PriorUpsampling version 1",
    }.items():
        with pytest.raises(BlurkitError, match=words):
            assemble(states(**small.roles()), states(encoder=other.net_prior))
    whole = MSDINet(small.net_prior, small.prior_upsampling, width=4, hidden=6)
    with pytest.raises(BlurkitError, match=r"own\.pt \+ own\.pt: these networks do not fit"):
        assemble(states(deblur=whole), states(encoder=wide.net_prior))
    generators = {"reblur": JointGenerator(8, 8), "deblur": JointGenerator(4, 8)}
    for width in (4, 8):
        encoder, latents = DegradationEncoder(1, width), PriorUpsampling(1, width)
        with pytest.raises(BlurkitError, match="do not fit together"):
            assemble(states(encoder=encoder, latents=latents, **generators))
    alone = states(encoder=small.net_prior, latents=wide.prior_upsampling)
    with pytest.raises(BlurkitError, match="DegradationEncoder width 4, PriorUpsampling width 8"):
        assemble(alone)


def test_an_encoder_file_without_one() -> None:
    joint = steered(width=4)
    with pytest.raises(BlurkitError) as caught:
        assemble(states(**joint.roles()), states(reblur=joint.roles()["reblur"]))
    assert str(caught.value) == "own.pt: holds reblur (JointGenerator), but no encoder or latents"
    assert describe_networks({}) == "nothing"
    with pytest.raises(BlurkitError, match=r"own\.pt \(encoder\): "):
        load_networks(Checkpoint({"encoder": {"a": torch.zeros(3)}}, where="own.pt"))
