#!/usr/bin/env bash
# MSFS-Net on GoPro as in its paper (Table 1): training, then whole test images, PSNR and MATLAB's
# SSIM. The paper has 32.73 dB and 0.959.
#
#   bash examples/msfs_gopro.sh GOPRO_Large/ [PRESET [OPTIONS...]]
#
# PRESET (default paper) is also read from the environment, like DATA, the dataset, and PROTOCOL
# (default whole); OPTIONS go to the training. GPUS=4 trains on four. Rehearse with `small
# --iterations 200`. All output goes to FOLDER (default msfs/); msfs_evaluation.sh measures its
# msfs.pt on other test sets. Run the script again to continue where it stopped.
set -euo pipefail
source "$(dirname "$0")/train.sh"

begin msfs "$@"
train train-deblur "$folder/msfs.pt" "$folder/shards" --system msfs --preset "$preset" \
    "${options[@]}"
bash "$(dirname "$0")/msfs_evaluation.sh" "$dataset" "$folder/msfs.pt" "$folder"
