#!/usr/bin/env bash
# Makes small files to try the commands of the README and of docs/ on: photos, pairs, a dataset in
# GoPro's layout, frames, a film. They come from photographs that scikit-image contains (CC0).
#
#   bash examples/samples.sh [FOLDER]      FOLDER, default samples/, must not exist
set -euo pipefail
shaken=$(cd "$(dirname "$0")" && pwd)/shaken.jpg
folder=${1:-samples}
mkdir -p "$(dirname "$folder")"
mkdir "$folder"
cd "$folder"

python3 - <<'PY'
from pathlib import Path

import imageio.v3 as imageio
import skimage.data

PLACES = {"astronaut": (0, 96), "chelsea": (24, 100), "coffee": (80, 170), "rocket": (150, 220)}
for folder in ("sharp", "frames"):
    Path(folder).mkdir()
for name, (top, left) in PLACES.items():
    photo = getattr(skimage.data, name)()[..., :3]
    imageio.imwrite(f"sharp/{name}.png", photo[top : top + 256, left : left + 256])
wide = skimage.data.coffee()
frames = [wide[60:316, 3 * n : 3 * n + 384] for n in range(24)]  # a camera that turns
for number, frame in enumerate(frames):
    imageio.imwrite(f"frames/{number:03}.png", frame)
imageio.imwrite("film.mp4", frames, plugin="pyav", codec="libx264", fps=24)
PY

blurkit prepare sharp/ --synthesize shake --kernel-size 9 15 --noise 0.002 --seed 1 -o pairs.h5 -q
python3 - <<'PY'
from pathlib import Path

import blurkit
import imageio.v3 as imageio
import numpy as np

for number, record in enumerate(blurkit.read_records("pairs.h5")):
    blur, sharp = record.images["blur"], record.images["sharp"]
    sequence = ("train/GOPR0001", "train/GOPR0002", "train/GOPR0003", "test/GOPR0004")[number]
    places = [f"blurry/{record.name}.png", f"gopro/{sequence}/blur/000001.png"]
    partners = [f"gopro/{sequence}/sharp/000001.png"]
    if number == 3:
        places.append("test/blur/rocket.png")
        partners.append("test/sharp/rocket.png")
    for image, paths in ((blur, places), (sharp, partners)):
        for path in map(Path, paths):
            path.parent.mkdir(parents=True, exist_ok=True)
            imageio.imwrite(path, image)
    if number == 0:
        kernel = record.attrs["kernel"]
        imageio.imwrite("kernel.png", np.rint(255 * kernel / kernel.max()).astype(np.uint8))
PY
cp "$shaken" photo.jpg
cp -r sharp photos
cp sharp/chelsea.png sharp.png
cp blurry/chelsea.png blurry.png
cp sharp/coffee.png a.png
cp sharp/astronaut.png b_sharp.png
cp blurry/astronaut.png b_blur.png
python3 -c 'import PIL.Image as I; I.open("sharp.png").save("sharp.jpg", quality=95)'
