#!/usr/bin/env bash
# MSDI-Net's ablation study (ECCV 2022, Table 4, and the two of its supplement): every variant is
# trained in the same way, and its deblurring and reblurring are measured. The table also has the
# paper's GoPro numbers. Compare only numbers of the same column.
#
#   bash examples/msdi_ablation.sh [SHARDS] [ITERATIONS] [FOLDER]     at a budget for a CPU
#   PRESET=paper GPUS=8 bash examples/msdi_ablation.sh gopro/shards   the paper's table
#
# SHARDS (or $DATA) is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; if
# it is missing (or ""), it is made from photographs that scikit-image contains. ITERATIONS are
# those of each stage (600 with PRESET=small, the default; otherwise the preset's). Restored images
# are scored as PROTOCOL says (default slices, the paper's). All output goes to FOLDER (default
# ablation/); run the script again to continue where it stopped.
set -euo pipefail
source "$(dirname "$0")/ablation.sh" "${1:-}" "${2:-}" "${3:-}" ablation slices

reblurring() { # CHECKPOINT: PSNR of y' = x + G_r(x, E(y)) against y
    blurkit reblur "${held_out[@]}" -c "$folder/$1.pt" -o "$folder/reblurred.h5" --force --json -q |
        mean reblurred_psnr
}

# Stage 1. Variants that change only the deblurring network share the full model's encoder. --preset
# small reblurs with L1 alone by default; the paper's full model does not.
train_variant train-reblur enc-full --reblur-loss adversarial
train_variant train-reblur enc-without-reblurring --no-reblurring
train_variant train-reblur enc-1d --code 1d --reblur-loss adversarial
train_variant train-reblur enc-l1 --reblur-loss l1
full=$(reblurring enc-full)
one_d=$(reblurring enc-1d)
l1=$(reblurring enc-l1)

row() { # LABEL PAPER REBLURRING ENCODER NAME OPTIONS...: train stage 2, print a row
    local label=$1 paper=$2 reblurred=$3 encoder=$4 name=$5 restored
    shift 5
    train_variant train-deblur "$name" --encoder "$folder/$encoder.pt" "$@"
    restored=$(deblurring "$name" psnr)
    line "$label" "$paper" "$restored" "$reblurred"
}

line "PSNR, dB" paper deblurring reblurring
row "without degradation" 32.81 - enc-full without-degradation --injection none
row "without reblurring" 33.09 - enc-without-reblurring without-reblurring
row "without blur loss" 33.21 - enc-full without-blur-loss --blur-weight 0
row "injection at lowest scale" 32.80 - enc-full lowest --injection lowest
row "concatenation at the input" 32.98 - enc-full input --injection input
row "concatenation at all scales" 33.05 - enc-full concat --injection concat
row "1-D code" - "$one_d" enc-1d 1d
row "reblurring with L1 only" - "$l1" enc-l1 l1
row "full" 33.28 "$full" enc-full full
