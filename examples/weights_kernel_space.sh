#!/usr/bin/env bash
# Trains the kernel space that comes with blurkit, light F and G, in about an hour on two
# processors. docs/weights.md lists their training data and their measurements.
#
#   bash examples/weights_kernel_space.sh DATA/ [OPTIONS...]
#
# DATA, OPTIONS and FOLDER are those of weights.sh; both scripts use what either has prepared.
set -euo pipefail
source "$(dirname "$0")/train.sh"
source "$(dirname "$0")/weights_data.sh" "$@"
synthesize "$folder/camera/" camera "${photos[@]}" --scale 0.6 1.2 --kernel-size 3 45 \
    --copies 3 --seed 11
synthesize "$folder/shake/" shake "${photos[@]}" --scale 0.6 1.3 --kernel-size 5 45 \
    --copies 3 --seed 20

codes=("$data/sharp/bsds500_train" --synthesize camera)
real "$folder/codes.h5" "${codes[@]}" --kernel-size 1 45 --seed 31
real "$folder/codes-short.h5" "${codes[@]}" --kernel-size 1 12 --seed 32

echo "3. F and G"
shards=("$folder"/{camera,middle,objects} "${far[@]}")
again 2 "$folder/shake"
again 5 "$folder"/video*.h5
again 25 "$folder/gopro_avg.h5"
train train-reblur "$folder/kernel.pt" "${shards[@]}" --system kernel-space --preset small \
    --back-blocks 10 --code-length 128 --variational --kl-weight 0.05 --sharp-pairs 0.05 \
    --ema 0.999 --iterations 16000 --seed 5 --precision auto "${options[@]}"

echo "4. in half precision, its codes standardised, and kept for random blur of every strength"
tool pack "$folder/kernel.pt" -o "$folder/kernel_space.pt" --force \
    --codes "$folder"/codes{,-short}.h5
tool convert describe "$(dirname "$0")/cards/kernel_space.tsv" "$folder/kernel_space.pt"
blurkit reblur "$data/pairs/gopro" -c "$folder/kernel_space.pt" -o "$folder/reblurred.h5" --force
