"""Every fixture of official outputs: the same weights and inputs give the same numbers here.

The weights are made from the keys, shapes and seed in the fixture's json (see its fill.py).
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from blurkit.engine import engine
from blurkit.engine.engine import SizeRequirement
from blurkit.engine.onnx_runner import Exported, open_session
from blurkit.engine.torch_runner import torch_engine, with_local_statistics
from blurkit.nn.blocks import mean_charbonnier, psnr_loss
from blurkit.nn.features import PRE_ACTIVATION, features_from_state_dict
from blurkit.options import Placement
from blurkit.systems import from_state_dict
from blurkit.systems.dbgan import recipe as dbgan_losses
from blurkit.systems.kernel_space.networks import CodeExtractor
from blurkit.systems.kernel_space.priors import ImagePrior
from blurkit.systems.kernel_space.recipe import kl_divergence
from blurkit.systems.kernel_space.stylegan import StyleGAN2
from blurkit.systems.msdi import losses as msdi_losses
from blurkit.systems.msdi.unet import SpatialParameters
from blurkit.systems.msfs import recipe as msfs_losses
from blurkit.systems.nafnet.networks import NAFBlock
from blurkit.tasks.export import write_onnx
from tests.shared import load_fill, shared_folder

FOLDER = shared_folder("parity", "BLURKIT_PARITY")
FILL = load_fill(FOLDER)

ELSEWHERE = {
    "metrics": "tests/metrics",
    "kernel_losses": "test_objective.py and test_stylegan.py of tests/systems/kernel_space",
}
"""Fixtures of functions, and the tests that compare them."""


class Fixture:
    """One json with its arrays: weights and inputs come from its recipes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.json = json.loads((FOLDER / f"{name}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        return dict(np.load(FOLDER / f"{self.name}.npz"))

    def given(self, *names: str) -> list[Tensor]:
        """The input arrays of these names."""
        return [torch.from_numpy(self.arrays[f"input_{name}"]) for name in names]

    @property
    def network_key(self) -> int:
        """Equal for fixtures that run the same network with the same weights."""
        recipe = [self.json.get("seed"), self.json.get("state_dict")]
        return zlib.crc32(json.dumps(recipe).encode())

    def weights(self, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
        state_dict = {key: torch.empty(shape) for key, shape in shapes.items()}
        FILL.fill(state_dict, self.json["seed"])
        for tensor in state_dict.values():
            if tensor.dim() > 1:
                tensor *= self.json.get("gain_2d", 1)
        return state_dict

    def inputs(self) -> dict[str, Tensor]:
        """The images of `NAME = image((N, C, H, W), seed[, low, high])` in the json's text."""
        made = {}
        recipe = r"(?:([\w ]+?)(?: \([^)]*\))? = )?image\(\(([\d, ]+)\), ([^)]*)\)"
        for name, shape, rest in re.findall(recipe, self.json["input"]):
            seed, *bounds = (float(value) for value in rest.split(","))
            image = FILL.image(tuple(int(n) for n in shape.split(",")), int(seed), *bounds)
            name = name.strip() or "input0"
            stored = self.arrays.get(name, self.arrays.get(f"input_{name}"))
            whole = stored is not None and stored.shape == tuple(image.shape)
            made[name] = torch.from_numpy(stored) if whole else image
        return made

    def outputs(self) -> dict[int, list[str]]:
        """Names of the output arrays in order, by the gain they were made with (1 for none)."""
        names: dict[int, list[str]] = {}
        outputs = [name for name in self.arrays if re.match(r"output_?\d", name)]
        for name in sorted(outputs, key=lambda name: [int(n) for n in re.findall(r"\d+", name)]):
            gain = re.search(r"_gain(\d+)$", name)
            names.setdefault(int(gain[1]) if gain else 1, []).append(name)
        return names

    def compare(self, name: str, value: Tensor) -> None:
        reference = self.arrays[name]
        difference = np.abs(strided(value, reference) - reference).max()
        relative = re.search(r"\+ ([\d.e-]+)\*absmax", self.json.get("tolerance", ""))
        bound = 1e-5 + (float(relative[1]) if relative else 1e-4) * np.abs(reference).max()
        assert difference <= bound, f"{name} is off by {difference:.2e}, allowed {bound:.2e}"

    def compare_all(self, values: dict[str, Tensor]) -> None:
        """Every output array, by its name after `output_`; `NAME_first16ch` is a part of NAME."""
        names = [name for name in self.arrays if name.startswith("output")]
        assert names
        for name in names:
            whole, channels = re.fullmatch(r"output_?(.*?)(?:_first(\d+)ch)?", name).groups()
            value = values[whole]
            self.compare(name, value[:, : int(channels)] if channels else value)


def strided(value: Tensor, reference: np.ndarray) -> np.ndarray:
    """The subset of `value` that is stored: every 1st, 2nd, 4th, ... value along each axis."""
    array = value.detach().numpy().reshape(value.shape or (1,))
    steps = []
    for full, stored in zip(array.shape, reference.shape, strict=True):
        step = 1
        while -(-full // step) > stored:
            step *= 2
        steps.append(slice(None, None, step))
    subset = array[tuple(steps)]
    assert subset.shape == reference.shape
    return subset


@contextmanager
def latent_gain(network: nn.Module, gain: int) -> Iterator[None]:
    """Scales the weights by which latents enter, as the fixtures' notes say, then undoes it."""
    changed = []
    for module in network.modules():
        if isinstance(module, SpatialParameters) and gain != 1:
            weight = module.mlp_shared.get_parameter("0.weight").data
            # The latent's channels come second where the features are seen too.
            changed.append(weight[:, weight.shape[1] // 2 :] if module.see_features else weight)
    originals = [weight.clone() for weight in changed]
    for weight in changed:
        weight *= gain
    try:
        yield
    finally:
        for weight, original in zip(changed, originals, strict=True):
            weight.copy_(original)


def built(fixture: Fixture) -> nn.Module:
    """The network of the fixture's state dict, whose keys come back in the same order."""
    shapes = fixture.json["state_dict"]
    spectral = any(key.removesuffix("_u") in shapes for key in shapes if key[-2:] == "_u")
    weights = spectral_weights(fixture) if spectral else fixture.weights(shapes)
    if all(key.startswith("net_prior.") for key in weights):
        # Part of a joint model: filled under its whole keys, then a network of its own.
        weights = {key.removeprefix("net_prior."): value for key, value in weights.items()}
    network = from_state_dict(weights)
    assert list(network.state_dict()) == list(weights)
    return network


def spectral_weights(fixture: Fixture) -> dict[str, Tensor]:
    """The official spectral norm begins with `weight` and `weight_orig` in one tensor.

    So what is filled in last, as `weight`, is both, and the gain reaches it twice.
    """
    shapes = fixture.json["state_dict"]
    weights = fixture.weights({k: shape for k, shape in shapes.items() if k[-2:] != "_u"})
    for key in shapes:
        if key.endswith("weight_u"):
            weight = weights[key.removesuffix("_u")].mul_(fixture.json["gain_2d"])
            weights[key.removesuffix("u") + "orig"] = weight
            weights[key] = torch.full((len(weight),), len(weight) ** -0.5)
    return {key: weights[key] for key in shapes}


# -- how each fixture's network is run -------------------------------------------------------------


def each_input(network: nn.Module, fixture: Fixture) -> list[Tensor]:
    return [network(x) for x in fixture.inputs().values()]


def lists(network: nn.Module, fixture: Fixture) -> list[Tensor]:
    """For networks that return a list, or a list of lists."""
    (x,) = fixture.inputs().values()
    outputs = network(x)
    return [t for part in outputs for t in part] if isinstance(outputs[0], list) else outputs


def reblurred(network: nn.Module, fixture: Fixture) -> list[Tensor]:
    """By the generator that blurs alone: `msdi_deblur_joint` has the other one."""
    inputs = fixture.inputs()
    return [network.reblur(inputs["sharp"], network.latents_of(network.net_prior(inputs["blur"])))]


def deblurred(network: nn.Module, fixture: Fixture) -> list[Tensor]:
    blur = fixture.inputs()["blur"]
    return [network(blur, blur)[0]]


def tiled(network: nn.Module, fixture: Fixture) -> list[Tensor]:
    (image,) = fixture.inputs().values()
    placement = Placement("cpu", tile=fixture.json["crop_size"], protocol="slices")
    restored = torch_engine(network, placement)(image[0].permute(1, 2, 0).numpy())
    return [torch.from_numpy(restored).permute(2, 0, 1)[None]]


RUN: dict[str, Callable[[nn.Module, Fixture], list[Tensor]]] = {
    **dict.fromkeys(("msdi_encoder", "msdi_encoder_v2", "msdi_encoder_joint"), each_input),
    **dict.fromkeys(("msdi_prior_upsampling", "msdi_prior_upsampling_v2"), lists),
    **dict.fromkeys(("msdi_net_v1", "msdi_net_v2", "msdi_discriminator"), lists),
    **{"msdi_reblur": reblurred, "msdi_deblur_joint": deblurred},
    **dict.fromkeys(("msdi_tiling", "msdi_tiling_small"), tiled),
}


SLOW = {
    **dict.fromkeys(("msdi_tiling", "msdi_tiling_small"), "msdi_net_v1"),
    **dict.fromkeys(("msdi_encoder", "msdi_prior_upsampling"), "msdi_net_v1"),
    **dict.fromkeys(("msdi_encoder_v2", "msdi_prior_upsampling_v2"), "msdi_reblur"),
    **dict.fromkeys(("msdi_encoder_joint", "msdi_deblur_joint", "msdi_net_v2"), "msdi_reblur"),
}
"""Large fixtures, each with a faster one that runs its network's code.

What the tiling adds is tested in tests/engine/test_engine.py.
"""


# -- tests -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks() -> dict[int, nn.Module]:
    """The network built last, so that neighbours which share it fill it once."""
    return {}


def names() -> list[str]:
    """All fixtures, those with the same network side by side."""
    paths = [path for path in FOLDER.rglob("*.json") if path.with_suffix(".npz").is_file()]
    found = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in paths]
    return sorted(found, key=lambda name: (Fixture(name).network_key, name))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in names()]
)
@torch.no_grad()
def test_official_outputs(name: str, networks: dict[int, nn.Module]) -> None:
    if name in ELSEWHERE:
        pytest.skip(f"{name}: see {ELSEWHERE[name]}")
    fixture = Fixture(name)
    if name in CHECKS:
        CHECKS[name](fixture)
        return
    key = fixture.network_key
    if key not in networks:
        networks.clear()  # frees the last one before the next is made
        networks[key] = built(fixture)
    network = networks[key]
    assert fixture.outputs()
    for gain, outputs in fixture.outputs().items():
        with latent_gain(network, gain):
            values = RUN[name](network, fixture)
        for output, value in zip(outputs, values, strict=True):
            fixture.compare(output, value)


@pytest.mark.parametrize("name", ["msdi_tiling", "msdi_tiling_small"])
def test_official_positions_of_tiles(name: str) -> None:
    fixture = Fixture(name)
    positions = engine.slices(*fixture.json["full_shape"][2:], fixture.json["crop_size"])
    assert [list(position) for position in positions] == fixture.json["tile_positions_top_left"]


def check_kernel_space(fixture: Fixture) -> None:
    network = built(fixture)
    x, y, other = fixture.given("x", "y", "k2")
    code, deviation = network.encode(x, y)
    blurred = network.blur(x, code)
    features = network.feature_extractor(x)
    values = {
        "k": code,
        "sigma": deviation,
        "y": blurred,
        "y_mean": blurred,
        "y_k2": network.blur(x, other),
        "feat_x": features,
        "adapter": network.adapter(features, code),
        "adapter_k2": network.adapter(features, other),
    }
    if network.options["variational"]:
        (eps,) = fixture.given("eps")
        values["y_sample"] = network.blur(x, code + deviation * eps)
        values["kl_unweighted"] = kl_divergence(code, deviation)
    else:
        assert not deviation.any()
    fixture.compare_all(values)


def check_code_prior(fixture: Fixture) -> None:
    (noise,) = fixture.given("z")
    o = fixture.json["constructor_kwargs"]["opt"]
    network = CodeExtractor(o["nf"], o["nf"], o["kernel_dim"], o["n_blocks"], bias=True)
    fill(network, fixture)
    fixture.compare("output_k", network(noise))


def check_image_prior(fixture: Fixture) -> None:
    noise, other = fixture.given("z", "z2")
    network = ImagePrior(fixture.json["constructor_kwargs"]["opt"]["input_nc"])
    fill(network, fixture)
    network.eval()
    fixture.compare("output_eval", network(noise))
    fixture.compare("output_eval_z2", network(other))
    network.train()
    fixture.compare("output_train", network(noise))
    after = network.state_dict()["model.4.running_mean"]
    fixture.compare("output_running_mean_model4_after", after)


def fill(network: nn.Module, fixture: Fixture) -> None:
    """The fixture's weights in a network of the same keys and shapes in the same order."""
    assert_as_stored(network, fixture)
    network.load_state_dict(fixture.weights(fixture.json["state_dict"]))


def assert_as_stored(network: nn.Module, fixture: Fixture) -> None:
    own = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert [*own.items()] == [*fixture.json["state_dict"].items()]


def style_weights(fixture: Fixture, shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights with the gains of the StyleGAN fixtures' fill rules, and the fixed filters."""
    filled = {key: shape for key, shape in shapes.items() if not key.endswith(".kernel")}
    weights = fixture.weights(filled)
    for key, tensor in weights.items():
        matrix = tensor.dim() > 1 and key.endswith((".weight", ".const"))
        if matrix or key.startswith(("input.input", "noises.")):
            tensor *= tensor[0].numel() ** 0.5
        if re.fullmatch(r"(style\.|dense)\d+\.weight", key):
            tensor /= 0.01
        if key.endswith(".modulation.bias"):
            tensor += 1
    for key in shapes.keys() - filled.keys():
        taps = np.float32([1, 2, 1] if shapes[key][-1] == 3 else [1, 3, 3, 1])
        # What enlarges by zeros between pixels makes up for them.
        gain = 1 if len(taps) == 3 else 4
        kernel = gain * np.outer(taps, taps) / taps.sum() ** 2
        weights[key] = torch.from_numpy(kernel.reshape(shapes[key]))
    return {key: weights[key] for key in shapes}


def input_noises(fixture: Fixture) -> list[Tensor]:
    count = sum(name.startswith("input_noise_") for name in fixture.arrays)
    return fixture.given(*(f"noise_{number}" for number in range(count)))


def check_stylegan(fixture: Fixture) -> None:
    shapes = fixture.json["state_dict"]
    mapping = from_state_dict(style_weights(fixture, shapes["G_mapping"]))
    synthesis = from_state_dict(style_weights(fixture, shapes["G_synthesis"]))
    assert list(synthesis.state_dict()) == list(shapes["G_synthesis"])
    z, latents = fixture.given("z", "wplus")
    fixture.compare("output_w", mapping(z))
    fixture.compare("output_img", synthesis(latents, input_noises(fixture)))


def check_stylegan2(fixture: Fixture) -> None:
    shapes = fixture.json["state_dict"]
    network = from_state_dict(style_weights(fixture, shapes))
    assert isinstance(network, StyleGAN2) and list(network.state_dict()) == list(shapes)
    z, latents = fixture.given("z", "wplus")
    style = network.style(z)
    fixture.compare("output_w", style)
    fixture.compare("output_img_z", network(style[:, None].expand(-1, network.layers, -1)))
    fixture.compare("output_img_wplus", network(latents, input_noises(fixture)))


def check_msfs_net(fixture: Fixture) -> None:
    # As the released file has it: the state dict under `model`.
    network = from_state_dict({"model": fixture.weights(fixture.json["state_dict"])})
    blur, sharp, wide = fixture.given("blur", "sharp", "oddwidth")
    made, odd = network.restore(blur), network.restore(wide)
    values = dict(zip(MSFS_IMAGES, made.images, strict=True))
    values |= zip((f"oddwidth_{name}" for name in MSFS_IMAGES), odd.images, strict=True)
    found = {"x": made.encoder, "y": made.decoder, "gt": network.separate(sharp)}
    for letter, features in found.items():
        for scale, separated in zip((1, 2, 4), features, strict=True):
            names = f"{letter}h_{scale}", f"{letter}l_{scale}", f"{letter}_{scale}"
            values |= zip(names, separated, strict=True)
    assert torch.equal(network(blur), values["predict"])
    fixture.compare_all(values)


def check_msfs_local(fixture: Fixture) -> None:
    network = built(fixture)
    with_local_statistics(network, 256)
    made = network.restore(torch.from_numpy(fixture.arrays["input"]))
    values = dict(zip(MSFS_IMAGES, made.images, strict=True))
    fixture.compare_all(values | {"y_4": made.decoder[2].fused})


def check_msfs_losses(fixture: Fixture) -> None:
    x, y = fixture.given("x", "y")
    values = {
        "charbonnier": mean_charbonnier(x, y),
        "two_norm": (x - y).abs().mean(),
        "edge": msfs_losses.edge_loss(x, y),
        "laplacian_x": msfs_losses.laplacian(x),
    }
    # Eq. 5-7 on the official features, of which the fixture of the network keeps a part.
    network = Fixture("msfs_net")
    assert network.json["seed"] == fixture.json["seed"]
    kept = {name: torch.from_numpy(array) for name, array in network.arrays.items()}

    def scales(name: str) -> list[Tensor]:
        return [kept[f"output_{name}_{scale}"] for scale in (1, 2, 4)]

    high = msfs_losses.contrastive_loss(scales("yh"), scales("gth"), scales("xh"))
    low = msfs_losses.consistency_loss(scales("xl"), scales("gtl"))
    distance = (kept["output_predict"] - kept["input_sharp"]).abs().mean()
    values |= {"paper_L_high": high, "paper_L_low": low, "paper_L1": distance}
    fixture.compare_all(values | {"paper_total": 0.005 * high + 0.005 * low + distance})


MSFS_IMAGES = ("predict", "pred_2", "pred_4")


def check_msdi_losses(fixture: Fixture) -> None:
    shapes = fixture.json["state_dict"]
    discriminator = from_state_dict(fixture.weights(shapes["MultiscaleDiscriminator"]))
    encoder = from_state_dict(fixture.weights(shapes["ConvEncoderLoss"]))
    network = features_from_state_dict(fixture.weights(shapes["VGG19"]))
    x = fixture.inputs()
    sharp, blur, reblurred = x["sharp"], x["blur"], x["reblurred"]
    first, second = x["deblurred stage 1"], x["deblurred"]

    fake = discriminator(torch.cat([sharp, reblurred], 1))
    real = discriminator(torch.cat([sharp, blur], 1))
    on_fake, on_real = msdi_losses.hinge_discriminator_loss(fake, real)
    vgg = network.distance(reblurred, network(blur)).mean()
    generator = {
        "gan_generator": msdi_losses.hinge_generator_loss(fake),
        "gan_feature_matching_x10": 10 * msdi_losses.feature_matching_loss(fake, real),
        "vgg_x30": 30 * vgg,
        "l1_deblur_x10": 10 * (second - sharp).abs().mean(),
    }
    deblur = {
        "psnr_stage1": 0.5 * psnr_loss(first, sharp),
        "psnr_stage2": 0.5 * psnr_loss(second, sharp),
        "blur_total": msdi_losses.blur_aware_loss(encoder, second, sharp),
    }
    pairs = zip(encoder.features(second), encoder.features(sharp), strict=True)
    terms = {f"blur_term_{i}": (a - b).abs().mean() for i, (a, b) in enumerate(pairs)}
    features = {f"vggfeat_{i}": f for i, f in enumerate(network(reblurred[:1]))}
    values = {
        **generator,
        "generator_total": sum(generator.values()),
        "vgg_unweighted": vgg,
        "disc_fake": on_fake,
        "disc_real": on_real,
        "disc_total": on_fake + on_real,
        **deblur,
        "deblur_total": sum(deblur.values()),
        **terms,
        **features,
    }
    for name, value in values.items():
        fixture.compare(f"output_{name}", value)


def check_dbgan(fixture: Fixture) -> None:
    network, image = built(fixture), fixture.inputs()["input"]
    features, trunk = network.model[0](image), network.model[1]
    values = {"": network(image), "residual": network.model(image), "fea": features}
    fixture.compare_all(values | {"block0": trunk.sub1[0](features), "trunk": trunk(features)})
    assert torch.equal(network.train()(image), network.eval()(image))


def check_dbgan_discriminator(fixture: Fixture) -> None:
    network, image = built(fixture), fixture.inputs()["input"]
    assert image.shape[-1] == network.options["crop"]
    fixture.compare_all({"": network(image), "features": network.features(image)})


def check_dbgan_spectral(fixture: Fixture) -> None:
    network, image = built(fixture), fixture.inputs()["input"]
    values: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, given: object, made: Tensor) -> None:
        values[f"train_{name}" if layer.training else f"eval_{name}"] = made

    for name, layer in network.named_children():
        layer.register_forward_hook(partial(keep, name))
    values["eval"] = network(image)
    values["train"] = network.train()(image)
    for name, layer in network.named_children():
        values[f"train_{name}_u"] = layer.weight_u.clone()
    fixture.compare_all(values)
    assert torch.equal(network.eval()(image), values["train"]), "eval keeps what training used"


def check_dbgan_perceptual(fixture: Fixture) -> None:
    weights = fixture.weights(fixture.json["state_dict"])
    network = features_from_state_dict(weights, (PRE_ACTIVATION,), "the fixture")
    network.normalise = True  # as DBGAN's code does, and MSDI-Net's does not
    images = fixture.given("x", "y")
    (x,), (y,) = (network(image) for image in images)
    values = {"features_x": x, "features_y": y, "mse": (x - y).square().mean()}
    fixture.compare_all(values | {"l1": network.distance(images[0], [y]).mean()})


def check_dbgan_losses(fixture: Fixture) -> None:
    real, fake, between = fixture.given("logit_real", "logit_fake", "gp_interp")
    values = {
        f"{name.replace('-', '_')}_on_{kind}_target_{target}": criterion(logits, target)
        for name, criterion in dbgan_losses.CRITERIA.items()
        for kind, logits in (("real", real), ("fake", fake))
        for target in (True, False)
    }
    relativistic = dbgan_losses.ADVERSARIAL["relativistic"]
    values["ra_D_sum"] = values["paper_eq7_sum"] = relativistic.discriminator(real, fake)
    values["ra_G_sum"] = relativistic.generator(real, fake)
    with torch.enable_grad():
        # All the share is the first image's, so the penalty is taken at it.
        images = between, torch.zeros_like(between), torch.ones(len(between), 1, 1, 1)
        values["gp"] = dbgan_losses.gradient_penalty(
            lambda image: image.pow(3).flatten(1).sum(1), *images
        )
    fixture.compare_all(values)


def nafnet(fixture: Fixture) -> nn.Module:
    network = from_state_dict({"params": fixture.weights(fixture.json["state_dict"])})
    assert_as_stored(network, fixture)
    return network.eval()


def check_nafnet(fixture: Fixture) -> None:
    network = nafnet(fixture)
    image, odd = (torch.from_numpy(fixture.arrays[name]) for name in ("input", "input_odd"))
    fixture.compare("output", network(image))
    middle: list[Tensor] = []
    network.middle_blks.register_forward_hook(lambda module, given, output: middle.append(output))
    fixture.compare("output_odd", network(odd))
    fixture.compare("output_odd_middle", middle[0])


def check_nafnet_local(fixture: Fixture) -> None:
    network, image = nafnet(fixture), torch.from_numpy(fixture.arrays["input"])
    fixture.compare("output_global", network(image))
    options = fixture.json["kwargs"]
    crop = tuple(options["train_size"][2:])
    fixture.compare("output", with_local_statistics(network, crop, options["fast_imp"])(image))


@torch.enable_grad()
def check_nafnet_block(fixture: Fixture) -> None:
    """A block and its gradients."""
    block = NAFBlock(fixture.json["kwargs"]["c"])
    block.load_state_dict(fixture.weights(fixture.json["state_dict"]))
    x = torch.from_numpy(fixture.arrays["input"]).requires_grad_()
    fixture.compare("output_norm1", block.norm1(x))
    output = block(x)
    fixture.compare("output", output)
    (output * torch.from_numpy(fixture.arrays["input_direction"])).sum().backward()
    gradients = {name.replace(".", "_"): p.grad for name, p in block.named_parameters()}
    gradients["input"] = x.grad
    wanted = [name for name in fixture.arrays if name.startswith("output_grad_")]
    assert len(wanted) == 7
    for name in wanted:
        fixture.compare(name, gradients[name.removeprefix("output_grad_")])


@torch.enable_grad()
def check_nafnet_losses(fixture: Fixture) -> None:
    """The loss of images, and of their luma, to which the official code converts some."""
    sharp = torch.from_numpy(fixture.arrays["input_target"])
    for name, seen in (("rgb", lambda x: x), ("toY", luma)):
        restored = torch.from_numpy(fixture.arrays["input_pred"]).requires_grad_()
        loss = psnr_loss(seen(restored), seen(sharp))
        loss.backward()
        fixture.compare(f"output_psnr_{name}", loss)
        fixture.compare(f"output_grad_{name}", restored.grad)
        equal = psnr_loss(seen(sharp), seen(sharp)).item()
        wanted = fixture.arrays[f"output_psnr_{name}_equal"][0]
        assert equal == pytest.approx(wanted, abs=1e-3)


def luma(image: Tensor) -> Tensor:
    """BT.601's luma of images (N, 3, H, W), (N, 1, H, W)."""
    weights = image.new_tensor([65.481, 128.553, 24.966])[:, None, None]
    return ((image * weights).sum(1, keepdim=True) + 16) / 255


CHECKS: dict[str, Callable[[Fixture], None]] = {
    "dbgan_G": check_dbgan,
    **dict.fromkeys(("dbgan_D", "dbgan_D_96", "dbgan_D_192"), check_dbgan_discriminator),
    "dbgan_D_128SN": check_dbgan_spectral,
    "dbgan_perceptual": check_dbgan_perceptual,
    "dbgan_losses": check_dbgan_losses,
    "nafnet/nafnet_block": check_nafnet_block,
    "nafnet/nafnet_losses": check_nafnet_losses,
    **{f"nafnet/nafnet_{name}": check_nafnet for name in ("32", "32_sidd", "64_small")},
    **{f"nafnet/nafnet_local{kind}": check_nafnet_local for kind in ("", "_small", "_fast")},
    "msdi_losses": check_msdi_losses,
    "msfs_net": check_msfs_net,
    "msfs_local": check_msfs_local,
    "msfs_losses": check_msfs_losses,
    "kernel_wizard": check_kernel_space,
    "kernel_wizard_vae": check_kernel_space,
    "kernel_dip_k": check_code_prior,
    "kernel_dip_x": check_image_prior,
    "kernel_stylegan_generator": check_stylegan,
    "kernel_stylegan2_generator": check_stylegan2,
}
"""Fixtures that are not one network called once."""


# -- exported to ONNX, they give the same ----------------------------------------------------------

EXPORTED = {
    **dict.fromkeys(("msdi_encoder", "msdi_encoder_v2", "msdi_discriminator"), ()),
    **dict.fromkeys(("msdi_prior_upsampling", "msdi_prior_upsampling_v2"), ()),
    **dict.fromkeys(("msdi_net_v1", "msdi_net_v2"), ()),
    **dict.fromkeys(("dbgan_G", "dbgan_D", "dbgan_D_96", "dbgan_D_192"), (["input"], ["output"])),
    "dbgan_D_128SN": (["input"], ["output_eval"]),
    "kernel_wizard": (["input_x", "input_y"], ["output_y", "output_k"]),
    "kernel_wizard_vae": (["input_x", "input_y"], ["output_y_mean", "output_k", "output_sigma"]),
    "msfs_net": (["input_blur"], ["output_predict"]),
}
"""Fixtures of networks, with the names of inputs and outputs if `RUN` does not know them."""

FIXED = {"msfs_net": 32, "dbgan_D": 128, "dbgan_D_96": 96, "dbgan_D_192": 192, "dbgan_D_128SN": 128}
"""Sides of the images of networks that are exported for one size."""

SMALL = 32
"""Tiles have so many pixels, so that comparing takes little time; MSFS-Net knows no other size."""


class InSession(nn.Module):
    """A network run by ONNX Runtime: its outputs as `network` groups them."""

    def __init__(self, session: Any, network: nn.Module) -> None:
        super().__init__()
        self.session, self.network = session, network

    def forward(self, *inputs: Tensor) -> Any:
        names = [node.name for node in self.session.get_inputs()]
        given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        found = map(torch.from_numpy, self.session.run(None, given))
        return tree_map(lambda like: next(found), self.network(*inputs))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "msfs_net")) for n in EXPORTED]
)
@torch.no_grad()
def test_an_exported_network_gives_the_official_outputs(name: str, tmp_path: Path) -> None:
    fixture = Fixture(name)
    network = built(fixture).eval()
    size = getattr(network, "size", SizeRequirement())
    tile = FIXED.get(name) or size.padded(SMALL, SMALL)[0]
    least = (tile, tile) if name in FIXED else (size.minimum, size.multiple)
    write_onnx(network, Exported("network", "", "", tile, *least), False, tmp_path / "net.onnx")
    exported = InSession(open_session(tmp_path / "net.onnx"), network)
    if EXPORTED[name]:
        given, outputs = EXPORTED[name]
        arrays = {key: torch.from_numpy(array) for key, array in fixture.arrays.items()}
        images = fixture.inputs() | arrays if "input" in fixture.json else arrays
        each = zip(*(images[entry].split(1) for entry in given), strict=True)
        parts = [tree_leaves(exported(*inputs)) for inputs in each]
        values = [torch.cat(part) for part in zip(*parts, strict=True)][: len(outputs)]
    else:
        outputs, values = fixture.outputs()[1], RUN[name](exported, fixture)
    for output, value in zip(outputs, values, strict=True):
        fixture.compare(output, value)
