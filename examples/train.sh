# shellcheck shell=bash
# Functions for the other examples, which `source` this file: training that continues where it was
# stopped, the networks that come with blurkit, photographs for users without their own, shards to
# measure on, means, this repository's own programs.

train() { # STAGE CHECKPOINT.pt SHARDS OPTIONS...: unless it exists; on GPUS=N devices
    local stage=$1 output=$2 run=(blurkit)
    shift 2
    if [ -e "$output" ]; then return; fi
    if [ "${GPUS:-1}" -gt 1 ]; then run=(torchrun --standalone --nproc-per-node "$GPUS" -m -- blurkit); fi
    "${run[@]}" "$stage" "$@" -o "$output" --resume
}

synthesize() { # OUTPUT KIND INPUTS AND OPTIONS...: pairs of synthetic blur, unless they exist
    if [ -e "$1" ] && [ ! -e "$1/.unfinished" ]; then return; fi
    blurkit prepare "${@:3}" --synthesize "$2" -o "$1" --force
}

real() { # OUTPUT INPUT OPTIONS...: pairs or averaged frames, unless they exist
    if [ ! -e "$1" ]; then blurkit prepare "${@:2}" -o "$1"; fi
}

every() { # NUMBER FILES...: the first of every so many files, one per line
    local number=$1 files=("${@:2}")
    for ((n = 0; n < ${#files[@]}; n += number)); do echo "${files[n]}"; done
}

again() { # TIMES FILES...: add to `shards`; files listed more often are seen more often
    for ((n = 0; n < $1; n++)); do shards+=("${@:2}"); done
}

begin() { # FOLDER [DATASET [PRESET [OPTIONS...]]]: set them, from the environment where not given
    folder=${FOLDER:-$1}
    dataset=${2:-${DATA:?the folder of the dataset}}
    preset=${3:-${PRESET:-paper}}
    options=("${@:4}")
    blurkit prepare "$dataset" -o "$folder/shards/" --resume
}

tool() { # NAME OPTIONS...: a program of tests/tools, which is not in the installed package
    local root
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} python3 -m "tests.tools.$1" "${@:2}"
}

minutes_left() { # MINUTES: the minutes left since this script began
    python3 -c "print(round(max(0.01, $MINUTES - $SECONDS / 60), 3))"
}

# Both stages of the MSDI-Net that comes with blurkit; `steered` follows --encoder.
stage1=(--preset small --unshuffle 2 --crop 256 --perceptual none --precision auto)
stage2=(--preset small --generator single --unshuffle 2 --width 16 --pixel-loss l1 --psnr-weight 1
    --sharp-pairs 0.1 --ema 0.999 --precision auto)
steered=(--hidden 16 --modulation paper --inject-bottleneck --crop 256 --blur-weight 0.002)

LEARNED=(astronaut.png rocket.jpg camera.png brick.png gravel.png grass.png coins.png)
UNSEEN=(chelsea.png coffee.png)

photographs() { # FOLDER NAME...: copy photographs that scikit-image contains (CC0)
    local folder=$1 from name
    shift
    from=$(python3 -c 'import os, skimage.data; print(os.path.dirname(skimage.data.__file__))')
    mkdir -p "$folder"
    for name in "$@"; do cp "$from/$name" "$folder/"; done
}

photos_or() { # GIVEN FOLDER NAME...: use GIVEN, or put photographs into FOLDER
    if [ -z "$1" ]; then photographs "${@:2}"; fi
    echo "${1:-$2}"
}

held_out() { # FOLDER: its shards that are not for training, one per line
    local shards=("$1"/test-*.h5)
    [ -e "${shards[0]}" ] || shards=("$1"/val-*.h5)
    printf '%s\n' "${shards[@]}"
}

mean() { # KEY...: print the means in the last JSON line on one line, PSNR in dB
    tail -n 1 | python3 -c '
import json, sys
total = json.load(sys.stdin)["total"]
print(*(f"{total[key]:.2f}" if "psnr" in key else f"{total[key]:.3f}" for key in sys.argv[1:]))' "$@"
}
