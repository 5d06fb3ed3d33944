"""MSDI-Net (Li et al., ECCV 2022)."""

from __future__ import annotations

from blurkit.systems.system import Architecture, System, Training

OLD_ENCODER = ("fc_0.", "fc_1.", "layer8_1.", "layer8_2.", "layer9_1.", "layer9_2.")
"""Layers that an older release of the encoder saved but never ran."""

SYSTEM = System(
    "msdi",
    "MSDI-Net",
    architectures=(
        Architecture(
            "MSDI-Net joint model",
            "",
            "joint_model",
            ("inverse_generator.",),
            ("networks.JointModel",),
        ),
        Architecture(
            "MSDI-Net",
            "deblur",
            "msdi_net",
            ("net_prior.", "sam12."),
            ("networks.MSDINet",),
        ),
        Architecture(
            "MSDI-Net generator",
            "deblur",
            "generator",
            ("down_path_1.", "conv_01."),
            ("networks.JointGenerator", "networks.StackedGenerator"),
        ),
        Architecture(
            "MSDI-Net degradation encoder",
            "encoder",
            "encoder",
            ("layer1.0.weight_orig", "res_"),
            ("encoder.DegradationEncoder",),
            unused=OLD_ENCODER,
        ),
        Architecture(
            "MSDI-Net blur-aware encoder",
            "blur_encoder",
            "blur_encoder",
            ("layer1.0.weight_orig", "conv_7x7."),
            ("encoder.BlurEncoder",),
        ),
        Architecture(
            "MSDI-Net prior upsampling",
            "latents",
            "prior_upsampling",
            ("conv_latent_up6.",),
            ("encoder.PriorUpsampling",),
        ),
        Architecture(
            "MSDI-Net discriminator",
            "discriminator",
            "discriminator",
            ("discriminator_0.model0.",),
            ("discriminator.MultiscaleDiscriminator",),
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
