#!/usr/bin/env bash
# Trains weights on a machine with a GPU that is available for some minutes at a time and has only
# this repository and what PyTorch needs: pack here, train there piece by piece, unpack here.
#
#   bash examples/weights_gpu.sh pack DATA/                        # here; DATA is that of weights.sh
#   bash examples/weights_gpu.sh train deblur [OPTIONS...]         # there; call again to continue
#   bash examples/weights_gpu.sh train deconvolution [OPTIONS...]  # there
#   bash examples/weights_gpu.sh unpack RESULTS/                   # here, with the results
#
# All files are in FOLDER (default weights-gpu/); copy FOLDER/data to that machine, under the same
# name. A machine that is not the last one also needs FOLDER/*.state.pt and FOLDER/*.jsonl. OPTIONS
# go to the training. These variables can be set, too:
#   LIMIT=30    MiB of training data to pack
#   MINUTES=8   duration of one call of `train`, including its preparation
#   WIDTH=32    channels of the deblurring network
#   JOBS        processes that draw crops (default: all processors but one)
#   OUT         folder for the results, cut into pieces of 15 MiB; without it they stay in FOLDER
# Rehearse with: MINUTES=0.1 WIDTH=8 bash examples/weights_gpu.sh train deblur --batch 2 --crop 64
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source "$here/train.sh"
folder=${FOLDER:-weights-gpu}
data=$folder/data
export MINUTES=${MINUTES:-8}
export JOBS=${JOBS:-$(($(nproc) > 1 ? $(nproc) - 1 : 1))}
export PYTHONPATH=${here%/examples}${PYTHONPATH:+:$PYTHONPATH}
blurkit() { python3 -m blurkit "$@"; } # works without an installation
export -f blurkit

# ---- here ----------------------------------------------------------------------------------------

pack() { # DATA/: without measured scenes: Set5, skimage, gb82, GoPro's and REDS's test scenes
    local root=${1%/} photos=() name
    for name in "$root"/sharp/{urban100,bsds500_{train,val,test}} "$root"/more/sharp/*; do
        if [ -d "$name" ] && [ "${name##*/}" != gb82 ]; then photos+=("${name#"$root/"}"); fi
    done
    local pairs=(pairs/gopro_avg/train/GOPR0477_11_00 pairs/reds_180p/train)
    if [ -d "$root/more/pairs/gopro" ]; then pairs+=(more/pairs/gopro); fi
    tool bundle "$root" -o "$data" --limit "${LIMIT:-30}" \
        --pairs "${pairs[@]}" --frames video/gopr0477_240fps --photos "${photos[@]}"
}

unpack() { # RESULTS/: join the pieces, in FOLDER
    local first name
    mkdir -p "$folder"
    for first in "$1"/*.part00; do
        name=$(basename "${first%.part00}")
        cat "${first%00}"[0-9][0-9] >"$folder/$name"
    done
    ls -l "$folder"
}

# ---- there ---------------------------------------------------------------------------------------

prepared() { # NAME INPUTS AND OPTIONS...: a shard, unless it exists
    if [ ! -e "$folder/$1.h5" ]; then blurkit prepare "${@:2}" -q -o "$folder/$1.h5"; fi
    shards+=("$folder/$1.h5")
}

deblur() { # OPTIONS...: the end-to-end network; real pairs, and photos with new blur for each crop
    local shards=() count photos=("$data"/sharp/*)
    if [ -d "$data/more/sharp" ]; then photos+=("$data"/more/sharp/*); fi
    prepared sharp "${photos[@]}" --as sharp
    if [ -d "$data/video/gopr0477_240fps" ]; then
        for count in 7 9 11 13; do
            prepared "video$count" "$data/video/gopr0477_240fps" --average "$count" --stride 3
        done
    fi
    for ((count = 0; count < 4; count++)); do # files listed more often are seen more often
        prepared gopro_avg "$data/pairs/gopro_avg/train/GOPR0477_11_00"
        prepared reds "$data/pairs/reds_180p/train"
        if [ -d "$data/more/pairs/gopro" ]; then prepared gopro "$data/more/pairs/gopro"; fi
    done
    local start=() # the weights came back, but their state was too large to transfer
    if [ -e "$folder/deblur.half.pt" ] && [ ! -e "$folder/deblur.state.pt" ]; then
        start=(--start "$folder/deblur.half.pt")
    fi
    # A third of the pairs get another blur, so that the network cannot recognise a scene's blur.
    train train-deblur "$folder/deblur.pt" "${shards[@]}" --preset small --generator single \
        --unshuffle 2 --width "${WIDTH:-32}" --injection none --blur-weight 0 --pixel-loss l1 \
        --synthesize realistic --synthetic-share 0.33 --sharp-pairs 0.1 --ema 0.999 \
        --crop 256 --batch 64 --learning-rate 5e-4 --iterations 20000 --precision auto \
        --minutes "$(minutes_left)" --half-state --jobs "$JOBS" "${start[@]}" "$@"
    local trained=$folder/deblur.pt
    if [ ! -e "$trained" ]; then trained=$folder/deblur.state.pt; fi
    tool convert halve "$trained" -o "$folder/deblur.half.pt" --force
    results deblur deblur.half.pt deblur.state.pt
}

deconvolution() { # OPTIONS...: the network that undoes a known or estimated blur
    FOLDER=$folder bash "$here/weights_deconvolution.sh" "$data" --batch 32 --half-state "$@"
    results deconvolution deconvolution.pt both{,.state}.pt
}

results() { # NAME FILES...: into $OUT, the most important first, while there is room
    local room=60 name size
    if [ -z "${OUT:-}" ]; then return; fi
    mkdir -p "$OUT"
    for name in "$1.log.jsonl" "${@:2}"; do
        if [ ! -e "$folder/$name" ]; then continue; fi
        size=$(($(wc -c <"$folder/$name") / 1048576 + 1))
        if [ "$size" -gt "$room" ]; then
            echo "$name: $size MiB, which is too large to transfer; it stays in $folder" >&2
            continue
        fi
        room=$((room - size))
        split -b 15M -d "$folder/$name" "$OUT/$name.part"
    done
}

case ${1:-} in
    pack | unpack) "$1" "$2" ;;
    train) case ${2:-} in
        deblur | deconvolution) "${@:2}" ;;
        *) echo "usage: $0 train deblur|deconvolution [OPTIONS...]" >&2 && exit 2 ;;
    esac ;;
    *) echo "usage: $0 pack DATA/ | train NETWORK [OPTIONS...] | unpack RESULTS/" >&2 && exit 2 ;;
esac
