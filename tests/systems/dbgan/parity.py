"""How the official outputs of DBGAN, its discriminators, features and losses are compared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blurkit.nn.features import PRE_ACTIVATION, features_from_state_dict
from blurkit.systems import from_state_dict
from blurkit.systems.dbgan import recipe as adversarial_losses
from blurkit.systems.dbgan.networks import DBGAN, SpectralVGGDiscriminator, VGGDiscriminator

if TYPE_CHECKING:
    from tests.systems.test_parity import Fixture


def built(fixture: Fixture) -> nn.Module:
    """The network of the fixture's state dict, whose keys come back in the same order."""
    shapes = fixture.json["state_dict"]
    spectral = any(key.removesuffix("_u") in shapes for key in shapes if key[-2:] == "_u")
    network = from_state_dict(spectral_weights(fixture) if spectral else fixture.weights(shapes))
    assert list(network.state_dict()) == list(shapes)
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


def check_generator(fixture: Fixture) -> None:
    network = built(fixture)
    assert isinstance(network, DBGAN)
    image = fixture.inputs()["input"]
    features = network.model[0](image)
    fixture.compare_all(
        {
            "": network(image),
            "residual": network.model(image),
            "fea": features,
            "block0": network.model[1].sub1[0](features),
            "trunk": network.model[1](features),
        }
    )
    assert torch.equal(network.train()(image), network.eval()(image))


def check_discriminator(fixture: Fixture) -> None:
    network = built(fixture)
    assert isinstance(network, VGGDiscriminator)
    image = fixture.inputs()["input"]
    assert image.shape[-1] == network.options["crop"]
    fixture.compare_all({"": network(image), "features": network.features(image)})


def check_spectral_discriminator(fixture: Fixture) -> None:
    network = built(fixture)
    assert isinstance(network, SpectralVGGDiscriminator)
    image = fixture.inputs()["input"]
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


def check_perceptual(fixture: Fixture) -> None:
    network = features_from_state_dict(
        fixture.weights(fixture.json["state_dict"]), (PRE_ACTIVATION,), "the fixture"
    )
    network.normalise = True  # as DBGAN's code does, and MSDI-Net's does not
    images = [torch.from_numpy(fixture.arrays[f"input_{name}"]) for name in "xy"]
    (x,), (y,) = (network(image) for image in images)
    fixture.compare_all(
        {
            "features_x": x,
            "features_y": y,
            "l1": network.distance(images[0], [y]).mean(),
            "mse": (x - y).square().mean(),
        }
    )


def check_losses(fixture: Fixture) -> None:
    given = {name: torch.from_numpy(array) for name, array in fixture.arrays.items()}
    real, fake = given["input_logit_real"], given["input_logit_fake"]
    values = {
        f"{name.replace('-', '_')}_on_{kind}_target_{target}": criterion(logits, target)
        for name, criterion in adversarial_losses.CRITERIA.items()
        for kind, logits in (("real", real), ("fake", fake))
        for target in (True, False)
    }
    relativistic = adversarial_losses.ADVERSARIAL["relativistic"]
    values["ra_D_sum"] = values["paper_eq7_sum"] = relativistic.discriminator(real, fake)
    values["ra_G_sum"] = relativistic.generator(real, fake)
    between = given["input_gp_interp"]
    with torch.enable_grad():
        # All the share is the first image's, so the penalty is taken at it.
        values["gp"] = adversarial_losses.gradient_penalty(
            lambda image: image.pow(3).flatten(1).sum(1),
            between,
            torch.zeros_like(between),
            torch.ones(len(between), 1, 1, 1),
        )
    fixture.compare_all(values)


CHECKS: dict[str, Callable[[Fixture], None]] = {
    "dbgan_G": check_generator,
    "dbgan_D": check_discriminator,
    "dbgan_D_96": check_discriminator,
    "dbgan_D_192": check_discriminator,
    "dbgan_D_128SN": check_spectral_discriminator,
    "dbgan_perceptual": check_perceptual,
    "dbgan_losses": check_losses,
}
