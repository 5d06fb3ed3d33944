#!/usr/bin/env bash
# MSDI-Net on GoPro as in its paper (ECCV 2022, Tables 1 and 2): both training stages, tests on
# 256x256 slices, PSNR, MATLAB's SSIM, the blurriest and the sharpest tenth, and MACs. The paper has
# 33.28 dB and 0.964; 29.65 and 35.58 dB; 336.43 G.
#
#   bash examples/msdi_gopro.sh GOPRO_Large/ [PRESET [OPTIONS...]]
#
# PRESET (default paper) is also read from the environment, like DATA, the dataset, and PROTOCOL
# (default slices); OPTIONS go to both training stages. GPUS=8 trains on eight. Rehearse with
# `small --iterations 200`, which a CPU does in minutes, with other numbers. All output goes to
# FOLDER (default gopro/); run the script again to continue where it stopped. The blur-aware loss of
# `official` has the encoder of BLUR_ENCODER; without one, version 1 of stage 1 is trained as well.
set -euo pipefail
source "$(dirname "$0")/train.sh"

begin gopro "$@"
train train-reblur "$folder/enc.pt" "$folder/shards" --preset "$preset" "${options[@]}"
if [ "$preset" = official ] && [ -z "${BLUR_ENCODER:-}" ]; then
    BLUR_ENCODER=$folder/enc1.pt
    train train-reblur "$BLUR_ENCODER" "$folder/shards" --preset paper "${options[@]}"
fi
train train-deblur "$folder/deblur.pt" "$folder/shards" --preset "$preset" \
    --encoder "$folder/enc.pt" ${BLUR_ENCODER:+--blur-encoder "$BLUR_ENCODER"} "${options[@]}"
blurkit deblur "$folder"/shards/test-*.h5 -c "$folder/deblur.pt" --protocol "${PROTOCOL:-slices}" -o - |
    blurkit eval - -c "$folder/deblur.pt" -o "$folder/scores.md" -o "$folder/scores.json" --force
