# shellcheck shell=bash
# For the examples of the encoded blur kernel space (CVPR 2021), which `source` it.
source "$(dirname "${BASH_SOURCE[0]}")/train.sh"

pairs() { # FOLDER KIND: without data of the user's own, photographs blurred: train-*.h5, val-unseen.h5
    local folder=$1 kind=(--synthesize "$2" --kernel-size 9 19 -q)
    if [ -e "$folder/val-unseen.h5" ]; then return; fi
    photographs "$folder-photos" "${LEARNED[@]}"
    photographs "$folder-unseen" "${UNSEEN[@]}"
    blurkit prepare "$folder-photos" "${kind[@]}" --copies 6 -o "$folder/" --seed 1 --force
    # In their corners, which gives eight pairs.
    blurkit prepare "$folder-unseen" "${kind[@]}" --crop 256 --crop-stride 4096 \
        -o "$folder/val-unseen.h5" --seed 2
}

kernel_space() { # CHECKPOINT SHARDS... [OPTIONS...]: F and G, unless they are there
    train train-reblur "$1" "${@:2}" --system kernel-space --preset small --precision auto --no-samples
}

held_to_blur() { # KEY...: means of eval of what reblurred images are, against the blurry ones
    blurkit eval - --image reblurred --target blur --json -q | mean "$@"
}

deblurred() { # CHECKPOINT SHARDS...: PSNR of what it restores
    blurkit deblur "${@:2}" -c "$1" -o - -q | blurkit eval - --json -q | mean psnr
}
