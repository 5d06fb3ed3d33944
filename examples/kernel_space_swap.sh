#!/usr/bin/env bash
# Blur-swapped data sets (encoded blur kernel space, CVPR 2021, Table 2): one deblurring network is
# trained on pairs, another on the same photos with each other's blur. Both are tested on held-out
# pairs; their scores are close if F and G transfer blur faithfully.
#
#   bash examples/kernel_space_swap.sh [SHARDS] [ITERATIONS] [FOLDER]       at a budget for a CPU
#   PRESET=paper GPUS=4 bash examples/kernel_space_swap.sh gopro/shards     the paper's table
#
# SHARDS (or $DATA) is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; if
# it is missing (or ""), it is made from photographs that scikit-image contains. ITERATIONS are
# those of each of three trainings: with PRESET=small, the default, 4000, together about two hours
# on a processor; otherwise the preset's. OPTIONS go to all of them. Restored images are scored as
# PROTOCOL says (default whole, the paper's). CHECKPOINT=kernel.pt uses existing F and G. All output
# goes to FOLDER (default swap/); run the script again to continue.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

shards=${1:-${DATA:-}}
budget "${2:-}" 4000
folder=${3:-swap}
checkpoint=${CHECKPOINT:-$folder/kernel.pt}
mkdir -p "$folder"

if [ -z "$shards" ]; then
    shards=$folder/shards
    pairs "$shards" shake
fi
mapfile -t unseen < <(held_out "$shards")

kernel_space "$checkpoint" "$shards"
if [ ! -e "$folder/swapped.h5" ]; then
    blurkit reblur "$shards"/train-*.h5 --shuffle -c "$checkpoint" -o "$folder/swapped.h5" -q
fi
deblurring "$folder/original.pt" "$shards"/train-*.h5
deblurring "$folder/swapped.pt" "$folder/swapped.h5"

{
    printf '%-12s %12s %12s %10s\n' "trained on" "REDS, paper" "GoPro, paper" here
    for name in original swapped; do
        if [ "$name" = original ]; then paper=(30.70 30.20); else paper=(29.43 28.49); fi
        printf '%-12s %12s %12s %10s\n' "$name" "${paper[@]}" \
            "$(deblurred "$folder/$name.pt" "${unseen[@]}")"
    done
} | tee "$folder/table.txt"
