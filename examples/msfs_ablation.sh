#!/usr/bin/env bash
# MSFS-Net's ablation study (Table 4) at a budget for a CPU: every variant trained alike, its
# deblurring measured, the paper's GoPro numbers beside it. Only numbers of one kind compare.
#
#   bash examples/msfs_ablation.sh [SHARDS] [ITERATIONS] [FOLDER]
#
# SHARDS is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; without one
# (or "") it is made of photographs that scikit-image carries. ITERATIONS are 600 unless given.
# Everything goes to FOLDER (default msfs_ablation/); run again, it goes on where it was stopped.
set -euo pipefail
source "$(dirname "$0")/ablation.sh" "${1:-}" "${2:-}" "${3:-}" msfs_ablation

row() { # LABEL PAPER'S-PSNR ITS-SSIM NAME OPTIONS...: train, then a line of the table
    local label=$1 papers=("$2" "$3") name=$4 scores
    shift 4
    train_variant train-deblur "$name" --system msfs "$@"
    scores=$(deblurring "$name" psnr ssim_matlab)
    line "$label" "${papers[@]}" $scores # two words
}

line "" "paper, dB" SSIM "here, dB" SSIM
row "without FSM" 29.80 0.917 without-fsm --no-frequency-separation
row "without CSFFM" 30.22 0.891 without-csffm --no-cross-scale
row "without CLM" 31.08 0.911 without-clm --contrastive-weight 0
row "without consistency" 31.54 0.913 without-consistency --consistency-weight 0
row "full" 32.73 0.959 full
line "blurry" - - $(blurkit eval "${held_out[@]}" --image blur --json -q | mean psnr ssim_matlab)
