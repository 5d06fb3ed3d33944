#!/usr/bin/env bash
# Trains the deconvolution network that comes with blurkit, which undoes a blur whose kernel is
# known or estimated. docs/weights.md lists its training data, docs/deconvolution.md explains how it
# works.
#
#   bash examples/weights_deconvolution.sh DATA/ [OPTIONS...]
#
# DATA is that of weights.sh, with more/ next to it if that exists. OPTIONS go to the training:
# rehearse with `--steps 20`. All output goes to FOLDER (default weights/); run the script again to
# continue where it stopped. JOBS (default 2) is a number of processes. With MINUTES it stops after
# that time, or as soon as all windows exist.
set -euo pipefail
source "$(dirname "$0")/train.sh"
data=$1
options=("${@:2}")
folder=${FOLDER:-weights}
mkdir -p "$folder"
part=blurkit.systems.deconvolution

photos=()
for name in "$data"/sharp/{bsds500_train,bsds500_val,bsds500_test,urban100} \
    "$data"/more/sharp/{detectron_demo,unsplash_baguettebox,opensfm,div2k_val,immich_text}; do
    if [ -d "$name" ]; then photos+=("$name"); fi
done

synthesize() { # NAME KIND OPTIONS...: pairs of synthetic blur
    if [ ! -e "$folder/$1.h5" ]; then
        blurkit prepare "${photos[@]}" --synthesize "$2" "${@:3}" -o "$folder/$1.h5"
    fi
}
windows() { # NAME PAIRS OPTIONS...: windows with their estimated kernels
    if [ ! -e "$folder/windows-$1.h5" ]; then
        python3 -m "$part.windows" "$2" "${@:3}" --jobs "${JOBS:-2}" -o "$folder/windows-$1.h5"
    fi
    shards+=("$folder/windows-$1.h5")
}

echo "1. pairs: blur of shaking hands with its kernels, of turning cameras and of moving objects"
synthesize kernels shake --kernel-size 5 41 --scale 0.5 1.1 --noise 0.004
synthesize camera camera --kernel-size 3 45 --scale 0.6 1.2 --seed 1
synthesize objects objects --kernel-size 3 45 --scale 0.6 1.2 --seed 2

echo "2. windows of these and of real pairs, each with two estimates of its kernel"
shards=()
windows kernels "$folder/kernels.h5" --count 2
windows camera "$folder/camera.h5"
windows objects "$folder/objects.h5"
windows gopro_avg "$data/pairs/gopro_avg/train/GOPR0477_11_00" --count 14
for number in 1 2 3; do # files listed more often are seen more often
    windows reds "$data/pairs/reds_180p/train" --count 3 --side 160
    if [ -d "$data/more/pairs/gopro" ]; then windows gopro "$data/more/pairs/gopro" --count 14; fi
done

echo "3. the network"
if [ -e "$folder/deconvolution.pt" ]; then exit; fi
if [ -n "${MINUTES:-}" ]; then options=(--minutes "$(minutes_left)" "${options[@]}"); fi
if [ -n "${JOBS:-}" ]; then options=(--jobs "$JOBS" "${options[@]}"); fi
python3 -m "$part.training" --photos "${photos[@]}" --windows "${shards[@]}" \
    -o "$folder/deconvolution.pt" "${options[@]}"
if [ -e "$folder/deconvolution.pt" ]; then # not where --minutes ended it
    python3 -m blurkit.weights.card "$(dirname "$0")/cards/deconvolution.tsv" "$folder/deconvolution.pt"
fi
