"""PSNR, SSIM and the other measures, each by the convention of the papers that report it."""
