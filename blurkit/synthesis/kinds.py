"""The names of the kinds of synthetic blur, in a module that the command line imports fast."""

from __future__ import annotations

from typing import Literal, get_args

BlurKind = Literal["shake", "camera", "linear", "objects", "defocus", "realistic"]
BLUR_KINDS: tuple[BlurKind, ...] = get_args(BlurKind)
