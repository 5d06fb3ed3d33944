#!/usr/bin/env bash
# The objective of blind deblurring over its iterations with three operators (encoded blur kernel
# space, CVPR 2021, Fig. 6): a convolution kernel as in SelfDeblur, PULSE's bicubic downsampling,
# and the encoded kernel.
#
#   bash examples/kernel_space_curves.sh [PHOTO] [GENERATOR] [ITERATIONS] [FOLDER]
#
# PHOTO is a blurry photo of 256x256; if it is missing (or ""), part of a photograph that
# scikit-image contains is blurred by a turning camera. The paper's images are those of a StyleGAN:
# GENERATOR is its file (both files of version 1 in quotes); without it (or with "") the deep image
# prior makes the images. ITERATIONS (default 500, or the preset's) of the three searches take a
# processor about ten minutes. CHECKPOINT=kernel.pt names F and G; the default is those that come
# with blurkit. PRESET (small, paper or official; official needs --features) is that of
# blind-deblur, and OPTIONS are further options of it. FOLDER (default curves/) receives curves.png,
# the logs, the pictures and search.json; edit its constants first if you like. Run the script again
# to continue. Needs matplotlib: pip install 'blurkit[plots]'.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

photo=${1:-}
generator=${2:-}
read -ra options <<< "${OPTIONS:-}"
folder=${4:-curves}
mkdir -p "$folder"
[ -e "$folder/search.json" ] || echo '{"patience": 0}' > "$folder/search.json" # to the end
preset=(--preset "${PRESET:-small}" --config "$folder/search.json")
if [ -n "${3:-}" ]; then
    preset+=(--iterations "$3")
elif [ "${PRESET:-small}" = small ]; then
    preset+=(--iterations 500)
fi

if [ -z "$photo" ]; then
    photo=$folder/blurry.h5
    python3 -c '
import sys
import imageio.v3 as imageio
import skimage.data
imageio.imwrite(sys.argv[1], skimage.data.astronaut()[:256, 96:352])' "$folder/face.png"
    [ -e "$photo" ] ||
        blurkit prepare "$folder/face.png" --synthesize camera --kernel-size 9 19 -o "$photo" -q
fi
prior=()
if [ -n "$generator" ]; then
    prior=(--prior stylegan)
    for file in $generator; do prior+=(--generator "$file"); done
fi

logs=()
for operator in convolution downsampling kernel-space; do
    checkpoint=()
    if [ "$operator" = kernel-space ] && [ -n "${CHECKPOINT:-}" ]; then
        checkpoint=(-c "$CHECKPOINT")
    fi
    log=$folder/$operator.jsonl
    logs+=("$log")
    [ -e "$folder/$operator.h5" ] || blurkit blind-deblur "$photo" --operator "$operator" \
        "${preset[@]}" "${checkpoint[@]}" "${prior[@]}" "${options[@]}" \
        --log "$log" -o "$folder/$operator.h5" --force
done
blurkit info "${logs[@]}" --figure "$folder/curves.png" --force
