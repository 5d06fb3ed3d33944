"""MSFS-Net (Zhang et al., "Multi-scale frequency separation network for image deblurring")."""

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "msfs",
    "MSFS-Net",
    architectures=(
        Architecture("MSFS-Net", "deblur", "networks.MSFSNet", ("conv.main.0.", "latent.")),
    ),
    uses={"deblurring": "an MSFS-Net"},
    trainings=(
        Training(
            "msfs",
            "train-deblur",
            "MSFS-Net, which separates frequencies and needs no encoder.",
            "MSFSConfiguration",
            "MSFSRecipe",
        ),
    ),
)
