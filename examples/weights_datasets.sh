#!/usr/bin/env bash
# Trains the networks that come with blurkit on datasets of your own, and packs them like msdi.pt.
#
#   bash examples/weights_datasets.sh DATASET/... [-- OPTIONS...]
#
# Each DATASET/ is GoPro, REDS, RealBlur or another layout that `prepare` knows, as downloaded. Its
# training split is used, and the test or validation splits are scored at the end. OPTIONS go to
# both stages: `--batch 32 --iterations 100000` for a GPU; rehearse with `--iterations 20`.
# GPUS=8 trains on eight. A table of the data and its terms in CARD (docs/formats.md) is put into
# the file. All output goes to FOLDER (default datasets/); run it again to continue.
set -euo pipefail
source "$(dirname "$0")/train.sh"
folder=${FOLDER:-datasets}
shards=() unseen=()

while [ $# -gt 0 ] && [ "$1" != -- ]; do
    prepared=$folder/shards/$(basename "$1")
    blurkit prepare "$1" -o "$prepared/" --resume
    shards+=("$prepared"/train-*.h5)
    while read -r shard; do # a dataset may have nothing but training pairs
        if [ -e "$shard" ]; then unseen+=("$shard"); fi
    done < <(held_out "$prepared")
    shift
done
options=("${@:2}")

train train-reblur "$folder/enc.pt" "${shards[@]}" "${stage1[@]}" "${options[@]}"
train train-deblur "$folder/deblur.pt" "${shards[@]}" "${stage2[@]}" --width 32 \
    --encoder "$folder/enc.pt" "${steered[@]}" "${options[@]}"
tool pack "$folder/enc.pt" "$folder/deblur.pt" -o "$folder/msdi.pt" --force
if [ -n "${CARD:-}" ]; then tool convert describe "$CARD" "$folder/msdi.pt"; fi
for shard in "${unseen[@]}"; do
    blurkit deblur "$shard" -c "$folder/msdi.pt" --method network -o - -q |
        blurkit eval - -o "$folder/$(basename "$(dirname "$shard")").md" --force
done
