#!/usr/bin/env bash
# Whether MSDI-Net's degradations carry content (ECCV 2022, Section 4.3 and Fig. 6): sharp images A
# are reblurred with the degradation of other images B, and contextual distances tell whether the
# result is still A. The paper has 2.72 and 2.65 against A, 5.43 and 5.39 against B.
#
#   bash examples/msdi_decoupling.sh shards/test-*.h5 enc.pt     the networks of train-reblur last
#
# FOLDER (default decoupling/) gets A, blur A, blur B and reblurred A side by side, and
# numbers.jsonl: every pair, and the averages in the last line. The features are VGG-19's, fetched
# (548 MB) unless they are at hand; BLURKIT_FEATURES names another network.
set -euo pipefail

shards=("${@:1:$#-1}")
networks=${!#}
folder=${FOLDER:-decoupling}
mkdir -p "$folder"

blurkit contextual-sim "${shards[@]}" --decoupling -c "$networks" --download \
    --pictures "$folder/pictures/" --force --json > "$folder/numbers.jsonl"
tail -n 1 "$folder/numbers.jsonl"
