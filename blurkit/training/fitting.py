"""How a training fits the memory of its device, and how long a step takes there."""

from __future__ import annotations

import time
from functools import partial

import torch

from blurkit.engine.device import choose_device, choose_precision
from blurkit.reports.progress import say
from blurkit.training.configuration import Run
from blurkit.training.distributed import Processes, local_device
from blurkit.training.estimate import GIB, estimate, on_meta
from blurkit.training.recipe import Recipe
from blurkit.training.steps import Steps


def chosen_recomputation(recipe: Recipe, run: Run, processes: Processes, silent: bool) -> bool:
    """Return whether the backward pass shall compute activations again.

    With `auto`, it shall if a step would not fit the free memory of a GPU otherwise; a message says
    so unless `silent`. `recipe` stays unchanged.
    """
    if run.checkpointing != "auto" or processes.device.type != "cuda":
        return run.checkpointing == "on"
    free = torch.cuda.mem_get_info(processes.device)[0] / GIB
    needs = [
        memory_needed(recipe, processes.count, run.accumulate, again) for again in (False, True)
    ]
    if needs[0] <= free:
        return False
    text = f"a step needs about {needs[0]:.0f} GiB, but {free:.0f} GiB are free: activations are "
    text += f"computed again in the backward pass, which leaves {needs[1]:.0f} GiB"
    say(text + ("; use a larger --accumulate" if needs[1] > free else ""), silent)
    return True


def steps_of(recipe: Recipe, run: Run, processes: Processes) -> Steps:
    """Return the steps of a recipe on the device of `processes`, as the options of `run` say."""
    recompute = chosen_recomputation(recipe, run, processes, run.quiet or not processes.first)
    dtype = choose_precision(run.precision, processes.device)
    return Steps(recipe, processes, dtype, run.accumulate, recompute)


def memory_needed(recipe: Recipe, processes: int, accumulate: int, recompute: bool) -> float:
    """Return the GiB that a step of a recipe needs in one of so many processes; see `estimate`."""
    needs = estimate(partial(on_meta, recipe), processes, accumulate, recompute)
    return float(needs["total"])


def measure(recipe: Recipe, run: Run, steps: int, count: int = 1) -> dict[str, float]:
    """Run `steps` steps on random crops, after a first one, and return what they take.

    That is `seconds` per step and, on a GPU, `peak` in GiB. The crops are those that one of `count`
    processes has of a batch; under `torchrun`, they are this process's. Nothing is loaded or
    written, and the weights in `recipe` change.
    """
    device = choose_device(local_device(run.device))
    processes = Processes(device)
    made = steps_of(recipe, run, processes)
    c = recipe.configuration
    if processes.count == 1:
        made.share = slice(0, -(-c.batch // count))
    shape = (made.share.stop - made.share.start, 3, c.crop, c.crop)
    batch = {name: torch.rand(shape).to(device) for name in recipe.images}
    for step in range(steps + 1):
        if step == 1:
            _wait_for(device)
            began = time.monotonic()
        made.run(step, batch)
    _wait_for(device)
    found = {"seconds": (time.monotonic() - began) / steps}
    if device.type == "cuda":
        found["peak"] = torch.cuda.max_memory_allocated(device) / GIB
    made.close()
    return found


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
