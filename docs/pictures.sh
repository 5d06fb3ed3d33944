#!/usr/bin/env bash
# Makes every picture and every printed example of docs/commands/ with the commands themselves, from
# the files of examples/samples.sh and other photographs that scikit-image contains (CC0), blurred by
# blurkit, and the weights that come with it.
#
#   bash docs/pictures.sh
#
# contextual-sim needs a feature network: BLURKIT_FEATURES, or VGG-19 in torch's cache. Run
# `just docs` afterwards to put the printed examples into the pages.
set -euo pipefail

pictures=$(cd "$(dirname "$0")" && pwd)/pictures
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bash "$pictures/../../examples/samples.sh" "$work/samples"
data=$(realpath "${BLURKIT_DATA:-$pictures/../../../shared/data}")
cd "$work/samples"
export COLUMNS=120

example() { # NAME 'COMMAND': run it; NAME.txt gets the command and its output
    { echo "\$ $2" && bash -o pipefail -c "$2"; } 2>&1 | sed 's/ *$//' | tee -a "$work/$1.txt"
}

smaller() { # PICTURE.jpg IMAGE: small enough for a repository
    python3 -c 'import sys, PIL.Image; image = PIL.Image.open(sys.argv[2])
image.thumbnail((960, 960)); image.save(sys.argv[1], quality=76)' "$pictures/$1" "$2"
}

row() { # PICTURE.jpg IMAGE...: images side by side
    python3 - "$pictures/$1" "${@:2}" <<'PY'
import sys
from pathlib import Path

import PIL.Image

from blurkit.io.images import read_image
from blurkit.reports.pictures import side_by_side

picture, *images = map(Path, sys.argv[1:])
row = side_by_side([read_image(image).pixels for image in images])
PIL.Image.fromarray(row).save(picture, quality=88)  # small enough for a repository
PY
}

example prepare 'blurkit prepare sharp/ --synthesize shake --kernel-size 9 21 --copies 3 --seed 1 -o shake.h5'
python3 - <<'PY'
from pathlib import Path

import blurkit
from blurkit.io.images import write_image

for record in blurkit.read_records("shake.h5"):
    write_image(Path(f"copies/{record.name}.png"), record.images["blur"])
PY
row prepare.jpg sharp/chelsea.png copies/chelsea{,-copy1,-copy2}.png

blurkit prepare sharp/ --limit 3 --synthesize realistic --copies 2 --seed 1 -q \
    --sheet realistic.png -o realistic.h5 --force
smaller prepare-realistic.jpg realistic.png

example deblur 'blurkit deblur blurry/chelsea.png --method network --json'
row deblur.jpg blurry/chelsea.png blurry/chelsea.deblurred.png sharp/chelsea.png

# A shaken photo, not cropped, because a kernel needs edges.
python3 - <<'PY'
import skimage.data
from pathlib import Path

from blurkit.io.images import write_image

Path("whole").mkdir()
write_image(Path("whole/coffee.png"), skimage.data.coffee())
PY
blurkit prepare whole/ --synthesize shake --kernel-size 25 25 --noise 0.004 --seed 2 -o shaken.h5 -q
python3 -c 'import blurkit; from blurkit.io.images import write_image; from pathlib import Path
(record,) = blurkit.read_records("shaken.h5")
write_image(Path("shaken.png"), record.images["blur"])'

example deblur-shake 'blurkit deblur shaken.jpg --compare'
smaller shake.jpg shaken.compare.jpg

# A film that a moving camera took, and what becomes of it, side by side.
python3 - <<'PY'
import imageio.v3 as imageio
import numpy as np
import skimage.data
from scipy import ndimage

FRAMES, EXPOSURES, HEIGHT, WIDTH = 12, 9, 200, 264
light = (skimage.data.coffee() / 255.0) ** 2.2
frames = []
for number in range(FRAMES):
    seen = np.zeros((HEIGHT, WIDTH, 3))
    for time in number + np.arange(EXPOSURES) / EXPOSURES:
        top, left = 90 + 30 * np.sin(time / 3.5), 150 + 10 * time
        cut = light[int(top) : int(top) + HEIGHT + 2, int(left) : int(left) + WIDTH + 2]
        moved = ndimage.shift(cut, (-(top % 1), -(left % 1), 0), order=1)
        seen += moved[:HEIGHT, :WIDTH] / EXPOSURES
    noise = np.random.default_rng(number).normal(0, 0.003, seen.shape)
    frames.append(((seen.clip(0, 1) ** (1 / 2.2) + noise).clip(0, 1) * 255).round())
imageio.imwrite("moving.mp4", np.array(frames, np.uint8), plugin="pyav", codec="libx264", fps=10)
PY
blurkit deblur moving.mp4 -o moving.sharp.mp4
python3 - "$pictures/film.webp" <<'PY'
import sys

import imageio.v3 as imageio
import numpy as np

both = [imageio.imread(name, plugin="pyav") for name in ("moving.mp4", "moving.sharp.mp4")]
gap = np.full((len(both[0]), both[0].shape[1], 8, 3), 255, np.uint8)
frames = np.concatenate([both[0], gap, both[1]], axis=2)
imageio.imwrite(sys.argv[1], frames, duration=180, loop=0, quality=60)
PY

