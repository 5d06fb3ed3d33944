# shellcheck shell=bash
# Training data of the weights that come with blurkit, for the scripts that make them: synthetic
# blur of sharp photos, and real blur. Sets $data, $folder, $options from the script's arguments.
# It needs the functions of train.sh.

data=$1
options=("${@:2}")
folder=${FOLDER:-weights}
mapfile -t frames < <(every 5 "$data"/video/gopr0477_240fps/*.png)
photos=("${frames[@]}" "$data"/sharp/{urban100,bsds500_train,bsds500_val,bsds500_test,set5})
some=("${frames[@]}" "$data"/sharp/{urban100,bsds500_val})

echo "1. synthetic blur: as long as GoPro's, in linear light and without, and as short as REDS's"
far=("$folder"/{far,far-plain})
synthesize "$folder/far/" realistic "${photos[@]}" --scale 0.9 1.8
synthesize "$folder/far-plain/" realistic "${photos[@]}" --scale 0.9 1.8 --gamma 1 --seed 1
synthesize "$folder/middle/" realistic "${photos[@]}" --scale 0.6 1.2 --kernel-size 1 40 \
    --copies 2 --seed 12
synthesize "$folder/objects/" objects "${photos[@]}" --scale 0.6 1.2 --kernel-size 3 45 \
    --copies 3 --seed 10

echo "2. real blur: averaged frames of a video, and pairs of scenes that the tests do not use"
averaged() { # NAME COUNT OPTIONS...
    real "$folder/$1.h5" "$data/video/gopr0477_240fps" --average "$2" --stride 3 "${@:3}"
}
for count in 7 8 9 11 13; do averaged "video$count" "$count"; done
for count in 7 11; do averaged "video$count-plain" "$count" --gamma 1; done
real "$folder/gopro_avg.h5" "$data/pairs/gopro_avg/train/GOPR0477_11_00"
real "$folder/reds.h5" "$data/pairs/reds_180p" --split train
