#!/usr/bin/env bash
# Trains the network in free.pt, which deblurs, on freely licensed pictures alone, in about 40
# minutes on two processors. docs/weights.md lists the pictures and their licences.
#
#   bash examples/weights_free.sh DATA/ [OPTIONS...]
#
# DATA is that of weights.sh, with more/ in it. OPTIONS go to the training: rehearse with
# `--iterations 20`. All output goes to FOLDER (default free/); run the script again to continue
# where it stopped.
set -euo pipefail
source "$(dirname "$0")/train.sh"
data=$1
options=("${@:2}")
folder=${FOLDER:-free}
mkdir -p "$folder/sharp"

echo "1. sharp pictures"
some_of() { # NUMBER FOLDER: copy every so many of its pictures
    every "$1" "$2"/* | while read -r file; do
        cp -n "$file" "$folder/sharp/$(basename "$2")-$(basename "$file")"
    done
}
some_of 5 "$data/video/gopr0477_240fps"
some_of 5 "$data/more/video/sam2_bedroom"
some_of 3 "$data/more/video/sintel_raft_demo"
some_of 1 "$data/more/sharp/detectron_demo"
cp -n "$data"/more/sharp/gopro_train_frames/*1464* "$folder/sharp/"
for photo in "$data"/more/sharp/gb82/*; do # four of them are left for validation
    case $photo in *rain* | *path* | *night* | *baby*) ;; *) cp -n "$photo" "$folder/sharp/" ;; esac
done

echo "2. pairs"
blurred() { # NAME KIND OPTIONS...
    synthesize "$folder/$1.h5" "$2" "$folder/sharp" "${@:3}"
}
blurred linear1 linear --gamma 1 --scale 0.9 1.6 --kernel-size 3 45 --copies 5 --seed 160
blurred linear2 linear --scale 0.9 1.6 --kernel-size 3 45 --copies 4 --seed 161
blurred near realistic --scale 0.5 1.2 --kernel-size 1 14 --copies 5 --seed 102
blurred middle realistic --scale 0.6 1.2 --kernel-size 1 40 --copies 5 --seed 112
blurred objects objects --scale 0.6 1.2 --kernel-size 3 45 --copies 4 --seed 110
blurred camera camera --scale 0.6 1.2 --kernel-size 3 45 --copies 4 --seed 101
blurred kernels shake --kernel-size 5 41 --scale 0.5 1.1 --noise 0.004 --copies 5 --seed 150
for count in 7 9 11 13; do
    real "$folder/video$count.h5" "$data/video/gopr0477_240fps" --average "$count" --stride 3
done
for film in sam2_bedroom sintel_raft_demo; do
    real "$folder/film-$film.h5" "$data/more/video/$film" --average 3 --interpolate 8 --stride 2
done
real "$folder/reds.h5" "$data/pairs/reds_180p" --split train

echo "3. the network"
shards=("$folder"/{middle,objects,camera,kernels,linear2}.h5)
again 2 "$folder/near.h5"
again 3 "$folder/linear1.h5"
again 5 "$folder"/video*.h5
again 15 "$folder/reds.h5"
again 2 "$folder"/film-*.h5
train train-deblur "$folder/network.pt" "${shards[@]}" "${stage2[@]}" --injection none \
    --blur-weight 0 --frequency-weight 0.05 --sharp-pairs 0.08 --ema 0.998 --crop 192 --batch 4 \
    --learning-rate 1e-3 --clip 0.2 --iterations 10500 --seed 71 "${options[@]}"
tool convert halve "$folder/network.pt" -o "$folder/free.pt" --force
tool convert describe "$(dirname "$0")/cards/free.tsv" "$folder/free.pt"
blurkit deblur "$data/pairs/reds_180p" -c "$folder/free.pt" -o - -q | blurkit eval -
