#!/usr/bin/env bash
# Compares methods side by side as in MSDI-Net's Fig. 3 and 4 (ECCV 2022): the blurry image, every
# run's result and the sharp image, for the worst and the best results; and a table of all.
#
#   bash examples/msdi_comparison.sh GOPRO_Large/test deblur.pt other.pth MIMO-UNet/ HINet/
#
# The first argument has the sharp images: a dataset or shard of pairs, or a folder. The others are
# the runs: folders or shards of restored images with the same names, such as published results of
# other methods, or checkpoints, which first deblur the dataset by PROTOCOL (default slices, the
# paper's; whole for the frames of its supplement). Results go to FOLDER (default
# comparison/). ALIGN=1 ranks RealBlur's images by their scores after alignment.
set -euo pipefail

reference=$1
protocol=${PROTOCOL:-slices}
folder=${FOLDER:-comparison}
mkdir -p "$folder"

runs=()
for run in "${@:2}"; do
    case $run in
        *.pt | *.pth | *.safetensors)
            restored=$folder/$(basename "${run%.*}").h5
            [ -e "$restored" ] ||
                blurkit deblur "$reference" -c "$run" --protocol "$protocol" -o "$restored"
            runs+=("$restored") ;;
        *) runs+=("$run") ;;
    esac
done
blurkit eval "${runs[@]}" --reference "$reference" --confidence 0.95 ${ALIGN:+--align} \
    --pictures "$folder/pictures/" -o "$folder/comparison.md" -o "$folder/comparison.csv" --force
