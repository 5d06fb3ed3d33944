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

CONTENTS = {  # the pages at the side, below the one that they belong to
    "README": """
docs/tutorial
docs/commands/README
docs/python
docs/your-network
docs/metrics
docs/papers
docs/formats
docs/clusters
docs/reliability
docs/weights
docs/deconvolution
docs/films
docs/systems/README
docs/architecture
docs/benchmarks
docs/experiments
examples/samples
CONTRIBUTING
CHANGELOG
""",
    "docs/commands/README": """
prepare
train-reblur
train-deblur
deblur
blind-deblur
reblur
transfer
interpolate
eval
contextual-sim
export
info
""",
    "docs/systems/README": """
msdi
kernel_space
msfs
dbgan
nafnet
spandrel
any_network
""",
}


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page in CONTENTS:
        source[0] += f"\n```{{toctree}}\n:hidden:\n{CONTENTS[page]}```\n"


def name_front_page(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_contents)
    app.connect("build-finished", name_front_page)
