#!/usr/bin/env bash
# Retrieval of unseen blur (encoded blur kernel space, CVPR 2021, Table 3): F and G are trained on
# each of two data sets. For held-out pairs of both, it searches for the code with which F makes the
# blurry image from the sharp one (step B of Section 3.2). Prints the PSNR in dB of the result and,
# if F and G are variational, of the best of COPIES (default 100) random codes.
#
#   bash examples/kernel_space_retrieval.sh [A] [B] [ITERATIONS] [FOLDER]      at a budget for a CPU
#   PRESET=paper bash examples/kernel_space_retrieval.sh reds/ gopro/shards    the paper's table
#
# A (or $DATA) and B are folders that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in them;
# kernel_space_release.sh makes them with REDS4 held out. Use few and small test pairs (--crop 256),
# since each takes a processor 20 seconds. If A and B are missing (or ""), they are made from
# photographs that scikit-image contains, A blurred by shaking hands, B by turning cameras.
# PRESET=small, the default, trains variational networks for 4000 ITERATIONS, together two hours.
# Other presets train for their own iterations, without --variational unless OPTIONS, which go to
# both trainings, have it. PRESET=official has the released values of REDS for A. PROTOCOL does not
# apply, because pairs are searched whole. All output goes to FOLDER (default retrieval/); run the
# script again to continue. If kernel-a.pt and kernel-b.pt exist there, they are used.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

budget "${3:-}" 4000
copies=${COPIES:-100}
folder=${4:-retrieval}
mkdir -p "$folder"

declare -A shards=([a]=${1:-${DATA:-}} [b]=${2:-}) kinds=([a]=shake [b]=camera)
declare -A paper=([a,a]=34.35 [a,b]=30.67 [b,a]=31.38 [b,b]=35.13)
for set in a b; do
    if [ -z "${shards[$set]}" ]; then
        shards[$set]=$folder/$set
        pairs "$folder/$set" "${kinds[$set]}"
    fi
    case $preset,$set in
    # Variational networks can draw codes; a weight this small costs little accuracy.
    small,*) own=(--variational --kl-weight 0.05) ;;
    *,a) own=(--preset "$reds") ;;
    *) own=() ;;
    esac
    kernel_space "$folder/kernel-$set.pt" "${shards[$set]}" "${own[@]}"
done

draws_codes() { # CHECKPOINT: whether its networks are variational
    blurkit info "$1" --json | python3 -c '
import json, sys
sys.exit(not json.load(sys.stdin)["networks"]["kernel_space"]["variational"])'
}

best_of() { # COUNT: mean over the records of the best of COUNT versions
    python3 -c '
import json, sys
count = int(sys.argv[1])
*rows, last = [json.loads(line) for line in sys.stdin]
psnr = [row["psnr"] for row in rows]
best = [max(psnr[first : first + count]) for first in range(0, len(psnr), count)]
print("%.2f" % (sum(best) / len(best)))' "$1"
}

line() { printf '%-10s %-10s %8s %10s %8s %12s\n' "$@" | tee -a "$folder/table.txt"; }

rm -f "$folder/table.txt"
line "trained on" "tested on" paper searched sharp "best random"
for set in a b; do
    for other in a b; do
        mapfile -t unseen < <(held_out "${shards[$other]}")
        network=(-c "$folder/kernel-$set.pt")
        scores=$(blurkit reblur "${unseen[@]}" "${network[@]}" --search -o - -q |
            scores_against_blur psnr psnr_sharp)
        drawn=-
        if draws_codes "$folder/kernel-$set.pt"; then
            drawn=$(blurkit reblur "${unseen[@]}" "${network[@]}" --random --copies "$copies" -o - -q |
                blurkit eval - --image reblurred --target blur --ssim basicsr --json -q |
                best_of "$copies")
        fi
        # shellcheck disable=SC2086 # two numbers
        line "$set" "$other" "${paper[$set,$other]}" $scores "$drawn"
    done
done
