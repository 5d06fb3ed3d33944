#!/usr/bin/env bash
# Trains a network at several learning rates with several seeds, and makes one table of them: mean
# and standard deviation over the seeds, best and second best marked, a paper's rows beside them.
#
#   bash examples/sweep.sh SHARDS                            NAFNet, PRESET=small, at a CPU's budget
#   PRESET=paper GPUS=8 bash examples/sweep.sh gopro/shards "" sweep --system nafnet
#
# SHARDS (or $DATA) is a folder that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in it; if
# it is missing (or ""), it is made from photographs that scikit-image contains. ITERATIONS, the
# second argument, are those of each training (600 with PRESET=small), FOLDER, the third, has all
# output (default sweep/), and further arguments are options of every training. RATES, SEEDS and
# PAPER (a table, see `blurkit eval --help`) are variables. Run again, it continues where it stopped.
set -euo pipefail
source "$(dirname "$0")/ablation.sh" "${1:-}" "${2:-}" "${3:-}" sweep whole "${@:4}"
if [ ${#options[@]} = 0 ]; then options=(--system nafnet); fi

networks=()
for rate in ${RATES:-1e-3 3e-4}; do
    for seed in ${SEEDS:-1 2 3}; do
        train_variant train-deblur "rate$rate-seed$seed" --learning-rate "$rate" --seed "$seed"
        networks+=("$folder/rate$rate-seed$seed.pt")
    done
done
blurkit eval --networks "${networks[@]}" "${held_out[@]}" ${PAPER:+--paper "$PAPER"} --force \
    -o "$folder/table.tex" -o "$folder/table.md" -o "$folder/table.json"
