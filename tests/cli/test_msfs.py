"""MSFS-Net in the commands: as any other network, and measured as its paper does."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from blurkit.engine.torch_runner import with_local_statistics
from blurkit.io.images import read_image
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.tasks.inspect import macs, parameters
from tests.cli.command import piped
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.shared import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network() -> MSFSNet:
    """A small one of the released layers, whose changes show and stay in range."""
    torch.manual_seed(5)
    return MSFSNet(8, 1, 1, 1, "official").eval()


@pytest.fixture(scope="module")
def released(network: MSFSNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It in a file as the authors save theirs."""
    path = tmp_path_factory.mktemp("msfs") / "model.pkl"
    torch.save({"model": network.state_dict(), "epoch": 3000}, path)
    return path


@torch.no_grad()
def by_hand(network: MSFSNet, image: np.ndarray) -> np.ndarray:
    """Reflected right and below to multiples of 8, run as one, cut, rounded."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
    batch = torch.from_numpy(padded).permute(2, 0, 1)[None] / 255
    result = network(batch)[0, :, :height, :width].clamp(0, 1) * 255
    return result.round().permute(1, 2, 0).byte().numpy()


@pytest.mark.parametrize(
    ("size", "protocol"), [((61, 83), "whole"), ((8, 9), "whole"), ((61, 203), "local")]
)
def test_whole_images_are_what_the_network_gives(
    size: tuple[int, int], protocol: str, network: MSFSNet, released: Path
) -> None:
    """Also with local statistics, as of a network that was trained on crops of 32 pixels."""
    image = blurred(photo(3, *size))
    write("a.png", image)
    options = ("--protocol", protocol, *(("--tile", 32) if protocol == "local" else ()))
    ran = done("deblur", "a.png", "-c", released, *options, "--json")
    assert ran.json[0]["protocol"] == protocol
    if protocol == "local":
        network = with_local_statistics(deepcopy(network), 32)  # type: ignore[assignment]
    wanted = by_hand(network, image).astype(int)
    found = read_image(Path("a.deblurred.png")).pixels
    assert found.shape == image.shape and np.abs(found - wanted).max() <= 1
    assert np.abs(found.astype(int) - image).max() > 1


def test_it_is_known_and_needs_no_encoder(released: Path, stage_1: Path) -> None:
    (told,) = invoke("info", released, "--json").json
    assert told["networks"]["deblur"]["network"] == "MSFSNet"
    assert told["networks"]["deblur"]["layers"] == "official"
    given = (write("a.png", photo(1)), "-c", released, "-o", "b.png")
    assert_each_refused({("--random",): "holds deblur (MSFSNet)"}, "reblur", *given, status=1)
    cases = {
        ("--encoder", stage_1): "does not accept --encoder",
        ("--tile", 20): "--tile 20: this network needs a multiple of 8",
    }
    assert_each_refused(cases, "deblur", *given)


def test_its_cost_is_the_blurry_branchs() -> None:
    """The fact sheet has 216.3 GMACs at 256x256 for the official size."""
    with torch.device("meta"):
        network = MSFSNet(layers="official")
    assert parameters(network) == 21_586_291
    assert macs(network, (1, 3, 256, 256)) / 1e9 == pytest.approx(216.3, abs=0.05)


HIDE = ["train/1fromA.png", "test/test-close-ups/2from.B.png", "test/test-long-shot/3fromC.png"]


def plant_hide(root: Path) -> None:
    for number, name in enumerate(HIDE):
        write(root / name, blurred(photo(number)))
        write(root / "GT" / Path(name).name, photo(number))


def plant_realblur(root: Path) -> None:
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number, split in enumerate(("train", "test", "test")):
        folder = f"{root.name}/scene00{number}"
        image = photo(number, 96, 96)
        names = [f"{folder}/gt/gt_1.png", f"{folder}/blur/blur_1.png"]
        write(root.parent / names[0], image)
        write(root.parent / names[1], blurred(image))
        lines[split].append(" ".join(names))
    for split, text in lines.items():
        (root.parent / f"RealBlur_J_{split}_list.txt").write_text("\n".join(text) + "\n")


@pytest.mark.parametrize("name", ["HIDE_dataset", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"])
def test_a_test_set_is_measured_in_one_command(name: str, released: Path) -> None:
    root = Path(name)
    realblur = name.startswith("RealBlur")
    (plant_realblur if realblur else plant_hide)(root)
    ran = piped(f"bash {ROOT}/examples/msfs_evaluation.sh {root}/ {released}")
    found = json.loads(Path(f"evaluation/{name}.json").read_text())
    assert found["total"]["images"] == 2  # none of the training set
    assert {"psnr", "ssim_matlab"} < found["total"].keys()
    assert ("psnr_aligned" in found["total"]) == realblur
    assert "protocol=whole" in found["protocol"]["restored"]
    assert (b"28.97 dB" in ran.out) == realblur
