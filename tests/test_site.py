"""The docs site: it builds without a warning, and every link inside it leads somewhere."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.shared import ROOT

for name in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(name, reason=f"no {name}: pip install -e '.[docs]'")


def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-q"]
    command += ["-c", "docs", "-d", tmp_path / "cache", ".", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {path.resolve(): path.read_text() for path in site.rglob("*.html")}
    places = {path: {*re.findall(r'\bid="([^"]+)"', page)} for path, page in pages.items()}
    titles = (site / "index.html").read_text()
    assert "examples/shaken.jpg" in titles and 'href="docs/commands/deblur.html"' in titles
    for path, page in pages.items():
        for reference in {*map(unescape, re.findall(r'\b(?:href|src)="([^"]+)"', page))}:
            link = urlsplit(reference)
            if link.scheme or link.netloc:
                continue
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            assert target.exists(), f"{path.relative_to(site)}: {reference}"
            if link.fragment and target in pages:
                assert unquote(link.fragment) in places[target], f"{path}: {reference}"
    index = (site / "searchindex.js").read_text()
    assert "docs/commands/deblur" in index and "deconvolution" in index
