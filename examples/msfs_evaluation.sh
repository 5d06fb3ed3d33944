#!/usr/bin/env bash
# Measures a deblurring checkpoint on the test set of HIDE, RealBlur-J, RealBlur-R or GoPro, like
# MSFS-Net's paper (Tables 1 to 3): whole images, PSNR and MATLAB's SSIM of 8-bit RGB. On RealBlur
# it also prints the benchmark's own scores after alignment (with OpenCV).
#
#   bash examples/msfs_evaluation.sh HIDE_dataset/ msfs.pt [FOLDER]
#   bash examples/msfs_evaluation.sh RealBlur-J_ECC_IMCORR_centroid_itensity_ref/ msfs.pt
#
# The dataset is recognised automatically; RealBlur's list files are in its folder or next to it.
# HIDE's test set is both of its test folders. PROTOCOL=local measures MSFS-Net-Local, with which
# the published numbers of RealBlur were probably made. Scores go to FOLDER (default evaluation/).
set -euo pipefail

dataset=${1:-${DATA:?the folder of the dataset}}
dataset=${dataset%/}
checkpoint=$2
folder=${3:-evaluation}
options=()
case $dataset in
*RealBlur*) options+=(--align) ;;
esac

mkdir -p "$folder"
scores=$folder/$(basename "$dataset")
blurkit prepare "$dataset" --split test -o - |
    blurkit deblur - -c "$checkpoint" --protocol "${PROTOCOL:-whole}" -o - |
    blurkit eval - "${options[@]}" -o "$scores.md" -o "$scores.json" --force
case $dataset in
*RealBlur*-R*) echo "paper, trained on GoPro: 36.02 dB, SSIM 0.959 (not aligned)" ;;
*RealBlur*) echo "paper, trained on GoPro: 28.97 dB, SSIM 0.908 (not aligned)" ;;
*GOPRO* | *GoPro*) echo "paper: 32.73 dB, SSIM 0.959" ;;
esac
