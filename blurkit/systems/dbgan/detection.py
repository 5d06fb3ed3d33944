"""Build BGAN, DBGAN and their discriminators from the keys and shapes of a state dict."""

from __future__ import annotations

from blurkit.systems.dbgan.discriminators import (
    SpectralVGGDiscriminator,
    VGGDiscriminator,
    judged_crop,
)
from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.systems.system import Shapes


def bgan(shapes: Shapes) -> BGAN:
    """Return a BGAN whose state dict has these shapes."""
    width, channels = shapes["head.weight"][:2]
    return BGAN(width, len(shapes.numbers(r"body\.(\d+)\.convs\.0\.weight")), noise=channels - 3)


def dbgan(shapes: Shapes) -> DBGAN:
    """Return a DBGAN whose state dict has these shapes."""
    return DBGAN(
        width=shapes["model.0.weight"][0],
        blocks=len(shapes.numbers(r"model\.1\.sub1\.(\d+)\.RDB1\.conv1\.0\.weight")),
        growth=shapes["model.1.sub1.0.RDB1.conv1.0.weight"][0],
    )


def vgg_discriminator(shapes: Shapes) -> VGGDiscriminator:
    """Return a VGGDiscriminator whose state dict has these shapes."""
    # Only convolutions have weights of four dimensions; those of batch norms have one.
    convolutions = sum(key.startswith("features.") and len(s) == 4 for key, s in shapes.items())
    width, values = shapes["features.0.weight"][0], shapes["classifier.0.weight"][1]
    return VGGDiscriminator(judged_crop(convolutions, width, values), width)


def spectral_discriminator(shapes: Shapes) -> SpectralVGGDiscriminator:
    """Return a SpectralVGGDiscriminator whose state dict has these shapes."""
    convolutions = len(shapes.numbers(r"conv(\d+)\.weight_orig"))
    width, values = shapes["conv0.weight_orig"][0], shapes["linear0.weight_orig"][1]
    return SpectralVGGDiscriminator(judged_crop(convolutions, width, values), width)
