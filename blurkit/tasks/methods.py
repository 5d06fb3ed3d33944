"""How `deblur` restores a photo if it is not told: by a network, or by the blur that it finds."""

from __future__ import annotations

from typing import Literal

from blurkit.errors import UsageError

Method = Literal["auto", "shake", "network"]


def choose_method(
    method: Method | None, checkpoint: bool, kernel: bool, network_options: bool
) -> Method:
    """Return the method to use: `method` if given, which must go with what else is given.

    `checkpoint` says whether one is named, `kernel` whether the blur is known, `network_options`
    whether an encoder, a protocol, or tiles are: these go with `network` alone. Raises UsageError
    where they do not fit together.
    """
    if method is None:
        method = "network" if (checkpoint and not kernel) or network_options else "auto"
    if network_options and (kernel or method != "network"):
        raise UsageError("--encoder, --protocol, --tile and --overlap are for --method network")
    return "shake" if kernel else method
