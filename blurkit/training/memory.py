"""The memory that a training step needs: estimated from shapes alone, or measured on the device."""

import math
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from blurkit.engine.torch_runner import choose_device, choose_precision
from blurkit.nn.blocks import Recomputable, meta_copy, recompute_blocks
from blurkit.reports.progress import say
from blurkit.training.configuration import Run
from blurkit.training.distributed import Processes
from blurkit.training.recipe import Recipe, parameters_of
from blurkit.training.steps import Steps

GIB = 1 << 30


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of tensors while they exist; `peak` is the most, without workspaces."""

    def __init__(self) -> None:
        super().__init__()
        self._now = self.peak = 0
        self._counted: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count what is new among its results."""
        results = function(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor))
        for storage in map(Tensor.untyped_storage, tensors):
            if storage not in self._counted:
                self._counted.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return results

    def _add(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)


def estimate(
    build: Callable[[], Recipe], processes: int = 1, accumulate: int = 1, recompute: bool = False
) -> dict[str, Any]:
    """Return the parameters per role, and the memory in GiB that one process needs.

    The process has the largest share of the batch, in `accumulate` parts; with `recompute`, the
    backward pass computes the blocks of all networks again. The memory is that of float32:
    `weights` are those of all networks, `optimizer` holds the gradients and Adam's two moments,
    `activations` are all other tensors when they take most, without the workspaces of operations.
    The step runs on torch's meta device, which computes only shapes, so this takes seconds for a
    network of any size.
    """
    with torch.device("meta"):
        recipe = build()
    modules = [*recipe.networks.values(), *recipe.helpers]
    for module in modules:
        module.to("meta")
        recompute_blocks(module, recompute)
    share = -(-recipe.configuration.batch // processes)
    crops = -(-share // accumulate)
    recipe.drawing = 0, slice(0, crops)
    images = {
        name: torch.empty(crops, *shape, device="meta") for name, shape in recipe.shapes().items()
    }
    for optimizer in recipe.optimizers.values():
        for parameter in parameters_of(optimizer):  # so that gradients do not count twice
            parameter.grad = torch.empty_like(parameter)
    with PeakMemory() as memory:
        recipe.step(images, lambda name, loss: loss.backward())
    parameters = {
        role: sum(p.numel() for p in network.parameters())
        for role, network in recipe.networks.items()
    }
    trained = {id(p): p.numel() for o in recipe.optimizers.values() for p in parameters_of(o)}
    # A helper may be part of a network, like the encoder of the blur-aware loss.
    sizes = {id(p): p.numel() for module in modules for p in module.parameters()}
    crop = sum(map(math.prod, recipe.shapes().values()))
    needs = {
        "weights": 4 * sum(sizes.values()) / GIB,
        "optimizer": 3 * 4 * sum(trained.values()) / GIB,
        "activations": (memory.peak + 4 * share * crop) / GIB,
    }
    total = sum(needs.values())
    return {"parameters": parameters, "trained": sum(trained.values()), **needs, "total": total}


# ---- Measured memory -----------------------------------------------------------------------------


def chosen_recomputation(recipe: Recipe, run: Run, processes: Processes, silent: bool) -> bool:
    """Return whether the backward pass shall compute activations again.

    With `auto`, it shall if a step would not fit the free memory of a GPU otherwise; a message says
    so unless `silent`. `recipe` stays unchanged.
    """
    if run.checkpointing != "auto" or processes.device.type != "cuda":
        return run.checkpointing == "on"
    parts = (part for network in recipe.networks.values() for part in network.modules())
    if not any(isinstance(part, Recomputable) for part in parts):
        return False
    free = torch.cuda.mem_get_info(processes.device)[0] / GIB
    build = partial(meta_copy, recipe, [*recipe.networks.values(), *recipe.helpers])
    first, again = (
        estimate(build, processes.count, run.accumulate, recompute)["total"]
        for recompute in (False, True)
    )
    if first <= free:
        return False
    text = f"a step needs about {first:.0f} GiB, but {free:.0f} GiB are free: activations are "
    text += f"computed again in the backward pass, which leaves {again:.0f} GiB"
    say(text + ("; use a larger --accumulate" if again > free else ""), silent)
    return True


def steps_of(recipe: Recipe, run: Run, processes: Processes) -> Steps:
    """Return the steps of a recipe on the device of `processes`, as the options of `run` say."""
    recompute = chosen_recomputation(recipe, run, processes, run.quiet or not processes.first)
    dtype = choose_precision(run.precision, processes.device)
    return Steps(recipe, processes, dtype, run.accumulate, recompute)


def measure(recipe: Recipe, run: Run, steps: int, count: int = 1) -> dict[str, float]:
    """Run `steps` steps on random crops, after a first one, and return their time and memory.

    That is `seconds` per step and, on a GPU, `peak` in GiB. The crops are those that one of `count`
    processes has of a batch; under `torchrun`, they are this process's. Nothing is loaded or
    written, and the weights in `recipe` change.
    """
    device = choose_device(run.device)
    processes = Processes(device)
    made = steps_of(recipe, run, processes)
    if processes.count == 1:
        made.share = slice(0, -(-recipe.configuration.batch // count))
    count = made.share.stop - made.share.start
    batch = {name: torch.rand(count, *shape).to(device) for name, shape in recipe.shapes().items()}
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
