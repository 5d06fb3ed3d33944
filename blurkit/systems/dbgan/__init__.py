"""BGAN and DBGAN (Zhang et al., CVPR 2020)."""

from blurkit.systems.system import Architecture, Augmentation, System, Training

SYSTEM = System(
    "dbgan",
    "BGAN and DBGAN",
    architectures=(
        Architecture("DBGAN generator", "deblur", "networks.DBGAN", ("model.1.sub1.0.RDB1.",)),
        Architecture("BGAN generator", "bgan", "networks.BGAN", ("head.weight", "tail.1.")),
        Architecture(
            "VGG-style discriminator",
            "discriminator",
            "networks.VGGDiscriminator",
            ("features.3.running_mean", "classifier.2."),
        ),
        Architecture(
            "spectral VGG-style discriminator",
            "discriminator",
            "networks.SpectralVGGDiscriminator",
            ("conv0.weight_orig", "linear0.weight_orig"),
        ),
    ),
    uses={"deblurring": "a DBGAN", "noise": "a BGAN, as written by train-reblur --system bgan"},
    trainings=(
        Training(
            "bgan",
            "train-reblur",
            "A generator that blurs sharp photos like unrelated blurry ones.",
            "BGANConfiguration",
            "plan_bgan",
            "BGANInputs",
        ),
        Training(
            "dbgan",
            "train-deblur",
            "DBGAN, trained against a discriminator of sharp photos.",
            "DBGANConfiguration",
            "plan_dbgan",
            "FeatureInputs",
        ),
    ),
    augmentations=(
        Augmentation(
            "bgan", "Checkpoint of a BGAN that blurs some of the crops; see --mix.", "blur_mixing"
        ),
    ),
)
