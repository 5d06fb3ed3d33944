"""Deblur the photos of a folder on a Ray cluster: every actor loads its network once.

    python examples/ray_deblur.py PHOTOS OUTPUT [--checkpoint FILE] [--actors 8] [--gpus 1]

All machines must see both folders. Photos whose results are there are skipped, so the same command
continues a job that was stopped. The files are those of `blurkit deblur PHOTOS -o OUTPUT/`, with
--method network.
"""

import argparse
import sys
from pathlib import Path

import ray

import blurkit

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


class Deblurrer:
    """An actor with a network, which restores one photo after another."""

    def __init__(self, photos: Path, output: Path, checkpoint: str | None) -> None:
        self.photos, self.output = photos, output
        self.model = blurkit.load(checkpoint)

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        """Return the name of a photo and what became of it."""
        name = Path(row["name"])
        if (self.output / name).exists():
            return {"name": str(name), "state": "there already"}
        try:
            record = next(blurkit.read_records(self.photos / name))
            record.name = str(name.with_suffix(""))
            blurkit.write_records([self.model.deblur(record, method="network")], f"{self.output}/")
        except blurkit.BlurkitError as error:
            return {"name": str(name), "state": f"failed: {error}"}
        return {"name": str(name), "state": "deblurred"}


parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("photos", type=Path)
parser.add_argument("output", type=Path)
parser.add_argument("--checkpoint", help="network; default: the one that comes with blurkit")
parser.add_argument("--actors", type=int, default=1)
parser.add_argument("--gpus", type=float, default=0, help="GPUs of each actor, such as 0.5")
given = parser.parse_args()
photos = given.photos.absolute()
files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in SUFFIXES)
names = [str(path.relative_to(photos)) for path in files]
if not names:
    parser.error(f"{photos}: holds no photo")
done = ray.data.from_items([{"name": name} for name in names]).map(
    Deblurrer,
    fn_constructor_args=(photos, given.output.absolute(), given.checkpoint),
    compute=ray.data.ActorPoolStrategy(size=given.actors),
    num_gpus=given.gpus,
)
states = {row["name"]: row["state"] for row in done.iter_rows()}
sys.stdout.writelines(f"{name}: {state}\n" for name, state in sorted(states.items()))
sys.exit(any(state.startswith("failed") for state in states.values()))
