"""NAFNet against MSDI-Net and MSFS-Net, by their small presets at equal processor time.

    python -m tests.benchmarks.backbones FOLDER [--minutes 6] [--seeds 3]

Every training gets so many minutes of one processor, as in `ablations`, whose data and scores it
shares; networks that an encoder conditions have it trained for as long before. FOLDER keeps every
checkpoint, so that a stopped run goes on. The last lines are the table of docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.ablations import prepare_items, score, train


class Backbone(NamedTuple):
    """A row of the table: its system, whether an encoder conditions it, and how it is scored."""

    system: str
    encoder: bool
    protocol: str


BACKBONES = {
    "NAFNet": Backbone("nafnet", False, "local"),
    "NAFNet with MSDI-Net's encoder": Backbone("nafnet", True, "local"),
    "MSDI-Net": Backbone("msdi", True, "slices"),
    "MSFS-Net": Backbone("msfs", False, "local"),
}
"""Each network restores photos of 320x180 by the protocol that it was published with."""


def main() -> None:
    """Train and score every network with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    shards = prepare_items(given.folder)
    found: dict[str, list[float]] = {name: [] for name in BACKBONES}
    steps: dict[str, list[int]] = {name: [] for name in BACKBONES}
    for seed in range(1, given.seeds + 1):
        folder = given.folder / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        common = [shards, "--preset", "small", "--seed", seed]
        encoder = folder / "encoder.pt"
        train(encoder, "train-reblur", common, given.minutes)
        for name, (system, conditioned, protocol) in BACKBONES.items():
            output = folder / f"{system}{'-encoder' if conditioned else ''}.pt"
            options = [*common, "--system", system]
            options += ["--encoder", encoder] if conditioned else []
            steps[name].append(train(output, "train-deblur", options, given.minutes))
            found[name].append(score(output, shards / "val-00000.h5", protocol))
            sys.stdout.write(f"seed {seed}, {name}: {found[name][-1]:.3f} dB\n")
            sys.stdout.flush()
    sys.stdout.write("| network | mean, dB | by seed | steps |\n|---|---:|---|---:|\n")
    for name, scores in found.items():
        each = ", ".join(f"{value:.2f}" for value in scores)
        count = round(statistics.mean(steps[name]))
        sys.stdout.write(f"| {name} | {statistics.mean(scores):.2f} | {each} | {count} |\n")


if __name__ == "__main__":
    main()
