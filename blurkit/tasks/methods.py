"""How `deblur` and `reblur` choose their method: a network, or an estimated blur."""

from __future__ import annotations

from typing import Literal

from blurkit.errors import UsageError

Method = Literal["auto", "shake", "network"]


def choose_method(
    method: Method | None, checkpoint: bool, kernel: bool, network_options: bool
) -> Method:
    """Return the method to use: `method` if it is given, else the default for the other arguments.

    `checkpoint` says whether one is given, `kernel` whether the blur is known, `network_options`
    whether an encoder, a protocol or tiles are given, all of which require `network`. Raises
    UsageError if the arguments contradict each other.
    """
    if method is None:
        method = "network" if (checkpoint and not kernel) or network_options else "auto"
    if network_options and (kernel or method != "network"):
        raise UsageError("--encoder, --protocol, --tile and --overlap are for --method network")
    return "shake" if kernel else method


def choose_reblurring(method: Method | None, networks: bool, itself: bool) -> Method:
    """Return what blurs a photo like another: `method` if it is given, else the default.

    `networks` says whether networks, or options of networks, are named; `itself` whether a pair
    gets its own blur, which measures the network.
    """
    return method or ("network" if networks or itself else "auto")
