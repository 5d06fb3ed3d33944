"""MSFS-Net (Zhang et al., "Multi-scale frequency separation network for image deblurring")."""
