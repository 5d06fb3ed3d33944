"""Packed weights: one file of both stages that gives what the two gave."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, StateDict, halved, load_checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.systems.kernel_space.networks import LightKernelSpace
from blurkit.systems.msdi.networks import (
    JointGenerator,
    JointModel,
    MSDINet,
    MultiscaleDiscriminator,
    StackedGenerator,
)
from blurkit.systems.registry import load_networks
from blurkit.systems.uses import network_for, trained_tile
from tests.cli.invoke import invoke
from tests.engine import networks
from tests.io.scenes import write_shard
from tests.tools.pack import main, pack

Network = TypeVar("Network", bound=nn.Module)
steered = partial(networks.steered, width=4)


def states(**by_role: nn.Module) -> dict[str, StateDict]:
    return networks.states(by_role)


def whole(joint: JointModel) -> MSDINet:
    """A deblurring MSDI-Net steered by the encoder of a joint model."""
    torch.manual_seed(1)
    network = MSDINet(joint.net_prior, joint.prior_upsampling, width=4, hidden=8)
    with torch.no_grad():
        network.last.weight.mul_(0.3)
    return network.eval()


def first_stage(joint: JointModel) -> Checkpoint:
    made = states(**joint.roles(), discriminator=MultiscaleDiscriminator(4))
    return Checkpoint(made, "msdi", {"crop": 64}, {"seed": 3, "date": "2026-01-02"}, "enc.pt")


def second_stage(network: nn.Module) -> Checkpoint:
    about = {"seed": 4, "iterations": 7, "date": "2026-01-03"}
    return Checkpoint(states(deblur=network), "msdi", {"crop": 96}, about, "deblur.pt")


def rounded(network: Network) -> Network:
    """The network with its matrices and filters as float16 holds them, by numpy."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim > 1:
                tensor.copy_(torch.from_numpy(tensor.numpy().astype(np.float16).astype(np.float32)))
    return network


