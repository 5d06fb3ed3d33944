# shellcheck shell=bash
# Training data of the weights that come with blurkit, for the scripts that make them: synthetic
# blur of sharp photos, and real blur. Sets $data, $folder, $options from the script's arguments,
# and the lists of shards that `again` fills.

data=$1
options=("${@:2}")
folder=${FOLDER:-weights}
photos=("$data"/sharp/{urban100,bsds500_train,bsds500_val,bsds500_test,set5})
some=("$data"/sharp/{urban100,bsds500_val})
all=("$data"/video/gopr0477_240fps/*.png)
frames=()
for ((i = 0; i < ${#all[@]}; i += 5)); do frames+=("${all[i]}"); done

echo "1. synthetic blur: as long as GoPro's, in linear light and without, and as short as REDS's"
synthesize() { # OUTPUT KIND INPUTS AND OPTIONS...
    if [ -e "$1" ] && [ ! -e "$1/.unfinished" ]; then return; fi
    blurkit prepare "${frames[@]}" --synthesize "$2" "${@:3}" -o "$1" --force
}
far=("$folder"/{far,far-plain})
synthesize "$folder/far/" realistic "${photos[@]}" --scale 0.9 1.8
synthesize "$folder/far-plain/" realistic "${photos[@]}" --scale 0.9 1.8 --gamma 1 --seed 1
synthesize "$folder/middle/" realistic "${photos[@]}" --scale 0.6 1.2 --kernel-size 1 40 \
    --copies 2 --seed 12
synthesize "$folder/objects/" objects "${photos[@]}" --scale 0.6 1.2 --kernel-size 3 45 \
    --copies 3 --seed 10

echo "2. real blur: averaged frames of a video, and pairs of scenes that the tests do not use"
real() { # NAME INPUT OPTIONS...
    if [ ! -e "$folder/$1.h5" ]; then blurkit prepare "${@:2}" -o "$folder/$1.h5"; fi
}
for count in 7 8 9 11 13; do
    real "video$count" "$data/video/gopr0477_240fps" --average "$count" --stride 3
done
for count in 7 11; do
    real "video$count-plain" "$data/video/gopr0477_240fps" --average "$count" --stride 3 --gamma 1
done
real gopro_avg "$data/pairs/gopro_avg/train/GOPR0477_11_00"
real reds "$data/pairs/reds_180p" --split train

again() { # TIMES FILES...: files listed more often are seen more often
    for ((n = 0; n < $1; n++)); do shards+=("${@:2}"); done
}
