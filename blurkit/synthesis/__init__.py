"""Synthesis of blur from sharp photos and videos: kernels, camera motion, rendering, averaging."""
