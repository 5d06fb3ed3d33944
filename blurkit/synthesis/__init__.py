"""Synthesis of blur from sharp photos and videos: kernels, camera motion, rendering, averaging."""

from typing import Literal, get_args

BlurKind = Literal["shake", "camera", "linear", "objects", "defocus", "realistic"]
BLUR_KINDS: tuple[BlurKind, ...] = get_args(BlurKind)
