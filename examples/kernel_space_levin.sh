#!/usr/bin/env bash
# Transfer of known blurs (encoded blur kernel space, CVPR 2021, Table 1): F and G are trained on
# photos blurred by eight kernels; then the blur of each kernel is transferred from unseen photos to
# others. Prints the PSNR in dB against the photos blurred by the kernel itself. For comparison, it
# also prints the PSNR of the sharp photo, that of the next kernel, and the paper's for Levin's
# kernels, from a training on 5000 images of REDS.
#
#   bash examples/kernel_space_levin.sh [PHOTOS] [KERNELS] [TEST] [ITERATIONS] [FOLDER]
#   PRESET=paper COUNT=1000 bash examples/kernel_space_levin.sh REDS/train/train_sharp \
#       KERNELS/ GOPRO_Large/test
#
# PHOTOS (or $DATA) are for training. TEST contains other photos; COUNT (default 4) of them are
# used, half as sources. KERNELS is a folder with one file for each kernel (.mat .npz .npy .png). If
# they are missing (or ""), scikit-image's photographs and eight kernels drawn by blurkit are used.
# ITERATIONS are 12000 with PRESET=small, the default, which take an hour or two on a processor and
# half a minute more per kernel; otherwise the preset's. OPTIONS go to the training. PROTOCOL does
# not apply, because crops of 256x256 are blurred whole. CHECKPOINT=kernel.pt uses existing
# networks. All output goes to FOLDER (default levin/); run the script again to continue.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

kernels=${2:-}
budget "${4:-}" 12000
folder=${5:-levin}
checkpoint=${CHECKPOINT:-$folder/kernel.pt}
mkdir -p "$folder"

photos=$(photos_or "${1:-${DATA:-}}" "$folder/photos" "${LEARNED[@]}")
test=$(photos_or "${3:-}" "$folder/unseen" "${UNSEEN[@]}")
if [ -z "$kernels" ]; then
    kernels=$folder/kernels
    mkdir -p "$kernels"
    python3 -c '
import sys
import numpy as np
from blurkit.synthesis.kernels import random_trajectory_kernel
for number in range(1, 9):
    kernel = random_trajectory_kernel(np.random.default_rng(number), 11 + 2 * number)
    np.save(f"{sys.argv[1]}/{number}.npy", kernel)' "$kernels"
fi

# Plain convolutions of pixel values.
shake=(--synthesize shake --gamma 1 --noise 0 --shot 0 --highlights 1 -q)

if [ ! -e "$checkpoint" ]; then
    blurkit prepare "$photos" "${shake[@]}" --kernels "$kernels" --copies 8 -o "$folder/shards/" \
        --resume
    kernel_space "$checkpoint" "$folder/shards"
fi
for half in 1 2; do
    # Use the corners of the photos.
    blurkit prepare "$test" --as sharp --crop 256 --crop-stride 4096 --limit "${COUNT:-4}" \
        --part "$half/2" -o "$folder/sharp$half.h5" --force -q
done

line() { printf '%-24s %8s %12s %8s %8s\n' "$@" | tee -a "$folder/table.txt"; }

rm -f "$folder/table.txt"
line "PSNR, dB" paper transferred sharp "wrong"
paper=(49.48 51.93 52.06 53.74 49.91 49.49 51.43 50.38)
files=("$kernels"/*)
for number in "${!files[@]}"; do
    kernel=${files[number]}
    next=${files[(number + 1) % ${#files[@]}]}
    for half in 1 2; do
        blurkit prepare "$folder/sharp$half.h5" "${shake[@]}" --kernels "$kernel" \
            -o "$folder/blurred$half.h5" --force
    done
    # Rounding to bfloat16 would be visible in PSNRs as high as these.
    scores=$(blurkit transfer "$folder/blurred2.h5" "$folder/blurred1.h5" -c "$checkpoint" \
        --precision fp32 -o - -q | scores_against_blur psnr psnr_sharp)
    wrong=$(blurkit reblur "$folder/blurred2.h5" --kernel "$next" -o - -q | scores_against_blur psnr)
    # shellcheck disable=SC2086 # two numbers
    line "$(basename "$kernel")" "${paper[number]:--}" $scores "$wrong"
done
