"""PSNR, SSIM and the other measures, each in the convention its papers use."""
