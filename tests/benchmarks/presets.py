"""What stage 1 of MSDI-Net has to learn from, by preset: how much of a signal passes through E.

python -m tests.benchmarks.presets [PRESET...]     measures and prints the table (half an hour)
    --write          also writes docs/benchmarks/presets.json, of other presets too the figures
                     that it has already, and the table in docs/benchmarks.md
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm

from blurkit.api import write_records
from blurkit.nn.features import FeatureNetwork
from blurkit.reports.tables import print_table
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.losses import blur_aware_loss
from blurkit.systems.msdi.recipe import ReblurRecipe
from blurkit.tasks.train import run_plan
from blurkit.training.configuration import Run
from blurkit.training.recipe import Plan, feature_network
from tests.benchmarks import pages
from tests.benchmarks.measure import machine
from tests.benchmarks.real_pairs import TRAINED_ON, trained_on
from tests.shared import vgg11
from tests.training.runs import batch

PRESETS = ("paper", "text", "official")
SETTLING = 50
"""Power iterations before an untrained network is measured."""

TRAINED: dict[str, Any] = {"width": 16, "hidden": 32, "discriminator_width": 16}
TRAINED |= {"iterations": 200, "batch": 2, "crop": 64}
"""The small training after which everything is measured again."""

Numbers = dict[str, float]


def settle(network: nn.Module) -> None:
    """Bring the vectors of all spectral norms to where training soon has them."""
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, SpectralNorm):
                with torch.no_grad():
                    for _ in range(SETTLING):
                        hook.compute_weight(module, do_power_iteration=True)


def signal(recipe: ReblurRecipe, crops: dict[str, Tensor], preset: str) -> Numbers:
    """Measure a recipe in train mode: what E tells, and what the losses ask of it."""
    blur, sharp = crops["blur"], crops["sharp"]
    layers = DeblurConfiguration.resolve(preset).blur_layers
    for network in recipe.networks.values():
        network.train()
        network.zero_grad()
    encoder = recipe.model.net_prior
    with torch.no_grad():
        told = (encoder(blur) - encoder(sharp)).abs().mean()
        blur_loss = blur_aware_loss(encoder, blur, sharp, "all" if layers == "all" else "blur")
        _, reblurred = recipe.model(blur, sharp)
        _, other = recipe.model(blur.roll(1, 0), sharp)
        change = 255 * (reblurred - other).abs().mean()

    def update(name: str, loss: Tensor) -> None:
        if name == "generator":
            loss.backward()

    recipe.step(crops, update)
    gradient = torch.stack([p.grad.norm() for p in encoder.parameters() if p.grad is not None])
    found = {"signal": told, "gradient": gradient.norm(), "blur_loss": blur_loss}
    return {name: value.item() for name, value in (found | {"exchange": change}).items()}


def untrained(preset: str, features: FeatureNetwork, shards: Path) -> Numbers:
    """Measure the networks of a preset at their full width as they begin."""
    torch.manual_seed(10)
    recipe = ReblurRecipe(ReblurConfiguration.resolve(preset), features)
    for network in recipe.networks.values():
        settle(network)
    return signal(recipe, batch(shards, crop=128, count=2), preset)


def trained(preset: str, features: FeatureNetwork, shards: Path) -> Numbers:
    """Measure narrow networks of a preset after a short training on real pairs."""
    configuration = ReblurConfiguration.resolve(preset, **TRAINED)
    torch.manual_seed(configuration.seed)
    recipe = ReblurRecipe(configuration, features)
    how = Run(str(shards / f"{preset}.pt"), "cpu", validate_on=0, samples=False)
    run_plan(Plan(configuration, lambda: recipe), [shards], how)
    return signal(recipe, batch(shards, crop=128, count=2), preset)


def measure(presets: list[str]) -> dict[str, dict[str, Numbers]]:
    """Measure some presets, on the real pairs that training may use."""
    features = feature_network("features", str(vgg11()))
    with tempfile.TemporaryDirectory() as folder:
        for name in TRAINED_ON:
            write_records(trained_on(name), Path(folder) / f"train-{name}.h5")
        return {
            preset: {
                "untrained": untrained(preset, features, Path(folder)),
                "trained": trained(preset, features, Path(folder)),
            }
            for preset in presets
        }


HEAD = ("", "signal of E", "gradient norm at E", "blur-aware loss", "exchange, gray levels")


def rows(figures: dict[str, dict[str, Numbers]]) -> list[tuple[str, ...]]:
    """Return the rows of the table, each value with two digits."""
    names = {"untrained": "width 64, untrained", "trained": "width 16, 200 steps"}
    order = [(when, preset) for when in names for preset in PRESETS if preset in figures]
    return [
        (f"`{preset}`, {names[when]}", *(f"{v:.2g}" for v in figures[preset][when].values()))
        for when, preset in order
    ]


def main() -> None:
    parser = pages.options(__doc__)
    parser.add_argument("presets", nargs="*", choices=[*PRESETS, []], help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(options.presets or list(PRESETS))
    print_table("MSDI-Net's presets", HEAD, rows(figures), note=machine())
    if options.write:
        figures = pages.known("presets") | figures
        pages.keep("presets", figures, indent=1)
        pages.fill("presets", pages.table(HEAD, rows(figures)))


if __name__ == "__main__":
    main()
