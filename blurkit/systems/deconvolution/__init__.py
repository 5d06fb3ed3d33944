"""Estimate the blur of a photo, then undo it; see docs/deconvolution.md."""
