#!/usr/bin/env bash
# Trains the networks that come with blurkit to estimate a blur and to undo it. docs/weights.md lists
# their training data, docs/deconvolution.md explains how they work.
#
#   bash examples/weights_deconvolution.sh DATA/ [OPTIONS...]
#
# DATA is that of weights.sh, with more/ next to it if that exists. OPTIONS go to the training:
# rehearse with `--iterations 20`, give `--start deconvolution.pt` to go on from the weights that
# come with blurkit, and `--batch 64 --precision bf16` on a GPU. All output goes to FOLDER (default
# weights/); run the script again to continue where it stopped. JOBS (default 2) is the number of
# processes, WALLS (default 160) the number of pictures of walls. With MINUTES the training stops
# after that time.
set -euo pipefail
source "$(dirname "$0")/train.sh"
data=$1
options=("${@:2}")
folder=${FOLDER:-weights}
mkdir -p "$folder"

photos=()
for name in "$data"/sharp/{bsds500_train,bsds500_val,bsds500_test,urban100} \
    "$data"/more/sharp/{detectron_demo,unsplash_baguettebox,opensfm,div2k_val,immich_text}; do
    if [ -d "$name" ]; then photos+=("$name"); fi
done

echo "1. sharp photos and walls, which the training blurs anew in every step"
real "$folder/sharp.h5" "${photos[@]}" --as sharp
if [ ! -e "$folder/walls.h5" ]; then
    tool walls "$data"/sharp/bsds500_{train,test} "$data/sharp/urban100" \
        --count "${WALLS:-160}" --seed 1 -o "$folder/walls.h5"
fi

echo "2. pairs whose kernels nobody knows: objects that move, averaged films, films of others"
shards=("$folder/sharp.h5" "$folder/walls.h5")
synthesize "$folder/objects.h5" objects "${photos[@]}" --kernel-size 3 45 --scale 0.6 1.2 --seed 2
real "$folder/video13.h5" "$data/video/gopr0477_240fps" --average 13 --stride 3
real "$folder/video11.h5" "$data/video/gopr0477_240fps" --average 11 --stride 4 --gamma 1
real "$folder/reds.h5" "$data/pairs/reds_180p/train"
shards+=("$folder"/{objects,objects,video13,video11,reds}.h5) # more often, if listed more often
if [ -d "$data/more/pairs/gopro" ]; then
    real "$folder/gopro.h5" "$data/more/pairs/gopro"
    shards+=("$folder"/gopro.h5 "$folder"/gopro.h5)
fi

echo "3. both networks, with the results of the network that comes with blurkit as drafts"
if [ ! -e "$folder/both.pt" ]; then
    draft=$(python3 -c 'from blurkit.systems.system import shipped_file; print(shipped_file())')
    limits=(${JOBS:+--jobs "$JOBS"})
    if [ -n "${MINUTES:-}" ]; then limits+=(--minutes "$(minutes_left)"); fi
    train train-deblur "$folder/both.pt" "${shards[@]}" --system deconvolution --draft "$draft" \
        "${limits[@]}" "${options[@]}"
    if [ ! -e "$folder/both.pt" ]; then exit; fi
fi
tool convert halve "$folder/both.pt" -o "$folder/deconvolution.pt" --force
tool convert describe "$(dirname "$0")/cards/deconvolution.tsv" "$folder/deconvolution.pt"
tool convert compress "$folder/deconvolution.pt"
