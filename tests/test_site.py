"""The docs site: it builds without a warning, and every link inside it leads somewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.shared import ROOT

for name in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(name, reason=f"no {name}: pip install -e '.[docs]'")


class Page(HTMLParser):
    """The places that a page names, and what it refers to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.references: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for key, value in attributes:
            if key == "id" and value:
                self.places.add(value)
            elif key in ("href", "src") and value:
                self.references.add(value)


def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-c", "docs", "-d", tmp_path / "cache", ".", site],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    titles = (site / "index.html").read_text()
    assert "examples/shaken.jpg" in titles and 'href="docs/commands/deblur.html"' in titles
    for path, page in pages.items():
        for reference in page.references:
            link = urlsplit(reference)
            if link.scheme or link.netloc:
                continue
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            assert target.exists(), f"{path.relative_to(site)}: {reference}"
            if link.fragment and target in pages:
                assert unquote(link.fragment) in pages[target].places, f"{path}: {reference}"
    index = (site / "searchindex.js").read_text()
    assert "docs/commands/deblur" in index and "deconvolution" in index
