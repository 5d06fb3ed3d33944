"""The networks of MSDI-Net: which latents reach what, codes of one dimension, released sizes."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import UsageError
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    JointGenerator,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.tasks.inspect import macs
from tests.shared import shared_folder


def drawn(count: int) -> tuple[Tensor, list[Tensor]]:
    """An image and its latents."""
    sizes = [(4 * 2**i, 64 // 2**i, 64 // 2**i) for i in range(count)]
    return torch.rand(1, 3, 64, 64), [torch.rand(1, *size) for size in sizes]


@torch.no_grad()
def depends_on(network: nn.Module) -> list[int]:
    """Which of the latents change what a generator gives when they are set to zero."""
    torch.manual_seed(1)
    image, latents = drawn(5)
    expected, changed = network(image, latents)[-1], []
    for level, latent in enumerate(latents):
        some = [*latents[:level], latent * 0, *latents[level + 1 :]]
        if not torch.equal(network(image, some)[-1], expected):
            changed.append(level)
    return changed


DEPENDS = [
    *(("multi-scale", True, [0, 1, 2, 3, 4]), ("multi-scale", False, [0, 1, 2, 3])),
    *(("lowest", True, [4]), ("lowest", False, [3]), ("input", True, [0]), ("none", True, [])),
    *(("concat", True, [0, 1, 2, 3, 4]), ("concat", False, [0, 1, 2, 3])),
]


@pytest.mark.parametrize("generator", [JointGenerator, StackedGenerator])
@pytest.mark.parametrize(("kind", "bottleneck", "expected"), DEPENDS)
def test_an_injection_uses_its_latents_alone(
    generator: Callable, kind: str, bottleneck: bool, expected: list[int]
) -> None:
    torch.manual_seed(0)
    network = generator(4, 6, injection=kind, inject_bottleneck=bottleneck).eval()
    assert depends_on(network) == expected


def test_what_an_injection_adds() -> None:
    sizes = {
        kind: sum(p.numel() for p in StackedGenerator(8, 8, injection=kind).parameters())
        for kind in ("multi-scale", "lowest", "input", "none")
    }
    # The latent's 8 channels at the 3x3 convolution of the entrance; nothing else is added.
    assert sizes["input"] - sizes["none"] == 8 * 8 * 9
    assert sizes["none"] < sizes["lowest"] < sizes["multi-scale"]


@pytest.mark.parametrize("kind", ["input", "concat", "lowest"])
@torch.no_grad()
def test_both_stages_take_latents_in(kind: str) -> None:
    """Seen by the second U-Net's own part: the first one's image does not change by it."""
    torch.manual_seed(0)
    network = StackedGenerator(4, 6, injection=kind, inject_stages="both").eval()
    second = network.conv_02.weight[:, 3:] if kind == "input" else network.ad2_list[3]
    given = drawn(4)
    before = network(*given)
    for values in [second] if kind == "input" else second.parameters():
        values.zero_()
    after = network(*given)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


@torch.no_grad()
def test_concatenation_at_the_input_is_a_convolution_of_both() -> None:
    """The latent at the image's size behind its channels; half of the weights sees each."""
    torch.manual_seed(0)
    network = JointGenerator(4, 6, injection="input").eval()
    image, small = torch.rand(1, 3, 32, 32), torch.rand(1, 4, 16, 16)
    seen: list[Tensor] = []
    network.conv_01.register_forward_hook(lambda module, given, out: seen.append(out))
    network(image, [small])
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    weight, bias = network.conv_01.weight, network.conv_01.bias
    wanted = nn.functional.conv2d(image, weight[:, :3], bias, padding=1)
    wanted += nn.functional.conv2d(large, weight[:, 3:], padding=1)
    torch.testing.assert_close(seen[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("version", "layers"), [(1, "official"), (1, "paper"), (2, "official")])
@torch.no_grad()
def test_a_one_dimensional_code_is_the_mean_of_its_map(version: int, layers: str) -> None:
    torch.manual_seed(0)
    encoder = DegradationEncoder(version, 4, layers, code="1d")
    images = torch.rand(2, 3, 256, 256)
    for _ in range(5):
        encoder(images)  # in train mode, so that the spectral norms settle
    encoder.eval()
    code = encoder(images)
    assert code.shape == ((2, 16, 4, 4) if version == 1 else (2, 128, 8, 8))
    assert torch.equal(code, code[:, :, :1, :1].expand_as(code))
    assert code.abs().mean() > 1e-3
    # Not the same for any image, as the mean behind an instance norm would be.
    assert (code[0] - code[1]).abs().max() > 1e-4
    maps: list[Tensor] = []
    encoder.out_1d.register_forward_hook(lambda module, given, out: maps.append(out))
    features = encoder.features(images, layers="all")
    assert torch.equal(features[-1], code)
    torch.testing.assert_close(code[:, :, 0, 0], maps[0].mean((2, 3)))
    assert maps[0].std((2, 3)).max() > 1e-4
    usual = DegradationEncoder(version, 4, layers).features(images, layers="all")
    assert [f.shape for f in features] == [f.shape for f in usual]


@pytest.mark.parametrize("generator", [JointGenerator, StackedGenerator])
@torch.no_grad()
def test_latents_of_another_width(generator: Callable) -> None:
    torch.manual_seed(0)
    network = generator(6, 4, "paper", inject_bottleneck=True, latent_width=4).eval()
    assert depends_on(network) == [0, 1, 2, 3, 4]
    for modulation, injection in (("official", "multi-scale"), ("paper", "concat")):
        with pytest.raises(UsageError, match="latents have width 4, the network 6"):
            generator(6, 4, modulation, injection=injection, latent_width=4)


@pytest.mark.parametrize("generator", [JointGenerator, StackedGenerator])
@torch.no_grad()
def test_an_unshuffled_network_is_a_plain_one_on_blocks_of_pixels(generator: Callable) -> None:
    """With weights that act on one pixel of each block alone it sees every second pixel."""
    torch.manual_seed(0)
    plain, unshuffled = (generator(4, injection="none", unshuffle=k).eval() for k in (1, 2))
    weights = plain.state_dict()
    for key, value in unshuffled.state_dict().items():
        given = weights[key]
        # Channels of a block of pixels stand together: red's four first, then green's, then blue's.
        part = value
        if value.shape != given.shape:
            value.zero_()
            part = value[:, ::4] if key.startswith(("conv_0", "sam12.conv3")) else value[::4]
        part.copy_(given)
    image = torch.rand(1, 3, 64, 64)
    whole, quarter = unshuffled(image, []), plain(image[:, :, ::2, ::2].contiguous(), [])
    for a, b in zip(*([x] if torch.is_tensor(x) else x for x in (whole, quarter)), strict=True):
        torch.testing.assert_close(a[:, :, ::2, ::2], b, atol=1e-5, rtol=0)
        assert torch.equal(a[:, :, 1::2], image[:, :, 1::2])


def stage_2(preset: str) -> DeblurRecipe:
    """A preset's network at its full width, without memory."""
    stage_1 = ReblurConfiguration.resolve(preset)
    version = 1 if stage_1.encoder_version == "1" else 2
    with torch.device("meta"):
        encoder = DegradationEncoder(version, layers=stage_1.encoder_layers)
        networks = {"encoder": encoder, "latents": PriorUpsampling(version)}
        return DeblurRecipe(DeblurConfiguration.resolve(preset), networks)


def test_paper_is_the_released_network() -> None:
    """Its tensors by name and shape; tests/tasks/test_inspect.py has its cost."""
    network = stage_2("paper").network
    shapes = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    released = shared_folder("parity", "BLURKIT_PARITY") / "msdi_net_v1.json"
    assert shapes == json.loads(released.read_text())["state_dict"]
    assert macs(stage_2("text").network, (1, 3, 256, 256)) / 1e9 == pytest.approx(362.9, abs=0.1)


def test_stage_1_of_paper_trains_the_parts_of_stage_2() -> None:
    """Its E and latents are those of the released network, its generators the same U-Nets."""
    with torch.device("meta"):
        networks = ReblurRecipe(ReblurConfiguration.resolve()).networks
    own = {key: tuple(t.shape) for key, t in stage_2("paper").network.state_dict().items()}
    places = {"encoder": "net_prior.", "latents": "prior_upsampling.", "reblur": "", "deblur": ""}
    for role, place in places.items():
        for key, tensor in networks[role].state_dict().items():
            assert own[place + key] == tuple(tensor.shape)
