"""BGAN and DBGAN (Zhang et al., CVPR 2020)."""
