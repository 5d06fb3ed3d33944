#!/usr/bin/env bash
# The week before a paper, in less than ten minutes on two cores: pairs with a validation split, a
# network of one's own at two learning rates with three seeds, a table of it beside NAFNet and
# MSDI-Net, each by the protocol of its paper, the curves of all trainings, and an ONNX file.
#
#   bash examples/paper_week.sh                                       photographs that scikit-image has
#   bash examples/paper_week.sh GOPRO_Large 100000 paper_week --crop 256 --batch 16
#
# The first argument is a dataset with a test split (or ""), the second the ITERATIONS of each
# training (default 100), the third FOLDER, which has all output (default paper_week/); further
# arguments are options of every training. NETWORKS are released networks, as files, to compare
# with (default: msdi, which comes with blurkit), RATES and SEEDS those of the trainings, GPUS the
# devices, and NETWORK is FILE.py:CLASS, your network. Run again, it continues where it stopped.
set -euo pipefail
examples=$(cd "$(dirname "$0")" && pwd)
source "$examples/train.sh"

data=${1:-}
iterations=${2:-100}
folder=${3:-paper_week}
options=(--iterations "$iterations" "${@:4}")
if [ $# -lt 4 ]; then options+=(--crop 96 --batch 4 --validate-on 4 --validate-every "$iterations"); fi
code=(--network "${NETWORK:-$examples/paper_network.py:Net}")

echo "1. pairs: a part of the sequences is for validation, others are for the test"
if [ -n "$data" ]; then
    blurkit prepare "$data" -o "$folder/shards/" --validation 0.1 --resume
    mapfile -t test < <(held_out "$folder/shards")
else
    photographs "$folder/photos" "${LEARNED[@]}"
    photographs "$folder/unseen" "${UNSEEN[@]}"
    shake=(--synthesize shake --kernel-size 9 19 --seed 1 -q)
    blurkit prepare "$folder/photos" "${shake[@]}" --copies 4 --crop 192 --validation 0.3 \
        -o "$folder/shards/" --resume
    [ -e "$folder/test.h5" ] ||
        blurkit prepare "$folder/unseen" "${shake[@]}" --crop 192 -o "$folder/test.h5"
    test=("$folder/test.h5")
fi

echo "2. trainings: two learning rates with three seeds each, and NAFNet at the same budget"
mkdir -p "$folder/runs"
networks=()
for rate in ${RATES:-1e-3 3e-4}; do
    for seed in ${SEEDS:-1 2 3}; do
        networks+=("$folder/runs/own-rate$rate-seed$seed.pt")
        train train-deblur "${networks[-1]}" "$folder/shards" "${code[@]}" --preset small \
            "${options[@]}" --learning-rate "$rate" --seed "$seed" -q
    done
done
nafnet=$folder/runs/nafnet.pt
train train-deblur "$nafnet" "$folder/shards" --system nafnet --preset small "${options[@]}" -q

echo "3. the table: means over seeds, each network by the protocol of its paper"
# shellcheck disable=SC2206
others=(${NETWORKS:-msdi})
blurkit eval --networks "${networks[@]}" "$nafnet" "${others[@]}" "${test[@]}" "${code[@]}" \
    --protocol own -o "$folder/table.tex" -o "$folder/table.md" -o "$folder/table.json" --force

echo "4. the curves of all trainings: $folder/curves.png"
blurkit info "$folder/runs/" --figure "$folder/curves.png" --force

echo "5. the best network by its validation, as an ONNX file: $folder/best.onnx"
best=$(python3 - "${networks[@]}" <<'PY'
import sys
from pathlib import Path

from blurkit.io.checkpoints import load_checkpoint

files = [Path(name).with_suffix(".best.pt") for name in sys.argv[1:]]
print(max(files, key=lambda file: load_checkpoint(file).provenance["metrics"]["psnr"]))
PY
)
blurkit export "$best" "${code[@]}" -o "$folder/best.onnx" --force
blurkit deblur "${test[@]}" -c "$folder/best.onnx" -o - -q | blurkit eval -
