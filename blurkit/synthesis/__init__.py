"""Blur made from sharp photos and sequences: kernels, trajectories, rendering, averaging."""
