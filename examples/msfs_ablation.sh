#!/usr/bin/env bash
# MSFS-Net's ablation study (Table 4): every variant is trained in the same way, and its deblurring
# is measured. The table also has the paper's GoPro numbers. Compare only numbers of the same kind.
#
#   bash examples/msfs_ablation.sh [SHARDS] [ITERATIONS] [FOLDER]     at a budget for a CPU
#   PRESET=paper GPUS=4 bash examples/msfs_ablation.sh gopro/shards   the paper's table
#
# SHARDS (or $DATA) is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; if
# it is missing (or ""), it is made from photographs that scikit-image contains. ITERATIONS are 600
# with PRESET=small, the default; otherwise the preset's. Restored images are scored as PROTOCOL
# says (default whole, the paper's). All output goes to FOLDER (default msfs_ablation/); run the
# script again to continue where it stopped.
set -euo pipefail
source "$(dirname "$0")/ablation.sh" "${1:-}" "${2:-}" "${3:-}" msfs_ablation whole

line "" "paper, dB" SSIM "here, dB" SSIM
variant_row "without FSM" 29.80 0.917 without-fsm --system msfs --no-frequency-separation
variant_row "without CSFFM" 30.22 0.891 without-csffm --system msfs --no-cross-scale
variant_row "without CLM" 31.08 0.911 without-clm --system msfs --contrastive-weight 0
variant_row "without consistency" 31.54 0.913 without-consistency --system msfs --consistency-weight 0
variant_row "full" 32.73 0.959 full --system msfs
blurry_row
