"""Steps of several blind searches, for which operator and feature network run once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch

from blurkit.errors import BlurkitError
from blurkit.systems.kernel_space.priors import StyleImage
from blurkit.systems.kernel_space.search import Search, StepKind
from blurkit.systems.kernel_space.search_context import SearchContext
from blurkit.systems.kernel_space.search_result import SearchResult


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
    images, blurs = zip(*(search.make(kind) for search in group), strict=True)
    image, blur = torch.cat(images), torch.cat(blurs)
    blurred = context.operator.blur(image, blur)
    target = torch.cat([search.target(blurred) for search in group])
    maps = None
    if context.criterion.objective.perceptual[second_half]:
        sets = [search.target_maps(blurred) for search in group]
        maps = sets[0] if len(sets) == 1 else [torch.cat(m) for m in zip(*sets, strict=True)]
    spreads = [s.image.apart for s in group if isinstance(s.image, StyleImage)]
    terms = context.criterion.terms(
        blurred,
        target,
        image,
        blur,
        second_half,
        context.features,
        maps,
        torch.cat(spreads) if spreads else None,
    )
    for search in group:
        search.forget_gradients()
    torch.stack(list(terms.values())).sum().backward()
    errors = (blurred.detach() - target).square().flatten(1).mean(1)
    for number, search in enumerate(group):
        own = {name: values[number].detach() for name, values in terms.items()}
        search.take(kind, images[number], blurs[number], own, errors[number])


def find_blur(
    context: SearchContext, blurry: np.ndarray, sharp: np.ndarray, seed: int = 0
) -> SearchResult:
    """Find the blur of a pair: the search with its image known (step B of Algorithm 1; Table 3).

    `blurry` and `sharp` are float (H, W, 3) in [0, 1], of a size that the operator accepts. Raises
    BlurkitError if the search diverges.
    """
    images = (
        torch.from_numpy(np.ascontiguousarray(i.transpose(2, 0, 1)[None])) for i in (blurry, sharp)
    )
    search = Search(context, next(images), seed, next(images))
    search.begin()
    while not search.finished:
        advance([search])
    if search.diverged:
        raise BlurkitError(
            f"the search diverged at iteration {search.diverged}; try a smaller --kernel-rate"
        )
    return search.found
