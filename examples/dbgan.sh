#!/usr/bin/env bash
# "Deblurring by Realistic Blurring" (CVPR 2020) from end to end: a BGAN learns the blur of photos
# that have no sharp partner, its samples are measured, then DBGAN(-), DBGAN and DBGAN(+) are trained
# at equal budget. Their results are printed with the paper's GoPro numbers (Table 1).
#
#   bash examples/dbgan.sh [SHARDS] [BLURRY] [ITERATIONS] [FOLDER] [OPTIONS...]   small, on a CPU
#   PRESET=paper GPUS=4 bash examples/dbgan.sh gopro/shards RWBI/                 the paper's table
#
# SHARDS (or $DATA) is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; if
# it is missing (or ""), it is made from photographs that scikit-image contains. BLURRY is a folder
# of blurry photos, such as RWBI's; if it is missing (or ""), blurkit blurs scikit-image's
# photographs as cameras do. ITERATIONS are those of each network (default: those of PRESET, by
# default small); OPTIONS go to every training. Restored images are scored as PROTOCOL says
# (default whole, as released). BLURKIT_FEATURES names the feature network of the perceptual loss;
# PRESET=small does not require one. All output goes to FOLDER (default dbgan/); run the script again
# to continue where it stopped. msdi_comparison.sh shows the variants side by side (Fig. 5).
set -euo pipefail
blurry=${2:-}
plan=$(blurkit train-deblur --system dbgan --preset "${PRESET:-small}" --perceptual none --dry-run -q)
own=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["iterations"])' <<<"$plan")
source "$(dirname "$0")/ablation.sh" "${1:-}" "${3:-$own}" "${4:-}" dbgan whole "${@:5}"

# The photos whose blur is learned, as shards.
if [ -n "$blurry" ]; then
    blurkit prepare "$blurry" --as blur -o "$folder/blurry/" --resume -q
elif [ ! -e "$folder/blurry/train-00000.h5" ]; then
    photographs "$folder/others" retina.jpg motorcycle_left.png ihc.png hubble_deep_field.jpg
    blurkit prepare "$folder/others" --synthesize camera --kernel-size 9 19 --copies 4 --seed 7 \
        -o "$folder/blurry/" -q
fi

# Learn to blur, and measure how the samples of four noise vectors differ (Fig. 4).
half=$((iterations / 2))
train_variant train-reblur bgan --system bgan --blurry "$folder/blurry" ${3:+--warm-up "$half"}
blurkit reblur "${held_out[@]}" -c "$folder/bgan.pt" --noise --copies 4 \
    -o "$folder/samples.h5" --force
if [ -n "${BLURKIT_FEATURES:-}" ]; then # do they still show the same content?
    blurkit contextual-sim "$folder/samples.h5" --images reblurred sharp --crop 256
fi

# Learn to deblur. DBGAN(+) is DBGAN after half the steps, trained with the new blur for the other
# half.
line "" "paper, dB" SSIM "here, dB" SSIM
variant_row "DBGAN(-)" - - minus --system dbgan --variant minus
variant_row "DBGAN" 30.43 0.937 plain --system dbgan
train_variant train-deblur half --system dbgan --iterations "$half"
variant_row "DBGAN(+)" 31.10 0.942 plus --system dbgan --variant plus --bgan "$folder/bgan.pt" --mix 0.5 \
    --start "$folder/half.pt" --iterations "$((iterations - half))"
blurry_row
