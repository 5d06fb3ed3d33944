"""Networks of other projects that the library spandrel knows: `pip install 'blurkit[spandrel]'`."""

from blurkit.systems.system import Architecture, System

SYSTEM = System(
    "spandrel",
    "spandrel",
    architectures=(),
    library=Architecture("network of spandrel", "deblur", "inference.SpandrelNetwork", ()),
    extra="spandrel",
    uses={"deblurring": "a network that restores images and that spandrel knows"},
)
