#!/usr/bin/env bash
# The four networks that were released with the encoded blur kernel space (CVPR 2021): F and G of
# REDS, of GoPro, of GoPro with deviations, which start from those without, and of both data sets,
# GoPro ten times as often as its size. REDS4, which are clips 000, 011, 015 and 020 of REDS's
# training split, is held out.
#
#   bash examples/kernel_space_release.sh REDS/ GOPRO_Large/
#
# PRESET (default official) is the preset of all trainings, OPTIONS are further options of them;
# rehearse with PRESET=small OPTIONS='--iterations 200'. GPUS=4 trains on four. All output goes to
# FOLDER (default release/): the shards reds/ and gopro/, and reds_woVAE.pt, gopro_woVAE.pt,
# gopro_wVAE.pt and mix_woVAE.pt; run the script again to continue.
set -euo pipefail
PRESET=${PRESET:-official}
source "$(dirname "$0")/kernel_space.sh"

clips=${1:?the folder of REDS}/train
gopro=${2:?the folder of GOPRO_Large}
folder=${FOLDER:-release}
budget "" ""
mkdir -p "$folder"

printf '%s\n' 000 011 015 020 > "$folder/REDS4_test.txt"
find "$clips/train_sharp" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort |
    grep -vxf "$folder/REDS4_test.txt" > "$folder/REDS_train.txt"
for list in REDS4_test REDS_train; do
    blurkit prepare "$clips" --list "$folder/$list.txt" -o "$folder/reds/" --resume
done
blurkit prepare "$gopro" -o "$folder/gopro/" --resume

mix=("$folder/reds")
for _ in {1..10}; do mix+=("$folder/gopro"); done
kernel_space "$folder/reds_woVAE.pt" "$folder/reds" --preset "$reds"
kernel_space "$folder/gopro_woVAE.pt" "$folder/gopro"
kernel_space "$folder/gopro_wVAE.pt" "$folder/gopro" --preset "$variational" --variational \
    --start "$folder/gopro_woVAE.pt"
kernel_space "$folder/mix_woVAE.pt" "${mix[@]}"
