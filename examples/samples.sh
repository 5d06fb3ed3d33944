#!/usr/bin/env bash
# Makes small files to try the commands of the README and of docs/ on: photos, pairs, a dataset in
# GoPro's layout, frames, a film, weights. The pictures come from photographs that scikit-image
# contains (CC0).
#
#   bash examples/samples.sh [FOLDER]      FOLDER, default samples/, must not exist
set -euo pipefail
examples=$(cd "$(dirname "$0")" && pwd)
folder=${1:-samples}
mkdir -p "$(dirname "$folder")"
mkdir "$folder"
cd "$folder"

python3 - "$examples/shaken.jpg" <<'PY'
import shutil
import sys
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import skimage.data

from blurkit.systems.system import WEIGHTS

PLACES = {"astronaut": (0, 96), "chelsea": (24, 100), "coffee": (80, 170), "rocket": (150, 220)}
for folder in ("sharp", "frames"):
    Path(folder).mkdir()
for name, (top, left) in PLACES.items():
    photo = getattr(skimage.data, name)()[..., :3]
    imageio.imwrite(f"sharp/{name}.png", photo[top : top + 256, left : left + 256])
wide = skimage.data.coffee()
frames = [wide[150:246, 200 + 3 * n : 360 + 3 * n] for n in range(24)]  # a camera that turns
for number, frame in enumerate(frames):
    imageio.imwrite(f"frames/{number:03}.png", frame)
imageio.imwrite("film.mp4", frames, plugin="pyav", codec="libx264", fps=24)

shutil.copy(sys.argv[1], "shaken.jpg")
imageio.imwrite("photo.jpg", imageio.imread("shaken.jpg")[80:336, 170:426], quality=95)
mask = np.zeros((400, 600), np.uint8)  # of shaken.jpg: all but its sides
mask[:, 80:480] = 255
imageio.imwrite("mask.png", mask)
imageio.imwrite("sharp.jpg", imageio.imread("sharp/chelsea.png"), quality=95)
for name, copy in {"msdi.pt": "msdi.pt", "free.pt": "free.pt", "kernel_space.pt": "kernel.pt"}.items():
    shutil.copy(WEIGHTS / name, copy)
PY

blurkit prepare sharp/ --synthesize shake --kernel-size 9 21 --copies 3 --seed 1 -o pairs.h5 -q
python3 - <<'PY'
from pathlib import Path

import blurkit
import imageio.v3 as imageio
import numpy as np

sequences = iter(("train/GOPR0001", "train/GOPR0002", "train/GOPR0003", "test/GOPR0004"))
for record in blurkit.read_records("pairs.h5"):
    if "-copy" in record.name:
        continue
    sequence = next(sequences)
    for role in ("blur", "sharp"):
        path = Path(f"gopro/{sequence}/{role}/000001.png")
        path.parent.mkdir(parents=True)
        imageio.imwrite(path, record.images[role])
    Path("blurry").mkdir(exist_ok=True)
    imageio.imwrite(f"blurry/{record.name}.png", record.images["blur"])
    if record.name == "astronaut":
        kernel = record.attrs["kernel"]
        imageio.imwrite("kernel.png", np.rint(255 * kernel / kernel.max()).astype(np.uint8))
PY
mkdir -p photos test/blur test/sharp
cp sharp/{chelsea,coffee}.png photos/
cp sharp/chelsea.png sharp.png
cp blurry/chelsea.png blurry.png
cp sharp/coffee.png a.png
cp sharp/astronaut.png b_sharp.png
cp blurry/astronaut.png b_blur.png
cp sharp/rocket.png test/sharp/
cp blurry/rocket.png test/blur/
