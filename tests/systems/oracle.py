"""What several systems' tests compare with: distances, one step of a recipe, local statistics."""

import numpy as np
import scipy.ndimage
from torch import Tensor, nn

from blurkit.training.recipe import Recipe


def l1(first: Tensor, second: Tensor) -> float:
    """The mean distance of two tensors' values, in double precision."""
    return float(np.abs(first.detach().double().numpy() - second.detach().double().numpy()).mean())


def squared(first: Tensor, second: Tensor) -> float:
    """The mean of the squares of two tensors' differences, in double precision."""
    return float(((first.detach().double().numpy() - second.detach().double().numpy()) ** 2).mean())


def step(made: Recipe, crops: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, float]]:
    """The losses of one step, and the total of each optimiser.

    No weight changes; gradients stay in the networks.
    """
    totals: dict[str, float] = {}

    def update(name: str, loss: Tensor) -> None:
        totals[name] = loss.item()
        loss.backward()

    for network in made.networks.values():
        network.train()
    losses = made.step(crops, update)
    return {name: value.item() for name, value in losses.items()}, totals


def trained_by(network: nn.Module, part: str = "") -> bool:
    """Whether a step left gradients in a network, or in its parts whose names begin so."""
    parameters = [p for name, p in network.named_parameters() if name.startswith(part)]
    assert parameters or not part
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def local_means(image: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Means of (H, W, C) over windows cut to the image; at the border the nearest whole one's."""
    height, width = (min(w, side) for w, side in zip(window, image.shape[:2], strict=True))
    means = scipy.ndimage.uniform_filter(image.astype(np.float64), (height, width, 1))
    rows, columns = image.shape[0] - height + 1, image.shape[1] - width + 1
    whole = means[height // 2 :, width // 2 :][:rows, :columns]
    sides = [(count // 2, count - count // 2) for count in (height - 1, width - 1)]
    return np.pad(whole, (*sides, (0, 0)), mode="edge")
