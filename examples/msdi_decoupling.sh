#!/usr/bin/env bash
# Whether MSDI-Net's degradations carry content (ECCV 2022, Section 4.3 and Fig. 6): sharp images A
# are reblurred with the degradation of other images B, and contextual distances show whether the
# result still has the content of A. The paper has 2.72 and 2.65 against A, 5.43 and 5.39 against B.
#
#   bash examples/msdi_decoupling.sh shards/test-*.h5 enc.pt     the last is from train-reblur
#
# FOLDER (default decoupling/) receives A, blurry A, blurry B and reblurred A side by side, and
# numbers.jsonl: every pair, with the averages in the last line. The features are VGG-19's,
# downloaded (548 MB) if necessary; BLURKIT_FEATURES names another network.
set -euo pipefail

shards=("${@:1:$#-1}")
networks=${!#}
folder=${FOLDER:-decoupling}
mkdir -p "$folder"

blurkit contextual-sim "${shards[@]}" --decoupling -c "$networks" --download \
    --pictures "$folder/pictures/" --force --json > "$folder/numbers.jsonl"
tail -n 1 "$folder/numbers.jsonl"
