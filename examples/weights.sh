#!/usr/bin/env bash
# Makes the weights that come with blurkit from photographs, a video and some real pairs, in about
# three hours on two processors. docs/weights.md says where these pictures come from and under which
# terms, and what the result measures.
#
#   bash examples/weights.sh DATA/ [OPTIONS...]
#
# DATA contains sharp/ (folders of sharp photos), video/gopr0477_240fps/ (frames) and pairs/
# (gopro_avg and reds_180p). OPTIONS go to every training: rehearse with `--iterations 20`. All
# output goes to FOLDER (default weights/); run the script again to continue where it stopped.
set -euo pipefail
source "$(dirname "$0")/train.sh"

source "$(dirname "$0")/weights_data.sh" "$@"
synthesize "$folder/near/" realistic "${photos[@]}" --scale 0.5 1.2 --kernel-size 1 14 --seed 2
synthesize "$folder/large/" realistic "${some[@]}" --scale 1.4 2.4 --kernel-size 1 60 --seed 21
synthesize "$folder/large-camera/" camera "${some[@]}" --scale 1.4 2.4 --kernel-size 3 60 --seed 22

echo "3. stage 1: the degradation encoder and G_r"
shards=("${far[@]}" "$folder/near")
again 1 "$folder"/video*.h5 "$folder/gopro_avg.h5"
again 10 "$folder/reds.h5"
train train-reblur "$folder/enc.pt" "${shards[@]}" "${stage1[@]}" --iterations 2400 "${options[@]}"
steered=(--encoder "$folder/enc.pt" "${steered[@]}" --batch 3)

real_and_made() { # the shards of a conditioned network
    shards=("${far[@]}" "$folder/near")
    again 4 "$folder"/video*.h5
    again 10 "$folder/gopro_avg.h5"
    again 20 "$folder/reds.h5"
}
echo "4. stage 2: the deblurring network"
real_and_made
train train-deblur "$folder/first.pt" "${shards[@]}" "${stage2[@]}" "${steered[@]}" \
    --learning-rate 1e-3 --iterations 32000 "${options[@]}"

echo "5. more kinds of blur, first without the encoder, which is twice as fast; then with it"
shards=("$folder"/{near,middle,objects})
again 4 "${far[@]}"
again 3 "$folder/large"
again 2 "$folder/large-camera"
again 5 "$folder"/video*.h5
again 25 "$folder/gopro_avg.h5"
again 12 "$folder/reds.h5"
train train-deblur "$folder/plain.pt" "${shards[@]}" "${stage2[@]}" --start "$folder/first.pt" \
    --injection none --blur-weight 0 --crop 192 --batch 5 --seed 20 \
    --learning-rate 1e-3 --iterations 43000 "${options[@]}"
real_and_made
train train-deblur "$folder/deblur.pt" "${shards[@]}" "${stage2[@]}" "${steered[@]}" \
    --start "$folder/plain.pt" --seed 21 --learning-rate 5e-4 --iterations 8000 "${options[@]}"

echo "6. both in one file, in half precision"
python3 -m blurkit.weights.pack "$folder/enc.pt" "$folder/deblur.pt" -o "$folder/msdi.pt" --force
python3 -m blurkit.weights.card "$(dirname "$0")/cards/msdi.tsv" "$folder/msdi.pt"
blurkit deblur "$data/pairs/reds_180p" -c "$folder/msdi.pt" -o - -q | blurkit eval -
