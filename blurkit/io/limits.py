"""Limits on what a file may claim, checked before memory is allocated for it."""

from __future__ import annotations

from blurkit.errors import BlurkitError

MOST_PIXELS = 1_000_000_000
"""The default of `--max-pixels`: photos of 200 megapixels exist, scans of more."""

MOST_DEFLATED = 1100
"""The most bytes that one byte of deflate or LZF data stands for; deflate's limit is 1032."""

most_pixels = MOST_PIXELS
"""The pixels that an image may have, `--max-pixels` of the command that runs."""


def check_pixels(height: int, width: int, where: str) -> None:
    """Raise BlurkitError if an image has more pixels than `--max-pixels`."""
    if height * width > most_pixels:
        raise BlurkitError(
            f"{where}: claims {width}x{height} pixels, more than --max-pixels {most_pixels}"
        )


def check_claim(claimed: int, stored: int, where: str) -> None:
    """Raise BlurkitError if deflated or plain data of `stored` bytes cannot hold `claimed` ones."""
    if claimed > MOST_DEFLATED * stored:
        raise BlurkitError(
            f"{where}: claims {claimed} bytes of pixels, which a file of {stored} bytes cannot hold"
        )
