#!/usr/bin/env bash
# Makes the weights that come with blurkit from photographs, a video and some real pairs, in about
# ten hours on two processors. docs/weights.md says where these pictures come from and under which
# terms, and what the result measures.
#
#   bash examples/weights.sh DATA/ [OPTIONS...]
#
# DATA contains sharp/ (folders of sharp photos), video/gopr0477_240fps/ (frames), pairs/ (gopro_avg
# and reds_180p), and more/ (films in video/, pairs/gopro). OPTIONS go to every training: rehearse
# with `--iterations 20`. All output goes to FOLDER (default weights/); run the script again to
# continue where it stopped.
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
train train-deblur "$folder/narrow.pt" "${shards[@]}" "${stage2[@]}" "${steered[@]}" \
    --start "$folder/plain.pt" --seed 21 --learning-rate 5e-4 --iterations 8000 "${options[@]}"

echo "6. twice the channels; straighter blur, shake, films; again first without the encoder"
synthesize "$folder/linear/" linear "${photos[@]}" --scale 0.9 1.6 --kernel-size 3 45 --seed 160
synthesize "$folder/linear-plain/" linear "${photos[@]}" --scale 0.9 1.6 --kernel-size 3 45 \
    --gamma 1 --seed 161
synthesize "$folder/kernels/" shake "${photos[@]}" --kernel-size 5 41 --scale 0.5 1.1 \
    --noise 0.004 --seed 150
synthesize "$folder/some-near/" realistic "${some[@]}" --scale 0.5 1.2 --kernel-size 1 14 --seed 2
synthesize "$folder/some-objects/" objects "${some[@]}" --scale 0.6 1.2 --kernel-size 3 45 --seed 10
synthesize "$folder/some-far/" realistic "${some[@]}" --scale 0.9 1.8 --gamma 1 --seed 1
synthesize "$folder/some-camera/" camera "${some[@]}" --scale 0.6 1.2 --kernel-size 3 45 --seed 101
film() { # NAME STRIDE COUNT: averaged with frames interpolated between them
    real "$folder/film-$1.h5" "$data/more/video/$1" --average "$3" --interpolate 8 --stride "$2"
}
for name in sam2_bedroom sintel_raft_demo dvp_bedroom_pan dvp_venice vid4_walk; do
    film "$name" 2 3
done
film davis_car-shadow 2 2
film vipseg_market 1 2
SHRINK='
import sys, cv2
from pathlib import Path
source, factor, output = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
output.mkdir(parents=True, exist_ok=True)
for file in sorted(source.iterdir()):
    frame = cv2.imread(str(file))
    size = [round(side / factor) for side in frame.shape[1::-1]]
    frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(output / f"{file.stem}.png"), frame)
'
shrink() { # FOLDER FACTOR OUTPUT: its frames that many times smaller
    if [ -e "$3" ]; then return; fi
    python3 -c "$SHRINK" "$1" "$2" "$3.part"
    mv "$3.part" "$3"
}
small() { # NAME FACTOR COUNT STRIDE: a film that is first made so many times smaller
    shrink "$data/more/video/$1" "$2" "$folder/small/$1"
    real "$folder/small-$1.h5" "$folder/small/$1" --average "$3" --interpolate 8 --stride "$4"
}
shrink "$data/video/gopr0477_240fps" 4 "$folder/small/gopro"
for count in 21 31; do
    real "$folder/small-gopro$count.h5" "$folder/small/gopro" --average "$count" --stride 3
done
real "$folder/small-gopro31-plain.h5" "$folder/small/gopro" --average 31 --stride 3 --gamma 1
small davis_car-shadow 2.5 3 1
small dvp_venice 2.5 5 1
small night_street 2 5 1
small sam2_bedroom 3 5 2
small sintel_raft_demo 2.5 3 1
small vid4_walk 2 3 1
small vipseg_market 4 5 1
real "$folder/gopro.h5" "$data/more/pairs/gopro"
tool convert widen "$folder/narrow.pt" -o "$folder/wide.pt"
wide=(--width 32 --frequency-weight 0.05 --clip 0.2)
plain=(--injection none --blur-weight 0 --crop 192 --batch 4)
shards=("$folder"/{linear,linear-plain,kernels,some-camera}/*.h5)
again 2 "$folder"/some-{near,objects,far}/*.h5
again 6 "$folder"/video*.h5
again 25 "$folder/gopro_avg.h5"
again 15 "$folder/reds.h5"
again 4 "$folder"/film-*.h5
train train-deblur "$folder/widened.pt" "${shards[@]}" "${stage2[@]}" "${wide[@]}" "${plain[@]}" \
    --start "$folder/wide.pt" --seed 51 --learning-rate 7e-4 --iterations 15000 \
    --sharp-pairs 0.08 "${options[@]}"
shards=("$folder"/{linear,linear-plain,kernels,some-camera,some-near,some-objects,some-far}/*.h5)
again 5 "$folder"/video*.h5
again 25 "$folder/gopro_avg.h5"
again 30 "$folder/reds.h5"
again 3 "$folder"/film-*.h5
again 4 "$folder"/small-*.h5
further() { # FROM TO SEED STEPS SHARP: trains on; SHARP is the share of crops sharp on both sides
    train train-deblur "$folder/$2.pt" "${shards[@]}" "${stage2[@]}" "${wide[@]}" "${plain[@]}" \
        --start "$folder/$1.pt" --seed "$3" --learning-rate 6e-4 --iterations "$4" \
        --sharp-pairs "$5" "${options[@]}"
}
further widened further1 62 18000 0.08
further further1 further2 71 26000 0.08
further further2 further3 81 26000 0.15
further further3 further4 91 70000 0.15
again 16 "$folder/gopro.h5"
train train-deblur "$folder/deblur.pt" "${shards[@]}" "${stage2[@]}" "${steered[@]}" "${wide[@]}" \
    --start "$folder/further4.pt" --identity-start --seed 92 --learning-rate 3e-4 \
    --sharp-pairs 0.15 --crop 192 --batch 5 --iterations 1600 "${options[@]}"

echo "7. both in one file, in half precision"
tool pack "$folder/enc.pt" "$folder/deblur.pt" -o "$folder/msdi.pt" --force
tool convert describe "$(dirname "$0")/cards/msdi.tsv" "$folder/msdi.pt"
blurkit deblur "$data/pairs/reds_180p" -c "$folder/msdi.pt" -o - -q | blurkit eval -
