"""The speed of commands against another checkout of blurkit: both in turn, on the same files.

    python -m tests.benchmarks.against CHECKOUT [--rounds 7]

A ratio above 1 means that this checkout takes longer. The files are made by each checkout for
itself, so their formats may differ.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from blurkit.io.checkpoints import CHECKPOINT_FORMAT
from blurkit.reports.tables import print_table
from tests.benchmarks import pages
from tests.benchmarks.measure import alternate, machine, make_pairs, make_photos
from tests.benchmarks.run import small_network
from tests.shared import ROOT

CROPS = """
import sys, time
from pathlib import Path
from blurkit.data.sampler import CropSampler
sampler = CropSampler(sorted(Path(sys.argv[1]).glob("train-*.h5")), 256, ("blur", "sharp"))
for step in range(20):
    sampler.batch(0, step, 64)
started = time.perf_counter()
for step in range(300):
    sampler.batch(0, step, 64)
print(time.perf_counter() - started)
"""


def seconds(checkout: Path, script: str, folder: Path) -> float:
    """Wall seconds of a line of bash in which `blurkit` is the checkout's, or what it prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "BLURKIT": str(checkout)}
    timed = f'TIMEFORMAT=%R; blurkit() {{ {sys.executable} -m blurkit "$@"; }}; {script}'
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", timed],
        check=True, capture_output=True, text=True, cwd=folder, env=environment,
    )  # fmt: skip
    return float((done.stdout or done.stderr).split()[-1])


BY_NETWORK = (
    "blurkit deblur --help | grep -q -- --method && by='--method network'; "
    "time blurkit deblur %s $by --force -q -o %s"
)
"""`deblur` by the shipped network, which older checkouts know as the only method."""

SCRIPTS = {
    "deblur, a photo of 1280x720, whole process": BY_NETWORK % ("../photo.jpg", "restored.png"),
    "deblur, a photo of 12 megapixels": BY_NETWORK % ("../large.jpg", "restored.jpg"),
    "deblur, a folder of 20 photos of 640x480": BY_NETWORK % ("../photos", "restored/"),
    "prepare, 48 pairs of 1280x720, 2 jobs": "time blurkit prepare ../tree -o made/ --force -q",
    "prepare, one job, to a stream": "time blurkit prepare ../tree -o - --jobs 1 -q > /dev/null",
    "eval of a shard of 265 MB": "time blurkit eval made/train-00000.h5 -q --json > /dev/null",
    "deblur, 4 records, network of 12 channels": (
        "time blurkit deblur few.h5 -c ../network.pt -o restored.h5 --force -q"
    ),
    "prepare | deblur | eval": (
        "time (blurkit prepare ../few -o - --jobs 1 -q | blurkit deblur - -c ../network.pt -o - -q"
        " | blurkit eval - --json -q > /dev/null)"
    ),
    "300 batches of 64 training crops": f"{sys.executable} -c '{CROPS}' made",
}


def main() -> None:
    parser = pages.options(__doc__, write=False, rounds=7)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--only", default="", help="measure what begins with this")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pairs(folder / "tree", 48)
        make_pairs(folder / "few", 4)
        make_photos(folder)
        state = {"version": 1, "networks": {"deblur": small_network().state_dict()}}
        about = {"format": CHECKPOINT_FORMAT, "system": "msdi", "configuration": {"crop": 256}}
        torch.save({**about, **state}, folder / "network.pt")  # as every version reads it
        sides = {folder / "other": given.checkout.resolve(), folder / "this": ROOT}
        for side, checkout in sides.items():
            side.mkdir()
            prepare = "blurkit prepare ../tree -o made/ -q; blurkit prepare ../few -o few.h5 -q"
            seconds(checkout, f"time ({prepare})", side)
        for what, script in SCRIPTS.items():
            if not what.startswith(given.only):
                continue
            other, this = (partial(seconds, c, script, side) for side, c in sides.items())
            found = alternate(other, this, given.rounds)
            rows.append((what, f"{found.first:.2f} s", f"{found.second:.2f} s", found.told(3)))
    print_table("against", ["what", "other", "this", "ratio"], rows, note=machine())


if __name__ == "__main__":
    main()
