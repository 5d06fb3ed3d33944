"""MSDI-Net (Li et al., ECCV 2022)."""

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "msdi",
    "MSDI-Net",
    architectures=(
        Architecture("MSDI-Net joint model", "", "networks.JointModel", ("inverse_generator.",)),
        Architecture("MSDI-Net", "deblur", "networks.MSDINet", ("net_prior.", "sam12.")),
        Architecture(
            "MSDI-Net generator",
            "deblur",
            "networks.StackedGenerator",
            ("down_path_1.", "conv_01.", "sam12."),
        ),
        Architecture(
            "MSDI-Net generator", "deblur", "networks.JointGenerator", ("down_path_1.", "conv_01.")
        ),
        Architecture(
            "MSDI-Net degradation encoder",
            "encoder",
            "encoder.DegradationEncoder",
            ("layer1.0.weight_orig", "res_"),
            # Layers that an older release saved but did not use.
            unused=("fc_0.", "fc_1.", "layer8_1.", "layer8_2.", "layer9_1.", "layer9_2."),
        ),
        Architecture(
            "MSDI-Net blur-aware encoder",
            "blur_encoder",
            "encoder.BlurEncoder",
            ("layer1.0.weight_orig", "conv_7x7."),
        ),
        Architecture(
            "MSDI-Net prior upsampling", "latents", "encoder.PriorUpsampling", ("conv_latent_up6.",)
        ),
        Architecture(
            "MSDI-Net discriminator",
            "discriminator",
            "networks.MultiscaleDiscriminator",
            ("discriminator_0.model0.",),
        ),
    ),
    uses={
        "deblurring": "a whole MSDI-Net, or an encoder, latents and a deblurring generator",
        "reblurring": "an encoder, latents and a reblurring generator, as train-reblur writes them",
        "interpolation": "MSDI-Net's encoder and latents, and a generator that takes them",
    },
    companions=("encoder", "latents"),
    weights="msdi.pt",
    trainings=(
        Training(
            "msdi",
            "train-reblur",
            "Stage 1 of MSDI-Net: a degradation encoder, a reblurring and a deblurring network and "
            "a discriminator.",
            "ReblurConfiguration",
            "plan_reblur",
            "ReblurInputs",
        ),
        Training(
            "msdi",
            "train-deblur",
            "Stage 2 of MSDI-Net, conditioned by the encoder of train-reblur, whose width it uses.",
            "DeblurConfiguration",
            "plan_deblur",
            "DeblurInputs",
        ),
    ),
)
