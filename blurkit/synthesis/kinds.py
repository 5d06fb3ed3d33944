"""The kinds of blur that can be drawn: their names alone, which the command line reads fast."""

from __future__ import annotations

from typing import Literal, get_args

BlurKind = Literal["shake", "camera", "objects", "defocus", "realistic"]
BLUR_KINDS: tuple[BlurKind, ...] = get_args(BlurKind)
