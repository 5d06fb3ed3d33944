# shellcheck shell=bash
# Data, trainings at equal budget and table rows of the ablation studies, which `source` this file.
# The first three arguments are SHARDS (default $DATA), ITERATIONS and FOLDER; the fourth is the
# default of FOLDER, the fifth that of $PROTOCOL; the others are options of every training. $PRESET
# (default small) is the preset of every training; without ITERATIONS, small trains for 600 steps,
# any other preset for its own. Sets `shards`, `preset`, `iterations`, `folder`, `protocol`,
# `options` and `held_out`.
source "$(dirname "${BASH_SOURCE[0]}")/train.sh"

shards=${1:-${DATA:-}}
preset=${PRESET:-small}
iterations=${2:-}
if [ -z "$iterations" ] && [ "$preset" = small ]; then iterations=600; fi
folder=${3:-$4}
protocol=${PROTOCOL:-$5}
options=("${@:6}")
mkdir -p "$folder"

if [ -z "$shards" ]; then
    shards=$folder/shards
    photographs "$folder/photos" "${LEARNED[@]}"
    photographs "$folder/unseen" "${UNSEEN[@]}"
    shake=(--synthesize shake --kernel-size 9 19 --seed 1 -q)
    if [ ! -e "$shards/val-unseen.h5" ]; then
        blurkit prepare "$folder/photos" "${shake[@]}" --copies 6 -o "$shards/" --force
        blurkit prepare "$folder/unseen" "${shake[@]}" --copies 3 -o "$shards/val-unseen.h5"
    fi
fi
mapfile -t held_out < <(held_out "$shards")
rm -f "$folder/table.txt"

train_variant() { # STAGE NAME OPTIONS...: train a variant unless its checkpoint exists
    local stage=$1 name=$2
    shift 2
    echo "$stage $*: $folder/$name.pt" >&2
    train "$stage" "$folder/$name.pt" "$shards" --preset "$preset" \
        ${iterations:+--iterations "$iterations"} "${options[@]}" "$@"
}

deblurring() { # NAME KEY...: scores of the images that NAME.pt restores; all go to NAME.json
    local name=$1
    shift
    blurkit deblur "${held_out[@]}" -c "$folder/$name.pt" --protocol "$protocol" -o - -q |
        blurkit eval - -o "$folder/$name.json" --force --json -q | mean "$@"
}

variant_row() { # LABEL PAPER'S-PSNR ITS-SSIM NAME OPTIONS...: train a variant, print its row
    local label=$1 papers=("$2" "$3") name=$4 scores
    shift 4
    train_variant train-deblur "$name" "$@"
    scores=$(deblurring "$name" psnr ssim_matlab)
    line "$label" "${papers[@]}" $scores # two words
}

blurry_row() { # for comparison, the scores of the blurry images
    line "blurry" - - $(blurkit eval "${held_out[@]}" --image blur --json -q | mean psnr ssim_matlab)
}

line() { # CELL...: print a row of the table
    { printf '%-28s' "$1"; printf ' %10s' "${@:2}"; echo; } | tee -a "$folder/table.txt"
}