def picture(seed: int) -> Tensor:
    return torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Both stages in a file, read again."""
    joint = steered()
    path = tmp_path_factory.mktemp("packed") / "packed.pt"
    save_checkpoint(pack([first_stage(joint), second_stage(whole(joint))], {"terms": "CC0"}), path)
    return load_checkpoint(path)


def test_networks_give_what_those_of_the_stages_gave(packed: Checkpoint) -> None:
    joint, image, guide = steered(), picture(1), picture(2)
    original = rounded(whole(joint))
    joint = rounded(joint)
    with torch.no_grad():
        wanted = original(image)[-1]
        found = network_for("deblurring", packed)(image)[-1]
        assert torch.allclose(found, wanted, atol=1e-6)
        assert not torch.allclose(found, image, atol=1e-2)
        assert joint.inverse_generator is not None
        wanted = joint.inverse_generator(image, joint.latents_of(joint.net_prior(guide)))
        assert torch.allclose(network_for("reblurring", packed)(image, guide), wanted, atol=1e-6)
        restored = network_for("interpolation", packed, deblur=True)(image, image, guide)
        assert torch.allclose(restored[-1], found, atol=1e-6)  # amount 0 is the first guide's


def test_each_network_is_held_once_and_in_half(packed: Checkpoint) -> None:
    found = load_networks(packed)
    assert list(found) == ["encoder", "latents", "reblur", "deblur"]
    assert type(found["deblur"]) is StackedGenerator
    joint = steered()
    for role, part in joint.roles().items():
        if role != "deblur":
            assert packed.networks[role].keys() == part.state_dict().keys()
    for state in packed.networks.values():
        assert not any(key.startswith(("net_prior", "prior_upsampling")) for key in state)
        for tensor in state.values():
            kinds = (torch.float16,) if tensor.ndim > 1 else (torch.float32, torch.int64)
            assert tensor.dtype in kinds
    for network in found.values():
        assert {p.dtype for p in network.parameters()} == {torch.float32}
    weights = sum(tensor.numel() for state in packed.networks.values() for tensor in state.values())
    assert Path(packed.where).stat().st_size < 2.5 * weights


def test_what_is_told_of_the_stages(packed: Checkpoint) -> None:
    assert packed.configuration == {"reblur": {"crop": 64}, "deblur": {"crop": 96}}
    about = packed.provenance
    assert about["reblur"] == {"seed": 3, "date": "2026-01-02"}
    assert (about["deblur"]["iterations"], about["terms"]) == (7, "CC0")
    assert all(60 < dB <= 200 for dB in about["agreement"].values())
    assert trained_tile(packed, network_for("reblurring", packed)) == 64
    assert trained_tile(packed, network_for("interpolation", packed, deblur=False)) == 64
    assert trained_tile(packed, network_for("deblurring", packed)) == 96
    assert trained_tile(packed, network_for("interpolation", packed, deblur=True)) == 96


def test_a_single_unet_as_second_stage() -> None:
    """Of its own width, with encoder and latents beside it or without."""
    joint, image = steered(), picture(3)
    torch.manual_seed(5)
    unet = JointGenerator(8, 8, modulation="paper", unshuffle=2, latent_width=4).eval()
    alone = second_stage(unet)
    steering = states(encoder=joint.net_prior, latents=joint.prior_upsampling)
    beside = replace(alone, networks={**alone.networks, **steering})
    packed = [pack([first_stage(joint), second], {}) for second in (alone, beside)]
    joint.generator = unet
    with torch.no_grad():
        wanted, _ = rounded(joint)(image, image)
        for each in packed:
            assert list(each.networks) == ["encoder", "latents", "reblur", "deblur"]
            assert torch.allclose(network_for("deblurring", each)(image), wanted, atol=1e-6)


def test_a_second_stage_without_latents() -> None:
    """Of any width; no degradations can be mixed in it."""
    joint, image = steered(), picture(3)
    torch.manual_seed(5)
    unet = JointGenerator(8, injection="none", unshuffle=2).eval()
    packed = pack([first_stage(joint), second_stage(unet)], {})
    with torch.no_grad():
        wanted = rounded(unet)(image)
        assert torch.allclose(network_for("deblurring", packed)(image), wanted, atol=1e-6)
    network_for("interpolation", packed, deblur=False)
    with pytest.raises(BlurkitError, match="and a generator that takes them"):
        network_for("interpolation", packed, deblur=True)


def test_vectors_and_counters_stay() -> None:
    batch_norm = {"running_var": torch.tensor([1e30, 1e-30]), "count": torch.tensor(2**40)}
    weight = torch.tensor([[1.0, 3.14159265]])
    state = halved({"weight": weight, **batch_norm})
    assert torch.equal(state["running_var"], batch_norm["running_var"])
    assert state["count"] == 2**40 and state["weight"].dtype == torch.float16


def test_stages_that_do_not_belong_together() -> None:
    joint, other = steered(), steered(seed=2)
    first, second = first_stage(joint), second_stage(whole(joint))
    beside = second_stage(joint.generator)
    beside.networks |= states(encoder=joint.net_prior, latents=other.prior_upsampling)
    lacking = Checkpoint(states(encoder=joint.net_prior), where="half.pt")
    for stages, words in (
        ([first, second_stage(whole(other))], r"^deblur\.pt and enc\.pt differ in their encoder"),
        ([first, beside], r"^deblur\.pt and enc\.pt differ in their latents"),
        ([second, first], r"^deblur\.pt: holds .*, but no encoder, latents, rebl"),
        ([first, lacking], r"^half\.pt: holds encoder .*, but no deblurring netw"),
    ):
        with pytest.raises(BlurkitError, match=words):
            pack(stages, {})


@pytest.mark.parametrize("scale", [1e-8, 1e6])
def test_weights_that_float16_cannot_hold(scale: float) -> None:
    """The same function with a filter too small or too large, and the next one that makes up."""
    joint = steered()
    network = whole(joint)
    with torch.no_grad():
        network.sam12.conv1.weight.mul_(scale)
        network.cat12.weight[:, 4:].div_(scale)
    with pytest.raises(BlurkitError, match=r"need more than half precision|not finite"):
        pack([first_stage(joint), second_stage(network)], {})


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joint = steered()
    first, second = first_stage(joint), second_stage(whole(joint))
    del second.provenance["date"]  # as in files of before it was kept
    save_checkpoint(first, tmp_path / "enc.pt")
    save_checkpoint(second, tmp_path / "deblur.pt")
    output = tmp_path / "small.pt"
    files = [*map(str, (tmp_path / "enc.pt", tmp_path / "deblur.pt", "-o", output))]
    assert main(files) == 0
    ran = capsys.readouterr()
    assert ran.out == "" and f"{output.stat().st_size:,} bytes" in ran.err
    told = invoke("info", output, "--json", "-q").json[0]
    about = told["provenance"]
    assert about["date"] == about["deblur"]["date"] and len(about["date"]) == len("2026-01-03")
    assert about["reblur"] == first.provenance
    assert list(told["networks"]) == ["encoder", "latents", "reblur", "deblur"]

    assert main(files) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "small.pt: exists already; give --force" in line
    assert main([*files, "--force"]) == 0
    capsys.readouterr()
    assert main([str(tmp_path / "no.pt"), *files[1:], "--force"]) == 1
    assert capsys.readouterr().err.endswith("no.pt: no such checkpoint\n")


def test_a_kernel_space_is_halved_and_its_codes_standardised(tmp_path: Path) -> None:
    """F(x, G(x, y)) stays; the codes of the pairs have mean 0 and deviation 1 then."""
    torch.manual_seed(6)
    network = LightKernelSpace(8, 6, 2, variational=True).eval()
    torch.nn.init.normal_(network.last.weight, std=0.05)
    trained, about = tmp_path / "kernel.pt", {"seed": 5, "date": "2026-01-04"}
    whole = Checkpoint(states(kernel_space=network), "kernel-space", {"crop": 256}, about)
    save_checkpoint(whole, trained)
    photos = [skimage.data.astronaut(), skimage.data.coffee()[:, :384], skimage.data.chelsea()]
    pairs = []
    for number, photo in enumerate(photos):
        images = {"sharp": photo, "blur": cv2.blur(photo, (3 + 4 * number, 3))}
        attrs = {"blur_extent": 3.0 + number} if number else {}
        pairs.append(Record(f"photo{number}", images, attrs))
    shard, output = write_shard(tmp_path / "pairs.h5", pairs), tmp_path / "small.pt"
    assert main([str(trained), "--codes", str(shard), "-o", str(output)]) == 0
    packed = load_checkpoint(output)
    assert packed.system == "kernel-space" and packed.provenance["kernel_space"] == about
    assert packed.provenance["agreement"]["kernel_space"] >= 60
    weights = packed.networks["kernel_space"].values()
    assert {weight.dtype for weight in weights if weight.ndim > 1} == {torch.float16}
    found = load_networks(packed)["kernel_space"]
    assert isinstance(found, LightKernelSpace)
    codes, differences = [], []
    for pair in pairs:
        both = np.stack([*pair.images.values()])
        top, left = ((side - 256) // 2 for side in both.shape[1:3])
        cut = both[:, top : top + 256, left : left + 256].astype(np.float32) / 255
        sharp, blur = torch.from_numpy(cut).permute(0, 3, 1, 2)[:, None]
        with torch.no_grad():
            own = found(sharp, blur)
            codes.append(own.code[0].flatten(1))
            differences.append((own.image - network(sharp, blur).image).abs().max())
    together = torch.cat(codes, 1)
    assert together.shape == (6, 12)
    assert together.mean(1).abs().max() < 0.02 and (together.std(1) - 1).abs().max() < 0.02
    assert max(differences) < 0.01
    kept: Any = load_networks(packed)["codes"]  # for --random, of those whose length is known
    assert kept.lengths.tolist() == [4, 5]
    for code, own in zip(kept.codes, codes[1:], strict=True):
        assert (code.flatten(1) - own).abs().max() < 0.02

    first = first_stage(steered())
    for system, words in (
        ("msdi", r"enc.pt: MSDI-Net ships with both stages"),
        ("kernel-space", r"holds encoder .*, but no kernel space"),
        ("", "networks of its system cannot be packed"),
    ):
        with pytest.raises(BlurkitError, match=words):
            pack([replace(first, system=system)], {})
