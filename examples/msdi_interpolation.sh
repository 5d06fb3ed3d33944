#!/usr/bin/env bash
# MSDI-Net's interpolation of degradations (ECCV 2022, Section 4.3 and Fig. 5): sharp images are
# blurred with mixtures of E(x) and E(y), from sharp to blurry.
#
#   bash examples/msdi_interpolation.sh GOPRO_Large/test enc.pt     the last is from train-reblur
#
# FOLDER (default interpolation/) receives contact sheets and frames of the first COUNT (default 8)
# pairs, and energies.jsonl: the gradient energy of every frame, and in the last line the number of
# pairs for which it falls at every step.
set -euo pipefail

folder=${FOLDER:-interpolation}
mkdir -p "$folder"

blurkit prepare "$1" --limit "${COUNT:-8}" -o - |
    blurkit interpolate - -c "$2" --steps 7 --sheet "$folder/sheets/" -o "$folder/frames/" \
        --force --json > "$folder/energies.jsonl"
tail -n 1 "$folder/energies.jsonl"