# The photo's kernel after every second step of its estimation, and the photo restored with it.
PYTHONPATH=$pictures/../.. python3 - "$pictures/kernel.webp" <<'PY'
import sys
from itertools import islice
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from torch.nn import functional as F

from blurkit.io.images import read_image
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimation import growing
from tests.benchmarks.inversion import total_variation

SIDE, SHOWN, SIZE = 320, 216, 41
photo = torch.from_numpy(read_image(Path("shaken.png")).pixels / np.float32(255))[40:, 140:]
light = photo[:SIDE, :SIDE].mean(2)[None] ** 2.2
options, frames = WindowOptions(), []
turns = growing(light, SIZE, torch.tensor([options.weight]), options)
for kernel in islice(turns, 0, None, 2):
    factor = kernel.shape[-1] / SIZE
    small = F.interpolate(light[:, None], scale_factor=factor, mode="bilinear", antialias=True)[:, 0]
    sharp = total_variation(small, kernel).clamp(0, 1) ** (1 / 2.2)
    pictures = [kernel / kernel.max(), sharp]
    shown = [F.interpolate(p[:, None], (SHOWN, SHOWN), mode="area")[0, 0] for p in pictures]
    frames.append((torch.cat(shown, 1) * 255).byte().numpy())
durations = [150] * (len(frames) - 1) + [3000]
imageio.imwrite(Path(sys.argv[1]), frames, duration=durations, loop=0, quality=75)
PY

python3 - <<'PY'
import imageio.v3 as imageio
import numpy as np
import skimage.data
from scipy import signal

from blurkit.synthesis.kernels import random_trajectory_kernel

wide, rng = skimage.data.coffee() / 255, np.random.default_rng(2)
frames = []
for number, side in enumerate((5, 9, 13, 9, 17, 11)):  # a camera that turns, and shakes each time
    light = wide[60:300, 160 + 5 * number : 480 + 5 * number] ** 2.2
    kernel = random_trajectory_kernel(rng, side)[:, :, None]
    light = signal.fftconvolve(np.pad(light, [(9, 9), (9, 9), (0, 0)], "edge"), kernel, "same", (0, 1))
    noisy = light[9:-9, 9:-9].clip(0, 1) ** (1 / 2.2) + rng.normal(0, 0.004, (240, 320, 3))
    frames.append((255 * noisy.clip(0, 1)).round().astype(np.uint8))
imageio.imwrite("shaky.mp4", frames, plugin="pyav", codec="libx264", fps=24)
PY
blurkit deblur shaky.mp4 --compare -q
smaller films.jpg shaky.compare.jpg

blurkit blind-deblur blurry/chelsea.png --operator convolution --kernel-size 25 -o blind.png
row deblur-blind.jpg blurry/chelsea.png blind.png sharp/chelsea.png

example reblur 'blurkit reblur sharp/chelsea.png --like blurry/coffee.png'
row reblur.jpg sharp/chelsea.png blurry/coffee.png sharp/chelsea.reblurred.png

example transfer 'blurkit transfer sharp/coffee.png sharp/astronaut.png blurry/astronaut.png'
row transfer.jpg sharp/coffee.png sharp/astronaut.png blurry/astronaut.png \
    sharp/coffee.transferred.png

# A real pair's blur on a photo, a gray one and a drawing; the pair itself may not be redistributed.
python3 - <<'PY'
from pathlib import Path

import numpy as np
import skimage.data

from blurkit.io.images import write_image

for name in ("coffee", "camera", "horse"):
    image = getattr(skimage.data, name)()
    pixels = np.where(image, 255, 0).astype(np.uint8) if image.dtype == bool else image
    top, left = (max(0, side - 320) // 2 for side in pixels.shape[:2])
    cut = pixels.reshape(*pixels.shape[:2], -1)[top : top + 320, left : left + 320]
    write_image(Path(f"real/{name}.png"), cut)
PY
for role in sharp blur; do ln -s "$data/pairs/gopro/test/square/$role/000001.png" "gopro_$role.png"; done
blurkit transfer real/ gopro_sharp.png gopro_blur.png -o given/
row transfer-real.jpg real/coffee.png given/coffee.png real/camera.png given/camera.png \
    real/horse.png given/horse.png

example reblur-random 'blurkit reblur sharp/coffee.png --random --copies 4 --seed 3 -o drawn/'
row reblur-random.jpg sharp/coffee.png drawn/*.png

example interpolate 'blurkit interpolate blurry/coffee.png sharp/coffee.png --steps 7 --sheet sheet.png -o blur.gif'
row interpolate.jpg sheet.png
cp blur.gif "$pictures/interpolate.gif"

blurkit deblur pairs.h5 --method network --strength 0.5 -o half.h5
blurkit deblur pairs.h5 --method network -o restored.h5
example eval 'blurkit deblur pairs.h5 --method network -q -o - | blurkit eval -'
blurkit eval half.h5 restored.h5 --reference pairs.h5 --confidence 0.95 --pictures look/ -o scores.md -q --force
row eval.jpg look/coffee.png
blurkit eval restored.h5 --frequency --patch 64 -q --figure "$pictures/eval-frequency.png" --force

example contextual-sim 'blurkit contextual-sim pairs.h5 --decoupling --pictures pairs/'
row contextual-sim.jpg pairs/astronaut.png

example info 'blurkit info msdi.pt | sed -n 1,15p'

cp "$work"/*.txt "$pictures/"
du -sh "$pictures"
