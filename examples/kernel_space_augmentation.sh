#!/usr/bin/env bash
# Transferred blur as augmentation (encoded blur kernel space, CVPR 2021, Section 4.4 and Table 4):
# sharp photos of a domain without pairs get synthetic blur, and the blur of the pairs of other data
# sets. One deblurring network is trained on synthetic blur, one on both kinds. Both are tested on
# unseen photos with synthetic blur, with blur transferred from the same data set, and with blur
# transferred from another one. The paper's domain is faces; its data sets are REDS and GoPro.
#
#   bash examples/kernel_space_augmentation.sh [PHOTOS] [TEST] [PAIRS] [OTHER] [ITERATIONS] [FOLDER]
#   PRESET=paper GPUS=4 bash examples/kernel_space_augmentation.sh FFHQ/ FACES/ reds/ gopro/shards
#
# PHOTOS and TEST are sharp photos for training and for testing; PAIRS (or $DATA) and OTHER are
# folders of pairs that `blurkit prepare` wrote. If they are missing (or ""), they are made from
# photographs that scikit-image contains: PAIRS with turning cameras, OTHER with moving objects.
# ITERATIONS are those of each of three trainings: with PRESET=small, the default, 4000, together
# about two hours on a processor; otherwise the preset's. OPTIONS go to all of them. Restored images
# are scored as PROTOCOL says (default whole, the paper's). CHECKPOINT=kernel.pt uses existing F and
# G. All output goes to FOLDER (default augmentation/); run the script again to continue.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

pairs=${3:-${DATA:-}}
other=${4:-}
budget "${5:-}" 4000
folder=${6:-augmentation}
checkpoint=${CHECKPOINT:-$folder/kernel.pt}
mkdir -p "$folder"

photos=$(photos_or "${1:-}" "$folder/photos" "${LEARNED[@]}")
test=$(photos_or "${2:-}" "$folder/unseen" "${UNSEEN[@]}")
if [ -z "$pairs" ]; then
    pairs=$folder/pairs
    pairs "$pairs" camera
fi
if [ -z "$other" ]; then
    other=$folder/other
    pairs "$other" objects
fi

kernel_space "$checkpoint" "$pairs" "$other"
synthetic=(--synthesize shake --kernel-size 9 41)
made() { # SHARD PHOTOS OPTIONS...: make a shard unless it exists
    [ -e "$folder/$1.h5" ] || blurkit prepare "${@:2}" -o "$folder/$1.h5" -q
}
made synthetic "$photos" "${synthetic[@]}" --copies 6
made transferred "$photos" --transfer-from "$pairs" -c "$checkpoint" --copies 6
made test-synthetic "$test" "${synthetic[@]}" --seed 1
made test-transferred "$test" --transfer-from "$pairs" -c "$checkpoint" --seed 1
made test-other "$test" --transfer-from "$other" -c "$checkpoint" --seed 1

deblurring "$folder/deblur-synthetic.pt" "$folder/synthetic.h5"
deblurring "$folder/deblur-both.pt" "$folder/synthetic.h5" "$folder/transferred.h5"

row() { printf '%-22s %10s %12s %8s\n' "$@"; }

{
    row "PSNR, dB: tested on" synthetic transferred other
    row "synthetic, paper" 28.64 24.22 22.96
    row "both, paper" 28.30 28.37 23.92
    for name in synthetic both; do
        scores=()
        for blur in synthetic transferred other; do
            scores+=("$(deblurred "$folder/deblur-$name.pt" "$folder/test-$blur.h5")")
        done
        row "$name, here" "${scores[@]}"
    done
} | tee "$folder/table.txt"
