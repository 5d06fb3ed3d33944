#!/usr/bin/env bash
# Methods side by side as in MSDI-Net's Fig. 3 and 4 (ECCV 2022): blurry, every run, sharp, for the
# images on which the runs do worst and best; and a table of all.
#
#   bash examples/msdi_comparison.sh GOPRO_Large/test deblur.pt other.pth MIMO-UNet/ HINet/
#
# The first argument is the sharp images: a dataset or shard with both, or a folder. The others are
# the runs: folders or shards of restored images with the same names, such as other methods'
# published results, or checkpoints, which deblur that dataset first, as PROTOCOL says (default
# slices, the paper's; whole for the frames of its supplement). Results go to FOLDER (default
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
