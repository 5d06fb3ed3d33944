"""What tests share: planted datasets, a disk that is soon full, one small run of each stage."""

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data

from tests.data.trees import Plant
from tests.shared import shared_folder


def pytest_configure(config: pytest.Config) -> None:
    """Side by side, tests take one thread each: more would wait for each other.

    What is imported and collected stays to the end, so that the garbage collector, which would look
    at 400,000 objects again and again, leaves it alone. In the background of a script, or under
    nohup, signals that tests send are ignored, by all processes that they start, too.
    """
    gc.disable()
    for name in ("astronaut", "camera", "chelsea", "coffee", "rocket"):
        setattr(skimage.data, name, remembered(getattr(skimage.data, name)))
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.fsync = lambda descriptor: None  # no test pulls the plug
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)


def remembered(read: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """A function that decodes its photo once and returns a copy of it every time."""
    photo = cache(read)
    return lambda: photo().copy()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with room for 1 MiB; needs the right to mount one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command: cannot make a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("not permitted to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def training_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training and a validation shard of three blurred photos each."""
    from tests.training.runs import make_shards  # imports torch, as the fixtures below do

    return make_shards(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def stage_1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of stage 1 whose networks were not trained."""
    import torch

    from blurkit.systems.msdi.config import ReblurConfiguration
    from blurkit.systems.msdi.recipe import ReblurRecipe
    from tests.training.runs import save_untrained

    torch.manual_seed(3)
    options = {"hidden": 8, "width": 8, "discriminator_width": 8, "identity_start": False}
    losses = {"perceptual": "none", "reblur_loss": "adversarial"}
    recipe = ReblurRecipe(ReblurConfiguration.resolve("small", **options, **losses))
    with torch.no_grad():
        for _ in range(10):  # settles the spectral norms
            recipe.model.prior_upsampling(recipe.model.net_prior(torch.rand(1, 3, 64, 64)))
    return save_untrained(recipe, tmp_path_factory.mktemp("stage-1") / "enc.pt")


@pytest.fixture(scope="session")
def stage_2(stage_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for stage 2, with the encoder of `stage_1`."""
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.systems.msdi.config import DeblurConfiguration
    from blurkit.systems.msdi.recipe import DeblurRecipe
    from blurkit.systems.registry import load_networks
    from tests.training.runs import save_untrained

    configuration = DeblurConfiguration.resolve("small", hidden=8, width=8)
    recipe = DeblurRecipe(configuration, load_networks(load_checkpoint(stage_1)))
    return save_untrained(recipe, tmp_path_factory.mktemp("stage-2") / "deblur.pt")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread in the test's own process, as in the processes that tests start."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    return shared_folder("data", "BLURKIT_DATA")


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """plant("blur/1.png", scene): a 24x32 crop of a photo, the darker half of it when blurred.

    Each number is another part of the photo, so that a wrong pairing shows in the pixels.
    """
    photo = skimage.data.astronaut()

    def write(where: str, scene: int, blurred: bool = False) -> None:
        path = tmp_path / where
        path.parent.mkdir(parents=True, exist_ok=True)
        top, left = 40 * (scene // 10), 45 * (scene % 10)
        crop = photo[top : top + 24, left : left + 32]
        imageio.imwrite(path, crop // 2 if blurred else crop)

    return write


@pytest.fixture
def plant_pairs(plant: Plant) -> Plant:
    """plant_pairs("blur/1.png", "sharp/1.png", scene): both files of a pair."""

    def write(blur: str, sharp: str, scene: int) -> None:
        plant(blur, scene, blurred=True)
        plant(sharp, scene)

    return write
