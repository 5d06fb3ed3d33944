#!/usr/bin/env bash
# Compares methods side by side as in MSDI-Net's Fig. 3 and 4 (ECCV 2022): the blurry image, every
# run's result and the sharp image, for the worst and the best results; and a table of all.
#
#   bash examples/msdi_comparison.sh GOPRO_Large/test deblur.pt other.pth MIMO-UNet/ HINet/
#
# The first argument has the sharp images: a dataset or shard of pairs, or a folder. The others are
# the runs: folders or shards of restored images, such as published results of other methods, or
# checkpoints and ONNX files, which first deblur the dataset by PROTOCOL (default slices, the
# paper's; whole for the frames of its supplement). Results go to FOLDER (default comparison/).
# ALIGN=1 ranks RealBlur's images by their scores after alignment. With SHARP=0 the first argument
# is a folder of blurry photos without sharp ones, such as RWBI; there are only pictures then, and
# runs are folders, networks or both.
set -euo pipefail

reference=$1
protocol=${PROTOCOL:-slices}
folder=${FOLDER:-comparison}
sharp=${SHARP:-1}
mkdir -p "$folder"

runs=()
for run in "${@:2}"; do
    case $run in
        *.pt | *.pth | *.ckpt | *.safetensors | *.onnx)
            restored=$folder/$(basename "$run")
            if [ "$sharp" = 0 ]; then restored+=.images/; else restored+=.h5; fi
            [ -e "$restored" ] ||
                blurkit deblur "$reference" -c "$run" --protocol "$protocol" -o "$restored"
            runs+=("$restored") ;;
        *) runs+=("$run") ;;
    esac
done
if [ "$sharp" = 0 ]; then
    python3 - "$folder/pictures" "$reference" "${runs[@]}" <<'EOF'
import sys
from pathlib import Path

from blurkit.data.collection import collect, renamed
from blurkit.io.images import write_image
from blurkit.reports.pictures import side_by_side

photos, *runs = (collect([source]) for source in sys.argv[2:])
numbers = [
    renamed({name: n for n, name in enumerate(run.places)}, photos.places, where, print)
    for run, where in zip(runs, sys.argv[3:])
]
for photo, name in zip(photos, photos.places):
    if all(name in by_name for by_name in numbers):
        records = [photo, *(run[by_name[name]] for run, by_name in zip(runs, numbers))]
        images = [record.image("restored", "blur") for record in records]
        write_image(Path(sys.argv[1], f"{name}.png"), side_by_side(images), force=True)
EOF
    exit
fi
blurkit eval "${runs[@]}" --reference "$reference" --confidence 0.95 ${ALIGN:+--align} \
    --pictures "$folder/pictures/" -o "$folder/comparison.md" -o "$folder/comparison.csv" --force
