"""Cameras that turn: one movement explains kernels that differ all over a photo."""

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.synthesis.kernels import random_trajectory, scaled_path, splat
from blurkit.systems.deconvolution import movement
from blurkit.systems.deconvolution import photo as photos_of_windows
from blurkit.systems.deconvolution.config import FULL
from blurkit.systems.deconvolution.fourier import kernel_agreement
from blurkit.systems.deconvolution.movement import of_one_movement
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.samples import taken as exposed_to
from tests.systems.deconvolution.photos import batch, noise, photo, psnr, without_blur


def test_kernels_in_some_places_tell_those_of_one_movement_in_others() -> None:
    """The truth is the path of each place, drawn."""
    rng = np.random.default_rng(2)
    path = scaled_path(random_trajectory(rng), 9)
    angle = scaled_path(random_trajectory(rng).real, 10).real
    places = np.array([complex(x, y) for y in (-0.3, 0.3) for x in (-0.5, 0, 0.5)])
    others = np.array([0.7 + 0.5j, -0.8 + 0.1j, 0.2 - 0.6j])

    def drawn(at: np.ndarray) -> Tensor:
        ways = [path + 1j * angle * place for place in at]
        return batch(*(splat(way.imag + 20, way.real + 20, FULL) for way in ways))

    found = of_one_movement(drawn(places), torch.ones(len(places)), places, others)
    assert kernel_agreement(found, drawn(others)).min() > 0.85
    middle = drawn(np.zeros(1, complex))  # as if the camera did not turn
    assert kernel_agreement(middle, drawn(others)).max() < 0.6


@pytest.mark.slow
def test_one_movement_explains_the_blur_of_a_camera_that_turned(
    deconvolution: Deconvolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, sharp = np.random.default_rng(7), photo("astronaut", 512, 512)
    path = scaled_path(random_trajectory(rng), 8)
    angle = scaled_path(random_trajectory(rng).real, 8).real
    corners = np.linspace(-1, 1, 7)
    ways = [[path + 1j * angle * complex(x, y) for x in corners] for y in corners]
    kernels = np.array([[splat(at.imag + 24, at.real + 24, 49) for at in row] for row in ways])
    light = torch.from_numpy(np.moveaxis(sharp**2.2, 2, 0)).float()
    blurry = exposed_to(light, torch.from_numpy(kernels).float()).clamp(0, 1) ** (1 / 2.2)
    image = blurry.permute(1, 2, 0).numpy() + noise(sharp.shape, 1 / 255)
    image = image.clip(0, 1).astype(np.float32)
    told: list[str] = []
    monkeypatch.setattr(movement, "PARTS", 6)  # of 9: the others learn of it at the end
    windows = deconvolution.windows(image, lambda stage, *_: told.append(stage))
    monkeypatch.setattr(photos_of_windows, "with_movement", lambda image, windows, *_: windows)
    alone = deconvolution.windows(image)
    assert (len(windows), len(alone)) == (9, 4) and told[-1] == "find movement"
    gained, before = (
        psnr(without_blur(deconvolution, image, found), sharp, 20) for found in (windows, alone)
    )
    assert gained > before + 0.3
