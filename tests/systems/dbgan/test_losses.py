"""Adversarial losses against plain numpy formulas; official scalars are in tests/models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.systems.dbgan.recipe import ADVERSARIAL, CRITERIA, gradient_penalty

Array = np.ndarray


def logits(seed: int, count: int = 5) -> Tensor:
    values = np.random.default_rng(seed).normal(scale=2, size=(count, 1))
    return torch.from_numpy(values).requires_grad_()


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


ORACLES = {
    "vanilla": lambda x, real: -np.log(sigmoid(x) if real else 1 - sigmoid(x)).mean(),
    "lsgan": lambda x, real: ((x - real) ** 2).mean(),
    "wgan-gp": lambda x, real: -x.mean() if real else x.mean(),
}


def test_names() -> None:
    assert ORACLES.keys() == CRITERIA.keys()
    assert ADVERSARIAL.keys() == {"relativistic", *ORACLES}


@pytest.mark.parametrize("name", ORACLES)
def test_traditional_losses(name: str) -> None:
    real, fake = logits(1), logits(2, count=3)
    for label in (True, False):
        expected = ORACLES[name](array(real), label)
        assert CRITERIA[name](real, label).item() == pytest.approx(expected)
    discriminator = ADVERSARIAL[name].discriminator(real, fake)
    expected = ORACLES[name](array(real), True) + ORACLES[name](array(fake), False)
    assert discriminator.item() == pytest.approx(expected)
    generator = ADVERSARIAL[name].generator(real, fake)
    assert generator.item() == pytest.approx(ORACLES[name](array(fake), True))


def test_relativistic_losses() -> None:
    real, fake = logits(1), logits(2, count=3)
    r, f = array(real), array(fake)
    # Eq. 6, as probabilities: real above the mean fake, fakes above the mean real.
    above, below = sigmoid(r - f.mean()), sigmoid(f - r.mean())
    discriminator = ADVERSARIAL["relativistic"].discriminator(real, fake)
    assert discriminator.item() == pytest.approx(-(np.log(above).mean() + np.log(1 - below).mean()))
    generator = ADVERSARIAL["relativistic"].generator(real, fake)
    assert generator.item() == pytest.approx(-(np.log(1 - above).mean() + np.log(below).mean()))


def test_relativistic_losses_see_differences_alone() -> None:
    real, fake = logits(1), logits(2)
    for loss in ADVERSARIAL["relativistic"]:
        assert loss(real + 7, fake + 7).item() == pytest.approx(loss(real, fake).item())
        # Nobody ahead: every probability is 1/2, which is where the paper wants both to end.
        assert loss(torch.zeros(4, 1), torch.zeros(3, 1)).item() == pytest.approx(2 * np.log(2))


def test_large_logits_stay_finite() -> None:
    real, fake = (torch.tensor([[sign * 1e4]], requires_grad=True) for sign in (1.0, -1.0))
    for losses in ADVERSARIAL.values():
        for loss in losses:
            assert torch.isfinite(loss(real, fake))
            assert torch.isfinite(loss(fake, real))


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_steps_lead_the_right_way(name: str) -> None:
    """The discriminator's step widens the gap between real and fake, the generator's narrows it."""
    for seed in range(4):
        real, fake = logits(seed), logits(seed + 10)
        gap = (real.mean() - fake.mean()).item()
        ADVERSARIAL[name].discriminator(real, fake).backward()
        apart = (real - 0.1 * real.grad).mean() - (fake - 0.1 * fake.grad).mean()
        if name != "lsgan":  # which pulls to 1 and 0 whatever lies beyond
            assert apart.item() > gap
        real, fake = logits(seed), logits(seed + 10)
        ADVERSARIAL[name].generator(real, fake).backward()
        assert real.grad is None
        moved = fake - 0.1 * fake.grad
        if name == "lsgan":
            assert ((moved - 1).abs() <= (fake - 1).abs()).all()
        else:
            assert (moved > fake).all()
            assert (real.mean() - moved.mean()).item() < gap


def test_a_relativistic_game() -> None:
    """Numbers that a generator adds to noise come to lie where the real ones do."""
    torch.manual_seed(0)
    place = torch.zeros(2, requires_grad=True)
    discriminator = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    wanted = torch.tensor([1.0, -2.0])
    opponents = [torch.optim.Adam([place], 0.02, (0.5, 0.9))]
    opponents.append(torch.optim.Adam(discriminator.parameters(), 0.01, (0.5, 0.9)))
    losses, seen = ADVERSARIAL["relativistic"], []
    for step in range(600):
        real, fake = wanted + torch.randn(64, 2), place + torch.randn(64, 2)
        opponents[1].zero_grad()
        losses.discriminator(discriminator(real), discriminator(fake.detach())).backward()
        opponents[1].step()
        opponents[0].zero_grad()
        losses.generator(discriminator(real), discriminator(fake)).backward()
        opponents[0].step()
        if step >= 400:
            seen.append(place.detach().clone())
    assert (torch.stack(seen).mean(0) - wanted).norm() < 0.5, "from 2.24 at the start"


def test_gradient_penalty() -> None:
    """The discriminator sum(a sin(x)) has the gradient a cos(x) at every value."""
    rng = np.random.default_rng(0)
    real, fake = rng.random((2, 3, 2, 4, 5))
    share, a = rng.random((3, 1, 1, 1)), rng.random((2, 4, 5))
    slope = torch.from_numpy(a).requires_grad_()
    given = [torch.from_numpy(part).requires_grad_() for part in (real, fake, share)]
    penalty = gradient_penalty(lambda x: (slope * x.sin()).flatten(1).sum(1), *given)
    cosine = np.cos(share * real + (1 - share) * fake)
    norms = np.sqrt(((a * cosine) ** 2).sum(axis=(1, 2, 3)))
    assert penalty.item() == pytest.approx(((norms - 1) ** 2).mean())
    penalty.backward()
    by_slope = (2 / 3 * (1 - 1 / norms)[:, None, None, None] * a * cosine**2).sum(0)
    np.testing.assert_allclose(slope.grad, by_slope)
    assert all(tensor.grad is None for tensor in given), "only the discriminator learns from it"


def test_gradient_penalty_at_the_ends() -> None:
    real, fake = torch.rand(2, 2, 3, 4, 4)
    seen: list[Tensor] = []

    def discriminator(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return x.flatten(1).sum(1)

    for share in (1.0, 0.0):
        penalty = gradient_penalty(discriminator, real, fake, torch.full((2, 1, 1, 1), share))
        assert penalty.item() == pytest.approx((np.sqrt(48) - 1) ** 2, rel=1e-6)
    assert torch.equal(seen[0], real) and torch.equal(seen[1], fake)
