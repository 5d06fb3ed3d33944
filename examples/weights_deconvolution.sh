#!/usr/bin/env bash
# Trains the deconvolution network that comes with blurkit, which inverts a known or estimated
# kernel. docs/weights.md lists its training data, docs/deconvolution.md explains how it
# works.
#
#   bash examples/weights_deconvolution.sh DATA/ [OPTIONS...]
#
# DATA is that of weights.sh, with more/ next to it if that exists. OPTIONS go to the training:
# rehearse with `--iterations 20`. All output goes to FOLDER (default weights/); run the script
# again to continue where it stopped. JOBS (default 2) is the number of processes, WALLS (default
# 160) the number of pictures of walls. With MINUTES it stops after that time, or as soon as all
# windows exist.
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

pairs() { # NAME KIND OPTIONS...: pairs of synthetic blur of photos
    synthesize "$folder/$1.h5" "$2" "${photos[@]}" "${@:3}"
}
windows() { # NAME PAIRS... OPTIONS...: windows with their estimated kernels
    if [ ! -e "$folder/windows-$1.h5" ]; then
        tool deconvolution_data windows "${@:2}" --jobs "${JOBS:-2}" -o "$folder/windows-$1.h5"
    fi
    shards+=("$folder/windows-$1.h5")
}
real_windows() { # files listed more often are seen more often
    windows gopro_avg "$data/pairs/gopro_avg/train/GOPR0477_11_00" --count 14
    for number in 1 2 3; do
        windows reds "$data/pairs/reds_180p/train" --count 3 --side 160
        if [ -d "$data/more/pairs/gopro" ]; then windows gopro "$data/more/pairs/gopro" --count 14; fi
    done
}
learn() { # OUTPUT.pt OPTIONS...: unless it exists; stop here if the time is up
    if [ -e "$1" ]; then return; fi
    local limits=(${JOBS:+--jobs "$JOBS"})
    if [ -n "${MINUTES:-}" ]; then limits+=(--minutes "$(minutes_left)"); fi
    train train-deblur "$1" "$folder/sharp.h5" "${shards[@]}" --system deconvolution \
        "${@:2}" "${limits[@]}" "${options[@]}"
    if [ ! -e "$1" ]; then exit; fi
}

real "$folder/sharp.h5" "${photos[@]}" --as sharp
pairs kernels shake --kernel-size 5 41 --scale 0.5 1.1 --noise 0.004 # parts 5 to 7 need them, too
if [ ! -e "$folder/photos.pt" ]; then
    echo "1. pairs: blur of shaking hands with its kernels, of turning cameras and of moving objects"
    pairs camera camera --kernel-size 3 45 --scale 0.6 1.2 --seed 1
    pairs objects objects --kernel-size 3 45 --scale 0.6 1.2 --seed 2

    echo "2. windows of these and of real pairs, each with estimates of its kernel"
    shards=()
    windows kernels "$folder/kernels.h5" --count 2
    windows camera "$folder/camera.h5"
    windows objects "$folder/objects.h5"
    real_windows

    echo "3. the network"
    learn "$folder/photos.pt"
fi

town=$data/sharp/urban100
shaken=(shake --kernel-size 5 41 --scale 0.7 1.1 --noise 0.004)
if [ ! -e "$folder/walls.h5" ]; then
    tool deconvolution_data walls "$data"/sharp/bsds500_{train,test} "$town" \
        --count "${WALLS:-160}" --seed 1 -o "$folder/walls.h5"
fi
synthesize "$folder/walls-shaken.h5" "${shaken[@]}" "$folder/walls.h5" --seed 3

if [ ! -e "$folder/walls.pt" ]; then
    echo "4. walls and sharp pictures, where estimates are wrong: the network learns to expect less"
    synthesize "$folder/town-shaken.h5" "${shaken[@]}" "$town" --seed 4
    synthesize "$folder/others-shaken.h5" "${shaken[@]}" "$data/sharp/bsds500_val" --seed 5
    synthesize "$folder/others-objects.h5" objects "$data/sharp/bsds500_val" \
        --kernel-size 3 45 --scale 0.6 1.2 --seed 6
    shards=()
    for number in 1 2; do
        windows walls-shaken "$folder/walls-shaken.h5"
        windows town-shaken "$folder/town-shaken.h5" --count 3
    done
    windows walls "$folder/walls.h5" --sharp
    windows town "$town" --sharp --count 3
    windows others "$data/sharp/bsds500_val" --sharp
    windows others-shaken "$folder/others-shaken.h5"
    windows others-objects "$folder/others-objects.h5"
    real_windows
    learn "$folder/walls.pt" --start "$folder/photos.pt" --keep 0.1 --learning-rate 2e-4 \
        --constant 0.3 --iterations 1800 --seed 31
fi

echo "5. a step that joins the result with that of the network that comes with blurkit"
large=()
for name in "$data"/more/sharp/{div2k_val,detectron_demo}; do
    if [ -d "$name" ]; then large+=("$name"); fi
