# shellcheck shell=bash
# Functions for the examples of the encoded blur kernel space (CVPR 2021), which `source` this file.
# $PRESET (default small) is the preset of every training, $PROTOCOL (default whole, the paper's) is
# how images are deblurred for scoring. $OPTIONS are further options of all trainings.
source "$(dirname "${BASH_SOURCE[0]}")/train.sh"

preset=${PRESET:-small}
protocol=${PROTOCOL:-whole}
read -ra options <<< "${OPTIONS:-}"
# The released files for REDS and for a variational space differ from the one for GoPro.
reds=$preset variational=$preset
if [ "$preset" = official ]; then reds=official-reds variational=official-vae; fi

budget() { # ITERATIONS SMALL: steps of every training; if "", those of the preset, SMALL for small
    iterations=$1
    if [ -z "$iterations" ] && [ "$preset" = small ]; then iterations=$2; fi
}

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

trained() { # STAGE CHECKPOINT SHARDS... [OPTIONS...]: train within the budget unless it exists
    train "$@" --no-samples ${iterations:+--iterations "$iterations"} "${options[@]}"
}

kernel_space() { # CHECKPOINT SHARDS... [OPTIONS...]: train F and G
    if [ "$preset" = small ]; then set -- "$@" --precision auto; fi
    trained train-reblur "$1" --system kernel-space --preset "$preset" "${@:2}"
}

deblurring() { # CHECKPOINT SHARDS...: train MSDI-Net without its encoder
    trained train-deblur "$@" --preset "$preset" --injection none --blur-weight 0
}

scores_against_blur() { # KEY...: mean scores of reblurred images against the blurry ones
    blurkit eval - --image reblurred --target blur --json -q | mean "$@"
}

deblurred() { # CHECKPOINT SHARDS...: PSNR of the restored images
    blurkit deblur "${@:2}" -c "$1" --protocol "$protocol" -o - -q | blurkit eval - --json -q |
        mean psnr
}
