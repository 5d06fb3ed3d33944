#!/usr/bin/env bash
# Retrieval of unseen blur (encoded blur kernel space, CVPR 2021, Table 3): F and G are trained on
# each of two data sets. For held-out pairs of both the code is searched for that makes the blurry
# image of the sharp one (step B of Section 3.2); how near it comes, PSNR in dB. Beside it the best
# of 100 codes that are drawn at random.
#
#   bash examples/kernel_space_retrieval.sh [A] [B] [ITERATIONS] [FOLDER]
#
# A and B are folders that `blurkit prepare` wrote, with test-*.h5 or val-*.h5 in them: few and small
# pairs (--crop 256), for each takes a processor 20 seconds. Without them (or "") they are made of
# photographs that scikit-image carries, A blurred by shaking hands, B by turning cameras.
# ITERATIONS (default 4000) of both trainings take two hours. Everything goes to FOLDER (default
# retrieval/); run again, it goes on. kernel-a.pt and kernel-b.pt there are taken as they are.
set -euo pipefail
source "$(dirname "$0")/kernel_space.sh"

iterations=${3:-4000}
folder=${4:-retrieval}
mkdir -p "$folder"

declare -A shards=([a]=${1:-} [b]=${2:-}) kinds=([a]=shake [b]=camera)
declare -A paper=([a,a]=34.35 [a,b]=30.67 [b,a]=31.38 [b,b]=35.13)
for set in a b; do
    if [ -z "${shards[$set]}" ]; then
        shards[$set]=$folder/$set
        pairs "$folder/$set" "${kinds[$set]}"
    fi
    # Variational, so that codes can be drawn; so small a weight costs little.
    kernel_space "$folder/kernel-$set.pt" "${shards[$set]}" --iterations "$iterations" \
        --variational --kl-weight 0.05
done

best_of() { # COUNT: mean over the records of the best of so many versions
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
            held_to_blur psnr psnr_sharp)
        drawn=$(blurkit reblur "${unseen[@]}" "${network[@]}" --random --copies 100 -o - -q |
            blurkit eval - --image reblurred --target blur --ssim basicsr --json -q | best_of 100)
        # shellcheck disable=SC2086 # two numbers
        line "$set" "$other" "${paper[$set,$other]}" $scores "$drawn"
    done
done
