# shellcheck shell=bash
# For the examples of the encoded blur kernel space (CVPR 2021), which `source` it.
source "$(dirname "${BASH_SOURCE[0]}")/train.sh"

photographs() { # FOLDER NAME...: of those that scikit-image carries (CC0)
    local folder=$1 from name
    shift
    from=$(python3 -c 'import os, skimage.data; print(os.path.dirname(skimage.data.__file__))')
    mkdir -p "$folder"
    for name in "$@"; do cp "$from/$name" "$folder/"; done
}

LEARNED=(astronaut.png rocket.jpg camera.png brick.png gravel.png grass.png coins.png)
UNSEEN=(chelsea.png coffee.png)

pairs() { # FOLDER KIND: without data of the user's own, photographs blurred: train-*.h5, val-unseen.h5
    local folder=$1 kind=(--synthesize "$2" --kernel-size 9 19 -q)
    if [ -e "$folder/val-unseen.h5" ]; then return; fi
    photographs "$folder-photos" "${LEARNED[@]}"
    photographs "$folder-unseen" "${UNSEEN[@]}"
    blurkit prepare "$folder-photos" "${kind[@]}" --copies 6 -o "$folder/" --seed 1 --force
    # In their corners, which gives eight pairs.
    blurkit prepare "$folder-unseen" "${kind[@]}" --crop 256 --crop-stride 4096 \
        -o "$folder/val-unseen.h5" --seed 2
}

held_out() { # FOLDER: its shards that are not trained on, one a line
    local shards=("$1"/test-*.h5)
    [ -e "${shards[0]}" ] || shards=("$1"/val-*.h5)
    printf '%s\n' "${shards[@]}"
}

kernel_space() { # CHECKPOINT SHARDS... [OPTIONS...]: F and G, unless they are there
    train train-reblur "$1" "${@:2}" --system kernel-space --preset small --precision auto --no-samples
}

mean() { # KEY...: means of the last of many JSON lines
    tail -n 1 | python3 -c '
import json, sys
total = json.load(sys.stdin)["total"]
print(*("%.2f" % total[key] for key in sys.argv[1:]))' "$@"
}

held_to_blur() { # KEY...: means of eval of what reblurred images are, against the blurry ones
    blurkit eval - --image reblurred --target blur --json -q | mean "$@"
}

deblurred() { # CHECKPOINT SHARDS...: PSNR of what it restores
    blurkit deblur "${@:2}" -c "$1" -o - -q | blurkit eval - --json -q | mean psnr
}
