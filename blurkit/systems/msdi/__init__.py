"""MSDI-Net (Li et al., ECCV 2022)."""
