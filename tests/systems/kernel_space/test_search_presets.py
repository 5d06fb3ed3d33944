"""The presets of the blind search: what the page says of them is what they set."""

from __future__ import annotations

import re

import pytest

from blurkit.systems.kernel_space.search_options import BlindOptions
from tests.shared import ROOT

PAGE = (ROOT / "docs/commands/blind-deblur.md").read_text()
ROW = re.compile(r"^\| `--([\w-]+)` \| (\S+) \| (\S+) \| (\S+) \| .+ \|$", re.M)
COLUMNS = ("small", "paper", "official")


def rows(prior: str) -> dict[str, tuple[str, ...]]:
    """The values of each option in the columns of a prior's table."""
    before, after = PAGE.split("### With a StyleGAN")
    return {name: values for name, *values in ROW.findall({"dip": before}.get(prior, after))}


def as_written(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


@pytest.mark.parametrize("prior", ["dip", "stylegan"])
def test_the_page_lists_what_the_presets_set(prior: str) -> None:
    table = rows(prior)
    resolved = [BlindOptions.resolve(preset, prior=prior) for preset in COLUMNS]
    for name, values in table.items():
        for options, text in zip(resolved, values, strict=True):
            value = as_written(getattr(options, name.replace("-", "_")))
            assert text == value if isinstance(value, str) else float(text) == value, name
    presets = BlindOptions.presets if prior == "dip" else BlindOptions.stylegan_presets
    listed = {name.replace("-", "_") for name in table} | {"enough"}
    assert {key for preset in COLUMNS for key in presets[preset]} <= listed
