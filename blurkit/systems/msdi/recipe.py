"""The two training stages of MSDI-Net (ECCV 2022, Sections 3.1 and 3.2)."""

from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import PIXEL_LOSSES, zero
from blurkit.nn.features import FeatureNetwork
from blurkit.systems.msdi import config, losses, networks
from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.unet import PaperModulation, takes_any_width
from blurkit.systems.registry import describe_networks, load_networks
from blurkit.training.configuration import Run
from blurkit.training.recipe import Batch, Losses, Plan, Recipe, States, feature_network, weighted


class MSDIRecipe(Recipe):
    """The base of both stages: a training may start without conditioning."""

    protocol = networks.Generator.protocol

    def __init__(self, c: config.MSDIConfiguration) -> None:
        super().__init__(c)
        self.watch = losses.CollapseWatch(c.iterations // 10)

    @torch.no_grad()
    def measures(self, batch: Batch) -> Losses:
        """Return the measures in `losses.LIMITS` that the networks of this stage have."""
        blur, sharp = self.watch.crops(batch["blur"], batch["sharp"])
        if len(blur) == 1:
            return {}
        for network in self.networks.values():
            network.eval()
        return self.watched(blur, sharp)

    @abstractmethod
    def watched(self, blur: Tensor, sharp: Tensor) -> Losses:
        """Return the measures of some crops (N, 3, H, W), which show whether it has collapsed."""

    def check_collapse(self, losses: Mapping[str, float]) -> str:
        """Return a warning if encoder or generators have collapsed; see `losses.LIMITS`."""
        return self.watch.collapsed(self.drawing[0], losses)

    def may_differ(self, own: States, given: States) -> set[str]:
        """Return the keys of what conditions them, and of modulation unless both have it."""
        steering, modulation = networks.STEERING_KEYS, networks.MODULATION_KEYS
        modulated = [any(k.startswith(modulation) for k in state) for state in (own, given)]
        excluded = steering if all(modulated) else (*steering, *modulation)
        return {key for key in {*own, *given} if key.startswith(excluded)}


class ReblurRecipe(MSDIRecipe):
    """Stage 1: encoder E, generators G_r and G_d, discriminator D (Eq. 3-6).

    The perceptual loss compares y' with y in the features of `network`, if any. Of the ablations,
    `reblur_loss="l1"` trains without D, `reblurring=False` without D and G_r.
    """

    def __init__(
        self, c: config.ReblurConfiguration, network: FeatureNetwork | None = None
    ) -> None:
        super().__init__(c)
        self.c = c
        version: Literal[1, 2] = 1 if c.encoder_version == "1" else 2
        self.model = networks.JointModel(
            DegradationEncoder(version, c.width, c.encoder_layers, code=c.code),
            PriorUpsampling(version, c.width),
            _generator(c) if c.reblurring else None,
            _generator(c),
        )
        if c.identity_start:
            start_latents(self.model.prior_upsampling)
        self.networks = self.model.roles()
        steering = nn.ModuleList([self.model.net_prior, self.model.prior_upsampling]).parameters()
        generators = (g for g in (self.model.inverse_generator, self.model.generator) if g)
        optimizer = self.adam(*generators)
        own = {"params": steering, "share": c.encoder_rate, "lr": c.learning_rate}
        optimizer.add_param_group(own)
        self.optimizers = {"generator": optimizer}
        self.discriminator: networks.MultiscaleDiscriminator | None = None
        if c.adversarial and (c.adversarial_weight or c.matching_weight):
            self.discriminator = networks.MultiscaleDiscriminator(c.discriminator_width)
            self.networks["discriminator"] = self.discriminator
            self.optimizers["discriminator"] = self.adam(self.discriminator)
        self.use_features(network)

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the cosine's value; with `schedule_generator` off, the generators' is constant."""
        if optimizer == "generator" and not self.c.schedule_generator:
            return self.c.learning_rate
        return super().learning_rate(optimizer, step)

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the loss of generators and encoder, or of D on a newly reblurred image."""
        c, blur, sharp = self.c, batch["blur"], batch["sharp"]
        if optimizer == "discriminator":
            with torch.no_grad():
                _, updated = self.model(blur, sharp)
            fake, real = self._discriminate(sharp, updated, blur)
            on_fake, on_real = losses.hinge_discriminator_loss(fake, real)
            return on_fake + on_real, {"on_fake": on_fake, "on_real": on_real}
        deblurred, reblurred = self.model(blur, sharp)
        terms = {"deblur": (c.deblur_weight, (deblurred - sharp).abs().mean())}
        if reblurred is not None and c.reblur_loss == "l1":
            terms["reblur"] = c.perceptual_weight, (reblurred - blur).abs().mean()
        elif reblurred is not None and self.features is not None:
            distance = self.features.distance(reblurred, self.features(blur)).mean()
            terms["perceptual"] = c.perceptual_weight, distance
        if self.discriminator is not None and reblurred is not None:
            fake, real = self._discriminate(sharp, reblurred, blur)
            terms["adversarial"] = c.adversarial_weight, losses.hinge_generator_loss(fake)
            if c.matching_weight:
                terms["matching"] = c.matching_weight, losses.feature_matching_loss(fake, real)
        return weighted(terms)

    def watched(self, blur: Tensor, sharp: Tensor) -> Losses:
        """Measure E's maps, deblurred images, and images with their own blur and the next one's."""
        maps = self.model.net_prior(blur)
        latents = self.model.latents_of(maps)
        restored = self.model.deblur(blur, latents)
        measured = {
            "restored": losses.change(restored, blur, blur, sharp),
            "degradations": losses.apart(maps),
        }
        if self.model.inverse_generator is not None:
            others = [latent.roll(1, 0) for latent in latents]  # of the image before
            own, other = (self.model.reblur(sharp, given) for given in (latents, others))
            measured["exchange"] = losses.change(own, other, blur, sharp)
        return measured

    def _discriminate(
        self, sharp: Tensor, fake: Tensor, real: Tensor
    ) -> tuple[losses.Scales, losses.Scales]:
        """Return D's features of (sharp, fake) and of (sharp, real), from a single call."""
        assert self.discriminator is not None
        pairs = torch.cat([torch.cat([sharp, fake], 1), torch.cat([sharp, real], 1)])
        scales, count = self.discriminator(pairs), len(sharp)
        of_fake = [[feature[:count] for feature in scale] for scale in scales]
        return of_fake, [[feature[count:] for feature in scale] for scale in scales]


class DeblurRecipe(MSDIRecipe):
    """Stage 2: a deblurring MSDI-Net conditioned by a frozen encoder (Eq. 7-8).

    `pretrained` are networks of stage 1 by role: `encoder` and `latents`, and optionally
    `blur_encoder`, another encoder for the blur-aware loss, as in the released version 2. With
    `injection="none"`, nothing conditions the network, and an encoder serves the blur-aware loss
    alone. With `generator="single"`, the network is one U-Net, saved with encoder and latents.

    Raises BlurkitError if encoder or latents are missing or their width differs from the network's,
    UsageError if there is neither an injection nor an encoder for the blur-aware loss.
    """

    def __init__(
        self, c: config.DeblurConfiguration, pretrained: dict[str, nn.Module], where: str = ""
    ) -> None:
        super().__init__(c)
        self.c = c
        self.steering: tuple[DegradationEncoder, PriorUpsampling] | None = None
        if c.injection != "none":
            self.steering = frozen_steering(pretrained, where, "train-deblur")
            width = self.steering[1].options["width"]
            if width != c.width and not takes_any_width(c.injection, c.modulation):
                raise BlurkitError(
                    f"{where}: its latents have width {width}, the network {c.width}; leave out "
                    f"--width, run train-reblur with --width {c.width}, or use --modulation paper, "
                    "which allows any"
                )
        self.network = _generator(c, self.steering)
        self.blur_encoder: BlurEncoder | DegradationEncoder | None = None
        if c.blur_weight:
            other = pretrained.get("blur_encoder", pretrained.get("encoder"))
            if not isinstance(other, (BlurEncoder, DegradationEncoder)):
                raise UsageError(
                    "--injection none: the blur-aware loss needs --encoder FILE; "
                    "name one, or use --blur-weight 0"
                )
            self.blur_encoder = other.requires_grad_(False)
            self.helpers = [self.blur_encoder]
        if self.steering and not isinstance(self.network, networks.MSDINet):
            self.networks = dict(zip(networks.STEERING, self.steering, strict=True))
        self.networks["deblur"] = self.network
        self.optimizers = {"deblur": self.adam(self.network)}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        c, blur, sharp = self.c, batch["blur"], batch["sharp"]
        images = self._images(blur, self._maps(blur))
        restored = images[-1]
        name: str = c.pixel_loss
        pixel_loss = PIXEL_LOSSES[name]
        terms = {name: (c.psnr_weight, pixel_loss(restored, sharp))}
        if c.supervise_first and len(images) > 1:
            terms[f"{name}_first"] = c.psnr_weight, pixel_loss(images[0], sharp)
        if c.frequency_weight:
            terms["frequency"] = c.frequency_weight, losses.frequency_loss(restored, sharp)
        if self.blur_encoder is not None:
            loss = losses.blur_aware_loss(self.blur_encoder.eval(), restored, sharp, c.blur_layers)
            terms["blur"] = c.blur_weight, loss
        return weighted(terms)

    def watched(self, blur: Tensor, sharp: Tensor) -> Losses:
        """Measure the restored images, and E's maps if they condition the network."""
        maps = self._maps(blur)
        measured = {"restored": losses.change(self._images(blur, maps)[-1], blur, blur, sharp)}
        return measured if maps is None else measured | {"degradations": losses.apart(maps)}

    def _images(self, blur: Tensor, maps: Tensor | None) -> list[Tensor]:
        """Return the image of each U-Net, the result last, from E's maps of `blur`."""
        latents: list[Tensor] = []
        if self.steering is not None and maps is not None:
            with torch.no_grad():
                latents = networks.steering_latents(self.steering[1].eval(), maps, self.network)
        return networks.images_of(self.network(blur, latents))

    @torch.no_grad()
    def _maps(self, blur: Tensor) -> Tensor | None:
        if self.steering is None:
            return None
        # In train mode, spectral norms would update their vectors although the encoder is frozen.
        return self.steering[0].eval()(blur)


def frozen_steering(
    given: dict[str, nn.Module], where: str, who: str
) -> tuple[DegradationEncoder, PriorUpsampling]:
    """Return encoder and latents of stage 1, frozen. Raises BlurkitError if one is missing."""
    encoder, latents = (given.get(role) for role in networks.STEERING)
    if not isinstance(encoder, DegradationEncoder) or not isinstance(latents, PriorUpsampling):
        raise BlurkitError(
            f"{where}: holds {describe_networks(given)}; {who} needs encoder and latents, as "
            "train-reblur writes them"
        )
    return encoder.requires_grad_(False), latents.requires_grad_(False)


def _generator(
    c: config.MSDIConfiguration, steering: tuple[DegradationEncoder, PriorUpsampling] | None = None
) -> networks.Generator:
    """Return the U-Net or U-Nets that `c` describes; stacked ones contain their `steering`."""
    names = ("width", "hidden", "modulation", "inject_bottleneck", "injection", "unshuffle")
    options: dict[str, Any] = {name: getattr(c, name) for name in names}
    options["latent_width"] = steering[1].options["width"] if steering else c.width
    generator: networks.Generator
    if c.generator == "single":
        generator = networks.JointGenerator(**options)
    elif steering:
        generator = networks.MSDINet(*steering, **options, inject_stages=c.inject_stages)
    else:
        generator = networks.StackedGenerator(**options, inject_stages=c.inject_stages)
    if c.identity_start:
        start_at_identity(generator)
    return generator


def plan_reblur(
    inputs: config.ReblurInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan of stage 1; see `tasks.train.plan_training`."""
    c = config.ReblurConfiguration.resolve(preset, **overrides)
    want = c.perceptual if c.adversarial and c.perceptual_weight else "none"
    features = feature_network(want, inputs.features, run.quiet, dry_run)
    return Plan(c, partial(ReblurRecipe, c, features))


def plan_deblur(
    inputs: config.DeblurInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan of stage 2. Raises BlurkitError if an encoder is missing or unreadable."""
    pretrained = load_networks(*map(load_checkpoint, inputs.encoder))
    if inputs.blur_encoder:
        other = load_networks(load_checkpoint(inputs.blur_encoder))
        encoder = other.get("blur_encoder", other.get("encoder"))
        if encoder is None:
            raise BlurkitError(
                f"{inputs.blur_encoder}: holds {describe_networks(other)}, but no encoder"
            )
        pretrained["blur_encoder"] = encoder
    latents = pretrained.get("latents")
    if overrides.get("width") is None and isinstance(latents, PriorUpsampling):
        overrides = {**overrides, "width": latents.options["width"]}
    c = config.DeblurConfiguration.resolve(preset, **overrides)
    lighter = getattr(pretrained.get("encoder"), "version", 1) == 2
    if preset == "official" and c.blur_weight and lighter and "blur_encoder" not in pretrained:
        raise UsageError(
            "--preset official: the released blur-aware loss uses E's version 1, but --encoder has "
            "version 2; give --blur-encoder FILE (the released net_E.pth, or what train-reblur "
            "--preset paper wrote), or the same file again to use its own"
        )
    return Plan(c, partial(DeblurRecipe, c, pretrained, ", ".join(inputs.encoder)))


# ---- Initial weights -----------------------------------------------------------------------------


def start_at_identity(network: networks.Generator) -> None:
    """Zero the convolutions that output a network's images, so that it first returns its input.

    The residual is then learned from zero, not against the noise of random weights. The paper's
    modulation begins at gamma 1, beta 0: a network trained without it continues where it was.
    """
    zero(network.last)
    if isinstance(network, networks.StackedGenerator):
        zero(network.sam12.conv2)
    for module in network.modules():
        if isinstance(module, PaperModulation):
            module.start_at_identity()


@torch.no_grad()
def start_latents(upsampling: PriorUpsampling) -> None:
    """Initialise the upsampling so that latents are as strong as E's map.

    Spectral normalisation divides PyTorch's initial filters by several times their gain, so that
    full-size latents begin a thousand times weaker than the map and nothing is learned from them. A
    delta-orthogonal filter (Xiao et al. 2018) has norm 1 and passes everything on; the small values
    around its centre compensate for what LeakyReLU removes from smooth maps. Biases are zero.
    """
    taps = torch.full((3, 3), 0.05)
    taps[1, 1] = 0.99
    for module in upsampling.modules():
        if isinstance(module, nn.Conv2d):
            weight, bias = module.get_parameter("weight_orig"), module.get_parameter("bias")
            channels = nn.init.orthogonal_(weight.new_empty(weight.shape[:2]))
            weight.copy_(channels[:, :, None, None] * taps.to(weight.device))
            bias.zero_()
