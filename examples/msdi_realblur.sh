#!/usr/bin/env bash
# MSDI-Net on RealBlur-J as in its paper (ECCV 2022, Table 3): the second stage is trained on
# RealBlur with the encoder trained on GoPro, and scores are computed after alignment.
# The paper has 32.35 dB and 0.923.
#
#   bash examples/msdi_realblur.sh RealBlur-J_ECC_IMCORR_centroid_itensity_ref/ gopro/enc.pt \
#       [PRESET [OPTIONS...]]
#
# The dataset's list files are in that folder or next to it. PRESET, PROTOCOL, OPTIONS, GPUS, FOLDER
# (default realblur/) and BLUR_ENCODER (gopro/enc1.pt for `official`) are as for msdi_gopro.sh, which
# makes the encoders.
set -euo pipefail
source "$(dirname "$0")/train.sh"

encoder=$2
begin realblur "$1" "${@:3}"
train train-deblur "$folder/deblur.pt" "$folder/shards" --preset "$preset" \
    --encoder "$encoder" ${BLUR_ENCODER:+--blur-encoder "$BLUR_ENCODER"} "${options[@]}"
blurkit deblur "$folder"/shards/test-*.h5 -c "$folder/deblur.pt" --protocol "${PROTOCOL:-slices}" -o - |
    blurkit eval - --align -o "$folder/scores.md" -o "$folder/scores.json" --force
