#!/usr/bin/env bash
# MSDI-Net on GoPro as its paper has it (ECCV 2022, Table 1): both training stages, the 256x256
# slices in testing, PSNR and MATLAB's SSIM. The paper reports 33.28 dB and 0.964.
#
#   bash examples/msdi_gopro.sh GOPRO_Large/ [PRESET]     PRESET paper, official or small
#
# Give GPUS=8 to train on eight; with `small` it is a rehearsal on a CPU, with other numbers.
set -euo pipefail

dataset=$1
preset=${2:-paper}
train() { blurkit "$@"; }
if [ "${GPUS:-1}" -gt 1 ]; then
    train() { torchrun --nproc-per-node "$GPUS" -m blurkit "$@"; }
fi

blurkit prepare "$dataset" -o shards/ --resume
train train-reblur shards/ --preset "$preset" -o enc.pt
train train-deblur shards/ --preset "$preset" --encoder enc.pt -o deblur.pt
blurkit deblur shards/test-*.h5 -c deblur.pt --protocol slices -o - | blurkit eval - --json > scores.jsonl
tail -n 1 scores.jsonl
