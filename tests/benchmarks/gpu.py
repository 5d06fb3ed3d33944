"""Networks, training steps and data on a GPU, against the same work written down plainly.

    just bench --device cuda [--small]

Plainly means as the released code does it: torch without compilation, in float32 and its default
memory layout, tile by tile. It takes ten minutes on a large GPU; `--small` are networks of a few
channels, which a processor runs in seconds, to try the benchmark itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor, nn

from blurkit.engine.engine import Canvas, slices
from blurkit.engine.torch_runner import torch_engine
from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.options import Placement, Precision
from blurkit.synthesis.drawing import Synthesis, draw_exposure
from blurkit.synthesis.exposure import Unblurred
from blurkit.systems.dbgan.config import DBGANConfiguration
from blurkit.systems.dbgan.networks import DBGAN
from blurkit.systems.dbgan.recipe import DBGANRecipe
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.kernel_space.recipe import KernelSpaceRecipe
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import DegradationEncoder, MSDINet, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.msfs.recipe import MSFSRecipe
from blurkit.tasks.inspect import macs
from blurkit.training.batches import to_device
from blurkit.training.distributed import Processes
from blurkit.training.recipe import Recipe
from blurkit.training.steps import Steps
from tests.benchmarks.measure import Result, seconds

BATCHES = (8, 16, 32)
"""The numbers of tiles that are tried at once."""

MATRIX = 8192
CROPS = 64


@dataclass(frozen=True)
class Device:
    """Where everything runs, and whether at small size."""

    device: torch.device
    small: bool

    def timed(self, work: Callable[[], object], rounds: int = 3) -> float:
        """The least seconds of several calls after one for warming up, until all is computed."""

        def finished() -> None:
            work()
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        finished()
        return min(seconds(finished) for _ in range(1 if self.small else rounds))

    def memory(self, work: Callable[[], object]) -> str:
        """The peak of memory in a call, in words."""
        if self.device.type != "cuda":
            return "-"
        torch.cuda.reset_peak_memory_stats()
        work()
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"

    @property
    def precision(self) -> Precision:
        """The number format of ours."""
        return "bf16" if self.device.type == "cuda" else "fp32"

    @property
    def peak(self) -> float:
        """Multiply-accumulates a second of a large bfloat16 matrix product, in units of 1e12."""
        side = 256 if self.small else MATRIX
        a, b = torch.rand(2, side, side, device=self.device).bfloat16()
        return side**3 / self.timed(lambda: a @ b, 5) / 1e12


def photo(height: int, width: int) -> np.ndarray:
    """A photo of scikit-image, repeated to a size, float32 in [0, 1]."""
    image = (skimage.data.astronaut() / 255).astype(np.float32)
    times = -(-height // image.shape[0]), -(-width // image.shape[1]), 1
    return np.ascontiguousarray(np.tile(image, times)[:height, :width])


# ---- inference -----------------------------------------------------------------------------------


def networks(small: bool) -> dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]]:
    """The networks of the papers, and the photos that they restore."""
    width = (8,) if small else ()
    narrow = {"width": 8, "hidden": 8} if small else {}

    def msdi() -> MSDINet:
        return MSDINet(DegradationEncoder(1, *width), PriorUpsampling(1, *width), **narrow)

    photo, large = ((300, 400), (300, 400)) if small else ((720, 1280), (3000, 4000))
    return {
        "MSDI-Net v1, 1280x720": (msdi, photo),
        "MSDI-Net v1, 4000x3000": (msdi, large),
        "MSFS-Net, 1280x720": (lambda: MSFSNet(8, 1, 1, 1) if small else MSFSNet(), photo),
        "DBGAN, 1280x720": (lambda: DBGAN(8, 1) if small else DBGAN(), photo),
    }


def inference(on: Device) -> Iterator[Result]:
    """Photos by the engine, with the best of several batch sizes and layouts, and plainly."""
    for name, (make, size) in networks(on.small).items():
        image = photo(*size)
        torch.manual_seed(0)
        network = make().eval().to(on.device)
        plain = partial(_plainly, network, image, on.device)
        expected, slow = plain(), on.timed(plain, 1)
        tries = {}
        for batch in BATCHES[:1] if on.small else BATCHES:
            for layout in (torch.channels_last, torch.contiguous_format):
                torch.manual_seed(0)
                placement = Placement(str(on.device), on.precision, protocol="slices")
                engine = torch_engine(make(), placement)
                engine.runner.network.to(memory_format=layout)
                engine._batch = batch
                run = partial(engine, image)
                difference = float(np.abs(run() - expected).max())
                tries[on.timed(run)] = (batch, layout, difference, on.memory(run))
        fast = min(tries)
        batch, layout, difference, memory = tries[fast]
        rate = macs(make(), (1, 3, 256, 256)) * len(slices(*size, 256)) / fast / 1e12
        how = f"{fast:.3f} s against {slow:.3f} s; batches of {batch}, "
        how += f"{str(layout).removeprefix('torch.')}, {memory}, off by {difference:.1e}, "
        how += f"{rate:.1f} of {on.peak:.0f} TMACs/s"
        yield Result(name, f"{slow / fast:.1f}x", "at least 3x", how)


@torch.inference_mode()
def _plainly(network: nn.Module, image: np.ndarray, device: torch.device) -> np.ndarray:
    """The result of a network on 256x256 slices, one after the other."""

    def run(tile: np.ndarray) -> np.ndarray:
        output = network(torch.from_numpy(np.ascontiguousarray(tile)).to(device))
        last = output if isinstance(output, Tensor) else output[-1]
        return last.float().cpu().numpy()

    canvas = Canvas(*image.shape, 0)
    for top, left in slices(*image.shape[:2], 256):
        tile = image[top : top + 256, left : left + 256].transpose(2, 0, 1)[None]
        canvas.add(top, left, run(tile)[0].transpose(1, 2, 0))
    return canvas.image()


# ---- training ------------------------------------------------------------------------------------


def recipes(small: bool) -> dict[str, Callable[[], Recipe]]:
    """The recipes of the papers, which `--preset paper` runs."""
    narrow: dict[str, Any] = {"batch": 2, "crop": 64, "width": 8} if small else {}
    more = {"joint": {"discriminator_width": 8}, "dbgan": {"blocks": 1}, "space": {"crop": 256}}
    own = {name: narrow | (options if small else {}) for name, options in more.items()}
    width = (8,) if small else ()

    def features() -> FeatureNetwork:
        return FeatureNetwork(BACKBONES[2 if small else 0])

    def stage_2() -> Recipe:
        parts = {"encoder": DegradationEncoder(1, *width), "latents": PriorUpsampling(1, *width)}
        return DeblurRecipe(DeblurConfiguration.resolve("paper", **narrow), parts)

    joint = ReblurConfiguration.resolve("paper", **own["joint"])
    space = KernelSpaceConfiguration.resolve("paper", **own["space"])
    dbgan = DBGANConfiguration.resolve("paper", **own["dbgan"])
    return {
        "MSDI-Net, stage 1": lambda: ReblurRecipe(joint, features()),
        "MSDI-Net, stage 2": stage_2,
        "MSFS-Net": lambda: MSFSRecipe(MSFSConfiguration.resolve("paper", **narrow)),
        "kernel space": lambda: KernelSpaceRecipe(space),
        "DBGAN": lambda: DBGANRecipe(dbgan, features()),
    }


def training(on: Device) -> Iterator[Result]:
    """A step of each recipe in mixed precision, and plainly."""
    for name, make in recipes(on.small).items():
        times, memory, batch = [], [], 0
        for plain in (False, True):
            torch.manual_seed(0)
            recipe = make()
            batch, side = recipe.configuration.batch, recipe.configuration.crop
            dtype = torch.bfloat16 if on.device.type == "cuda" and not plain else torch.float32
            steps = Steps(recipe, Processes(on.device), dtype)
            if plain:
                for module in (*recipe.networks.values(), *recipe.helpers):
                    module.to(memory_format=torch.contiguous_format)
            size, names = (batch, 3, side, side), (*recipe.images, "real")
            crops = {image: torch.rand(size, device=on.device) for image in names}
            step = partial(steps.run, 1, crops)
            times.append(on.timed(step))
            memory.append(on.memory(step))
            del recipe, steps, step
        ours, other = times
        how = f"{ours:.3f} s and {memory[0]} against {other:.3f} s and {memory[1]}"
        ratio = f"{other / ours:.1f}x"
        yield Result(f"training step, {name}", ratio, "at least 2x", f"batch of {batch}: {how}")


def data(on: Device) -> Iterator[Result]:
    """Crops a second: blurred on the device, and on the processor."""
    image = (255 * photo(512, 512)).astype(np.uint8)
    stored = np.zeros((0, 256, 256, 3), np.uint8)
    for kind in ("shake", "objects"):
        unblurred = []
        for place in range(4 if on.small else CROPS):
            rng = np.random.default_rng([4, place])
            exposure = draw_exposure(rng, Synthesis(kind), (512, 512), (512, 512), (0, 0))
            unblurred.append(Unblurred(place, image, exposure))
        turns = np.zeros(len(unblurred), int)

        def made(where: torch.device, unblurred: Any = unblurred, turns: Any = turns) -> object:
            return to_device(([stored, stored], turns, unblurred), ("blur", "sharp"), 256, where)

        fast = on.timed(partial(made, on.device))
        slow = on.timed(partial(made, torch.device("cpu")), 1)
        rates = f"{len(unblurred) / fast:.0f} crops/s against {len(unblurred) / slow:.0f}"
        what, ratio = f"crops blurred on the device, {kind}", f"{slow / fast:.1f}x"
        yield Result(what, ratio, "-", f"{rates} on the processor")


def on_device(name: str, small: bool) -> list[Result]:
    torch.backends.cudnn.benchmark = True
    on = Device(torch.device(name), small)
    return [*inference(on), *training(on), *data(on)]
