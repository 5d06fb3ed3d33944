"""The docs site, from the pages as they are in the repository: `just site` makes site/."""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = html_title = "blurkit"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "examples/*.md"]
exclude_patterns = [".*", "site"]
myst_heading_anchors = 4
html_theme = "furo"
html_copy_source = False
html_show_copyright = False

CONTENTS = {  # the pages at the side, in groups, below the one that they belong to
    "README": {
        "A photo": "docs/deblur-my-photos docs/deconvolution docs/reliability",
        "A film": "docs/films docs/commands/deblur docs/formats",
        "A data set": "docs/tutorial docs/metrics docs/papers docs/clusters docs/benchmarks"
        " docs/experiments examples/samples",
        "A network": "docs/your-network docs/systems/README docs/weights",
        "Everything": "docs/commands/README docs/python docs/architecture CONTRIBUTING CHANGELOG",
    },
    "docs/commands/README": {
        "Commands": "prepare train-reblur train-deblur deblur blind-deblur reblur transfer"
        " interpolate eval contextual-sim export info",
    },
    "docs/systems/README": {"Systems": "msdi kernel_space msfs dbgan nafnet spandrel any_network"},
}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    for title, pages in CONTENTS.get(page, {}).items():
        listed = "\n".join(pages.split())
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{listed}\n```\n"


def name_front_page(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("build-finished", name_front_page)
