"""The training of MSFS-Net (Section 3.6): L1, and losses on the frequencies of its features."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.nn.blocks import PIXEL_LOSSES, mean_charbonnier, zero
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.training.recipe import Batch, Losses, Recipe, weighted
from blurkit.training.steps import gather_values

# ---- Losses --------------------------------------------------------------------------------------


def contrastive_loss(
    anchors: Sequence[Tensor], positives: Sequence[Tensor], negatives: Sequence[Tensor]
) -> Tensor:
    """Return the sum over the scales of L1(anchor, positive) / L1(anchor, negative) (Eq. 5).

    The arguments are high-frequency features of the decoder, the restored image and the blurry
    image, of the same shape at each scale. L1 is the mean absolute difference over the batch of all
    processes together, which the paper leaves open. Gradients flow into all features.
    """

    def distance(first: Tensor, second: Tensor) -> Tensor:
        distances = F.l1_loss(first, second, reduction="none").flatten(1).mean(1)
        return gather_values(distances).mean()

    scales = zip(anchors, positives, negatives, strict=True)
    return torch.stack([distance(a, p) / (distance(a, n) + 1e-7) for a, p, n in scales]).sum()


def consistency_loss(features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Return the sum over scales of the mean absolute difference of low frequencies (Eq. 6)."""
    return torch.stack([F.l1_loss(a, b) for a, b in zip(features, others, strict=True)]).sum()


def edge_loss(image: Tensor, target: Tensor) -> Tensor:
    """Return the Charbonnier loss of the images' `laplacian`; in the released code only."""
    return mean_charbonnier(laplacian(image), laplacian(target))


def laplacian(image: Tensor) -> Tensor:
    """Return `image` (N, C, H, W) minus what one step of a Gaussian pyramid keeps of it.

    The image, its edges replicated, is blurred by (0.05, 0.25, 0.4, 0.25, 0.05) along both axes.
    Every second row and column, times four, with zeros between, is blurred again and subtracted.
    """
    kept = torch.zeros_like(image)
    kept[..., ::2, ::2] = 4 * _pyramid_blur(image)[..., ::2, ::2]
    return image - _pyramid_blur(kept)


def _pyramid_blur(image: Tensor) -> Tensor:
    taps = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    channels = image.shape[1]
    window = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    return F.conv2d(F.pad(image, (2, 2, 2, 2), mode="replicate"), window, groups=channels)


# ---- Recipe --------------------------------------------------------------------------------------


class MSFSRecipe(Recipe):
    """MSFS-Net by Eq. 7.

    The decoder's high frequencies are pulled towards those of the restored image in the encoder and
    pushed away from the blurry one's (Eq. 5); the encoder's low ones are pulled likewise (Eq. 6).
    """

    protocol = MSFSNet.protocol

    def __init__(self, c: MSFSConfiguration) -> None:
        super().__init__(c)
        self.c = c
        blocks = c.encoder_blocks, c.latent_blocks, c.decoder_blocks
        self.network = MSFSNet(c.width, *blocks, c.layers, c.frequency_separation, c.cross_scale)
        if c.identity_start:
            zero(self.network.tail_)
        self.networks = {"deblur": self.network}
        self.optimizers = {"deblur": self.adam(self.network, weight_decay=c.weight_decay)}

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the rate, halved every `halve_every` steps, or the cosine if that is 0."""
        if not self.c.halve_every:
            return super().learning_rate(optimizer, step)
        return self.c.learning_rate * 0.5 ** (step // self.c.halve_every)

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the weighted sum of Eq. 7 and its terms."""
        c, blur, sharp = self.c, batch["blur"], batch["sharp"]
        image_loss = PIXEL_LOSSES[c.image_loss]
        images, encoder, decoder = self.network.restore(blur)
        restored = images[0]
        terms: dict[str, tuple[float, Tensor]] = {}
        terms[c.image_loss] = 1.0, image_loss(restored, sharp)
        if c.edge_weight:
            terms["edge"] = c.edge_weight, edge_loss(restored, sharp)
        if c.scales_weight:
            half, quarter = (image_loss(images[i], sharp[..., :: 2 * i, :: 2 * i]) for i in (1, 2))
            terms["scales"] = c.scales_weight, half + quarter
        if c.frequency_separation and (c.contrastive_weight or c.consistency_weight):
            with torch.set_grad_enabled(not c.fixed_references):
                positive = self.network.separate(restored if c.positive == "restored" else sharp)
            if c.contrastive_weight:
                negatives = [s.high.detach() if c.fixed_references else s.high for s in encoder]
                highs = [s.high for s in decoder], [s.high for s in positive], negatives
                terms["contrastive"] = c.contrastive_weight, contrastive_loss(*highs)
            if c.consistency_weight:
                lows = [s.low for s in encoder], [s.low for s in positive]
                terms["consistency"] = c.consistency_weight, consistency_loss(*lows)
        return weighted(terms)
