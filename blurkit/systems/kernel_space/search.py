"""The blind search for an image and its blur, step by step (Algorithm 1, Eq. 5-7).

"Explore Image Deblurring via Encoded Blur Kernel Space", CVPR 2021. Several searches can step
together; each has its own weights, random numbers and objective, and ends as it would alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, Say
from blurkit.systems.kernel_space import priors
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.kernel_space.priors import DeepImage, StyleImage, cut_to_middle
from blurkit.systems.uses import Estimate

StepKind = Literal["image warm-up", "blur warm-up", "joint", "image", "blur"]
"""The kinds of steps: of the image, of its blur, or of both."""

Lowest = tuple[float, int]
"""The lowest objective so far and the step that had it."""


class Search:
    """The search for the sharp image and the blur of one photo (1, 3, H, W).

    Its random numbers depend on `seed` alone. With `sharp`, an image of the photo's size, only the
    blur is searched. `estimator` returns what to start from, with a picture of the photo's size,
    when the search begins; `name` identifies the photo in warnings.

    `estimate` is the estimator's result, and `started` is whether the search started from it.
    `last` is the last result that was checked, `found` the one to keep, and `picture` the image of
    the last iteration. An objective that is not finite ends the search at the iteration `diverged`.
    """

    def __init__(
        self,
        context: SearchContext,
        photo: Tensor,
        seed: int,
        sharp: Tensor | None = None,
        estimator: Callable[[], Estimate] | None = None,
        name: str = "photo",
    ) -> None:
        self.context, self.seed, self.name = context, seed, name
        self._estimator = estimator
        self.estimate: Estimate | None = None
        self.started = False
        self.photo = photo.to(context.device)
        self.sharp = None if sharp is None else sharp.to(context.device)
        self.found = self.last = SearchResult(self.photo)
        self.picture = self.photo
        self.finished = self._begun = False
        self.diverged = 0
        self.seconds = 0.0
        self._counts: dict[StepKind, int] = dict.fromkeys(get_args(StepKind), 0)
        self._position = 0
        self._best: Lowest = (math.inf, 0)
        self._turn_best: Lowest = (math.inf, 0)
        self._average: Tensor | None = None
        self._turn_image: Tensor | None = None
        self._target_maps: list[Tensor] | None = None

    @property
    def iteration(self) -> int:
        """The number of steps that the image has taken."""
        return self._counts["joint"] + self._counts["image"]

    def begin(self, warn: Say = lambda text: None) -> None:
        """Make the networks, which take no memory before; warn if the estimate cannot be used."""
        if self._begun or self.finished:
            return
        self._begun = True
        self._estimated = self._estimated_blur(warn)
        self.started = self._estimated is not None
        context = self.context
        options, operator = context.options, context.operator
        self.source = priors.RandomSource(self.seed, context.device, options)
        height, width = self.photo.shape[-2:]
        if self.sharp is not None:
            self.image: nn.Module = priors.KnownImage(self.sharp)
        elif context.style is not None:
            prior, mean, std = context.style
            self.image = StyleImage(prior, width, mean, std, self.source)
        else:
            sides = height + operator.margin, width + operator.margin
            self.image = DeepImage(*sides, context.dtype, self.source)
        self._begin_blur()
        trainable = [p for p in self.image.parameters() if p.requires_grad]
        self._image_optimizer: torch.optim.Optimizer | None = None
        if isinstance(self.image, StyleImage):
            self._image_optimizer = priors.SphericalAdam(trainable, options.image_rate)
        elif trainable:
            self._image_optimizer = torch.optim.Adam(trainable, options.image_rate, fused=True)
        self._start = None if self.started else operator.starting_blur(self.photo)

    def _estimated_blur(self, warn: Say) -> Tensor | None:
        if self._estimator is None:
            return None
        if self.estimate is None:  # otherwise restored from the resumed run
            self.estimate = self._estimator()
        blur = None
        if self.estimate.believed:
            blur = self.context.operator.convert_estimate(self.estimate, self.photo)
        if blur is None:
            warn(f"{self.name}: {self.estimate.doubt()}; the search starts as usual")
        return blur

    def _begin_blur(self) -> None:
        height, width = self.photo.shape[-2:]
        self.blur = self.context.operator.make_prior(height, width, self.source)
        if self._estimated is not None:
            self.blur.start_from(self._estimated)
        rate = self.context.options.kernel_rate
        self._blur_optimizer = torch.optim.Adam(self.blur.parameters(), rate, fused=True)

    # ---- the next step ---------------------------------------------------------------------------

    @property
    def kind(self) -> StepKind:
        """The kind of the next step."""
        options = self.context.options
        if isinstance(self.image, DeepImage) and self._counts["image warm-up"] < options.warm_up:
            return "image warm-up"
        if self._start is not None and self._counts["blur warm-up"] < options.kernel_warm_up:
            return "blur warm-up"
        if options.search == "joint":
            return "joint"
        if options.first_turn == "image":
            return "image" if self._position < options.image_steps else "blur"
        return "blur" if self._position < options.kernel_steps else "image"

    @property
    def second_half(self) -> bool:
        """Whether the second of a term's two weights applies."""
        options = self.context.options
        return self.iteration >= options.switch_at * options.iterations

    def target(self, blurred: Tensor) -> Tensor:
        """Return the part of the photo that a blurred image covers, which may lack the border."""
        return cut_to_middle(self.context.operator.observe(self.photo), *blurred.shape[-2:])

    def target_maps(self, blurred: Tensor) -> list[Tensor]:
        """Return the features of that part, computed only once."""
        if self._target_maps is None:
            assert self.context.features is not None
            with torch.no_grad():
                self._target_maps = self.context.features(self.target(blurred))
        return self._target_maps

    # ---- steps -----------------------------------------------------------------------------------

    def warm_up(self, kind: StepKind) -> None:
        """Move the image towards the picture to start from, else the photo; or the blur."""
        if kind == "image warm-up":
            image = cut_to_middle(self.image(self.source), *self.photo.shape[-2:])
            if self.started and self.estimate is not None:
                # Not squared: vanishing gradients would make Adam's first search steps huge.
                loss = F.l1_loss(image, self.estimate.picture.to(image))
            else:
                loss = F.mse_loss(image, self.photo)
        else:
            assert self._start is not None
            loss = F.mse_loss(self.blur(self.source), self._start)
        self.clear_gradients()
        loss.backward()
        self._descend(kind)

    def generate(self, kind: StepKind) -> tuple[Tensor, Tensor]:
        """Return image and blur for a step, with gradients to what the step changes."""
        options = self.context.options
        if kind != "blur":
            image = self.image(self.source)
        elif self._turn_image is not None:  # the same throughout the blur's turn
            image = self._turn_image
        else:
            with torch.no_grad():
                image = self._turn_image = self.image(self.source)
            if options.restart_blur:
                self._begin_blur()
        with torch.set_grad_enabled(kind != "image"):
            return image, self.blur(self.source)

    def clear_gradients(self) -> None:
        self.image.zero_grad()
        self.blur.zero_grad()

    def finish_step(
        self, kind: StepKind, image: Tensor, blur: Tensor, terms: dict[str, Tensor], error: Tensor
    ) -> None:
        """Make a step with the gradients of `terms`, then check it; `error` is the photo's."""
        options, second_half = self.context.options, self.second_half
        self._descend(kind)
        turn_over = self._end_turn(kind, terms)
        ends = self.iteration >= options.iterations and not self._position
        candidate = options.search == "joint" or turn_over
        due = ends or (options.result == "best" and options.search != "joint" and turn_over)
        if kind != "blur":
            self._turn_image = None
            due = due or self.iteration % 10 == 0 or self.iteration <= 1
        if kind != "blur" or due:
            blur = self._update_picture(kind, image.detach(), blur.detach())
        if due:
            values = {name: float(value) for name, value in terms.items()}
            about = (self.iteration, values, second_half, float(error))
            self._check(SearchResult(self.picture.clone(), blur, *about), candidate)
        if not self.finished and (ends or (kind != "blur" and due and self._has_settled())):
            self._finish()

    def _end_turn(self, kind: StepKind, terms: dict[str, Tensor]) -> bool:
        """Move on in the turns of an alternating search; some end early. Return if one is over."""
        options = self.context.options
        if options.search == "joint":
            return False
        first = options.image_steps if options.first_turn == "image" else options.kernel_steps
        whole = options.image_steps + options.kernel_steps
        end = first if self._position < first else whole
        last = self.iteration >= options.iterations
        cut = last if kind == "image" else self._blur_has_settled(terms)
        self._position = end if cut else self._position + 1
        over = self._position == end
        self._position %= whole
        if over:
            self._turn_best = (math.inf, 0)
        return over

    def _blur_has_settled(self, terms: dict[str, Tensor]) -> bool:
        """Whether the objective has not fallen for `kernel_patience` steps of the blur."""
        patience, step = self.context.options.kernel_patience, self._counts["blur"]
        if not patience:
            return False
        value = float(torch.stack(list(terms.values())).sum())
        self._turn_best = self._lowest(self._turn_best, value, step)
        return step - self._turn_best[1] >= patience

    def _lowest(self, best: Lowest, value: float, step: int) -> Lowest:
        return (value, step) if value < best[0] * (1 - self.context.options.tolerance) else best

    def _descend(self, kind: StepKind) -> None:
        options = self.context.options
        if self._image_optimizer is not None and kind in ("image warm-up", "joint", "image"):
            rate = options.image_rate
            if isinstance(self.image, StyleImage):
                rate *= priors.one_cycle_drop(self.iteration, options.iterations)
            elif kind != "image warm-up":
                rate *= self._decay(self.iteration, options.iterations)
            _step(self._image_optimizer, rate)
        if kind in ("blur warm-up", "joint", "blur"):
            rate = options.kernel_rate
            if kind == "joint":
                rate *= self._decay(self.iteration, options.iterations)
            elif kind == "blur":
                turns = math.ceil(options.iterations / options.image_steps)
                rate *= self._decay(self._counts["blur"], turns * options.kernel_steps)
            _step(self._blur_optimizer, rate)
        self._counts[kind] += 1

    def _decay(self, step: int, steps: int) -> float:
        # One step early, as in the released code, which advances its schedule before the step.
        options = self.context.options
        part = max(1, steps // options.rate_parts)
        return float(options.rate_decay ** max(0, (step + 1) // part - options.rate_held_parts))

    def _update_picture(self, kind: StepKind, image: Tensor, blur: Tensor) -> Tensor:
        """Set the picture of an image, or of the average of images; return the blur that fits."""
        if self.sharp is None:  # a known image already determines the blur's position
            image, blur = self.context.operator.crop_to_photo(image, blur, self.photo)
        average = self.context.options.average_decay
        if not average:
            self.picture = image
        elif kind != "blur":
            first = image.clone() if self._average is None else self._average
            self.picture = self._average = first.lerp_(image, 1 - average)
        return blur

    def _check(self, result: SearchResult, candidate: bool) -> None:
        """Keep a result if it is a candidate and better, or end the search if it diverges."""
        if not math.isfinite(result.objective):
            self.diverged = self.iteration
            self._finish()
            return
        self.last = result
        found = self.found
        other = self.context.objective.changes and found.second_half != result.second_half
        better = candidate and (other or result.objective <= found.objective)
        if self.context.options.result == "last" or found.terms is None or better:
            self.found = result

    def _has_settled(self) -> bool:
        """Whether the objective has not fallen for `patience` iterations of the second half."""
        options = self.context.options
        if not options.patience or not self.second_half:
            return False
        self._best = self._lowest(self._best, self.last.objective, self.iteration)
        return self.iteration - self._best[1] >= options.patience

    def _finish(self) -> None:
        """End the search and release everything that takes memory."""
        self.finished = True
        self.picture = self.found.picture
        for name in _BEGUN_ATTRIBUTES:
            delattr(self, name)
        self._average = self._turn_image = self._target_maps = None

    # ---- saving and resuming ---------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that the search needs to resume, as tensors and plain values."""
        state = {name: getattr(self, name) for name in _STATE_ATTRIBUTES}
        state |= {"found": asdict(self.found), "last": asdict(self.last)}
        state["estimate"] = self.estimate and asdict(self.estimate)
        if self._begun and not self.finished:
            running = {name: part.state_dict() for name, part in self._parts().items()}
            state["running"] = running | {"generator": self.source.generator.get_state()}
        return state

    def _parts(self) -> dict[str, Any]:
        parts = {"image": self.image, "blur": self.blur, "blur_optimizer": self._blur_optimizer}
        if self._image_optimizer is not None:
            parts["image_optimizer"] = self._image_optimizer
        return parts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of the same search."""
        for name in _STATE_ATTRIBUTES:  # older versions did not have all of them
            setattr(self, name, state.get(name, getattr(self, name)))
        self.found = SearchResult(**state["found"])
        self.last = SearchResult(**state.get("last", state["found"]))
        self.estimate = Estimate(**state["estimate"]) if state["estimate"] else None
        if running := state.get("running"):
            self.begin()
            self.source.generator.set_state(running["generator"])
            for name, part in self._parts().items():
                part.load_state_dict(running[name])
            if self._turn_image is not None and isinstance(self.image, StyleImage):
                with torch.no_grad():  # for the distance between its latents
                    self.image(self.source)


_BEGUN_ATTRIBUTES = (
    *("image", "blur", "source", "_estimated", "_start"),
    *("_image_optimizer", "_blur_optimizer"),
)
"""What `begin` makes, and a finished search no longer needs."""
_STATE_ATTRIBUTES = (
    *("finished", "diverged", "seconds", "picture", "started"),
    *("_counts", "_position", "_best", "_turn_best", "_average", "_turn_image"),
)


def _step(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


# ---- Steps ---------------------------------------------------------------------------------------


def advance(searches: Sequence[Search]) -> None:
    """Make one step of every search.

    All have begun, share one context, and have photos of one size. Operator and feature network run
    once for all searches that are at the same kind of step.
    """
    started = time.perf_counter()

    def stage(search: Search) -> tuple[StepKind, bool]:
        return search.kind, search.second_half

    for (kind, second_half), members in groupby(sorted(searches, key=stage), stage):
        group = list(members)
        if kind.endswith("warm-up"):
            for search in group:
                search.warm_up(kind)
        else:
            _step_together(group, kind, second_half)
    for search in searches:
        search.seconds += (time.perf_counter() - started) / len(searches)


def _step_together(group: list[Search], kind: StepKind, second_half: bool) -> None:
    context = group[0].context
    images, blurs = zip(*(search.generate(kind) for search in group), strict=True)
    image, blur = torch.cat(images), torch.cat(blurs)
    blurred = context.operator.blur(image, blur)
    target = torch.cat([search.target(blurred) for search in group])
    maps = None
    if context.objective.perceptual[second_half]:
        sets = [search.target_maps(blurred) for search in group]
        maps = sets[0] if len(sets) == 1 else [torch.cat(m) for m in zip(*sets, strict=True)]
    distances = [s.image.latent_distance for s in group if isinstance(s.image, StyleImage)]
    distance = torch.cat(distances) if distances else None
    terms = context.objective.terms(
        blurred, target, image, blur, second_half, context.features, maps, distance
    )
    for search in group:
        search.clear_gradients()
    torch.stack(list(terms.values())).sum().backward()
    errors = (blurred.detach() - target).square().flatten(1).mean(1)
    for number, search in enumerate(group):
        own = {name: values[number].detach() for name, values in terms.items()}
        search.finish_step(kind, images[number], blurs[number], own, errors[number])


def find_blur(context: SearchContext, blurry: Tensor, sharp: Tensor, seed: int = 0) -> SearchResult:
    """Find the blur of a pair: the search with its image known (step B of Algorithm 1; Table 3).

    Both are (1, 3, H, W) in [0, 1], of the operator's size. Raises BlurkitError if it diverges.
    """
    search = Search(context, blurry, seed, sharp)
    search.begin()
    while not search.finished:
        advance([search])
    if search.diverged:
        raise BlurkitError(
            f"the search diverged at iteration {search.diverged}; try a smaller --kernel-rate"
        )
    return search.found


# ---- Results -------------------------------------------------------------------------------------


@dataclass
class SearchResult:
    """The picture (1, 3, H, W), blur (1, ...) and weighted terms of an iteration in its half.

    `error` is the mean squared difference of the photo to what picture and blur make of it.
    """

    picture: Tensor
    blur: Tensor | None = None
    iteration: int = 0
    terms: dict[str, float] | None = None
    second_half: bool = False
    error: float = math.nan

    @property
    def objective(self) -> float:
        """The sum of the terms."""
        return sum((self.terms or {}).values())

    @property
    def reproduced(self) -> float:
        """The PSNR in dB with which picture and blur together reproduce the photo."""
        return -10 * math.log10(max(self.error, 1e-10))