done
synthesize "$folder/joined-linear.h5" linear "$data/sharp/bsds500_test" "$town" "${large[@]}" \
    --scale 0.9 1.6 --kernel-size 3 45 --gamma 1 --seed 160
synthesize "$folder/joined-camera.h5" camera "$data/sharp/bsds500_train" "$town" "${large[@]}" \
    --kernel-size 3 45 --scale 0.6 1.2 --seed 1
synthesize "$folder/joined-objects.h5" objects "$data"/sharp/bsds500_{train,val} "${large[@]}" \
    --kernel-size 3 45 --scale 0.6 1.2 --seed 2
video=$data/video/gopr0477_240fps
real "$folder/video13.h5" "$video" --average 13 --stride 3
real "$folder/joined-video11.h5" "$video" --average 11 --stride 4 --gamma 1
draft=$(python3 -c 'from blurkit.systems.system import shipped_file; print(shipped_file())')
if [ ! -e "$folder/joined.pt" ]; then
    shards=()
    windows joined-kernels "$folder/kernels.h5" --limit 380
    for number in 1 2; do
        windows joined-linear "$folder/joined-linear.h5" --limit 220
        windows joined-camera "$folder/joined-camera.h5" --limit 220
        windows joined-objects "$folder/joined-objects.h5" --limit 220
    done
    windows video13 "$folder/video13.h5" --count 6
    windows joined-video11 "$folder/joined-video11.h5" --count 6
    windows joined-walls "$folder/walls.h5" --sharp --limit 90
    windows joined-town "$town" --sharp
    windows joined-others "$data/sharp/bsds500_val" --sharp --limit 70
    windows joined-walls-shaken "$folder/walls-shaken.h5" --limit 130
    learn "$folder/joined.pt" --start "$folder/walls.pt" --draft "$draft" \
        --learning-rate 4e-4 --constant 0.4 --iterations 4300 --seed 43
fi

echo "6. the same windows with refined kernels as well, noisy and soft photos; first what undoes blur"
refined() { # NAME PAIRS... OPTIONS...
    windows "refined-$1" "${@:2}" --refine "$folder/joined.pt"
}
soft=("$data"/sharp/{bsds500_val,urban100})
noisy=("$data"/sharp/bsds500_{train,test})
for name in "$data"/more/sharp/{div2k_val,detectron_demo,unsplash_baguettebox}; do
    if [ -d "$name" ]; then soft+=("$name") noisy+=("$name"); fi
done
if [ -d "$data/more/sharp/opensfm" ]; then soft+=("$data/more/sharp/opensfm"); fi
synthesize "$folder/noisy.h5" shake "${noisy[@]}" --kernel-size 5 41 --scale 0.5 1.1 \
    --noise 0.016 --seed 51
synthesize "$folder/soft.h5" shake "${soft[@]}" --kernel-size 5 41 --scale 1.2 1.9 \
    --noise 0.008 --seed 52
shards=()
for number in 1 2; do
    refined walls-shaken "$folder/walls-shaken.h5" --limit 130
    refined reds "$data/pairs/reds_180p/train" --count 3 --side 160
    if [ -d "$data/more/pairs/gopro" ]; then
        refined gopro "$data/more/pairs/gopro" --count 12
    fi
done
refined kernels "$folder/kernels.h5" --limit 380
refined linear "$folder/joined-linear.h5" --limit 220
refined camera "$folder/joined-camera.h5" --limit 220
refined objects "$folder/joined-objects.h5" --limit 220
refined noisy "$folder/noisy.h5" --limit 200
refined soft "$folder/soft.h5"
refined walls "$folder/walls.h5" --sharp --limit 90
refined town "$town" --sharp
refined others "$data/sharp/bsds500_val" --sharp --limit 70
refined gopro_avg "$data/pairs/gopro_avg/train/GOPR0477_11_00" --count 14
refined video13 "$folder/video13.h5" --count 6
learn "$folder/refined.pt" --start "$folder/joined.pt" --keep 0.1 --learning-rate 2e-4 \
    --constant 0.4 --iterations 3400 --seed 61

echo "7. then the step that joins, on pairs that the other network has not seen"
shards=()
for number in 1 2; do
    for name in linear camera objects; do shards+=("$folder/windows-refined-$name.h5"); done
done
for name in kernels noisy soft walls town others walls-shaken video13; do
    shards+=("$folder/windows-refined-$name.h5")
done
refined video11 "$folder/joined-video11.h5" --count 6
learn "$folder/both.pt" --start "$folder/refined.pt" --draft "$draft" \
    --learning-rate 3e-4 --constant 0.4 --iterations 3000 --seed 62
tool convert halve "$folder/both.pt" -o "$folder/deconvolution.pt" --force
tool convert describe "$(dirname "$0")/cards/deconvolution.tsv" "$folder/deconvolution.pt"
tool convert compress "$folder/deconvolution.pt"
