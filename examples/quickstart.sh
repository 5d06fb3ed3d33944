#!/usr/bin/env bash
# The main task on any machine, in a few minutes on a CPU: photographs that scikit-image contains
# (CC0) are blurred, a small MSDI-Net is trained on them, an unseen photo is deblurred, and the
# result is measured and shown.
#
#   bash examples/quickstart.sh [FOLDER]      everything goes to FOLDER, default quickstart/
set -euo pipefail

folder=${1:-quickstart}
mkdir -p "$folder"
photos=$(python3 -c 'import os, skimage.data; print(os.path.dirname(skimage.data.__file__))')

echo "1. photographs: seven to train on, one kept back"
mkdir -p "$folder/photos" "$folder/unseen"
for name in astronaut.png coffee.png rocket.jpg camera.png brick.png gravel.png grass.png; do
    cp "$photos/$name" "$folder/photos/"
done
cp "$photos/chelsea.png" "$folder/unseen/"

echo "2. prepare: blur them as a shaking hand would"
blurkit prepare "$folder/photos" --synthesize shake --kernel-size 9 19 --copies 6 \
    -o "$folder/shards/" --seed 1 --force
blurkit prepare "$folder/unseen" --synthesize shake --kernel-size 9 19 --copies 2 \
    -o "$folder/unseen.h5" --seed 2 --force

echo "3. train: the degradation encoder, then the deblurring network"
blurkit train-reblur "$folder/shards" --preset small --perceptual none --iterations 80 \
    -o "$folder/enc.pt" --force
blurkit train-deblur "$folder/shards" --preset small --encoder "$folder/enc.pt" --iterations 200 \
    -o "$folder/deblur.pt" --force

echo "4. deblur the photo that was kept back, measure it, look at it"
blurkit deblur "$folder/unseen.h5" -c "$folder/deblur.pt" -o - |
    blurkit eval - --pictures "$folder/pictures/" --force

echo "before and after, side by side with the sharp photo:"
ls "$folder"/pictures/*.png
