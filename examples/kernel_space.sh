# shellcheck shell=bash
# Functions for the examples of the encoded blur kernel space (CVPR 2021), which `source` this file.
source "$(dirname "${BASH_SOURCE[0]}")/train.sh"

# FOLDER KIND: blurred photographs for users without data: train-*.h5, val-unseen.h5
pairs() {
    local folder=$1 kind=(--synthesize "$2" --kernel-size 9 19 -q)
    if [ -e "$folder/val-unseen.h5" ]; then return; fi
    photographs "$folder-photos" "${LEARNED[@]}"
    photographs "$folder-unseen" "${UNSEEN[@]}"
    blurkit prepare "$folder-photos" "${kind[@]}" --copies 6 -o "$folder/" --seed 1 --force
    # Uses the corners of the photographs, which gives eight pairs.
    blurkit prepare "$folder-unseen" "${kind[@]}" --crop 256 --crop-stride 4096 \
        -o "$folder/val-unseen.h5" --seed 2
}

kernel_space() { # CHECKPOINT SHARDS... [OPTIONS...]: train F and G unless they exist
    train train-reblur "$1" "${@:2}" --system kernel-space --preset small --precision auto --no-samples
}

scores_against_blur() { # KEY...: mean scores of reblurred images against the blurry ones
    blurkit eval - --image reblurred --target blur --json -q | mean "$@"
}

deblurred() { # CHECKPOINT SHARDS...: PSNR of the restored images
    blurkit deblur "${@:2}" -c "$1" -o - -q | blurkit eval - --json -q | mean psnr
}
